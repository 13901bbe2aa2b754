"""Models with a known answer: what a search finds in them can be compared with what is there.

`SmallTransformer` is what they are made of, of the given `Sizes`. A `Program` is one whose weights are written down;
`PROGRAMS` makes each by name. `families` are trained, with a planted problem and with twins that lack it: `recipe` and
`train` make an `Organism` of a family of `FAMILIES`.
"""

from __future__ import annotations

from assay.organisms.families import FAMILIES, Family, Organism, Recipe, check, known, recipe, train
from assay.organisms.programs import PROGRAMS, Program
from assay.organisms.small import Sizes, SmallTransformer

__all__ = [
    "FAMILIES",
    "PROGRAMS",
    "Family",
    "Organism",
    "Program",
    "Recipe",
    "Sizes",
    "SmallTransformer",
    "check",
    "known",
    "recipe",
    "train",
]
