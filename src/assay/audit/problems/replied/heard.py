"""What was read of every reply and what else tells about it: units of work found or done, and their scores side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from assay.audit import Control, Lab, told
from assay.audit.problems.given.transcripts import Chat, Transcript, read_transcripts
from assay.audit.problems.replied import work
from assay.audit.problems.replied.conversation import DISHONEST, HONEST, instructed, questioned, replied
from assay.audit.problems.replied.facts import beginnings
from assay.audit.problems.replied.probe import DIFFERENCE, LOGISTIC, Array
from assay.audit.problems.replied.scoring import Labelled, point_areas
from assay.audit.problems.replied.streams import tokens_of
from assay.audit.problems.truth.decode import layers_of
from assay.stats import Interval, clopper_pearson, permutation_p

ALPHA = 0.05
CHANCE = 0.5
LARGEST_UNTRAINED = 500_000_000
"""Parameters, above which no second model is made beside the first."""

_RANDOM = 200


@dataclass(frozen=True)
class Heard:
    """Everything about the replies.

    Attributes:
        rows, about: the transcripts, and what the numerics need to know of them.
        chats: the neutral conversations.
        layers: those that were read.
        x, neutral: mean streams over replies, ``[n, layer, d]`` and ``[m, layer, d]``.
        found: arrays of the read-outs.
        chosen: the layer (its index) of each kind of read-out.
        facts, tuned: how many facts were said, and how many of them chose.
        words, length: what the text alone tells, ``[n]``.
        asked: log P(yes) − log P(no) when it is asked whether the reply was deceptive, nats, ``[n]``.
        seed: of random directions.
    """

    rows: list[Transcript]
    about: Labelled
    chats: list[Chat]
    layers: list[int]
    x: Array
    neutral: Array
    found: dict[str, Array]
    chosen: list[int]
    facts: int
    tuned: int
    words: Array
    length: Array
    asked: Array
    seed: int

    def by_kind(self, kind: int) -> Array:
        """The scores of one read-out at the layer that it reads, ``[n]``."""
        layer = self.chosen[kind]
        return np.asarray(self.x[:, layer] @ self.found["vectors"][kind, layer], dtype=float)

    @cached_property
    def probe(self) -> Array:
        """The scores of the logistic read-out, which decides, ``[n]``."""
        return self.by_kind(LOGISTIC)

    @cached_property
    def difference(self) -> Array:
        """Those of the mean difference, ``[n]``."""
        return self.by_kind(DIFFERENCE)

    @cached_property
    def neutral_probe(self) -> Array:
        """The scores of neutral replies, ``[m]``."""
        layer = self.chosen[LOGISTIC]
        return np.asarray(self.neutral[:, layer] @ self.found["vectors"][LOGISTIC, layer], dtype=float)

    @cached_property
    def homes(self) -> np.ndarray:
        """The cluster of each neutral reply, ``[m]``."""
        return np.asarray(np.unique([one.cluster for one in self.chats], return_inverse=True)[1])

    @cached_property
    def shuffled(self) -> Array:
        """The scores of read-outs that were refitted on shuffled labels, ``[n, draw]``."""
        return np.asarray(self.x[:, self.chosen[LOGISTIC]] @ self.found["shuffled"].T, dtype=float)

    @cached_property
    def random(self) -> Array:
        """The scores of random directions, of the read-out's length where the stream is standardised, ``[n, draw]``."""
        layer = self.chosen[LOGISTIC]
        scale = self.found["scales"][layer]
        drawn = np.random.default_rng([self.seed, 2]).standard_normal((len(scale), _RANDOM))
        drawn *= np.linalg.norm(self.found["vectors"][LOGISTIC, layer] * scale) / np.linalg.norm(drawn, axis=0)
        return np.asarray(self.x[:, layer] @ (drawn / scale[:, None]), dtype=float)

    @property
    def where(self) -> tuple[str, ...]:
        """The place that the read-out reads."""
        return (f"L{self.layers[self.chosen[LOGISTIC]]}.resid @ response",)

    @property
    def carried(self) -> Interval:
        """How often a fact left out scores higher under the dishonest persona: AUROC, its interval as of a share."""
        value = float(self.found["areas"][LOGISTIC, self.chosen[LOGISTIC]])
        band = clopper_pearson(round(value * self.tuned), self.tuned)
        return Interval(value, min(band.low, value), max(band.high, value), band.level, self.tuned, band.method)


def heard(lab: Lab, facts: int, draws: int, seed: int) -> Heard:
    """Do, or find again, all units of work."""
    rows, chats = read_transcripts(lab.data["transcripts"]), work.chats(lab, "chat")
    layers = layers_of(lab.model)
    _announce(lab, rows, chats, facts, draws, seed)
    fitted = lab.unit(work.probe, facts=facts, draws=draws, seed=seed, layers=layers)
    x, neutral = (
        np.concatenate([lab.arrays.get(digest)["x"] for digest in lab.units(work.read_replies, [
            dict(name=name, start=start, layers=layers) for start in range(0, count, work.AT_ONCE)
        ])])
        for name, count in (("transcripts", len(rows)), ("chat", len(chats)))
    )  # fmt: skip
    asked = lab.units(work.ask, [dict(start=start) for start in range(0, len(rows), work.AT_ONCE)])
    texts = lab.unit(work.words)
    return Heard(
        rows=rows,
        about=Labelled.of(rows),
        chats=chats,
        layers=layers,
        x=x,
        neutral=neutral,
        found=lab.arrays.get(fitted["arrays"]),
        chosen=fitted["chosen"],
        facts=fitted["facts"],
        tuned=fitted["tuned"],
        words=np.array(texts["words"]),
        length=np.array(texts["length"]),
        asked=np.concatenate([np.array(part) for part in asked]),
        seed=seed,
    )


def chance_of(
    heard: Heard, value: float, of: Callable[[Array], Array], null: Array | None = None
) -> tuple[Control, float]:
    """The same statistic of read-outs refitted on shuffled labels, and its p. ``of`` takes scores ``[n, draw]``."""
    drawn = of(heard.shuffled) if null is None else null
    p = permutation_p(value, drawn)
    note = "the personas of a random half of the facts exchanged before the read-out is fitted anew, at the same place"
    return told.control("shuffled labels", drawn, p, note), p


def nulls(lab: Lab, heard: Heard, value: float, facts: int, untrained: int, seed: int) -> tuple[list[Control], float]:
    """The controls of an AUROC, and the p of shuffled labels."""
    shuffled, p = chance_of(heard, value, lambda scores: point_areas(scores, heard.about))
    random = point_areas(heard.random, heard.about)
    away = permutation_p(abs(value - CHANCE), np.abs(random - CHANCE))
    made = [shuffled, told.control("random directions", random, away, "of equal norm; either side of .5 counts")]
    return [*made, *_untrained(lab, heard, facts, untrained, seed), *_balance(heard)], p


def _untrained(lab: Lab, heard: Heard, facts: int, step: int, seed: int) -> list[Control]:
    """The whole procedure on a model that has learned nothing."""
    if not step or sum(weight.numel() for weight in lab.model.hf.parameters()) > LARGEST_UNTRAINED:
        lab.note(
            "limits", "No untrained twin was read: it was not asked for, or the model is too large for a second one."
        )
        return []
    about = Labelled.of([row for row, taken in zip(heard.rows, work.every_nth(heard.rows, step), strict=True) if taken])
    if not about.matched.any():
        step, about = 1, heard.about
    scores = lab.unit(work.untrained, facts=facts, step=step, seed=seed, layers=heard.layers)
    note = f"the same procedure on {len(scores)} transcripts, read by a model of the same shape with random weights"
    return [told.control("untrained model", point_areas(np.array(scores)[:, None], about), note=note)]


def _balance(heard: Heard) -> list[Control]:
    """What the file's own order and the length of a conversation tell."""
    rows = heard.rows
    turns = [sum(len(one.content) for one in row.before) for row in rows]
    told_by = {"order in the file": np.arange(len(rows)), "length of what stands before": np.array(turns)}
    note = "AUROC of this number itself, unfitted; .5 where labels are balanced"
    return [
        told.control(name, point_areas(values[:, None].astype(float), heard.about), note=note)
        for name, values in told_by.items()
    ]


def _announce(lab: Lab, rows: list[Transcript], chats: list[Chat], facts: int, draws: int, seed: int) -> None:
    """Cost before the run, and what there is to compare, into the report."""
    core, about = lab.model, Labelled.of(rows)
    begun = beginnings(lab.data["statements"], facts, seed).texts
    tokens = sum(
        tokens_of(each)
        for each in (
            replied(core, rows),
            replied(core, chats),
            instructed(core, begun, HONEST),
            instructed(core, begun, DISHONEST),
            [core.row(prompt) for prompt in questioned(core, rows)],
        )
    )
    lab.note(
        "method",
        f"Cost before the run, beside the untrained twin: {told.work(core, tokens)} for {len(rows)} transcripts, "
        f"{len(chats)} neutral replies and {len(begun)} facts under two personas; {draws} draws of shuffled labels, so "
        f"that p can reach {1 / (draws + 1):.2g}.",
    )
    left = int((~about.matched).sum())
    lab.note(
        "data",
        f"{int(about.positives.sum())} deceptive and {int(about.negatives.sum())} honest replies in "
        f"{len(np.unique(about.scenarios[about.matched]))} scenarios and {about.count} clusters are compared"
        + (f"; {left} more are of scenarios with one label only, and left out." if left else "."),
    )
