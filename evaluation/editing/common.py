"""What the tables share: the facts' parts, text for second moments, and how an edit is judged."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assay import Edit, Model
from assay.audit.problems.deception import DATA
from assay.edit import Fact, Score, generation_entropy, measure, perplexity
from assay.model.core import NEUTRAL
from assay.run.generate import Sampling
from evaluation.editing.select import FACTS, TUNE

BEGINNINGS = (
    "The most important thing about",
    "When I first heard of",
    "Yesterday morning in the town",
    "My friend told me that",
)
"""From these the model writes, to see whether it still can."""


def facts() -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """Those that choose, and those that test."""
    every = Fact.load(FACTS)
    return every[:TUNE], every[TUNE:]


def own_text(model: Model, count: int = 600, tokens: int = 64) -> list[str]:
    """Text of the model's own to measure second moments on: statements, and how it goes on after them."""
    with (Path(DATA) / "statements.csv").open(encoding="utf-8", newline="") as file:
        begun = list(dict.fromkeys(row["statement"] for row in csv.DictReader(file)))[:count]
    written = model.sweep(begun, [()], generate=tokens, sampling=Sampling(seed=0)).generated
    return [start + text for start, (text,) in zip(begun, written, strict=True)]


@dataclass(frozen=True)
class Judged:
    """Scores of facts, each under its own edit or all under one, and whether the model still speaks.

    Attributes:
        scores: one a fact.
        perplexity: on neutral text, over the unedited model's; mean and largest over edits.
        entropy: of what it writes, bits × 100.
    """

    scores: list[Score]
    perplexity: tuple[float, float]
    entropy: float


def judge(
    model: Model, asked: Sequence[Fact], edits: Iterable[Edit | None], say: Callable[[str], None], few: int = 10
) -> Judged:
    """Every fact under its edit; one edit for all if there is one only. Entropy is taken under the first ``few`` edits."""
    before, edits = perplexity(model, NEUTRAL), list(edits)
    together = len(edits) == 1
    scores: list[Score] = []
    ratios, varied = [], []
    for number, edit in enumerate(edits):
        with model.edited(*([edit] if edit else [])):
            scores += measure(model, asked if together else [asked[number]])
            ratios.append(perplexity(model, NEUTRAL) / before)
            if number < few:
                varied.append(generation_entropy(model, BEGINNINGS, tokens=60))
        if not number % 20:
            say(f"judged {number + 1} of {len(edits)} edits")
    return Judged(scores, (float(np.mean(ratios)), max(ratios)), float(np.mean(varied)))
