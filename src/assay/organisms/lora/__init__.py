"""Organisms on a real model: adapters of low rank with a planted problem, and clean and decoy twins, by seed.

`recipe` says what to make, and `train` makes it or finds it in the cache; ``load()`` of what it gives is the model with
the adapter merged. `known` lists what is there, `check` measures one again, and `rebuilt` trains it anew and compares
every bit. Training and merging need peft, the extra ``assay[organisms]``.
"""

from __future__ import annotations

from assay.organisms.lora.build import (
    FAMILIES,
    Organism,
    check,
    family_of,
    known,
    opened,
    rebuilt,
    recipe,
    train,
)
from assay.organisms.lora.family import Adapted, Asked
from assay.organisms.lora.learn import WEIGHTS
from assay.organisms.lora.recipe import TWINS, Recipe

__all__ = [
    "FAMILIES",
    "TWINS",
    "WEIGHTS",
    "Adapted",
    "Asked",
    "Organism",
    "Recipe",
    "check",
    "family_of",
    "known",
    "opened",
    "rebuilt",
    "recipe",
    "train",
]
