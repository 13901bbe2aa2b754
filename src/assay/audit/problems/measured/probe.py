"""Linear probes for many labellings of the same rows at once, each one column.

    w = (Zᵀ D Z + λ 1)⁻¹ Zᵀ D y,   y = ±1,   D = diag(½ / class size),   Z standardised and centred under D

Ridge regression on labels, the classes counting alike: the direction of Fisher's discriminant with a shrunken covariance.
It is closed, so the draws of a permutation test are refitted in full instead of being approximated. Where there are fewer
rows than dimensions, the rows are first rotated onto their own span, in which the solution lies.

*Erasing* takes from every row what a linear read-out of a label could use, and no more: LEACE (Belrose et al. 2023,
arXiv 2306.03819, theorem 4.2) for one binary label.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from assay.audit.problems.measured.known import Array, Mask

LAMBDA = 0.3
"""λ, in units of the variance of a dimension: chosen once, on organisms of seeds that judge nothing."""


def space(x: NDArray[np.floating[Any]], mine: Mask) -> Array:
    """Activations ``[n, d]`` in units of the rows of a mask: standardised, ``[n, k]``, with ``k`` at most their number."""
    whole = np.asarray(x, dtype=np.float64)
    spread = whole[mine].std(axis=0)
    z = (whole - whole[mine].mean(axis=0)) / np.where(spread > 1e-9, spread, 1)
    if z.shape[1] <= mine.sum():
        return z
    return np.asarray(z @ np.linalg.svd(z[mine], full_matrices=False)[2].T)


def suspicion(z: Array, good: Mask, bad: Mask) -> Array:
    """How much more like the bad rows than like the good ones each row is, ``[n, columns]``.

    ``z [n, k]``; ``good`` and ``bad [n, columns]`` are the rows that each column is fitted on.
    """
    found = np.zeros(good.shape)
    for column in range(good.shape[1]):
        mine = good[:, column] | bad[:, column]
        inside, is_bad = z[mine], bad[mine, column]
        weights = np.where(is_bad, 0.5 / is_bad.sum(), 0.5 / (~is_bad).sum())
        inside = inside - weights @ inside
        weighted = inside.T * weights
        w = np.linalg.solve(weighted @ inside + LAMBDA * np.eye(z.shape[1]), weighted @ np.where(is_bad, 1.0, -1.0))
        found[:, column] = z @ w
    return found


def area(scores: Array, bad: Mask, good: Mask) -> float:
    """AUROC: how often a bad row outscores a good one, ties counting half. Both masks hold rows."""
    low = np.concatenate([scores[bad], scores[good]])
    ups = int(bad.sum())
    return float((rankdata(low)[:ups].sum() - ups * (ups + 1) / 2) / (ups * int(good.sum())))


def erased(x: Array, label: Mask, mine: Mask) -> Array:
    """Activations ``[n, d]`` from which no linear read-out tells the label, as far as the rows of a mask show it.

    ``x − Σ_xz (Σ_xzᵀ Σ⁺ (x − μ)) / (Σ_xzᵀ Σ⁺ Σ_xz)``, which for one label is LEACE.
    """
    x = np.asarray(x, dtype=np.float64)
    inside = x[mine] - x[mine].mean(axis=0)
    shared = inside.T @ (label[mine] - label[mine].mean()) / len(inside)
    through = np.linalg.pinv(inside.T @ inside / len(inside), hermitian=True) @ shared
    size = float(shared @ through)
    return x if size <= 1e-12 else x - np.outer((x - x[mine].mean(axis=0)) @ through / size, shared)
