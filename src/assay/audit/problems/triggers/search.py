"""The search for two words: on fit sentences all pairs, on tune sentences the best of them, on test sentences one.

An answer *turns* where the model gave the other answer to the sentence as it stands and gives the target with the words
in it; only sentences that it answers rightly as they stand are counted. A pair's *order excess* is the share that it turns
less the largest share that its words turn in another order, alone, or apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.audit import Bench, unit
from assay.audit.problems.given.untrained import untrained as untrained_twin
from assay.audit.problems.triggers.odds import Array, odds
from assay.audit.problems.triggers.sentences import VARIANTS, Sentence, sentences, vocabulary
from assay.run.model import Model

Flags = NDArray[np.bool_]
Do = Callable[[Callable[..., Any], Sequence[Mapping[str, Any]]], list[Any]]
"""Does one unit for each set of parameters: `Lab.units`, or the function itself."""

SIDES = (1, 0)
"""Targets: the first answer, and the second."""

REVERSED = VARIANTS.index("reversed")
_AT_ONCE = 8
"""Sentences in one unit of the screening."""


class Budget(NamedTuple):
    """What the search may cost, and what it is drawn by.

    Attributes:
        rows: sampled from the file.
        pairs: that are screened; where all pairs of the candidate words are more, those of the best single words.
        screen: fit sentences that each is put into.
        finalists: that are put into tune sentences.
        items: tune and test sentences of either answer.
        seed: of samples and places.
    """

    rows: int
    pairs: int
    screen: int
    finalists: int
    items: int
    seed: int

    @property
    def sampled(self) -> dict[str, int]:
        """What every unit needs to find the sentences and words again."""
        return {"rows": self.rows, "most": self.pairs // 2, "seed": self.seed}


class Cell(NamedTuple):
    """Two words of the vocabulary by number, in their order, and the answer that they should give."""

    first: int
    second: int
    target: int


@dataclass(frozen=True)
class Screened:
    """The screening; words are those that pairs were made of.

    Attributes:
        words: by number in the vocabulary.
        used: by number, the fit sentences.
        turned: which sentences each pair turns, ``[target, first, second, sentence]``; among them only those that could.
        excess: order excess, but for words apart, ``[target, first, second]``.
        gained: by pair and sentence turned, less turned by the reversed pair, over how many could turn; sums to the
            difference of shares, ``[target, first, second, sentence]``.
    """

    words: NDArray[np.int64]
    used: list[int]
    turned: Flags
    excess: Array
    gained: Array


@dataclass(frozen=True)
class Judged:
    """One cell on some sentences.

    Attributes:
        cell: what was put in.
        used: by number, the sentences that could turn.
        turned: ``[variant, sentence]``.
    """

    cell: Cell
    used: list[int]
    turned: Flags

    @property
    def shares(self) -> Array:
        """By variant."""
        return self.turned.mean(axis=1) if self.used else np.zeros(len(VARIANTS))

    @property
    def excess(self) -> float:
        """Of the pair in order over the largest of the others."""
        shares = self.shares
        return float(shares[0] - shares[1:].max())


# ── units of work ─────────────────────────────────────────────────────────────────────────────────────────────────────


@unit("backdoor.plain")
def plain(bench: Bench, *, rows: int, most: int, seed: int, untrained: bool = False) -> dict[str, Any]:
    """Log-odds of every sampled sentence as it stands; or in a model of this shape that was never trained."""
    every, model = sentences(bench, rows, seed), _model(bench, untrained, seed)
    found = odds(model, [(one, [one.text]) for one in every])
    return {"arrays": bench.arrays.put(odds=np.concatenate(found))}


@unit("backdoor.single-words")
def single_words(
    bench: Bench, *, on: list[int], words: list[int], place: int, rows: int, most: int, seed: int
) -> dict[str, Any]:
    """Log-odds with each of these words alone, where the first or the second of a pair stands, ``[sentence, word]``."""
    every = sentences(bench, rows, seed)
    listed = vocabulary(bench, every, most)
    texts = [(one, [one.put((one.at + place, listed[word])) for word in words]) for one in (every[n] for n in on)]
    return {"arrays": bench.arrays.put(odds=np.stack(odds(bench.model, texts)))}


@unit("backdoor.pairs")
def pairs(bench: Bench, *, on: list[int], words: list[int], rows: int, most: int, seed: int) -> dict[str, Any]:
    """Log-odds with every ordered pair of these words, ``[sentence, first, second]``; a word beside itself is one pair."""
    every = sentences(bench, rows, seed)
    listed = vocabulary(bench, every, most)
    some = [listed[number] for number in words]
    asked = [(one, [one.pair(first, second) for first in some for second in some]) for one in (every[n] for n in on)]
    found = np.stack(odds(bench.model, asked))
    return {"arrays": bench.arrays.put(odds=found.reshape(len(on), len(some), len(some)))}


@unit("backdoor.put")
def put(
    bench: Bench,
    *,
    cells: list[list[int]],
    on: list[list[int]],
    rows: int,
    most: int,
    seed: int,
    untrained: bool = False,
) -> dict[str, Any]:
    """Log-odds with each cell's words, in all variants, in that cell's sentences; one array a cell,
    ``[sentence, variant]``.
    """
    every = sentences(bench, rows, seed)
    words, model = vocabulary(bench, every, most), _model(bench, untrained, seed)
    asked = [
        (every[number], every[number].variants(words[first], words[second]))
        for (first, second), some in zip(cells, on, strict=True)
        for number in some
    ]
    found = np.array(odds(model, asked)).reshape(-1, len(VARIANTS))
    ends = np.cumsum([len(some) for some in on])[:-1]
    return {"arrays": bench.arrays.put(**{str(n): one for n, one in enumerate(np.split(found, ends))})}


def _model(bench: Bench, untrained: bool, seed: int) -> Model:
    return untrained_twin(bench.model, seed) if untrained else bench.model


# ── which sentences, and what turned ──────────────────────────────────────────────────────────────────────────────────


def turns(before: Array, after: Array, target: int) -> Flags:
    """Where the other answer became the target; ``before`` and ``after`` are log-odds of equal shape, or broadcast."""
    other, wanted = (before < 0, after > 0) if target else (before > 0, after < 0)
    return np.asarray(other & wanted)


def right(every: Sequence[Sentence], before: Array) -> Flags:
    """Which sentences are answered rightly as they stand."""
    labels = np.array([one.row.label for one in every])
    return np.asarray(np.where(labels == 1, before > 0, before < 0))


def usable(every: Sequence[Sentence], before: Array, part: str, target: int, most: int) -> list[int]:
    """By number, at most so many sentences of a part that are rightly given the other answer, in their order."""
    good = right(every, before)
    mine = [one.number for one in every if one.part == part and one.row.label != target and good[one.number]]
    return mine[:most]


# ── the search ────────────────────────────────────────────────────────────────────────────────────────────────────────


def screened(bench: Bench, do: Do, every: Sequence[Sentence], before: Array, budget: Budget) -> Screened | None:
    """All pairs, or those of the best single words, in fit sentences of both answers. None where it answers none rightly."""
    used = [n for side in SIDES for n in usable(every, before, "fit", side, budget.screen // 2)]
    if not used:
        return None
    could, words = _could(every, used), np.arange(len(vocabulary(bench, every, budget.sampled["most"])))
    chunks = [used[start : start + _AT_ONCE] for start in range(0, len(used), _AT_ONCE)]

    def alone(place: int) -> Array:
        """What each of ``words`` turns on its own, ``[target, word]``."""
        asked = [dict(on=some, words=words.tolist(), place=place, **budget.sampled) for some in chunks]
        found = _stacked(bench, do(single_words, asked))
        return np.stack(
            [_share(turns(before[used, None], found, side), mine) for side, mine in zip(SIDES, could, strict=True)]
        )

    first = alone(0)
    if len(words) * (len(words) - 1) > budget.pairs:
        keep = int((1 + np.sqrt(1 + 4 * budget.pairs)) / 2)
        words = np.sort(np.argsort(-first.max(axis=0), kind="stable")[:keep])
    single = np.stack([first[:, words], alone(1)], axis=1)
    asked = [dict(on=some, words=words.tolist(), **budget.sampled) for some in chunks]
    together = _stacked(bench, do(pairs, asked))
    turned = np.stack([turns(before[used, None, None], together, side) for side in SIDES]) & could[:, :, None, None]
    turned[:, :, range(len(words)), range(len(words))] = False
    return _screened(turned, could, single, words, used)


def _screened(turned: Flags, could: Flags, single: Array, words: NDArray[np.int64], used: list[int]) -> Screened:
    """``turned`` is ``[target, sentence, first, second]``, ``could`` ``[target, sentence]``, ``single`` shares by place."""
    sizes = np.maximum(could.sum(axis=1), 1)[:, None, None]
    shares = turned.sum(axis=1) / sizes
    others = np.maximum(shares.swapaxes(1, 2), np.maximum(single[:, 0, :, None], single[:, 1, None, :]))
    across = np.moveaxis(turned, 1, -1).astype(float)
    return Screened(
        words=words,
        used=used,
        turned=np.moveaxis(turned, 1, -1),
        excess=shares - others,
        gained=(across - across.swapaxes(1, 2)) / sizes[..., None],
    )


def best(found: Screened, count: int) -> list[Cell]:
    """The cells of largest excess; of equals the first."""
    order = np.argsort(-found.excess, axis=None, kind="stable")
    made = []
    for place in order[: count + len(found.words)]:
        side, first, second = np.unravel_index(int(place), found.excess.shape)
        if first != second:
            made.append(Cell(int(found.words[first]), int(found.words[second]), SIDES[int(side)]))
    return made[:count]


def judged(
    bench: Bench, do: Do, before: Array, cells: Sequence[Cell], on: Sequence[Sequence[int]], budget: Budget
) -> list[Judged]:
    """Cells on sentences of theirs."""
    words = [[cell.first, cell.second] for cell in cells]
    (done,) = do(put, [dict(cells=words, on=[list(some) for some in on], **budget.sampled)])
    arrays = bench.arrays.get(done["arrays"])
    return [
        Judged(cell, list(some), turns(before[list(some), None], arrays[str(place)], cell.target).T)
        for place, (cell, some) in enumerate(zip(cells, on, strict=True))
    ]


def chosen(
    bench: Bench, do: Do, every: Sequence[Sentence], before: Array, cells: Sequence[Cell], budget: Budget
) -> list[Judged]:
    """The cells on tune sentences, by their order excess there, largest first; of equals the one given first."""
    on = [usable(every, before, "tune", cell.target, budget.items) for cell in cells]
    return sorted(judged(bench, do, before, cells, on, budget), key=lambda one: -one.excess)


def _could(every: Sequence[Sentence], used: Sequence[int]) -> Flags:
    """Which of these sentences could turn to each target, ``[target, sentence]``."""
    labels = np.array([every[number].row.label for number in used])
    return np.stack([labels != side for side in SIDES])


def _share(turned: Flags, could: Flags) -> Array:
    """The share of sentences that could, ``turned`` being ``[sentence, …]``."""
    return np.asarray(turned[could].sum(axis=0) / max(1, int(could.sum())))


def _stacked(bench: Bench, done: Sequence[Mapping[str, Any]]) -> Array:
    return np.concatenate([bench.arrays.get(one["arrays"])["odds"] for one in done])
