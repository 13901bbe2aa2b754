"""Sentences with a place for two words, and the words that are put there.

The two words stand in place of two adjacent words of the prompt, of a turn in the user's text. The last word is never
replaced: the answer follows on it. Alone, a word stands where it stands in the pair, and apart the two stand in their
order with at least one word between them. A sentence's places are drawn once, by hashing, and are the same for all words.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assay.audit import Bench
from assay.audit.problems.given.answers import parts
from assay.audit.problems.given.rows import Choice, Said, Turn, by_cluster, read_rows
from assay.errors import BadData, CorruptFile
from assay.files import read_bytes

LEAST_WORDS = 4
"""In a sentence: two words apart, one between them, and the last, which stays."""

LEAST_CANDIDATES = 4
LEAST_ROWS = 6
"""Of each label in each part: with fewer, not even unanimous sentences reach .05."""

VARIANTS = ("in order", "reversed", "first alone", "second alone", "apart")
"""What is put into a sentence; all but the first are what the first is held against."""

_PIECE = re.compile(r"\s*\S+")
_MOST = 10_000_000


@dataclass(frozen=True)
class Sentence:
    """A row with its places.

    Attributes:
        row: as the file has it.
        number: its place among the sampled rows.
        part: ``fit``, ``tune`` or ``test``.
        pieces: its words, each with the blanks before it.
        tail: the blanks after the last.
        at: where the first of two adjacent words goes.
        apart: where the two go when they stand apart.
    """

    row: Choice
    number: int
    part: str
    pieces: tuple[str, ...]
    tail: str
    at: int
    apart: tuple[int, int]

    def put(self, *placed: tuple[int, str]) -> str:
        """The text with these words at these places."""
        pieces = list(self.pieces)
        for place, word in placed:
            old = pieces[place]
            pieces[place] = old[: len(old) - len(old.lstrip())] + word
        return "".join(pieces) + self.tail

    def pair(self, first: str, second: str) -> str:
        """The text with both, next to each other."""
        return self.put((self.at, first), (self.at + 1, second))

    def variants(self, first: str, second: str) -> list[str]:
        """The texts of `VARIANTS`."""
        near, far = self.apart
        return [
            self.pair(first, second),
            self.pair(second, first),
            self.put((self.at, first)),
            self.put((self.at + 1, second)),
            self.put((near, first), (far, second)),
        ]

    def saying(self, text: str) -> Said:
        """The row's prompt with another text."""
        said = self.row.prompt
        return text if isinstance(said, str) else said.model_copy(update={"user": text})

    @property
    def text(self) -> str:
        """As it stands."""
        return "".join(self.pieces) + self.tail


def sentences(bench: Bench, rows: int, seed: int) -> list[Sentence]:
    """At most about ``rows`` rows, by whole clusters in an order fixed by hashing, those of too few words left out.

    Raises:
        BadData, EmptyData, OneClass, CorruptFile: a file that does not read.
        BadData: too few rows of a label in a part.
    """
    path = Path(bench.data["rows"])
    every = [row for row in read_rows(path, Choice) if len(_PIECE.findall(_text(row))) >= LEAST_WORDS]
    taken: list[Choice] = []
    for members in sorted(by_cluster(every), key=lambda some: _hash(seed, "sample", every[some[0]].cluster)):
        if taken and len(taken) + len(members) > rows:
            break
        taken += [every[number] for number in members]
    home = parts([row.cluster for row in taken], seed)
    found = [_sentence(row, number, str(home[number]), seed) for number, row in enumerate(taken)]
    for part in ("fit", "tune", "test"):
        for label in (1, 0):
            count = len({one.row.cluster for one in found if (one.part, one.row.label) == (part, label)})
            if count < LEAST_ROWS:
                raise BadData(
                    f"{path.name!r} has too few rows to search on some and judge on others",
                    found=f"{count} clusters labelled {label} in the part {part}, of {len(every)} rows with "
                    f"{LEAST_WORDS} words or more",
                    hint=f"give rows of at least {LEAST_WORDS} words, some {8 * LEAST_ROWS} clusters of either label",
                )
    return found


def vocabulary(bench: Bench, rows: Sequence[Sentence], most: int) -> list[str]:
    """The candidate words, at most so many: those of the file ``words`` in its order, else those in place of which words
    are put, the most frequent first.

    Raises:
        BadData: too few, or a line of several words.
        CorruptFile: no such file.
    """
    if "words" in bench.data:
        words = _listed(Path(bench.data["words"]))
    else:
        counts = Counter(piece.strip() for one in rows for piece in one.pieces[:-1])
        words = sorted(counts, key=lambda word: (-counts[word], word))
    if len(words) < LEAST_CANDIDATES:
        raise BadData(
            f"{len(words)} candidate words make too few pairs",
            found=f"{len(words) * max(0, len(words) - 1)} ordered pairs",
            hint=f"give {LEAST_CANDIDATES} words or more, one on each line of the file 'words'",
        )
    return words[:most]


def rarity(words: Sequence[str], rows: Sequence[Sentence]) -> NDArray[np.int64]:
    """How often each word stands in the rows, ``[word]``."""
    counts = Counter(piece.strip() for one in rows for piece in one.pieces[:-1])
    return np.array([counts[word] for word in words])


def _listed(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in read_bytes(path, most=_MOST).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path.name!r} is not UTF-8", found=str(error), hint="save it as UTF-8") from error
    for number, line in enumerate(lines, 1):
        if len(line.split()) > 1:
            raise BadData(
                f"{path.name}, line {number} is no single word",
                found=repr(line[:60]),
                hint="write one word on each line",
            )
    return list(dict.fromkeys(filter(None, lines)))


def _sentence(row: Choice, number: int, part: str, seed: int) -> Sentence:
    text = _text(row)
    pieces = tuple(_PIECE.findall(text))
    rng = np.random.default_rng(int(_hash(seed, "places", row.id, text)[:15], 16))
    at, near = int(rng.integers(len(pieces) - 2)), int(rng.integers(len(pieces) - 3))
    far = int(rng.integers(near + 2, len(pieces) - 1))
    return Sentence(row, number, part, pieces, text[len("".join(pieces)) :], at, (near, far))


def _text(row: Choice) -> str:
    return row.prompt.user if isinstance(row.prompt, Turn) else row.prompt


def _hash(seed: int, *texts: str) -> str:
    return hashlib.sha256(" ".join([str(seed), *texts]).encode()).hexdigest()
