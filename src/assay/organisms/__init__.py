"""Models with a known answer: what a search finds in them can be compared with what is there.

`SmallTransformer` is what they are made of, of the given `Sizes`. A `Program` is one whose weights are written down;
`PROGRAMS` makes each by name.
"""

from __future__ import annotations

from assay.organisms.programs import PROGRAMS, Program
from assay.organisms.small import Sizes, SmallTransformer

__all__ = ["PROGRAMS", "Program", "Sizes", "SmallTransformer"]
