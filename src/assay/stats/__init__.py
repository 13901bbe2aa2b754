"""The statistics behind a verdict: permutation and sign-flip tests, intervals, equivalence, dose-response, power;
likelihood ratios, whether they are calibrated, and e-values.

Arrays go in; floats and small frozen values come out. Rules that hold throughout:

- The unit of evidence is the item, or the *cluster* where items share a scenario, fact or template: ``clusters`` gives
  one label per item, and is left out where items are independent.
- A p-value that comes from draws counts the observed value among them, and is never 0.
- Draws come from ``numpy.random.default_rng(seed)``: the same seed gives the same number.
- NaN, infinity and impossible settings raise `BadData`, too few units `EmptyData`, labels of one kind `OneClass`.
"""

from __future__ import annotations

from assay.stats.calibration import (
    Calibration,
    Misleading,
    Onset,
    Separation,
    calibrate,
    cllr,
    cllr_min,
    held_out_ratios,
    misleading,
    models_needed,
    onset,
    score_ratio,
    separation,
)
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
from assay.stats.likelihood import (
    PROCEDURE_CHECK,
    Alternative,
    Evidence,
    Weight,
    average_e,
    binary_ratio,
    e_bh,
    likelihood_ratio,
    reference_e,
    sequential_product,
    verbal,
    weigh,
)
from assay.stats.nulls import least_draws, max_statistic_p, permutation_p, sign_flip_p
from assay.stats.planning import equivalence_p, holm, items_needed, minimum_detectable_effect
from assay.stats.values import Array, Effect, Interval

__all__ = [
    "PROCEDURE_CHECK",
    "Alternative",
    "Array",
    "Calibration",
    "Effect",
    "Evidence",
    "Interval",
    "Misleading",
    "Onset",
    "Separation",
    "Statistic",
    "Trend",
    "Weight",
    "auroc",
    "auroc_interval",
    "average_e",
    "binary_ratio",
    "bootstrap_interval",
    "calibrate",
    "cllr",
    "cllr_min",
    "clopper_pearson",
    "dose_response",
    "dose_slopes",
    "e_bh",
    "equivalence_p",
    "held_out_ratios",
    "holm",
    "items_needed",
    "least_draws",
    "likelihood_ratio",
    "max_statistic_p",
    "minimum_detectable_effect",
    "misleading",
    "models_needed",
    "onset",
    "paired_effect",
    "permutation_p",
    "reference_e",
    "score_ratio",
    "separation",
    "sequential_product",
    "sign_flip_p",
    "verbal",
    "weigh",
    "weighted_mean",
]
