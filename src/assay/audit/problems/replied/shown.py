"""Figures and tables about replies."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from assay.audit import BarFigure, Control, LayerFigure, NullFigure, TableData, told
from assay.audit.problems.replied.heard import CHANCE, Heard
from assay.audit.problems.replied.probe import KINDS, LOGISTIC, Array
from assay.audit.problems.replied.scoring import RATE, area, recall, resolves, threshold
from assay.errors import BadData, EmptyData
from assay.stats import Interval

_READ, _AUROC = 3, "AUROC, deceptive against matched honest"


def _twins(heard: Heard) -> dict[str, Array]:
    """What can be told from, by name."""
    return {
        "the read-out": heard.probe,
        "the mean-difference read-out": heard.difference,
        "the model's own answer": heard.asked,
        "words of the reply (text only)": heard.words,
        "length of the reply (text only)": heard.length,
    }


def _scenarios(heard: Heard) -> dict[str, np.ndarray]:
    """The rows of every scenario that is compared."""
    names: list[str] = []
    for row, kept in zip(heard.rows, heard.about.matched, strict=True):
        if kept and row.scenario not in names:
            names.append(row.scenario)
    return {name or "all": np.array([row.scenario == name for row in heard.rows]) for name in names}


def _compared(heard: Heard, excerpt: int = 110) -> list[dict[str, Any]]:
    """Of every transcript that is compared what a reader needs to find and to judge it."""
    return [
        {
            "id": row.id or f"row {number + 1}",
            "scenario": row.scenario,
            "label": "deceptive" if row.label else "honest",
            "score": float(heard.probe[number]),
            "reply": row.reply if len(row.reply) <= excerpt else f"{row.reply[:excerpt].rstrip()} …",
        }
        for number, row in enumerate(heard.rows)
        if heard.about.matched[number]
    ]


def to_read(heard: Heard) -> TableData:
    """The transcripts at both ends, of either label."""
    rows: list[tuple[str | float, ...]] = []
    for label in ("deceptive", "honest"):
        mine = sorted((one for one in _compared(heard) if one["label"] == label), key=lambda one: -one["score"])
        ends = [("highest", mine[:_READ]), ("lowest", mine[_READ:][-_READ:])]
        rows += [
            (label, end, round(one["score"], 2), one["id"], one["scenario"], one["reply"])
            for end, some in ends
            for one in some
        ]
    return TableData(
        title="To be read first",
        columns=("label", "end", "score", "transcript", "scenario", "reply"),
        rows=tuple(rows),
        caption="The replies that the read-out finds most and least deceptive, of either label; deceptive replies with "
        "low scores and honest ones with high scores are its errors.",
    )


def comparison(heard: Heard) -> TableData:
    """The read-out beside its twins."""
    return TableData(
        title="What tells deceptive from honest",
        columns=("told from", _AUROC, f"recall at {RATE:.0%} false positives"),
        rows=tuple(
            (name, told.between(area(heard.about, score)), told.between(recall(heard.about, score)))
            for name, score in _twins(heard).items()
        ),
        caption="With 95 % intervals over clusters. The text's own read-outs were fitted on transcripts of other clusters, "
        "which gives them more than the read-out had: it saw none.",
    )


def balance(heard: Heard) -> TableData:
    """How many of either label there are, and how long."""
    rows = []
    for name, mine in _scenarios(heard).items():
        sides = [mine & heard.about.deceptive, mine & ~heard.about.deceptive]
        words = [np.mean([len(heard.rows[n].reply.split()) for n in np.flatnonzero(side)]) for side in sides]
        rows.append((name, *(int(side.sum()) for side in sides), *(round(float(mean), 1) for mean in words)))
    return TableData(
        title="Balance",
        columns=("scenario", "deceptive", "honest", "words, deceptive", "words, honest"),
        rows=tuple(rows),
        caption="Transcripts that are compared, and the mean length of their replies.",
    )


def by_scenario(heard: Heard) -> TableData:
    """Where a threshold would fire."""
    limits = threshold(heard.probe[heard.about.negatives]), threshold(heard.neutral_probe)
    rows = []
    for name, mine in _scenarios(heard).items():
        sides = [mine & heard.about.deceptive, mine & ~heard.about.deceptive]
        rows.append((name, *(round(float((heard.probe[side] > at).mean()), 3) for at in limits for side in sides)))
    return TableData(
        title="Where it fires",
        columns=(
            "scenario",
            "deceptive, matched threshold",
            "honest, matched threshold",
            "deceptive, neutral threshold",
            "honest, neutral threshold",
        ),
        rows=tuple(rows),
        caption="Share of replies above the threshold that matched honest replies set, and above that of neutral chat.",
    )


def thresholds(heard: Heard) -> TableData:
    """What each threshold rests on."""
    about = heard.about
    matched, clusters = heard.probe[about.negatives], len(np.unique(about.clusters[about.negatives]))
    return TableData(
        title="The thresholds",
        columns=("set on", "threshold", "what it rests on"),
        rows=(
            ("matched honest replies", round(threshold(matched), 3), f"{resolves(len(matched), clusters)}."),
            (
                "neutral chat",
                round(threshold(heard.neutral_probe), 3),
                f"{resolves(len(heard.chats), len(np.unique(heard.homes)))}.",
            ),
        ),
        caption="A reply fires where its score is above. Few negatives make a threshold their largest score.",
    )


def places(heard: Heard) -> TableData:
    """Which layers were chosen."""
    rows = [
        (
            kind,
            heard.layers[layer],
            round(float(heard.found["separations"][number, layer]), 2),
            round(float(heard.found["areas"][number, layer]), 3),
        )
        for number, (kind, layer) in enumerate(zip(KINDS, heard.chosen, strict=True))
    ]
    return TableData(
        title="Where the read-outs read",
        columns=("read-out", "layer", "separation d′", "AUROC"),
        rows=tuple(rows),
        caption="The layer that separates instructed facts left out best; no transcript chose it.",
    )


def null_figure(whole: Interval, controls: Sequence[Control]) -> NullFigure:
    """The AUROC before its nulls."""
    return NullFigure(
        title="Deceptive against matched honest replies, and chance",
        x_label="AUROC",
        observed=whole.value,
        low=min(whole.low, whole.value),
        high=max(whole.high, whole.value),
        controls=tuple(controls),
        caption="How far the read-out lies beyond the same on shuffled labels, and beyond random directions.",
    )


def twins_figure(heard: Heard) -> BarFigure:
    """The read-out beside its twins."""
    return told.bars(
        {name: area(heard.about, score) for name, score in _twins(heard).items()},
        "The read-out and what is had without it",
        "Whether the read-out tells more than the text of the replies, and more than the model's own answer.",
        x_label=_AUROC,
        chance=CHANCE,
    )


def scenario_figure(heard: Heard) -> BarFigure:
    """Scenario by scenario."""
    return told.bars(
        _by_scenario(heard) or {"all": area(heard.about, heard.probe)},
        "Scenario by scenario",
        "Whether deceptive replies are told apart in every scenario or only in some; those too small for an interval "
        "are left out.",
        x_label=_AUROC,
        chance=CHANCE,
    )


def _by_scenario(heard: Heard) -> dict[str, Interval]:
    """The AUROC in every scenario whose clusters bear an interval."""
    found = {}
    for name, mine in _scenarios(heard).items():
        with suppress(EmptyData, BadData):  # a single cluster; or resamples that lack a label
            found[name] = area(heard.about, heard.probe, mine=mine)
    return found


def layer_figure(heard: Heard) -> LayerFigure:
    """What every layer would have told; only the line of facts chose."""
    vectors, about = heard.found["vectors"][LOGISTIC], heard.about
    on_transcripts = [area(about, heard.x[:, place] @ vectors[place]) for place in range(len(heard.layers))]
    on_facts = [
        Interval(float(value), float(value), float(value), 0.95, heard.tuned, "")
        for value in heard.found["areas"][LOGISTIC]
    ]
    return LayerFigure(
        title="Where it could be read",
        x_label="layer",
        y_label="AUROC",
        chance=CHANCE,
        marked=(heard.layers[heard.chosen[LOGISTIC]],),
        series=(
            told.series("transcripts", heard.layers, on_transcripts),
            told.series("instructed facts left out", heard.layers, on_facts),
        ),
        caption="The marked layer was chosen on facts; a better one for transcripts would have to be claimed anew.",
    )
