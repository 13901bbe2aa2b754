"""From an effect to a likelihood ratio, capped, shrunk and put in words; and e-values, which may be combined.

A likelihood ratio says how much better one stated hypothesis predicted what was seen than another did. Prior odds are
the reader's. Logarithms are natural throughout (nats); what C_llr says of ratios is in `assay.stats.calibration`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from assay.errors import EmptyData
from assay.stats.values import ROUNDING, Array, Interval, enough, finite, fraction, require

PROCEDURE_CHECK = "procedure check only"
"""The words for a ratio with transfer factor 0."""


@dataclass(frozen=True)
class Weight:
    """What is left of a likelihood ratio after its cap and its transfer factor; see `weigh`."""

    log_lr: float
    """As computed, nats."""
    n: int
    """Models in the smallest set that the ratio rests on."""
    cap: float
    """2n + 1; its inverse is the floor."""
    log_capped: float
    transfer: float
    log_value: float
    """``transfer * log_capped``."""
    value: float
    """The likelihood ratio to report."""
    band: str
    """`verbal` of it, or `PROCEDURE_CHECK`."""

    def __str__(self) -> str:
        return (
            f"LR {self.value:.3g}, {self.band} (raw {_said(self.log_lr)}, cap {self.cap:g}, transfer {self.transfer:g})"
        )


@dataclass(frozen=True)
class Alternative:
    """One explanation of the effect other than the claim, as its reference models show it."""

    name: str
    n: int
    """k, its reference models."""
    mean: float
    """m0, of their effects."""
    sd: float
    """s0, with k - 1."""
    scale: float
    """``sqrt(se^2 + s0^2 (1 + 1/k))``, of the predictive t with k - 1 degrees of freedom."""
    t: float
    """The effect's distance from the mean, in scales."""
    log_density: float
    """log f0 at the effect."""
    log_lr: float
    """log f1 - log f0."""


@dataclass(frozen=True)
class Evidence:
    """A likelihood ratio with every number on the way to it; see `likelihood_ratio`."""

    effect: float
    se: float
    expected: float
    spread: float
    z: float
    """The effect's distance from what was expected, ``(d - mu1) / sqrt(se^2 + tau1^2)``."""
    log_density: float
    """log f1 at the effect."""
    alternatives: tuple[Alternative, ...]
    """By rising ratio: the first explains the effect best."""
    weight: Weight
    """Of the ratio against that first one."""

    def __str__(self) -> str:
        best, others = self.alternatives[0], len(self.alternatives) - 1
        return f"{self.weight} against {best.name}" + (f", the best of {others + 1} alternatives" if others else "")


def verbal(log_lr: float) -> str:
    """A ratio (its natural log) in words: below 3 negligible, below 10 weak, to 100 moderate, above strong.

    Below 1 its inverse has the same words, against. They are a convention, for ratios that went through `weigh`.
    """
    size = abs(log_lr)
    bands = ((math.log(3), "negligible"), (math.log(10), "weak"), (math.nextafter(math.log(100), math.inf), "moderate"))
    word = next((word for edge, word in bands if size < edge), "strong")
    return word + (" for" if log_lr > 0 else " against" if log_lr < 0 else "")


def weigh(log_lr: float, n: int, *, transfer: float = 1.0) -> Weight:
    """Cap a log likelihood ratio at ``±log(2n + 1)``, then multiply it by the transfer factor.

    With n planted and n clean models and perfect separation the ratio of posterior means is 2n + 1 (`binary_ratio`): n
    models cannot show that misleading evidence is rarer, whatever the formula of a density says of its own tail.

    Args:
        log_lr: nats.
        n: the models of the *smallest* set that the ratio rests on, which is the strictest of all choices.
        transfer: how far the reference models speak for the audited one, from 1 (another draw of the same kind) to 0
            (nothing is claimed of it: the procedure was checked). It is a stated judgement, never an estimate.

    Raises:
        BadData: no model, a factor outside [0, 1], or a ratio that is not finite.
    """
    require(math.isfinite(log_lr), f"log_lr={log_lr!r} is not finite", "give the log of a positive ratio")
    require(n >= 1, f"n={n!r} reference models", "a ratio rests on one model or more")
    require(0 <= transfer <= 1, f"transfer={transfer!r} is outside [0, 1]", "1 is full transfer, 0 none")
    cap = 2 * int(n) + 1
    capped = min(max(float(log_lr), -math.log(cap)), math.log(cap))
    left = float(transfer) * capped
    band = verbal(left) if transfer > 0 else PROCEDURE_CHECK
    return Weight(float(log_lr), int(n), float(cap), capped, float(transfer), left, math.exp(left), band)


def likelihood_ratio(
    effect: float,
    se: float,
    *,
    expected: float,
    spread: float,
    references: Mapping[str, ArrayLike],
    planted: int | None = None,
    transfer: float = 1.0,
) -> Evidence:
    """The likelihood ratio of a claim against each named alternative, and against the best of them.

    ``f1 = N(d; mu1, se^2 + tau1^2)`` is what was registered. Each alternative has an *empirical* predictive null from
    the effects of its k reference models, ``f0 = t_{k-1}((d - m0) / c) / c`` with ``c = sqrt(se^2 + s0^2 (1 + 1/k))``:
    models differ by more than sampling error, so the null is not "exactly 0" (predictive t: Geisser 1993, *Predictive
    Inference*; ratios from few reference data: Ramos & Gonzalez-Rodriguez 2013, *Reliable support*).

    What it is not:

    - An e-value. With an estimated null ``E[f1 / f0]`` has no bound before the cap; after it, simulation gives below 1
      where the claim expects effects beyond the null's spread, to 1.3 (k = 10) and 1.8 (k = 3) where within it. A ratio
      of c or more was rarer than 1/c under the null in every case tried. For an exact e-value take `reference_e`.
    - Monotone beyond mu1: f0 has heavier tails than f1, so an effect far *larger* than registered ends up against the
      claim. Look at ``z``.

    Args:
        effect: d, in any unit; the ratio does not depend on it.
        se: its cluster-robust standard error (`paired_effect`), same unit.
        expected: mu1, registered.
        spread: tau1, the standard deviation of true effects under the claim, registered.
        references: name of an alternative (clean, decoy, …) to its models' effects, measured as ``effect`` was.
        planted: the models from which mu1 and tau1 were taken, if they were taken from models.
        transfer: as in `weigh`, whose n is the smallest of all reference sets and ``planted``.

    Raises:
        BadData: numbers that are not finite, a negative se or spread, a density without width.
        EmptyData: no alternative, or one with fewer than two models.
    """
    d, se, mu, tau = (float(x) for x in finite("effect, se, expected and spread", [effect, se, expected, spread]))
    require(se >= 0 and tau >= 0, f"se={se!r}, spread={tau!r}: one is negative", "both are standard deviations")
    width = math.hypot(se, tau)
    require(width > 0, "se and spread are both 0: no density follows", "register how far effects may lie from mu1")
    if not references:
        raise EmptyData("a likelihood ratio needs an alternative", found=0, hint="give clean models' effects")
    f1 = float(stats.norm.logpdf(d, mu, width))
    against = sorted((_alternative(name, x, d, se, f1) for name, x in references.items()), key=lambda a: a.log_lr)
    n = min([a.n for a in against] + ([] if planted is None else [planted]))
    weight = weigh(against[0].log_lr, n, transfer=transfer)
    return Evidence(d, se, mu, tau, (d - mu) / width, f1, tuple(against), weight)


def binary_ratio(hits: int, n1: int, false: int, n0: int, *, level: float = 0.9) -> Interval:
    """The likelihood ratio of an indicator that fired: ``[(h + 1/2) / (n1 + 1)] / [(f + 1/2) / (n0 + 1)]``.

    It fired on ``hits`` of n1 planted models and on ``false`` of n0 clean ones. Both rates have Jeffreys' prior
    Beta(1/2, 1/2); the value is the ratio of posterior means, the interval the equal-tailed one of the posterior of
    the ratio, by quadrature. They need not agree: with 20/20 against 0/20 the ratio is 41, its posterior median 87.
    For an indicator that stayed silent pass ``n - hits`` and ``n - false``.
    """
    for k, n in ((hits, n1), (false, n0)):
        require(n >= 1 and 0 <= k <= n, f"{k!r} of {n!r} is no proportion", "0 <= k <= n, and n is not 0")
    tail = (1 - fraction("level", level)) / 2
    grid = (np.arange(2_000) + 0.5) / 2_000
    p0 = special.betaincinv(false + 0.5, n0 - false + 0.5, grid)
    below = lambda x: float(special.betainc(hits + 0.5, n1 - hits + 0.5, np.minimum(1, np.exp(x) * p0)).mean())
    low, high = (math.exp(optimize.brentq(lambda x, q: below(x) - q, -60, 60, args=(q,))) for q in (tail, 1 - tail))
    value = float(((hits + 0.5) / (n1 + 1)) / ((false + 0.5) / (n0 + 1)))
    return Interval(value, low, high, level, int(min(n1, n0)), "beta posterior")


def reference_e(effect: float, se: float, *, expected: float, spread: float, reference: ArrayLike) -> float:
    """An exact e-value of "the audited model is one more of these k": ``(k + 1) f1(d) / (f1(d) + sum_i f1(x_i))``.

    f1 is as in `likelihood_ratio`. If d and the k references ``x [k]`` are exchangeable, its expectation is 1 whatever
    their distribution: no null is fitted. At most k + 1. It tests exchangeability alone, and weighs no alternative.
    Vovk 2025, *Conformal e-prediction*, arXiv 2001.05989.
    """
    x, d = finite("reference", reference), finite("effect, se, expected and spread", [effect, se, expected, spread])
    width = math.hypot(d[1], d[3])
    require(min(d[1], d[3]) >= 0 and width > 0, f"se={se!r}, spread={spread!r} give no density", "see likelihood_ratio")
    logs = stats.norm.logpdf(np.append(x, d[0]), expected, width)
    densities = np.exp(logs - logs.max())
    return float(len(densities) * densities[-1] / densities.sum())


def average_e(values: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The (weighted) mean of e-values ``values [m]`` for one null: an e-value *under any dependence*.

    Its inverse is a p-value. Among symmetric rules with that validity none is essentially better (Vovk & Wang 2021,
    *E-values*; Grünwald, de Heide & Koolen 2024, *Safe testing*). ``weights [m]`` are fixed before the data.
    """
    e = _e_values(values)
    w = np.ones_like(e) if weights is None else finite("weights", weights)
    require(len(w) == len(e), f"{len(w)} weights for {len(e)} e-values", "give one weight per e-value")
    require(w.min() >= 0 and w.sum() > 0, "weights are negative, or all 0", "weights are shares")
    return float(w @ e / w.sum())


def sequential_product(values: ArrayLike) -> Array:
    """The running product ``[m]`` of e-values ``[m]`` in the order of a *declared* sequential process.

    Valid only where each has expectation at most 1 given all before it: a plan that was registered, with new data at
    each step. Never for layers, positions or seeds of one probe. ``P(ever >= 1/alpha) <= alpha`` under the null
    (Ville), so that one may stop at any time; the *largest* so far is no e-value (arXiv 2501.19360).
    """
    with np.errstate(over="ignore"):
        running: Array = np.multiply.accumulate(_e_values(values))
    require(bool(np.isfinite(running).all()), "the product is too large for a number", "cap the factors: see weigh")
    return running


def e_bh(values: ArrayLike, *, alpha: float = 0.05) -> NDArray[np.bool_]:
    """Which of m nulls to reject so that the false discovery rate is at most alpha, *under any dependence*.

    The k* largest e-values, with k* the largest k for which the k-th largest is at least ``m / (alpha k)``. Wang &
    Ramdas 2022, *False discovery rate control with e-values*. To one ``values [m]`` belongs one null.
    """
    e = _e_values(values)
    falling, rank = np.sort(e)[::-1], np.arange(1, len(e) + 1)
    met = np.flatnonzero(falling * rank * fraction("alpha", alpha) >= len(e) * (1 - ROUNDING))
    return e >= falling[met[-1]] if len(met) else np.zeros(len(e), dtype=np.bool_)


def _alternative(name: str, effects: ArrayLike, d: float, se: float, f1: float) -> Alternative:
    x = finite(f"effects of {name}", effects)
    enough(len(x), f"a null from the models of {name}")
    k, mean, sd = len(x), float(x.mean()), float(x.std(ddof=1))
    sd = sd if sd > ROUNDING * np.abs(x).max() else 0.0
    scale = math.hypot(se, sd * math.sqrt(1 + 1 / k))
    require(
        scale > 0, f"the models of {name} are all at {mean:g}, and se is 0", "no null has no width: check the measure"
    )
    t = (d - mean) / scale
    f0 = float(stats.t.logpdf(t, k - 1)) - math.log(scale)
    return Alternative(name, k, mean, sd, scale, t, f0, f1 - f0)


def _e_values(values: ArrayLike) -> Array:
    e = finite("e-values", values)
    require(e.min() >= 0, f"an e-value of {e.min():g} is negative", "pass e-values, not their logs")
    return e


def _said(log_lr: float) -> str:
    return f"{math.exp(log_lr):.3g}" if abs(log_lr) < 700 else f"e^{log_lr:.4g}"
