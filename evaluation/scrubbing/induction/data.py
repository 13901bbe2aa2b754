"""Text in which induction pays: Zipf words, some that foretell what comes, and spans that come again.

A row begins with `BOS`. Each word has a few that it likes to be followed by, and a few that it likes two words on; how much,
differs from word to word. What neither decides is drawn by frequency. Now and then a span of the row is copied instead, from
anywhere before. So bigrams explain a part of the text, the word before them another, and induction a third. Frequent words
recur by chance, where matching more than one word pays.

What a word likes two words on is there because text is like that, and because without it nothing in text as short as this
asks for a previous-token head before induction does: models then stay with bigrams for long.

All is drawn from seeds; one seed of the training part and the same seed of the held-out part are different text.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

VOCAB, BOS, LENGTH = 256, 0, 101
"""A row is as long as `BOS` and 25 words four times over, by which induction heads are told."""
SUCCESSORS = (0.5, 0.25, 0.15, 0.1)
"""How those that a word likes share what it gives them."""
MOST = 0.95
"""How often a word that decides most often decides."""
SHORTEST, LONGEST = 3, 12
"""Words of a span that is copied."""
STARTS = 0.05
"""How often a copy begins where none is under way."""
NONE = -1
"""Stands where there is no word, or no source."""
SAMPLE, HELPS = 8192, 1.0
"""Rows of training text that decide which words are good candidates, and the nats that induction must gain after one."""

Part = Literal["train", "held out"]


@dataclass(frozen=True, eq=False)
class Text:
    """Rows of text.

    Attributes:
        drawn: words ``[row, pos + 1]``, the last of which is a label only.
        source: where in its row each was copied from ``[row, pos + 1]``; `NONE` where it was not.
    """

    drawn: np.ndarray
    source: np.ndarray

    @property
    def tokens(self) -> np.ndarray:
        """What the model is given, ``[row, pos]``."""
        return self.drawn[:, :-1]

    @property
    def labels(self) -> np.ndarray:
        """The word after each, ``[row, pos]``."""
        return self.drawn[:, 1:]

    def __len__(self) -> int:
        return len(self.drawn)


def zipf() -> np.ndarray:
    """How often each word is drawn where nothing else speaks, ``[vocab]``; `BOS` never."""
    weight = 1 / (np.arange(VOCAB) + 2.0)
    weight[BOS] = 0
    return weight / weight.sum()


@dataclass(frozen=True, eq=False)
class Language:
    """How words follow each other. It is one for all seeds.

    Attributes:
        soon: what each word likes to be followed by, ``[vocab, 4]``.
        later: what it likes two words on, ``[vocab, 4]``.
        decides: how often it decides what comes next, ``[vocab]``.
        decides_later: how often what comes two words on, where the word between does not decide, ``[vocab]``.
    """

    soon: np.ndarray
    later: np.ndarray
    decides: np.ndarray
    decides_later: np.ndarray

    def follows(self, before: int, word: int) -> np.ndarray:
        """The probability of every word after two, ``[vocab]``."""
        left = 1 - self.decides[word]
        found = left * (1 - self.decides_later[before]) * zipf()
        found[self.soon[word]] += self.decides[word] * np.array(SUCCESSORS)
        found[self.later[before]] += left * self.decides_later[before] * np.array(SUCCESSORS)
        return found


@functools.cache
def language() -> Language:
    """The language of all text here."""
    rng, usual = np.random.default_rng(2022), zipf()
    soon, later = (
        np.array([rng.choice(VOCAB, len(SUCCESSORS), replace=False, p=usual) for _ in range(VOCAB)]) for _ in range(2)
    )
    decides, decides_later = (rng.uniform(0, MOST, VOCAB) for _ in range(2))
    decides[BOS] = decides_later[BOS] = 0
    return Language(soon, later, decides, decides_later)


def text(count: int, *, seed: int, part: Part = "train") -> Text:
    """``count`` rows."""
    rng, words = np.random.default_rng([["train", "held out"].index(part), seed]), language()
    drawn, source = np.full((count, LENGTH + 1), BOS), np.full((count, LENGTH + 1), NONE)
    rows, left, following = np.arange(count), np.zeros(count, int), np.zeros(count, int)
    for pos in range(1, LENGTH + 1):
        starts = (left == 0) & (rng.random(count) < STARTS) & (pos > LONGEST)
        span = SHORTEST + (rng.random(count) * (LONGEST - SHORTEST + 1)).astype(int)
        begin = 1 + (rng.random(count) * (pos - span)).astype(int)  # at the latest, the span ends just before `pos`
        left, following = np.where(starts, span, left), np.where(starts, begin, following)
        copied = left > 0
        word, before = drawn[:, pos - 1], drawn[:, max(pos - 2, 0)]
        rank, free = _drawn(rng, np.array(SUCCESSORS), count), _drawn(rng, zipf(), count)
        new = np.where(rng.random(count) < words.decides_later[before], words.later[before, rank], free)
        new = np.where(rng.random(count) < words.decides[word], words.soon[word, rank], new)
        drawn[:, pos] = np.where(copied, drawn[rows, following], new)
        source[:, pos] = np.where(copied, following, NONE)
        left, following = left - copied, following + copied
    return Text(drawn, source)


def _drawn(rng: np.random.Generator, probabilities: np.ndarray, count: int) -> np.ndarray:
    line = np.cumsum(probabilities)[:-1]  # what lies beyond it, by rounding too, is the last one
    return np.searchsorted(line, rng.random(count), side="right")


def twice(some: Text) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Pairs of positions, as ``(rows, positions)`` of ``[row, pos]``: the second occurrence of a span, and the first.

    At both the next word is the same and the word before it too. At the second, both were copied from the first; at the
    first, the next word was not copied.
    """
    here, after = some.source[:, :-1], some.source[:, 1:]
    rows, second = np.nonzero((here != NONE) & (after == here + 1))
    first = here[rows, second]
    fresh = after[rows, first] == NONE
    return (rows[fresh], second[fresh]), (rows[fresh], first[fresh])


def features(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """What hypotheses tell positions by, each ``[row, pos]`` of integers; `NONE` where the row has not begun.

    ``token`` is the word at the position, ``previous`` the one before it, and ``previous two`` the two before it as one
    number, the earlier × `VOCAB` + the later.
    """
    previous, earlier = np.full_like(tokens, NONE), np.full_like(tokens, NONE)
    previous[:, 1:], earlier[:, 2:] = tokens[:, :-1], tokens[:, :-2]
    both = np.where(earlier == NONE, NONE, earlier * VOCAB + previous)
    return {"token": tokens, "previous": previous, "previous two": both}


def followed(tokens: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each position's word stood earlier in its row, and how often its label followed there, ``[row, pos]``."""
    earlier = (tokens[:, :, None] == tokens[:, None]) & np.tri(tokens.shape[1], k=-1, dtype=bool)
    return earlier.sum(2), (earlier & (labels[:, :, None] == labels[:, None])).sum(2)


def gains(some: Text) -> np.ndarray:
    """By how many nats exact two-token induction lowers the loss after each word, ``[vocab]``; 0 for words not met twice.

    Both guesses know what follows a word in the text as a whole. Induction gives half its weight to what followed it
    earlier in the row. Only positions whose word stood earlier in the row count: elsewhere it has nothing to say.
    """
    tokens, labels = some.tokens, some.labels
    counts = np.zeros((VOCAB, VOCAB))
    np.add.at(counts, (tokens, labels), 1)
    total, gained = np.zeros(VOCAB), np.zeros(VOCAB)
    for rows in np.array_split(np.arange(len(some)), max(1, len(some) // 256)):
        bigram = counts[tokens[rows], labels[rows]] / counts.sum(1)[tokens[rows]]
        met, same = followed(tokens[rows], labels[rows])
        where = met > 0
        mixed = (bigram[where] + same[where] / met[where]) / 2
        np.add.at(total, tokens[rows][where], 1)
        np.add.at(gained, tokens[rows][where], np.log(mixed) - np.log(bigram[where]))
    return gained / np.maximum(total, 1)


@functools.cache
def whitelist() -> np.ndarray:
    """Words after which induction helps much beyond bigrams, ``[vocab]``: from training text, never from a model."""
    return gains(text(SAMPLE, seed=0)) >= HELPS


def candidates(tokens: np.ndarray) -> np.ndarray:
    """The mask of good induction candidates ``[row, pos]``: the word is of the whitelist, met before or not."""
    return whitelist()[tokens]
