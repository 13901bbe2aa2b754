"""The statistics behind a verdict: permutation and sign-flip tests, intervals, equivalence, dose-response, power.

Arrays go in; floats and small frozen values come out. Rules that hold throughout:

- The unit of evidence is the item, or the *cluster* where items share a scenario, fact or template: ``clusters`` gives
  one label per item, and is left out where items are independent.
- A p-value that comes from draws counts the observed value among them, and is never 0.
- Draws come from ``numpy.random.default_rng(seed)``: the same seed gives the same number.
- NaN, infinity and impossible settings raise `BadData`, too few units `EmptyData`, labels of one kind `OneClass`.
"""

from __future__ import annotations

from assay.stats.dose import Trend, dose_response, dose_slopes
from assay.stats.effects import (
    Statistic,
    auroc,
    auroc_interval,
    bootstrap_interval,
    clopper_pearson,
    paired_effect,
    weighted_mean,
)
from assay.stats.nulls import least_draws, max_statistic_p, permutation_p, sign_flip_p
from assay.stats.planning import equivalence_p, holm, items_needed, minimum_detectable_effect
from assay.stats.values import Array, Effect, Interval

__all__ = [
    "Array",
    "Effect",
    "Interval",
    "Statistic",
    "Trend",
    "auroc",
    "auroc_interval",
    "bootstrap_interval",
    "clopper_pearson",
    "dose_response",
    "dose_slopes",
    "equivalence_p",
    "holm",
    "items_needed",
    "least_draws",
    "max_statistic_p",
    "minimum_detectable_effect",
    "paired_effect",
    "permutation_p",
    "sign_flip_p",
    "weighted_mean",
]
