"""Families of trained organisms: each with a planted problem, and clean, decoy and hard twins, by seed.

`recipe` says what to make, and `train` makes it or finds it in the cache. `known` lists what is there, `tally` counts
how many plants took, `check` measures one again, and `rebuilt` trains it anew and compares every bit.
"""

from __future__ import annotations

from assay.organisms.families.build import (
    FAMILIES,
    Organism,
    check,
    family_of,
    known,
    opened,
    rebuilt,
    recipe,
    tally,
    train,
)
from assay.organisms.families.family import Batch, Family, Figure, Stage
from assay.organisms.families.recipe import TWINS, Recipe

__all__ = [
    "FAMILIES",
    "TWINS",
    "Batch",
    "Family",
    "Figure",
    "Organism",
    "Recipe",
    "Stage",
    "check",
    "family_of",
    "known",
    "opened",
    "rebuilt",
    "recipe",
    "tally",
    "train",
]
