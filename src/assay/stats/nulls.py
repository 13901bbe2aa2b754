"""Against a null: permutation, max-statistic and sign-flip tests."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike

from assay.stats.values import ROUNDING, Array, Side, Tail, blocks, codes_of, finite, fraction, known, require


def permutation_p(observed: float, null: ArrayLike, tail: Tail = "greater") -> float:
    """The share of ``null [draws]`` that is at least as extreme as ``observed``, which counts as a draw itself.

    ``greater``: ``(1 + #{null >= observed}) / (1 + n)``; ``two-sided``: the same for absolute values. ``mirrored`` is
    ``greater`` for a null that is symmetric by construction (an odd statistic of directions that are as likely as their
    negatives): every draw, the observed one too, then counts with both signs, and 1 / (2n + 2) is in reach.

    Exact where observed and drawn are exchangeable under the null. Ties count against. Phipson & Smyth 2010,
    *Permutation P-values Should Never Be Zero*.
    """
    return float(max_statistic_p([observed], finite("null", null)[:, None], tail, scaled=False)[0])


def max_statistic_p(observed: ArrayLike, null: ArrayLike, tail: Tail = "greater", *, scaled: bool = True) -> Array:
    """The p of each cell of a search (layers × doses), against the largest cell of every draw: single-step max-T.

    ``p[c] = (1 + #{max over cells of a draw >= observed[c]}) / (1 + draws)``. However the cells are correlated,
    the chance that any null cell falls to alpha is at most alpha, if each row of ``null`` is one draw carried through
    every cell. Westfall & Young 1993, *Resampling-Based Multiple Testing*.

    Args:
        observed: ``[cells]``.
        null: ``[draws, cells]``.
        tail: as in `permutation_p`.
        scaled: first divide each cell by its root mean square over the draws and the observed value, so that no cell
            decides because its numbers are large. Observed and drawn are treated alike, so the test stays exact.
    """
    seen, drawn = finite("observed", observed), finite("null", null, ndim=2)
    require(drawn.shape[1] == len(seen), f"{drawn.shape[1]} null cells for {len(seen)}", "pass null as [draws, cells]")
    known("tail", tail, get_args(Tail))
    pool = np.vstack([seen, drawn])
    if scaled:
        size = np.sqrt(np.mean(pool**2, axis=0))
        pool = pool / np.where(size > 0, size, 1)
    if tail == "two-sided":
        pool = np.abs(pool)
    largest = pool.max(axis=1)
    if tail == "mirrored":
        largest = np.concatenate([largest, -pool.min(axis=1)])
    return np.mean(largest[:, None] >= pool[0] - ROUNDING * np.abs(pool[0]), axis=0)


def least_draws(alpha: float = 0.05, tail: Tail = "greater") -> int:
    """The fewest null draws with which a p-value can reach ``alpha`` at all: 19 for .05, 9 if ``mirrored``."""
    known("tail", tail, get_args(Tail))
    return max(1, math.ceil(1 / fraction("alpha", alpha) / (2 if tail == "mirrored" else 1)) - 1)


def sign_flip_p(
    values: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    tail: Side = "two-sided",
    draws: int = 9_999,
    seed: int = 0,
) -> float:
    """The p of "``values [n]`` are symmetric about zero": flip the sign of whole clusters, compare the sums.

    Exact over all 2^k patterns of k clusters where these are no more than ``draws + 1`` (k <= 13 by default), else from
    random patterns. The floor is 2^-k, twice that if two-sided: with 4 clusters .05 is out of reach. Fisher 1935,
    *The Design of Experiments*.
    """
    data = finite("values", values)
    known("tail", tail, get_args(Side))
    require(draws >= 1, f"draws={draws!r}", "give 1 or more")
    codes, count = codes_of(clusters, len(data))
    sums = np.bincount(codes, data, count)
    if exact := 2**count <= draws + 1:
        null = (1.0 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)) @ sums
    else:
        rng = np.random.default_rng(seed)
        null = np.concatenate([rng.choice((-1.0, 1.0), (size, count)) @ sums for size in blocks(draws, count)])
    seen, rounding = sums.sum(), ROUNDING * np.abs(sums).sum()
    if tail == "two-sided":
        seen, null = abs(seen), np.abs(null)
    hits = int(np.count_nonzero(null >= seen - rounding))
    return hits / len(null) if exact else (1 + hits) / (1 + len(null))
