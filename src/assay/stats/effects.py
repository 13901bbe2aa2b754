"""Effects and intervals: means over clusters, the bootstrap, proportions, AUROC."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from assay.errors import OneClass
from assay.stats.values import (
    ROUNDING,
    Array,
    Codes,
    Effect,
    Interval,
    blocks,
    codes_of,
    enough,
    finite,
    fraction,
    known,
    require,
    standard_error,
)

Method = Literal["bca", "percentile"]
Statistic = Callable[[Array, Array], Array]
"""A weighted statistic: values ``[n, ...]`` and weights ``[draws, n]`` to ``[draws]``; NaN where it is undefined."""


def paired_effect(values: ArrayLike, clusters: ArrayLike | None = None, *, level: float = 0.95) -> Effect:
    """The mean of paired differences ``values [n]`` with a cluster-robust standard error and a t interval.

    ``se = sqrt(k / (k - 1) * sum over the k clusters of (sum of residuals)^2) / n``; without clusters ``sd / sqrt(n)``.
    Below about 20 clusters of very unequal size the interval is somewhat short. Liang & Zeger 1986; for evaluations
    Miller 2024, *Adding Error Bars to Evals*. Raises `EmptyData` for fewer than two units.
    """
    data = finite("values", values)
    codes, count = codes_of(clusters, len(data))
    enough(count, "a standard error")
    value, se = float(data.mean()), float(standard_error(data[:, None], codes, count)[0])
    half = float(stats.t.isf((1 - fraction("level", level)) / 2, count - 1)) * se
    return Effect(value, se, Interval(value, value - half, value + half, level, count, "t"))


def weighted_mean(values: Array, weights: Array) -> Array:
    """The mean of ``values [n]`` under each row of ``weights [draws, n]``."""
    return weights @ values / weights.sum(axis=1)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Statistic = weighted_mean,
    *,
    clusters: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    level: float = 0.95,
    draws: int = 2_000,
    seed: int = 0,
    method: Method = "bca",
) -> Interval:
    """A bootstrap interval of a weighted statistic: whole clusters are resampled, with replacement, within strata.

    ``percentile`` reads quantiles of the resampled statistic; ``bca`` first moves them for bias and skew (Efron 1987).
    Both widen the level by what a resample of k units is too narrow, ``z -> sqrt(k / (k - 1)) t(k - 1)`` (Hesterberg
    2015, *What Teachers Should Know About the Bootstrap*). Below about 10 units trust no bootstrap; the t interval of
    `paired_effect` covers better. Values that do not vary give no width, and ``constant`` as the method.

    Args:
        values: ``[n]`` or ``[n, ...]``, items first.
        statistic: see `Statistic`.
        clusters: ``[n]`` labels of what is resampled.
        strata: ``[n]`` labels; each stratum keeps its number of clusters.
        level: coverage aimed at.
        draws: resamples.
        seed: of the resamples.
        method: as above.

    Raises:
        EmptyData: fewer than two clusters in a stratum.
        BadData: NaN, or a statistic that is undefined in more than one resample in twenty.
    """
    data = finite("values", values, ndim=None)
    fraction("level", level)
    known("method", method, get_args(Method))
    require(draws >= 1, f"draws={draws!r}", "give 1 or more")
    codes, count = codes_of(clusters, len(data))
    homes = _homes(codes, count, strata)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [statistic(data, _resample(homes, size, rng)[:, codes]) for size in blocks(draws, len(data))]
    )
    drawn = drawn[np.isfinite(drawn)]
    lost = f"the statistic is undefined in {draws - len(drawn)} of {draws} resamples"
    require(len(drawn) >= 0.95 * draws, lost, "give more clusters, or strata that keep what the statistic needs")
    value = float(statistic(data, np.ones((1, len(data))))[0])
    if np.ptp(drawn) <= ROUNDING * np.abs(drawn).max():
        return Interval(value, value, value, level, count, "constant")
    free = count - int(homes.max()) - 1
    reach = math.sqrt((free + 1) / free) * stats.t.isf((1 - level) / 2, free)
    z = np.array([-reach, reach])
    if method == "bca":
        z = _bca(z, value, drawn, _leave_one_out(data, statistic, codes, count))
    low, high = np.quantile(drawn, stats.norm.cdf(z))
    return Interval(value, float(low), float(high), level, count, method)


def clopper_pearson(k: int, n: int, *, level: float = 0.95) -> Interval:
    """The exact interval of a proportion, k of n; it covers at least ``level``. Clopper & Pearson 1934."""
    require(n >= 1 and 0 <= k <= n, f"k={k!r} of n={n!r} is no proportion", "0 <= k <= n, and n is not 0")
    found = stats.binomtest(int(k), int(n)).proportion_ci(fraction("level", level), "exact")
    return Interval(k / n, float(found.low), float(found.high), level, int(n), "clopper-pearson")


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """The chance that a positive item outscores a negative one, ties counting half: Mann-Whitney's U / (n+ n-).

    ``scores [n]``; ``labels [n]`` are booleans, or 0 and 1. Raises `OneClass` where all labels are alike.
    """
    data = _scored(scores, labels)
    return float(_area(data, np.ones((1, len(data))))[0])


def auroc_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    draws: int = 2_000,
    seed: int = 0,
) -> Interval:
    """The BCa cluster-bootstrap interval of an AUROC, within classes unless some cluster holds both.

    At perfect separation a bootstrap knows nothing. There the interval is Clopper-Pearson's over disjoint pairs of a
    positive and a negative unit, since each is an independent trial of the event whose chance the AUROC is.
    """
    data = _scored(scores, labels)
    codes, count = codes_of(clusters, len(data))
    share = np.bincount(codes, data[:, 1], count) / np.bincount(codes, minlength=count)
    mixed = bool(np.any((share > 0) & (share < 1)))
    value = auroc(scores, labels)
    if value in (0, 1):
        pairs = max(1, count // 2) if mixed else int(min(np.sum(share), np.sum(1 - share)))
        return clopper_pearson(int(value) * pairs, pairs, level=level)
    strata = None if mixed else data[:, 1]
    return bootstrap_interval(data, _area, clusters=codes, strata=strata, level=level, draws=draws, seed=seed)


def _area(data: Array, weights: Array) -> Array:
    """AUROC of ``data [n, (score, label)]`` under each row of ``weights``; NaN where a class has no weight."""
    order = np.argsort(data[:, 0], kind="stable")
    (scores, labels), weights = data[order].T, weights[:, order]
    starts = np.flatnonzero(np.diff(scores, prepend=-np.inf))
    ups, downs = (np.add.reduceat(weights * kind, starts, axis=1) for kind in (labels, 1 - labels))
    beaten = np.cumsum(downs, axis=1) - downs / 2
    with np.errstate(invalid="ignore"):
        return np.sum(ups * beaten, axis=1) / (ups.sum(axis=1) * downs.sum(axis=1))


def _resample(homes: Codes, draws: int, rng: np.random.Generator) -> Array:
    """How often each cluster comes up in each draw, ``[draws, clusters]``; ``homes`` is each cluster's stratum."""
    counts = np.empty((draws, len(homes)))
    for stratum in range(int(homes.max()) + 1):
        members = np.flatnonzero(homes == stratum)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
    return counts


def _leave_one_out(data: Array, statistic: Statistic, codes: Codes, count: int) -> Array:
    """The statistic without each cluster in turn, ``[clusters]``."""
    first, parts = 0, []
    for size in blocks(count, len(data)):
        parts.append(statistic(data, (codes != np.arange(first, first + size)[:, None]).astype(np.float64)))
        first += size
    return np.concatenate(parts)


def _bca(z: Array, value: float, drawn: Array, left: Array) -> Array:
    """``z`` moved by the bias b and the acceleration a: ``b + (b + z) / (1 - a (b + z))``."""
    edge = ROUNDING * np.abs(drawn).max()
    below = (np.mean(drawn < value - edge) + np.mean(drawn <= value + edge)) / 2
    bias = stats.norm.ppf(np.clip(below, 1 / (len(drawn) + 1), 1 - 1 / (len(drawn) + 1)))
    pull = np.nanmean(left) - left[np.isfinite(left)]
    spread = np.sum(pull**2)
    shape = 1 - (np.sum(pull**3) / (6 * spread**1.5) if spread > 0 else 0.0) * (bias + z)
    # At the formula's pole the limit is the end of the distribution; past it, it would turn the interval round.
    return np.where(shape > 0, bias + (bias + z) / np.where(shape > 0, shape, 1), np.sign(z) * np.inf)


def _homes(codes: Codes, count: int, strata: ArrayLike | None) -> Codes:
    """The stratum of each cluster, ``[clusters]``."""
    homes = np.zeros(count, dtype=np.intp)
    if strata is not None:
        of_item, _ = codes_of(strata, len(codes))
        homes[codes] = of_item
        require(bool(np.all(homes[codes] == of_item)), "a cluster lies in two strata", "strata hold whole clusters")
    enough(int(np.bincount(homes).min()), "a bootstrap, in each stratum,")
    return homes


def _scored(scores: ArrayLike, labels: ArrayLike) -> Array:
    """Scores and labels as ``[n, 2]``."""
    s, y = finite("scores", scores), finite("labels", labels)
    require(len(s) == len(y), f"{len(s)} scores and {len(y)} labels", "give one label per score")
    require(bool(np.isin(y, (0, 1)).all()), f"labels hold {np.unique(y)[:5].tolist()}", "a label is 0 or 1")
    if y.min() == y.max():
        raise OneClass(f"all {len(y)} labels are {bool(y[0])}", hint="an AUROC compares positives with negatives")
    return np.column_stack([s, y])
