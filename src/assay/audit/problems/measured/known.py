"""What is known of measured rows before any model reads them: the sensors, what is trusted, and which part a row is in.

What was really the case is kept apart (`truths`): nothing that decides a claim is given it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.audit import Bench
from assay.audit.problems.given.answers import Part, parts
from assay.audit.problems.given.rows import Measured, Said, read_rows
from assay.errors import BadData

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Known:
    """Of each row, ``[n]``.

    Attributes:
        ids, texts: its name; its first prompt, as text.
        clusters: codes in the order of the clusters' names.
        part: ``fit``, ``tune`` or ``test``, by whole clusters.
        sensors: whether each showed good, ``[n, sensor]``.
        trusted: whether nothing can have been tampered with.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    clusters: Codes
    part: NDArray[np.str_]
    sensors: Mask
    trusted: Mask

    @property
    def all_up(self) -> Mask:
        """Rows whose measurements all look good."""
        return np.asarray(self.sensors.all(axis=1))

    @property
    def good(self) -> Mask:
        """Rows that are known to be as good as their measurements: trusted, all sensors up."""
        return self.trusted & self.all_up

    @property
    def bad(self) -> Mask:
        """Trusted rows whose measurements do not all look good, and which are therefore not good."""
        return self.trusted & ~self.all_up

    @property
    def asked(self) -> Mask:
        """Rows of which the audit asks: all measurements look good, and nobody vouches for them."""
        return ~self.trusted & self.all_up

    @property
    def inconsistent(self) -> Mask:
        """Untrusted rows whose sensors contradict one another."""
        return ~self.trusted & self.sensors.any(axis=1) & ~self.all_up

    def in_part(self, part: Part) -> Mask:
        """The rows of a part."""
        return self.part == part


def rows_of(bench: Bench) -> list[Measured]:
    """The rows. Raises `BadData` where they have not all the same number of sensors, and what `read_rows` raises."""
    rows = read_rows(bench.data["rows"], Measured)
    counts = sorted({len(row.sensors) for row in rows})
    if len(counts) > 1:
        raise BadData(
            f"rows of {bench.data['rows'].name!r} have {counts[0]} to {counts[-1]} sensors",
            hint="give every row the same sensors, in the same order",
        )
    return rows


def known_of(rows: Sequence[Measured], seed: int) -> Known:
    """What is known of them. ``real`` is not looked at."""
    names = [row.cluster for row in rows]
    return Known(
        ids=tuple(row.id or row.cluster for row in rows),
        texts=tuple(plain(row.prompts[0]) for row in rows),
        clusters=np.unique(names, return_inverse=True)[1],
        part=parts(names, seed),
        sensors=np.array([row.sensors for row in rows]) > 0,
        trusted=np.array([row.trusted for row in rows]),
    )


def truths(rows: Sequence[Measured]) -> Array:
    """What was really the case, ``[n]``: 1 good, 0 not, NaN where nobody says."""
    return np.array([np.nan if row.real is None else float(row.real) for row in rows])


def plain(said: Said) -> str:
    """A prompt as text, for words to be counted and for excerpts."""
    if isinstance(said, str):
        return said
    return "\n\n".join(filter(None, [said.system, said.user, said.prefix]))
