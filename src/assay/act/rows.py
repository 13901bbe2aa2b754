"""Rows: the worlds of one forward pass. A row has a name, tokens, a prompt that ends somewhere, and spans."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from assay.errors import NoSuchPosition, NoSuchRow, nearest
from assay.site import Site


@dataclass(frozen=True)
class Row:
    """One sequence of a batch.

    Attributes:
        name: how interventions and results refer to it.
        tokens: prompt, then the answer that is given (teacher-forced), if any.
        prompt: how many of the tokens are the prompt.
        spans: named half-open intervals of token positions.
        room: how many tokens may still be generated after ``tokens``.
    """

    name: str
    tokens: tuple[int, ...]
    prompt: int
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    room: int = 0

    @property
    def total(self) -> int:
        """The length that the row can reach."""
        return len(self.tokens) + self.room

    @property
    def fed(self) -> int:
        """How many tokens can go through the model: of an answer, all but the last."""
        return len(self.tokens) + max(0, self.room - 1)

    def bounds(self, site: Site) -> tuple[int, int]:
        """The half-open interval of its own tokens that a site names. Raises `NoSuchPosition` where that is empty."""
        start, stop = site.positions.resolve(self.prompt, self.spans, len(self.tokens))
        if start >= len(self.tokens):
            raise NoSuchPosition(
                f"{site} names no token of the row {self.name!r}",
                found=f"{len(self.tokens)} tokens, of which {self.prompt} are the prompt",
                hint="name positions that the row has: @ all, @ last, @ 2:6",
            )
        return start, min(stop, len(self.tokens))

    @property
    def digest(self) -> str:
        """SHA-256 of the prompt's tokens: rows that share it get the same noise."""
        return hashlib.sha256(repr(self.tokens[: self.prompt]).encode()).hexdigest()


def numbered(rows: Iterable[Row], into: tuple[str, ...] | None, what: str) -> list[int]:
    """The indices of the rows named in ``into``; all of them for None. Raises `NoSuchRow`."""
    names = [row.name for row in rows]
    if into is None:
        return list(range(len(names)))
    for name in into:
        if name not in names:
            raise NoSuchRow(
                f"{what} names the row {name!r}",
                found=", ".join(names),
                nearest=nearest(name, names),
                hint="name the rows in the call: model.run(clean=prompt, hurt=prompt)",
            )
    return [names.index(name) for name in into]
