"""Do the numbers mean what they say? Scores to likelihood ratios, C_llr, separation of twins, and when a claim sets in.

The unit is the trained model throughout: one number per model, and several prompts of one model averaged before. Log
likelihood ratios are natural (nats); C_llr is in bits, so that 1 is what "always 1" costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from assay.errors import EmptyData
from assay.stats.effects import auroc_interval, clopper_pearson
from assay.stats.likelihood import Weight, weigh
from assay.stats.values import ROUNDING, Array, Interval, codes_of, enough, finite, fraction, require


@dataclass(frozen=True)
class Calibration:
    """A line from scores to log likelihood ratios; see `calibrate`."""

    slope: float
    """Nats per unit of score."""
    intercept: float
    """Nats, without the training set's prior log odds."""
    planted: int
    other: int
    """Models it was fitted on."""

    def log_lrs(self, scores: ArrayLike) -> Array:
        """``intercept + slope * scores [n]``, not capped: `weigh` does that."""
        return self.intercept + self.slope * finite("scores", scores)


@dataclass(frozen=True)
class Misleading:
    """How often evidence points the wrong way; see `misleading`."""

    planted: Interval
    """Share of planted models with evidence against."""
    other: Interval
    """Share of the others with evidence for."""


@dataclass(frozen=True)
class Separation:
    """How far planted models score above clean ones; see `separation`."""

    auroc: Interval
    p: float | None
    """One-sided, exact, by permutation of models; None unless separated perfectly."""
    sensitivity: Interval | None
    """Of a threshold between the two; None unless separated perfectly."""


@dataclass(frozen=True)
class Onset:
    """When a prediction came to hold; see `onset`."""

    step: float | None
    """The first checkpoint from which on it holds; None: not by the end."""
    after: float | None
    """The last checkpoint at which it did not hold; None: it held from the first."""
    low: float | None
    """The onset lies after this step; None: perhaps before the series."""
    high: float | None
    """And at this step or before; None: perhaps not by the end."""
    level: float
    n: int
    """Independent units behind it."""


def calibrate(planted: ArrayLike, other: ArrayLike, *, ridge: float = 1.0) -> Calibration:
    """The line that turns a score into a log likelihood ratio, by regularised logistic regression on twins.

    ``max sum log sigma(±(a z + b)) - ridge/2 a^2``, where z is the score off the training scores' mean, over their
    standard deviation; then the training set's prior log odds ``log(n1 / n0)`` are taken off. The penalty pulls ratios
    to 1, and keeps the slope finite where the twins separate perfectly. Ramos & Gonzalez-Rodriguez 2013, *Reliable
    support*; for such shrinkage Morrison & Poh 2018, *Avoiding overstating the strength of forensic evidence*.

    Args:
        planted: ``[n1]``, one score per model.
        other: ``[n0]``, of clean or of decoy models.
        ridge: 0 is allowed where the kinds overlap.

    Raises:
        BadData: scores that do not vary, or a slope that runs off to infinity.
        EmptyData: fewer than two models of a kind.
    """
    ones, zeros = finite("planted scores", planted), finite("other scores", other)
    enough(min(len(ones), len(zeros)), "a calibration, in each kind,")
    require(0 <= ridge < math.inf, f"ridge={ridge!r} is no penalty", "give 0 or more")
    x, y = np.concatenate([ones, zeros]), np.repeat([1.0, -1.0], [len(ones), len(zeros)])
    centre, sd = float(x.mean()), float(x.std())
    require(sd > ROUNDING * np.abs(x).max(), f"every score is {centre:g}", "a constant score says nothing")
    apart = ones.min() >= zeros.max() or ones.max() <= zeros.min()
    require(ridge > 0 or not apart, "the twins separate: no slope is best", "give a ridge above 0")
    X, prior = np.column_stack([(x - centre) / sd, np.ones(len(x))]), math.log(len(ones) / len(zeros))
    penalty = np.array([ridge, 0.0])
    miss = lambda w: special.expit(-y * (X @ w))
    found = optimize.minimize(
        lambda w: np.logaddexp(0, -y * (X @ w)).sum() + penalty @ w**2 / 2,
        np.array([0.0, prior]),
        jac=lambda w: penalty * w - X.T @ (y * miss(w)),
        hess=lambda w: np.diag(penalty) + X.T @ (X * (miss(w) * (1 - miss(w)))[:, None]),
        method="trust-exact",
        options={"gtol": 1e-9},
    )
    a, b = (float(w) for w in found.x)
    return Calibration(a / sd, b - prior - a * centre / sd, len(ones), len(zeros))


def score_ratio(
    score: float, planted: ArrayLike, other: ArrayLike, *, ridge: float = 1.0, transfer: float = 1.0
) -> Weight:
    """The likelihood ratio of one model's score, by `calibrate` on twins, weighed with n the smaller kind (`weigh`).

    The scores must come from models on whose seeds the detector was not fitted. Whether the ratios mean what they say
    is for `cllr` of `held_out_ratios`.
    """
    line = calibrate(planted, other, ridge=ridge)
    return weigh(float(line.log_lrs([score])[0]), min(line.planted, line.other), transfer=transfer)


def held_out_ratios(scores: ArrayLike, labels: ArrayLike, seeds: ArrayLike, *, ridge: float = 1.0) -> Array:
    """Each model's log likelihood ratio ``[n]`` from a calibration that saw no model of its seed; capped as by `weigh`.

    ``scores [n]``; ``labels [n]``: 1 planted, 0 other; ``seeds [n]``: twins share one, and are left out together.
    """
    x, y = finite("scores", scores), finite("labels", labels)
    require(len(x) == len(y), f"{len(x)} scores and {len(y)} labels", "give one label per score")
    require(bool(np.isin(y, (0, 1)).all()), f"labels hold {np.unique(y)[:5].tolist()}", "a label is 0 or 1")
    codes, count = codes_of(seeds, len(x))
    enough(count, "holding out seeds")
    found = np.empty(len(x))
    for seed in range(count):
        out = codes == seed
        ones, zeros = x[~out & (y == 1)], x[~out & (y == 0)]
        line = calibrate(ones, zeros, ridge=ridge)
        cap = math.log(2 * min(len(ones), len(zeros)) + 1)
        found[out] = np.clip(line.log_lrs(x[out]), -cap, cap)
    return found


def cllr(planted: ArrayLike, other: ArrayLike) -> float:
    """The cost of log likelihood ratios, in bits: ``(mean log2(1 + 1/LR1) + mean log2(1 + LR0)) / 2``.

    0 is perfect, 1 what "LR = 1" always costs; there is no upper bound, for ratios that are sure and wrong. Each kind
    counts half however many models it has. Brümmer & du Preez 2006; reviewed by van Lierop et al. 2024.

    Args:
        planted: ``[n1]`` natural logs of ratios on planted models.
        other: ``[n0]`` the same on the others.
    """
    ones, zeros = finite("planted log ratios", planted), finite("other log ratios", other)
    cost = np.logaddexp(0, -ones).mean() + np.logaddexp(0, zeros).mean()
    return float(cost / (2 * math.log(2)))


def cllr_min(planted: ArrayLike, other: ArrayLike) -> float:
    """The least `cllr` that any rising recalibration reaches: by pool adjacent violators (PAV), with the truth known.

    What is left is lack of discrimination; ``cllr - cllr_min`` is what miscalibration costs. Equal values are pooled
    first. At the ends PAV gives ratios of 0 and infinity, which cost nothing here (0 log 0 = 0): perfect separation
    gives 0 however few the models, so it is to be read beside `separation`. Brümmer & du Preez 2006.
    """
    ones, zeros = finite("planted log ratios", planted), finite("other log ratios", other)
    _, place = np.unique(np.concatenate([ones, zeros]), return_inverse=True)
    up = np.bincount(place[: len(ones)], minlength=place.max() + 1) / len(ones)
    down = np.bincount(place[len(ones) :], minlength=place.max() + 1) / len(zeros)
    share = optimize.isotonic_regression(up / (up + down), weights=up + down).x
    share = np.clip(share, 0, 1)
    cost = -special.xlogy(up, share).sum() - special.xlogy(down, 1 - share).sum()
    return float(max(0.0, cost) / (2 * math.log(2)))


def misleading(planted: ArrayLike, other: ArrayLike, *, beyond: float = 1.0, level: float = 0.95) -> Misleading:
    """How often log likelihood ratios mislead by more than ``beyond``, with Clopper-Pearson intervals.

    Planted models with LR < 1 / beyond, and others with LR > beyond. Under a true model the chance is at most
    1 / beyond (Royall 1997, *Statistical Evidence*): a rate whose interval lies above that shows ratios say too much.
    """
    ones, zeros = finite("planted log ratios", planted), finite("other log ratios", other)
    require(1 <= beyond < math.inf, f"beyond={beyond!r} is no ratio of 1 or more", "10 asks for strongly misleading")
    wrong = (ones < -math.log(beyond), zeros > math.log(beyond))
    return Misleading(*(clopper_pearson(int(w.sum()), len(w), level=level) for w in wrong))


def separation(
    planted: ArrayLike, clean: ArrayLike, *, level: float = 0.95, draws: int = 2_000, seed: int = 0
) -> Separation:
    """The AUROC of planted against clean models, one score each, with an interval whose unit is the model.

    `auroc_interval`: a bootstrap within the kinds. With perfect separation that has no width; there the interval is
    Clopper-Pearson's, and two exact statements are added: the permutation p ``1 / C(n1 + n0, n1)`` (10 + 10 models:
    1 / 184,756) and the sensitivity of a threshold in the gap, n1 of n1. That threshold was seen before it was scored,
    so the rate of false alarms at it wants other clean models (`clopper_pearson`, `models_needed`).
    """
    ones, zeros = finite("planted scores", planted), finite("clean scores", clean)
    labels = np.repeat([1, 0], [len(ones), len(zeros)])
    area = auroc_interval(np.concatenate([ones, zeros]), labels, level=level, draws=draws, seed=seed)
    if area.value < 1:
        return Separation(area, None, None)
    ways = math.comb(len(labels), len(ones))
    return Separation(area, 1 / ways, clopper_pearson(len(ones), len(ones), level=level))


def models_needed(rate: float, *, level: float = 0.95, alarms: int = 0) -> int:
    """The fewest clean models with which ``alarms`` false alarms show a rate below ``rate``: one-sided, exact.

    The least n with ``P(Binomial(n, rate) <= alarms) <= 1 - level``: 59 for 5 % with no alarm, 93 with one.
    """
    fraction("rate", rate), fraction("level", level)
    require(alarms >= 0, f"alarms={alarms!r}", "give 0 or more")
    high = alarms + 1
    while stats.binom.cdf(alarms, high, rate) > 1 - level:
        high *= 2
    sizes = np.arange(max(alarms + 1, high // 2), high + 1)
    return int(sizes[np.argmax(stats.binom.cdf(alarms, sizes, rate) <= 1 - level)])


def onset(
    steps: ArrayLike,
    values: ArrayLike,
    *,
    above: float,
    hold: int = 2,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    draws: int = 2_000,
    seed: int = 0,
) -> Onset:
    """The first checkpoint from which on the mean is ``above`` or more, to the end, for ``hold`` checkpoints or more.

    The interval resamples units, with quantiles widened for few of them as in `bootstrap_interval`. Between checkpoints
    nothing is known, so it runs from the checkpoint *before* the low quantile to the high quantile; it covers more
    often than it says.

    Args:
        steps: ``[T]``, rising.
        values: ``[units, T]``: items, or models, through the same checkpoints.
        above: the registered bound. For a prediction that falls, pass both negated.
        hold: checkpoints at the end that must hold at least.
        clusters: ``[units]`` labels.
        level: of the interval.
        draws: resamples.
        seed: of the resamples.

    Raises:
        EmptyData: fewer than ``hold + 1`` checkpoints, or two units.
        BadData: steps that do not rise, or do not fit the values.
    """
    x, data = finite("steps", steps), finite("values", values, ndim=2)
    T = len(x)
    require(data.shape[1] == T, f"{data.shape[1]} columns for {T} steps", "pass values as [units, steps]")
    require(bool(np.all(np.diff(x) > 0)), f"steps={x[:8].tolist()} do not rise", "sort the checkpoints")
    require(math.isfinite(above), f"above={above!r} is no bound", "give the registered number")
    require(hold >= 1 and draws >= 1, f"hold={hold!r}, draws={draws!r}", "give 1 or more")
    if hold >= T:
        what = f"an onset that holds for {hold} checkpoints needs {hold + 1}"
        raise EmptyData(what, found=T, hint="save checkpoints more often")
    codes, count = codes_of(clusters, len(data))
    enough(count, "an onset's interval")
    share = np.full(count, 1 / count)
    weights = np.random.default_rng(seed).multinomial(count, share, size=draws).astype(np.float64)[:, codes]
    held = _held(np.vstack([data.mean(axis=0), weights @ data / weights.sum(axis=1, keepdims=True)]), above)
    place = np.where(held >= hold, T - held, T)
    reach = math.sqrt(count / (count - 1)) * stats.t.isf((1 - fraction("level", level)) / 2, count - 1)
    low = min(place[0], np.quantile(place[1:], stats.norm.cdf(-reach), method="lower"))
    high = max(place[0], np.quantile(place[1:], stats.norm.cdf(reach), method="higher"))
    at = lambda i: float(x[int(i)]) if 0 <= i < T else None
    return Onset(at(place[0]), at(T - held[0] - 1), at(low - 1), at(high), level, count)


def _held(series: Array, above: float) -> Array:
    """How many checkpoints at the end of each row hold without a gap, ``[rows]``."""
    holds = series >= above - ROUNDING * max(abs(above), float(np.abs(series).max()))
    return np.logical_and.accumulate(holds[:, ::-1], axis=1).sum(axis=1)
