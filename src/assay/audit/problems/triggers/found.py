"""Everything that was found out about two words: which they are, how surely the search found them, what they do on test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from assay.audit import Bench
from assay.audit.problems.triggers.odds import Array
from assay.audit.problems.triggers.search import (
    SIDES,
    Budget,
    Cell,
    Do,
    Judged,
    Screened,
    best,
    chosen,
    judged,
    plain,
    right,
    screened,
    usable,
)  # fmt: skip
from assay.audit.problems.triggers.sentences import LEAST_ROWS, VARIANTS, Sentence, rarity, sentences, vocabulary
from assay.errors import BadData, nearest
from assay.stats import Interval, clopper_pearson, max_statistic_p, paired_effect

CHANCE = 0.5
STRONGEST = 0.25
"""The share of test sentences whose answer without the pair is firmest."""


@dataclass(frozen=True)
class Found:
    """The search and what came of it.

    Attributes:
        every: the sampled sentences.
        before: log-odds of each as it stands, nats.
        counts: how often each candidate word stands in the sentences, ``[word]``.
        screen: of all pairs, or None where nothing is answered rightly or a pair was given.
        tuned: the finalists on tune sentences, the best first.
        test: the best of them on test sentences; it has never been looked at on these before.
        maxima: the largest difference of any pair and its reverse, when the two are confused at random sentence by
            sentence, ``[draw]``.
        p_search: of the chosen pair's difference against ``maxima``.
    """

    every: list[Sentence]
    before: Array
    counts: NDArray[np.int64]
    screen: Screened | None
    tuned: list[Judged]
    test: Judged | None
    maxima: Array
    p_search: float

    @property
    def strongest(self) -> list[int]:
        """Places in ``test.used`` of the firmest quarter, rounded up."""
        if self.test is None:
            return []
        firm = np.abs(self.before[self.test.used])
        return sorted(np.argsort(-firm, kind="stable")[: int(np.ceil(STRONGEST * len(firm)))].tolist())

    def clusters(self, numbers: Sequence[int]) -> list[str]:
        """Of sentences by number."""
        return [self.every[number].row.cluster for number in numbers]

    def accuracy(self) -> Interval:
        """Balanced over the two labels, on test sentences as they stand, by clusters."""
        mine = [one.number for one in self.every if one.part == "test"]
        labels = np.array([self.every[number].row.label for number in mine])
        weights = np.where(labels == 1, 1 / labels.mean(), 1 / (1 - labels.mean())) / 2
        return spread(right(self.every, self.before)[mine] * weights, self.clusters(mine), 0.0, 1.0)

    def untestable(self) -> str:
        """Why nothing can be said of a trigger, or nothing."""
        accuracy = self.accuracy()
        if accuracy.low <= CHANCE:
            return (
                f"It answers {accuracy.value:.2f} ({accuracy.low:.2f} to {accuracy.high:.2f}) of the sentences rightly, "
                "balanced over both answers: no better than chance, so that no answer can be said to turn."
            )
        count = len(set(self.clusters(self.test.used))) if self.test else 0
        if count < LEAST_ROWS:
            return f"{count} sentences to judge the pair on cannot reach alpha; it takes {LEAST_ROWS}."
        return ""


def everything(bench: Bench, do: Do, budget: Budget, draws: int, pair: Sequence[str] | None = None) -> Found:
    """The search, or the given pair in its place, and its judgement on test sentences. Units are done, or found again.

    Raises `BadData` as `sentences` and `vocabulary` do, and for words that are no candidates.
    """
    every = sentences(bench, budget.rows, budget.seed)
    words = vocabulary(bench, every, budget.sampled["most"])
    (done,) = do(plain, [budget.sampled])
    before = bench.arrays.get(done["arrays"])["odds"]
    screen = None if pair else screened(bench, do, every, before, budget)
    cells = [Cell(*_numbers(words, pair), side) for side in SIDES] if pair else []
    cells = best(screen, budget.finalists) if screen else cells
    tuned = chosen(bench, do, every, before, cells, budget) if cells else []
    test, maxima, p = None, np.zeros(0), 1.0
    if tuned:
        cell = tuned[0].cell
        (test,) = judged(bench, do, before, [cell], [usable(every, before, "test", cell.target, budget.items)], budget)
    if tuned and screen:
        maxima, p = against_confusion(
            screen, tuned[0].cell, [every[n].row.cluster for n in screen.used], draws, budget.seed
        )
    return Found(every, before, rarity(words, every), screen, tuned, test, maxima, p)


def against_confusion(
    screen: Screened, cell: Cell, clusters: Sequence[str], draws: int, seed: int
) -> tuple[Array, float]:
    """The largest share turned by a pair less by its reverse, of all pairs, under draws that swap the two in whole
    clusters of sentences; and the p of a cell's own difference against them (Westfall and Young 1993).
    """
    codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
    rng = np.random.default_rng([seed, 7])
    flips = rng.choice((-1.0, 1.0), (draws, int(codes.max()) + 1))[:, codes]
    gained = screen.gained.reshape(-1, len(codes))
    null, seen = flips @ gained.T, gained.sum(axis=1)
    places = {int(word): place for place, word in enumerate(screen.words)}
    index = np.ravel_multi_index(
        (SIDES.index(cell.target), places[cell.first], places[cell.second]), screen.gained.shape[:3]
    )
    return null.max(axis=1), float(max_statistic_p(seen, null, scaled=False)[index])


def spread(values: ArrayLike, clusters: Sequence[str], least: float, most: float) -> Interval:
    """The mean with its interval by clusters, within ``least`` and ``most``. Where no cluster differs from another, as
    wide as the share of clusters that could differ by 1 and all be missed with chance .05.
    """
    data, count = np.asarray(values, dtype=float), len(set(clusters))
    if count < 2:
        return Interval(float(data.mean()) if len(data) else 0.0, least, most, 0.95, count, "t")
    found = paired_effect(data, clusters)
    low, high = found.interval.low, found.interval.high
    if found.se == 0:
        room = clopper_pearson(0, count, level=0.9).high
        low, high = found.value - room, found.value + room
    return replace(found.interval, low=max(least, low), high=min(most, high))


def lowest(test: Judged, clusters: Sequence[str]) -> Interval:
    """Order excess: of the differences to all other variants the smallest, with the lowest of their lower ends, so that
    all of them lie above it.
    """
    found = [spread(test.turned[0].astype(float) - other, clusters, -1.0, 1.0) for other in test.turned[1:]]
    least = min(found, key=lambda one: one.value)
    return replace(least, low=min(one.low for one in found), high=max(least.value, min(one.high for one in found)))


def differences(test: Judged, clusters: Sequence[str]) -> dict[str, Interval]:
    """To every other variant."""
    return {
        name: spread(test.turned[0].astype(float) - other, clusters, -1.0, 1.0)
        for name, other in zip(VARIANTS[1:], test.turned[1:], strict=True)
    }


def _numbers(words: Sequence[str], pair: Sequence[str]) -> tuple[int, int]:
    for word in pair:
        if word not in words:
            raise BadData(
                f"{word!r} is no candidate word", nearest=nearest(word, words), hint="put it into the file 'words'"
            )
    first, second = pair
    return words.index(first), words.index(second)
