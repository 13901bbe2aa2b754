"""Figures and tables of the second and the third threat model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assay.audit import DoseFigure, Lab, NullFigure, Series, SideEffect, TableData, told
from assay.audit.problems.truth.said import CONDITIONS, Said
from assay.audit.problems.truth.say import write, yes_or_no
from assay.audit.problems.truth.statements import instructions
from assay.site import Site
from assay.verify.verdict import Missing, Verdict


def by_paraphrase(lab: Lab, said: Said) -> TableData:
    """Each instruction with the share of false replies and the score, under its control and under itself."""
    wordings = instructions(lab.data["instructions"])
    rows: list[tuple[str | float, ...]] = []
    for name, words in CONDITIONS.items():
        false, odds = said.by[name].says_false.mean(axis=2), said.by[name].odds.mean(axis=2)
        for wording, shares, scores in zip(wordings[name], false, odds, strict=False):
            rows.append((words, wording["text"], *(round(float(x), 3) for x in (*shares[::-1], *scores[::-1]))))
    return TableData(
        title="Instruction by instruction",
        columns=("condition", "instruction", "false, control", "false, told so", "nats, control", "nats, told so"),
        rows=tuple(rows),
        caption="Share of items whose false reply is preferred, and mean log P(true) − log P(false), under the matched "
        "control and under the instruction.",
    )


def forced(
    lab: Lab, conditions: Sequence[str], paraphrases: int, clusters: int, items: int, seed: int
) -> list[TableData]:
    """Forced yes-or-no answers beside the replies."""
    every = [
        dict(condition=name, paraphrases=paraphrases, clusters=clusters, items=items, seed=seed) for name in conditions
    ]
    found = dict(zip(conditions, lab.units(yes_or_no, every), strict=True))
    if not all(found.values()):
        return []
    weak = min(side["auroc"] for one in found.values() for side in one.values())
    if weak < 0.7:
        lab.note(
            "limits",
            f"Forced yes-or-no answers tell true from false with AUROC {weak:.2f} at worst: read them with care.",
        )
    rows = [
        (name, *(cell for side in ("control", "text") for cell in (
            told.between(told.paired(found[name][side]["right"])), round(found[name][side]["auroc"], 3)
        )))
        for name in conditions
    ]  # fmt: skip
    return [
        TableData(
            title="Forced yes-or-no answers",
            columns=("instruction", "right, control", "AUROC, control", "right, told so", "AUROC, told so"),
            rows=tuple(rows),
            caption="Share of items where “yes” is likelier to the question whose answer is yes than to the other, "
            "and the AUROC over all questions; .5 is nothing. Beside the claim: it does not decide.",
        )
    ]


def written(lab: Lab, conditions: Mapping[str, str], clusters: int, items: int, seed: int, most: int = 3) -> TableData:
    """What it writes of its own accord."""
    made = lab.unit(write, conditions=list(conditions), clusters=clusters, items=items, seed=seed, most=most)
    return TableData(
        title="In its own words",
        columns=("instruction", "asked about", "under the control", "told so"),
        rows=tuple((one["instruction"], one["entity"], one["control"], one["told"]) for one in made),
        caption="The first 24 tokens that it writes. For a reader's own judgement; nobody scored them.",
    )


# ── the second threat model ───────────────────────────────────────────────────────────────────────────────────────────


def origin(found: Mapping[str, Any], doses: Sequence[float], verdict: Verdict) -> TableData:
    """What the direction is, and how its dose was chosen."""
    rows = [("largest dose", f"{found['dose']:g} typical norms of the stream")]
    rows += [(f"KL on neutral text at dose {dose:g}", f"{kl:.3f}") for dose, kl in zip(doses, found["kl"], strict=True)]
    rows.append(("separation d′ of tune clusters, at the chosen layer", f"{max(found['separation']):.2f}"))
    if not isinstance(verdict.stability, Missing):
        rows.append(("mean cosine when found on halves of the clusters", f"{verdict.stability.cosine:.2f}"))
    if not isinstance(verdict.concept_share, Missing):
        rows.append(("share of the variance within classes that lies along it", f"{verdict.concept_share.share:.1%}"))
    return TableData(
        title="The direction",
        columns=("what", "value"),
        rows=tuple(rows),
        caption="Its layer separates tune clusters best; the dose is the largest that neutral text bears. Neither "
        "choice looked at an answer.",
    )


def layers(found: Mapping[str, Any], searched: Sequence[int]) -> TableData:
    """How well the direction of every layer separates tune clusters."""
    chosen = Site.parse(found["site"]).layer
    return TableData(
        title="Where the direction separates",
        columns=("layer", "separation d′", "acts at"),
        rows=tuple(
            (layer, round(score, 2), found["site"] if layer == chosen else "")
            for layer, score in zip(searched, found["separation"], strict=True)
        ),
        caption="How sharply one layer stands out on tune clusters; it acts where they are separated best.",
    )


def side_effects(verdict: Verdict) -> tuple[SideEffect, ...]:
    if isinstance(verdict.side_effects, Missing):
        return ()
    made = []
    for one in verdict.side_effects:
        band = one.kl.interval
        made.append(
            SideEffect(
                name=f"KL on neutral text, {one.under}",
                value=band.value,
                low=band.low,
                high=band.high,
                unit="nats per token",
            )
        )
        made.append(
            SideEffect(
                name=f"perplexity on neutral text, {one.under}", value=one.perplexity_ratio, unit="times the natural"
            )
        )
    return tuple(made)


def figures(verdict: Verdict) -> tuple[NullFigure | DoseFigure, ...]:
    curve, slope = verdict.dose_response, verdict.interval
    return (
        NullFigure(
            title="The direction against directions that should carry nothing",
            x_label="slope, nats per dose",
            observed=slope.value,
            low=min(slope.low, slope.value),
            high=max(slope.high, slope.value),
            controls=tuple(
                told.control(name, one.values, one.p) for name, one in verdict.controls.items() if one.values
            ),
            caption="Whether the observed slope lies beyond what equal pushes along other directions do.",
        ),
        DoseFigure(
            title="Dose and answer",
            x_label="dose (typical norms of the stream)",
            y_label="change of log P(true) − log P(false), nats",
            chance=0.0,
            series=(Series(name="truth", x=curve.doses, means=curve.means, lows=curve.lows, highs=curve.highs),),
            caption="Whether more dose does more, in both signs; bands are 95 % intervals over clusters.",
        ),
    )
