"""Receipts: what an intervention really did to each row, and the check that it did what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from assay.act.rows import Row
from assay.errors import NeverFired


@dataclass(frozen=True)
class Receipt:
    """One intervention at one site of one row.

    Attributes:
        row, site, what: the row's name, the place, the intervention as text.
        touched, expected: tokens changed, and tokens that were to be changed.
        relative: mean of ‖Δ‖/‖h‖ over the touched tokens.
        before, after: mean coordinate along the direction (made unit); None where the operation has no direction.
        length: mean ‖Δ‖, in the activation's own units.
    """

    row: str
    site: str
    what: str
    touched: int
    expected: int
    relative: float | None = None
    before: float | None = None
    after: float | None = None
    length: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Receipt:
        """The inverse of `to_json`."""
        return cls(**state)

    def __str__(self) -> str:
        told = f"{self.row}: {self.what} touched {self.touched} tokens at {self.site}"
        if self.relative is not None:
            told += f", ‖Δ‖/‖h‖ {self.relative:.3g}"
        if self.before is not None and self.after is not None:
            told += f", projection {self.before:.3g} → {self.after:.3g}"
        return told


def check(receipts: Iterable[Receipt]) -> None:
    """Raise `NeverFired` unless every intervention touched exactly the tokens that it was meant to."""
    wrong = [receipt for receipt in receipts if receipt.touched != receipt.expected]
    if wrong:
        first = wrong[0]
        raise NeverFired(
            f"{first.what} touched {first.touched or 'no'} activation{'s' if first.touched != 1 else ''} of {first.expected}",
            rows=", ".join(f"{receipt.row} ({receipt.touched} of {receipt.expected})" for receipt in wrong[:6]),
            site=first.site,
            hint="the module behind this site did not run, or ran on other tokens; check with `assay sites MODEL`",
        )


def never(what: str, rows: Sequence[Row], problem: str) -> NeverFired:
    """The error for an intervention that would touch no token of any row, raised before compute is spent."""
    spans = [f"{row.name}: {', '.join(row.spans) or 'none'}" for row in rows[:4]]
    return NeverFired(
        f"{what} touched no activation",
        rows=", ".join(f"{row.name} ({len(row.tokens)} tokens)" for row in rows[:4]),
        spans=" · ".join(spans),
        found=problem,
        nearest=f"@ last, @ -1, @ 0:{rows[0].prompt}" if rows else "",
        hint='the prompt was a plain string; mark the span: Prompt("The {subject} is in", subject=...)'
        if "span" in problem
        else "name positions that the row has: @ all, @ last, @ response, @ 2:6",
    )


def overlap(start: int, stop: int, length: int) -> int:
    """How many positions of a row of ``length`` lie in ``start:stop``."""
    return max(0, min(stop, length) - start)
