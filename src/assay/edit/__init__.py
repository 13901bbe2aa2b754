"""Editing: weights changed so that facts read differently, and everything else as before.

===============  ===========================================================  =======================
`rome`           one fact, a rank-one change of one MLP                       Meng et al. 2022
`memit`          many facts, spread over the MLPs of some layers              Meng et al. 2023
`finetune`       the baseline: gradient descent on one MLP, held close        Zhu et al. 2021
`second_moment`  of an MLP's keys on text, which tells an edit what to spare  Meng et al. 2022
`measure`        did the fact change, its paraphrases too, and nothing else?  Meng et al. 2022
===============  ===========================================================  =======================

An `Edit` is a value: it acts inside ``with model.edited(edit)`` and leaves every weight as it was.
"""

from __future__ import annotations

from assay.act.edit import Delta, Edit
from assay.edit.contexts import contexts
from assay.edit.descent import PAPER, Descent, Rewrite
from assay.edit.fact import Fact
from assay.edit.finetune import finetune
from assay.edit.measure import Measured, Score, generation_entropy, measure, perplexity, summary
from assay.edit.memit import STREAM, Sought, memit, sought
from assay.edit.moments import SecondMoment, second_moment, second_moments
from assay.edit.rome import Stored, rome, stored

__all__ = [
    "PAPER",
    "STREAM",
    "Delta",
    "Descent",
    "Edit",
    "Fact",
    "Measured",
    "Rewrite",
    "Score",
    "SecondMoment",
    "Sought",
    "Stored",
    "contexts",
    "finetune",
    "generation_entropy",
    "measure",
    "memit",
    "perplexity",
    "rome",
    "second_moment",
    "second_moments",
    "sought",
    "stored",
    "summary",
]
