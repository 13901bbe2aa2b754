"""Read-outs of truth beside the mean difference: fitted on watched rows, scored anywhere.

Each takes activations ``[n, d]`` with labels and gives scores for ``[..., d]``, higher where truer.

=======================  =============================================================================================
mean difference          along mean of true − mean of false (Marks & Tegmark 2023, section 5, mass-mean)
logistic regression      on standardised activations, C = .1
whitened                 the mean difference through the inverse of the covariance within classes, shrunk
principal component      the first, its sign by the labels: all that an unsupervised search finds
=======================  =============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from assay.audit.problems.truth.readout import Array, whitened

Probe = Callable[[Array, NDArray[np.bool_], Array], Array]


def mean_difference(x: Array, true: NDArray[np.bool_], at: Array) -> Array:
    """Mass-mean."""
    return np.asarray((at - x.mean(axis=0)) @ (x[true].mean(axis=0) - x[~true].mean(axis=0)))


def logistic(x: Array, true: NDArray[np.bool_], at: Array) -> Array:
    """Logistic regression."""
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    fitted = LogisticRegression(C=0.1, max_iter=500, class_weight="balanced").fit((x - mean) / scale, true)
    return np.asarray((at - mean) / scale @ fitted.coef_[0] + fitted.intercept_[0])


def linear_discriminant(x: Array, true: NDArray[np.bool_], at: Array) -> Array:
    """The covariance-tilted mean difference."""
    means = np.where(true[:, None], x[true].mean(axis=0), x[~true].mean(axis=0))
    gap = x[true].mean(axis=0) - x[~true].mean(axis=0)
    return np.asarray((at - x.mean(axis=0)) @ whitened(x - means, gap[:, None])[:, 0])


def principal(x: Array, true: NDArray[np.bool_], at: Array) -> Array:
    """The first principal component."""
    inside = x - x.mean(axis=0)
    first = np.linalg.svd(inside, full_matrices=False)[2][0]
    sign = np.sign(inside[true].mean(axis=0) @ first - inside[~true].mean(axis=0) @ first) or 1.0
    return np.asarray((at - x.mean(axis=0)) @ first * sign)


PROBES: Mapping[str, Probe] = MappingProxyType(
    {
        "mean difference": mean_difference,
        "logistic regression": logistic,
        "whitened": linear_discriminant,
        "principal component": principal,
    }
)
