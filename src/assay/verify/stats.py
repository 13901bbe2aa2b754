"""The statistics behind a verdict: permutation and sign-flip tests, intervals, equivalence, dose-response, power.

Arrays go in; floats and small frozen values come out. Rules that hold throughout:

- The unit of evidence is the item, or the *cluster* where items share a scenario, fact or template: ``clusters`` gives
  one label per item, and is left out where items are independent.
- A p-value that comes from draws counts the observed value among them, and is never 0.
- Draws come from ``numpy.random.default_rng(seed)``: the same seed gives the same number.
- NaN, infinity and impossible settings raise `BadData`, too few units `EmptyData`, labels of one kind `OneClass`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from assay.errors import BadData, EmptyData, OneClass

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Side = Literal["greater", "two-sided"]
Tail = Literal["greater", "two-sided", "mirrored"]
Method = Literal["bca", "percentile"]
Statistic = Callable[[Array, Array], Array]
"""A weighted statistic: values ``[n, ...]`` and weights ``[draws, n]`` to ``[draws]``; NaN where it is undefined."""

_BLOCK = 1 << 21
"""Numbers held at once while resampling (16 MB)."""

_ROUNDING = 1e-12
"""What differs by less, relative to the numbers it was computed from, is equal."""


@dataclass(frozen=True)
class Interval:
    """An estimate, and a range that covers the truth in a share ``level`` of repetitions."""

    value: float
    low: float
    high: float
    level: float
    n: int
    """Independent units behind it: items, or clusters where they were given."""
    method: str

    def excludes(self, value: float = 0.0) -> bool:
        """Whether ``value`` lies outside."""
        return not self.low <= value <= self.high


@dataclass(frozen=True)
class Effect:
    """A mean with its cluster-robust standard error and its t interval (``interval.n - 1`` degrees of freedom)."""

    value: float
    se: float
    interval: Interval


@dataclass(frozen=True)
class Trend:
    """How the score follows the dose; see `dose_response`."""

    slope: Effect
    """Score per unit of dose, over all doses."""
    p: float
    """Sign-flip p of that slope."""
    below: Effect | None
    """The slope over the negative doses alone; None where there are none."""
    above: Effect | None
    """The slope over the positive doses alone; None where there are none."""
    monotone: bool
    """No step of the curve is shown to go against the trend, and the two sides do not disagree in sign."""
    saturation: float | None
    """Gain per unit of dose at the outermost step over that at the innermost: 1 is linear, 0 a plateau, below 0 a
    turn. A hint without an error bar; None with one dose a side, or where the innermost step gains nothing."""
    curve: tuple[tuple[float, float], ...]
    """(dose, mean effect), by rising dose, with (0, 0)."""

    @property
    def both_signs(self) -> bool:
        """Each side's interval excludes zero, and both slopes have the sign of the whole."""
        sides = (self.below, self.above)
        return all(s is not None and s.interval.excludes() and s.value * self.slope.value > 0 for s in sides)


# ── against a null ────────────────────────────────────────────────────────────────────────────────────────────────────


def permutation_p(observed: float, null: ArrayLike, tail: Tail = "greater") -> float:
    """The share of ``null [draws]`` that is at least as extreme as ``observed``, which counts as a draw itself.

    ``greater``: ``(1 + #{null >= observed}) / (1 + n)``; ``two-sided``: the same for absolute values. ``mirrored`` is
    ``greater`` for a null that is symmetric by construction (an odd statistic of directions that are as likely as their
    negatives): every draw, the observed one too, then counts with both signs, and 1 / (2n + 2) is in reach.

    Exact where observed and drawn are exchangeable under the null. Ties count against. Phipson & Smyth 2010,
    *Permutation P-values Should Never Be Zero*.
    """
    return float(max_statistic_p([observed], _finite("null", null)[:, None], tail, scaled=False)[0])


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
    seen, drawn = _finite("observed", observed), _finite("null", null, ndim=2)
    _require(drawn.shape[1] == len(seen), f"{drawn.shape[1]} null cells for {len(seen)}", "pass null as [draws, cells]")
    _known("tail", tail, get_args(Tail))
    pool = np.vstack([seen, drawn])
    if scaled:
        size = np.sqrt(np.mean(pool**2, axis=0))
        pool = pool / np.where(size > 0, size, 1)
    if tail == "two-sided":
        pool = np.abs(pool)
    largest = pool.max(axis=1)
    if tail == "mirrored":
        largest = np.concatenate([largest, -pool.min(axis=1)])
    return np.mean(largest[:, None] >= pool[0] - _ROUNDING * np.abs(pool[0]), axis=0)


def least_draws(alpha: float = 0.05, tail: Tail = "greater") -> int:
    """The fewest null draws with which a p-value can reach ``alpha`` at all: 19 for .05, 9 if ``mirrored``."""
    _known("tail", tail, get_args(Tail))
    return max(1, math.ceil(1 / _fraction("alpha", alpha) / (2 if tail == "mirrored" else 1)) - 1)


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
    data = _finite("values", values)
    _known("tail", tail, get_args(Side))
    _require(draws >= 1, f"draws={draws!r}", "give 1 or more")
    codes, count = _codes(clusters, len(data))
    sums = np.bincount(codes, data, count)
    if exact := 2**count <= draws + 1:
        null = (1.0 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)) @ sums
    else:
        rng = np.random.default_rng(seed)
        null = np.concatenate([rng.choice((-1.0, 1.0), (size, count)) @ sums for size in _blocks(draws, count)])
    seen, rounding = sums.sum(), _ROUNDING * np.abs(sums).sum()
    if tail == "two-sided":
        seen, null = abs(seen), np.abs(null)
    hits = int(np.count_nonzero(null >= seen - rounding))
    return hits / len(null) if exact else (1 + hits) / (1 + len(null))


# ── effects and intervals ─────────────────────────────────────────────────────────────────────────────────────────────


def paired_effect(values: ArrayLike, clusters: ArrayLike | None = None, *, level: float = 0.95) -> Effect:
    """The mean of paired differences ``values [n]`` with a cluster-robust standard error and a t interval.

    ``se = sqrt(k / (k - 1) * sum over the k clusters of (sum of residuals)^2) / n``; without clusters ``sd / sqrt(n)``.
    Below about 20 clusters of very unequal size the interval is somewhat short. Liang & Zeger 1986; for evaluations
    Miller 2024, *Adding Error Bars to Evals*. Raises `EmptyData` for fewer than two units.
    """
    data = _finite("values", values)
    codes, count = _codes(clusters, len(data))
    _enough(count, "a standard error")
    value, se = float(data.mean()), float(_standard_error(data[:, None], codes, count)[0])
    half = float(stats.t.isf((1 - _fraction("level", level)) / 2, count - 1)) * se
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
    data = _finite("values", values, ndim=None)
    _fraction("level", level)
    _known("method", method, get_args(Method))
    _require(draws >= 1, f"draws={draws!r}", "give 1 or more")
    codes, count = _codes(clusters, len(data))
    homes = _homes(codes, count, strata)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [statistic(data, _resample(homes, size, rng)[:, codes]) for size in _blocks(draws, len(data))]
    )
    drawn = drawn[np.isfinite(drawn)]
    lost = f"the statistic is undefined in {draws - len(drawn)} of {draws} resamples"
    _require(len(drawn) >= 0.95 * draws, lost, "give more clusters, or strata that keep what the statistic needs")
    value = float(statistic(data, np.ones((1, len(data))))[0])
    if np.ptp(drawn) <= _ROUNDING * np.abs(drawn).max():
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
    _require(n >= 1 and 0 <= k <= n, f"k={k!r} of n={n!r} is no proportion", "0 <= k <= n, and n is not 0")
    found = stats.binomtest(int(k), int(n)).proportion_ci(_fraction("level", level), "exact")
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
    codes, count = _codes(clusters, len(data))
    share = np.bincount(codes, data[:, 1], count) / np.bincount(codes, minlength=count)
    mixed = bool(np.any((share > 0) & (share < 1)))
    value = auroc(scores, labels)
    if value in (0, 1):
        pairs = max(1, count // 2) if mixed else int(min(np.sum(share), np.sum(1 - share)))
        return clopper_pearson(int(value) * pairs, pairs, level=level)
    strata = None if mixed else data[:, 1]
    return bootstrap_interval(data, _area, clusters=codes, strata=strata, level=level, draws=draws, seed=seed)


# ── several tests, and planning ───────────────────────────────────────────────────────────────────────────────────────


def holm(ps: ArrayLike) -> Array:
    """Adjusted p-values in the order given: the chance of any false rejection stays below alpha. Holm 1979."""
    raw = _finite("ps", ps)
    _require(raw.min() >= 0 and raw.max() <= 1, f"ps run from {raw.min():g} to {raw.max():g}", "pass p-values")
    order = np.argsort(raw)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)))
    return adjusted


def equivalence_p(values: ArrayLike, bound: float, clusters: ArrayLike | None = None) -> float:
    """The p of "the mean is ``bound`` or more away from zero": the larger of two one-sided t tests (TOST).

    When small, the effect is shown to be below what would matter, which a large p of an ordinary test never shows.
    Schuirmann 1987. Raises `BadData` where the units do not vary: no test is possible then.
    """
    _require(0 < bound < math.inf, f"bound={bound!r} is no positive number", "give the least effect that would matter")
    effect = paired_effect(values, clusters)
    _require(effect.se > 0, f"every unit is at {effect.value:g}: no test is possible", "report the value itself")
    return float(stats.t.sf((bound - abs(effect.value)) / effect.se, effect.interval.n - 1))


def minimum_detectable_effect(se: float, *, alpha: float = 0.05, power: float = 0.8, tail: Side = "two-sided") -> float:
    """The true effect that a test with standard error ``se`` finds with chance ``power``: ``(z_alpha + z_power) se``.

    By the normal approximation, which is too small with few units: see `items_needed` for the exact relation.
    """
    _require(0 < se < math.inf, f"se={se!r} is no positive number", "take it from paired_effect")
    return float(stats.norm.isf(_one_tail(alpha, tail)) + stats.norm.ppf(_fraction("power", power))) * se


def items_needed(sd: float, effect: float, *, alpha: float = 0.05, power: float = 0.8, tail: Side = "two-sided") -> int:
    """The fewest independent items with which a t test finds a mean of ``effect``: exact, by the noncentral t.

    ``sd`` is the standard deviation of one item's paired difference (of cluster means, to plan clusters). Rejections of
    the wrong sign do not count as power.
    """
    ok = 0 < sd < math.inf and 0 < abs(effect) < math.inf
    _require(ok, f"sd={sd!r}, effect={effect!r}: no plan follows", "sd is positive, and effect is not 0")
    size, cut = abs(effect) / sd, _one_tail(alpha, tail)
    n = max(2, math.ceil((minimum_detectable_effect(1, alpha=alpha, power=power, tail=tail) / size) ** 2))
    while stats.nct.sf(stats.t.isf(cut, n - 1), n - 1, size * math.sqrt(n)) < power:
        n += 1  # the normal figure is short by a few
    return n


# ── dose and response ─────────────────────────────────────────────────────────────────────────────────────────────────


def dose_slopes(doses: ArrayLike, scores: ArrayLike) -> Array:
    """Each item's least-squares slope through the origin, ``sum_k x_k s_k / sum_k x_k^2``: score per unit of dose.

    With doses in mirrored pairs this is the slope of the odd part ``(s(x) - s(-x)) / 2``: the undosed score, and damage
    that both signs do alike, cancel exactly, and the negated direction has the negated slope. That makes it the
    statistic of a verdict. With other doses pass changes against dose 0.

    Args:
        doses: ``[doses]``.
        scores: ``[..., items, doses]``, to ``[..., items]``.
    """
    x, s = _finite("doses", doses), _finite("scores", scores, ndim=None)
    _require(s.shape[-1] == len(x), f"{s.shape[-1]} columns for {len(x)} doses", "pass scores as [items, doses]")
    _require(len(np.unique(x)) == len(x), f"doses={x.tolist()} repeat", "give each dose once")
    _require(bool(np.any(x)), f"doses={x.tolist()} give no slope", "give a dose other than 0")
    return s @ x / (x @ x)


def dose_response(
    doses: ArrayLike,
    effects: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    tail: Side = "two-sided",
    level: float = 0.95,
    draws: int = 9_999,
    seed: int = 0,
) -> Trend:
    """Does the score follow the dose, on both sides of zero?

    The items' slopes (`dose_slopes`) are averaged, and tested by sign flips; each side of zero is also estimated alone.
    The curve counts as monotone unless the sides disagree, or a step goes against the trend by a one-sided t test at
    ``1 - level``, Holm-corrected over the steps: with few items that means only "not shown to turn".

    Args:
        doses: ``[doses]``, best in mirrored pairs.
        effects: ``[items, doses]``, the score's change against dose 0; a column for dose 0, if there, is subtracted.
        clusters: ``[items]`` labels.
        tail: of the slope's p.
        level: of the intervals.
        draws: as in `sign_flip_p`.
        seed: of the sign flips.
    """
    x, e = _finite("doses", doses), _finite("effects", effects, ndim=2)
    dose_slopes(x, e)  # refuses what does not fit
    codes, count = _codes(clusters, len(e))
    if not np.any(x == 0):
        x, e = np.append(x, 0), np.column_stack([e, np.zeros(len(e))])
    order = np.argsort(x)
    x, e = x[order], (e - e[:, x == 0])[:, order]
    slopes = dose_slopes(x, e)
    whole = paired_effect(slopes, codes, level=level)
    below, above = (
        paired_effect(dose_slopes(x[side], e[:, side]), codes, level=level) if np.any(side) else None
        for side in (x < 0, x > 0)
    )
    sign = math.copysign(1, whole.value)
    gains = sign * np.diff(e, axis=1) / np.diff(x)
    mean, se = gains.mean(axis=0), _standard_error(gains, codes, count)
    turn = np.where(se > 0, stats.t.cdf(mean / np.where(se > 0, se, 1), count - 1), mean >= 0)
    agree = all(side is None or side.value * sign >= 0 for side in (below, above))
    return Trend(
        slope=whole,
        p=sign_flip_p(slopes, codes, tail=tail, draws=draws, seed=seed),
        below=below,
        above=above,
        monotone=agree and bool(holm(turn).min() > 1 - level),
        saturation=_saturation(mean, int(np.count_nonzero(x < 0))),
        curve=tuple(zip(x.tolist(), e.mean(axis=0).tolist(), strict=True)),
    )


# ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _saturation(gains: Array, below: int) -> float | None:
    """From ``gains [steps]`` by rising dose, in the trend's sign; the first ``below`` of them lie under dose 0."""
    sides = [side for side in (gains[:below][::-1], gains[below:]) if len(side)]
    inner, outer = sum(side[0] for side in sides), sum(side[-1] for side in sides)
    return float(outer / inner) if inner > 0 and any(len(side) > 1 for side in sides) else None


def _standard_error(values: Array, codes: Codes, count: int) -> Array:
    """Cluster-robust standard errors of the column means of ``values [n, columns]``; 0 where it is all rounding."""
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, codes, values - values.mean(axis=0))
    se = np.sqrt(count / (count - 1) * np.sum(sums**2, axis=0)) / len(values)
    return np.where(se > _ROUNDING * np.abs(values).max(axis=0), se, 0)


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
    for size in _blocks(count, len(data)):
        parts.append(statistic(data, (codes != np.arange(first, first + size)[:, None]).astype(np.float64)))
        first += size
    return np.concatenate(parts)


def _bca(z: Array, value: float, drawn: Array, left: Array) -> Array:
    """``z`` moved by the bias b and the acceleration a: ``b + (b + z) / (1 - a (b + z))``."""
    edge = _ROUNDING * np.abs(drawn).max()
    below = (np.mean(drawn < value - edge) + np.mean(drawn <= value + edge)) / 2
    bias = stats.norm.ppf(np.clip(below, 1 / (len(drawn) + 1), 1 - 1 / (len(drawn) + 1)))
    pull = np.nanmean(left) - left[np.isfinite(left)]
    spread = np.sum(pull**2)
    shape = 1 - (np.sum(pull**3) / (6 * spread**1.5) if spread > 0 else 0.0) * (bias + z)
    # At the formula's pole the limit is the end of the distribution; past it, it would turn the interval round.
    return np.where(shape > 0, bias + (bias + z) / np.where(shape > 0, shape, 1), np.sign(z) * np.inf)


def _blocks(rows: int, width: int) -> Iterator[int]:
    """Sizes that sum to ``rows``, each small enough for a matrix of that many rows and ``width`` columns."""
    most = max(1, _BLOCK // width)
    for start in range(0, rows, most):
        yield min(most, rows - start)


def _homes(codes: Codes, count: int, strata: ArrayLike | None) -> Codes:
    """The stratum of each cluster, ``[clusters]``."""
    homes = np.zeros(count, dtype=np.intp)
    if strata is not None:
        of_item, _ = _codes(strata, len(codes))
        homes[codes] = of_item
        _require(bool(np.all(homes[codes] == of_item)), "a cluster lies in two strata", "strata hold whole clusters")
    _enough(int(np.bincount(homes).min()), "a bootstrap, in each stratum,")
    return homes


def _codes(clusters: ArrayLike | None, n: int) -> tuple[Codes, int]:
    """Each item's cluster as 0 … count - 1, and the count."""
    if clusters is None:
        return np.arange(n), n
    labels = np.asarray(clusters)
    _require(labels.shape == (n,), f"labels of shape {labels.shape} for {n} items", "give one label per item")
    nan = labels.dtype.kind == "f" and bool(np.isnan(labels).any())
    _require(not nan, "labels hold NaN", "give each item a label")
    try:
        names, codes = np.unique(labels, return_inverse=True)
    except TypeError:
        raise BadData("labels of several types cannot be told apart", hint="use one type") from None
    return codes, len(names)


def _scored(scores: ArrayLike, labels: ArrayLike) -> Array:
    """Scores and labels as ``[n, 2]``."""
    s, y = _finite("scores", scores), _finite("labels", labels)
    _require(len(s) == len(y), f"{len(s)} scores and {len(y)} labels", "give one label per score")
    _require(bool(np.isin(y, (0, 1)).all()), f"labels hold {np.unique(y)[:5].tolist()}", "a label is 0 or 1")
    if y.min() == y.max():
        raise OneClass(f"all {len(y)} labels are {bool(y[0])}", hint="an AUROC compares positives with negatives")
    return np.column_stack([s, y])


def _finite(name: str, values: ArrayLike, ndim: int | None = 1) -> Array:
    """``values`` as finite floats, not empty, with ``ndim`` axes (None: one or more)."""
    try:
        data = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadData(f"{name}: {error}", hint="pass an array of numbers") from None
    _require(data.ndim >= 1 if ndim is None else data.ndim == ndim, f"{name} of shape {data.shape}", "reshape them")
    if data.size == 0:
        raise EmptyData(f"{name} are empty", hint="give at least one value")
    bad = int(np.count_nonzero(~np.isfinite(data)))
    _require(bad == 0, f"{bad} of {data.size} {name} are NaN or infinite", "leave out, and count, what is missing")
    return data


def _require(ok: bool, what: str, hint: str) -> None:
    if not ok:
        raise BadData(what, hint=hint)


def _enough(units: int, what: str) -> None:
    if units < 2:
        raise EmptyData(f"{what} needs two independent units", found=units, hint="give more items or clusters")


def _known(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise BadData(f"{name}={value!r} is not known", nearest=", ".join(known), hint="choose one of these")


def _fraction(name: str, value: float) -> float:
    _require(0 < value < 1, f"{name}={value!r} is not between 0 and 1", "write 95 % as 0.95")
    return value


def _one_tail(alpha: float, tail: str) -> float:
    _known("tail", tail, get_args(Side))
    return _fraction("alpha", alpha) / (2 if tail == "two-sided" else 1)
