"""What the tables share: the facts' parts, text for second moments, and how an edit is judged."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assay import Edit, Model
from assay.audit.problems.deception import DATA
from assay.edit import Fact, Score, generation_entropy, measure, perplexity
from assay.model.core import NEUTRAL
from assay.model.load import cache_folder
from assay.run.generate import Sampling
from evaluation.editing.select import FACTS, TUNE

BEGINNINGS = (
    "The most important thing about",
    "When I first heard of",
    "Yesterday morning in the town",
    "My friend told me that",
)
"""From these the model writes, to see whether it still can."""

EVERY = 4
"""Of so many edits one is asked how the model still speaks."""

CONTEXTS = 3
"""Of each of two lengths: six texts before a prompt, where the published code has twenty, for a third of the time."""


def facts() -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """Those that choose, and those that test."""
    every = Fact.load(FACTS)
    return every[:TUNE], every[TUNE:]


def own_text(model: Model, count: int = 600, tokens: int = 64) -> list[str]:
    """Text of the model's own to measure second moments on: statements, and how it goes on after them. Kept in the cache."""
    path = cache_folder() / "evaluation" / f"{model.fingerprint[:16]}-{count}-{tokens}.json"
    if path.exists():
        found: list[str] = json.loads(path.read_text(encoding="utf-8"))
        return found
    with (Path(DATA) / "statements.csv").open(encoding="utf-8", newline="") as file:
        begun = list(dict.fromkeys(row["statement"] for row in csv.DictReader(file)))[:count]
    written = model.sweep(begun, [()], generate=tokens, sampling=Sampling(seed=0)).generated
    texts = [start + text for start, (text,) in zip(begun, written, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(texts), encoding="utf-8")
    return texts


@dataclass(frozen=True)
class Judged:
    """Scores of facts, each under its own edit or all under one, and whether the model still speaks.

    Attributes:
        scores: one a fact.
        perplexity: on neutral text, over the unedited model's; mean and largest over every fourth edit.
        entropy: of what it writes, bits × 100.
    """

    scores: list[Score]
    perplexity: tuple[float, float]
    entropy: float


def judge(
    model: Model, asked: Sequence[Fact], edits: Iterable[Edit | None], say: Callable[[str], None] | None, few: int = 0
) -> Judged:
    """Every fact under its edit; one edit for all if there is one only. Entropy is taken under the first ``few`` edits."""
    before, edits = perplexity(model, NEUTRAL), list(edits)
    scores: list[Score] = []
    ratios, varied = [], []
    for number, edit in enumerate(edits):
        with model.edited(*([edit] if edit else [])):
            scores += measure(model, asked if len(edits) == 1 else [asked[number]])
            if not number % EVERY:
                ratios.append(perplexity(model, NEUTRAL) / before)
            if number < few:
                varied.append(generation_entropy(model, BEGINNINGS, tokens=60))
        if say and not number % 20:
            say(f"judged {number + 1} of {len(edits)} edits")
    return Judged(scores, (float(np.mean(ratios)), max(ratios)), sum(varied) / max(1, len(varied)))
