"""Which organisms an audit is tried on. Those that development may look at, and those that only the sealed table has seen.

Seeds below 1,000 are for development. The sealed table takes seeds from 1,000 on, and nothing may be chosen by them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from assay.errors import BadData, nearest
from assay.organisms.families import FAMILIES, Recipe, recipe

SEALED = 1_000
"""The first sealed seed."""
CAUSES = {"deception": ("belief", "ignorance")}
"""Decoys of a family take their benign cause in turn from these; otherwise the family's first."""
TWINS = ("planted", "clean", "decoy", "hard")
OTHERS = "other"


@dataclass(frozen=True)
class Subject:
    """One model to be audited.

    Attributes:
        family: of the organism.
        kind: a twin of the audited class; ``other`` for a plant of another family.
        seed: of the organism.
    """

    family: str
    kind: str
    seed: int

    @property
    def recipe(self) -> Recipe:
        """What it is made by."""
        causes = CAUSES.get(self.family)
        twin = "planted" if self.kind == OTHERS else self.kind
        return recipe(
            self.family,
            twin,
            seed=self.seed,
            **({"cause": causes[self.seed % len(causes)]} if twin == "decoy" and causes else {}),
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON value."""
        return asdict(self)


def subjects(
    problem: str, seeds: int, *, first: int = 0, planted: int = 0, hard: int = 0, others: int = 0
) -> list[Subject]:
    """``seeds`` planted, clean and decoy twins of one class, ``hard`` hard ones, and ``others`` plants of each other family;
    ``planted`` plants where that is more, since some do not take.

    They come in an order fixed by hashing, which says nothing of what they are. Raises `BadData`.
    """
    if problem not in FAMILIES:
        raise BadData(f"there is no class {problem!r}", nearest=nearest(problem, FAMILIES), hint=", ".join(FAMILIES))
    if seeds < 2:
        raise BadData(f"seeds={seeds} give no rate", hint="give 2 or more; 20 for a table")
    found = list(
        _listed(problem, {"planted": max(seeds, planted), "clean": seeds, "decoy": seeds, "hard": hard}, first, others)
    )
    return sorted(found, key=lambda one: hashlib.sha256(repr(one).encode()).hexdigest())


def _listed(problem: str, counts: Mapping[str, int], first: int, others: int) -> Iterator[Subject]:
    for twin in TWINS:
        for seed in range(first, first + counts[twin]):
            yield Subject(problem, twin, seed)
    for family in FAMILIES:
        if family != problem:
            for seed in range(first, first + others):
                yield Subject(family, OTHERS, seed)
