"""What the record survives: kills, faults, tampering and hostile input, counted. ``python -m reliability`` is the front."""

from __future__ import annotations

from dataclasses import dataclass

PARTS = (
    "kill", "resume", "faults", "determinism", "bans", "vectors", "cross", "tamper", "leak", "fuzz", "viewers", "reader",
)  # fmt: skip
"""Modules of this room, each with ``run(scale: float = 1.0) -> list[Row]``, in the order of the tables."""


@dataclass(frozen=True)
class Row:
    """One line of a table: what was done, what was found (with counts), and whether that is what was promised."""

    what: str
    found: str
    holds: bool = True
