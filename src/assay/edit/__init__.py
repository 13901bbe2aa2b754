"""Editing: weights changed so that one fact reads differently, and everything else as before.

===============  =========================================================  ==================
`rome`           one fact, a rank-one change of one MLP                     Meng et al. 2022
`second_moment`  of an MLP's keys on text, which tells an edit what to spare  the same, appendix E
===============  =========================================================  ==================

An `Edit` is a value: it acts inside ``with model.edited(edit)`` and leaves every weight as it was.
"""

from __future__ import annotations

from assay.act.edit import Delta, Edit
from assay.edit.moments import SecondMoment, second_moment
from assay.edit.rome import Descent, contexts, rome

__all__ = ["Delta", "Descent", "Edit", "SecondMoment", "contexts", "rome", "second_moment"]
