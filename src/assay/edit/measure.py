"""How an edit is judged: is the new answer likelier, asked in other words too, and are neighbours as they were?

As published with ROME (Meng et al. 2022, §3.3) and in its code: P of an answer is the geometric mean over its tokens.

======  ==============================================================  ====================
name    share of prompts on which                                       and its difference
======  ==============================================================  ====================
``ES``  the new answer is likelier than the old one: the prompt itself  ``EM``, P[new] − P[old]
``PS``  the same, over paraphrases                                      ``PM``, likewise
``NS``  the old answer is likelier, over neighbours of which it is true ``NM``, P[old] − P[new]
``S``   harmonic mean of the three
======  ==============================================================  ====================

Whether the model as a whole still works, they do not say: `generation_entropy` falls where it repeats itself, and
`perplexity` of ordinary text rises where it forgets how to speak.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from assay.edit.fact import Fact
from assay.errors import BadData, EmptyData
from assay.prompt import Prompt
from assay.run.generate import Sampling
from assay.run.model import Model
from assay.stats import Interval, bootstrap_interval, clopper_pearson

Array = NDArray[np.float64]
NAMES = ("ES", "PS", "NS", "EM", "PM", "NM", "S")


@dataclass(frozen=True, eq=False)
class Score:
    """Of one fact: ``(P[new], P[old])`` of the prompt ``[2]``, of its paraphrases and of its neighbours ``[n, 2]``."""

    prompt: Array
    paraphrases: Array
    neighbourhood: Array

    def __getitem__(self, name: str) -> float:
        """By name, as in the table above, 0 to 1; NaN where the fact has no such prompts."""
        asked = {"E": self.prompt[None], "P": self.paraphrases, "N": self.neighbourhood}[name[0]]
        more = (asked[:, 0] - asked[:, 1]) * (-1 if name[0] == "N" else 1)
        if not len(more):
            return math.nan
        return float((more > 0).mean() if name[1] == "S" else more.mean())


def measure(model: Model, facts: Sequence[Fact], memory: int | None = None) -> list[Score]:
    """Score facts on the model as it is now: inside ``with model.edited(…)``, under the edit. Raises `EmptyData`."""
    if not facts:
        raise EmptyData("there are no facts to measure", hint="give at least one")
    asked: list[tuple[str | Prompt, tuple[str, str]]] = []
    for fact in facts:
        prompts: list[str | Prompt] = [fact.prompt, *fact.paraphrases, *fact.neighbourhood]
        asked += [(prompt, (fact.new, fact.old)) for prompt in prompts]
    found = np.exp(
        model.score([prompt for prompt, _ in asked], [answers for _, answers in asked], memory=memory).mean[:, 0]
    )
    scores, at = [], 0
    for fact in facts:
        ends = np.cumsum([1, len(fact.paraphrases), len(fact.neighbourhood)]) + at
        scores.append(Score(found[at], found[ends[0] : ends[1]], found[ends[1] : ends[2]]))
        at = int(ends[2])
    return scores


@dataclass(frozen=True)
class Measured:
    """Means over facts with 95 % intervals over facts, times 100."""

    facts: int
    means: dict[str, Interval]

    def __getitem__(self, name: str) -> Interval:
        return self.means[name]

    def __str__(self) -> str:
        return "  ".join(f"{name} {one.value:.1f} [{one.low:.1f}, {one.high:.1f}]" for name, one in self.means.items())


def summary(scores: Sequence[Score]) -> Measured:
    """Average the scores of several facts: bootstrap intervals, Clopper and Pearson's for ``ES``, which is a count.

    Raises `EmptyData` for fewer than two facts, `BadData` where one has no paraphrases or neighbours.
    """
    if len(scores) < 2:
        raise EmptyData(f"{len(scores)} facts have no average worth an interval", hint="measure several facts")
    table = {name: np.array([score[name] for score in scores]) for name in NAMES[:-1]}
    bare = [name for name, values in table.items() if np.isnan(values).any()]
    if bare:
        raise BadData(f"some facts have no {bare[0]}", hint="give every fact paraphrases and neighbours")
    means = {name: bootstrap_interval(100 * values) for name, values in table.items()}
    exact = clopper_pearson(int(table["ES"].sum()), len(scores))
    means["ES"] = replace(exact, value=100 * exact.value, low=100 * exact.low, high=100 * exact.high)
    three = np.stack([100 * table[name] for name in ("ES", "PS", "NS")], axis=1)
    means["S"] = bootstrap_interval(three, _harmonic)
    return Measured(len(scores), means)


def _harmonic(values: Array, weights: Array) -> Array:
    """The harmonic mean of the columns' means, under each row of weights; 0 where one of them is 0."""
    means = weights @ values / weights.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.asarray(values.shape[1] / (1 / means).sum(axis=1))


def generation_entropy(model: Model, prompts: Sequence[str], tokens: int = 100, seed: int = 0) -> float:
    """How varied what it writes is, in bits times 100: entropy of 2-grams and 3-grams of words, weighted 2 to 4, halved.

    Sampled among the top 5, as published; words are runs of letters and digits, and every other sign for itself.
    """
    texts = model.sweep(list(prompts), [()], generate=tokens, sampling=Sampling(top_k=5, seed=seed)).generated
    return 100 * float(np.mean([entropy(prompt + text[0]) for prompt, text in zip(prompts, texts, strict=True)]))


def entropy(text: str) -> float:
    """Of one text, in bits."""
    words = re.findall(r"\w+|[^\w\s]", text)
    return (2 / 3 * _entropy(words, 2) + 4 / 3 * _entropy(words, 3)) / 2


def _entropy(words: Sequence[str], length: int) -> float:
    counts = Counter(zip(*(words[start:] for start in range(length)), strict=False))
    shares = np.array(list(counts.values())) / max(1, counts.total())
    return float(-(shares * np.log2(shares)).sum())


def perplexity(model: Model, texts: Sequence[str]) -> float:
    """Of the second halves of texts, given the first."""
    found = model.drift(list(texts), [()])
    return float(np.exp((found.natural * found.tokens).sum() / found.tokens.sum()))
