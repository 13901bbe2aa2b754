"""Several tests at once, equivalence, and planning."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from assay.stats.effects import paired_effect
from assay.stats.values import Array, Side, finite, fraction, one_tail, require


def holm(ps: ArrayLike) -> Array:
    """Adjusted p-values in the order given: the chance of any false rejection stays below alpha. Holm 1979."""
    raw = finite("ps", ps)
    require(raw.min() >= 0 and raw.max() <= 1, f"ps run from {raw.min():g} to {raw.max():g}", "pass p-values")
    order = np.argsort(raw)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)))
    return adjusted


def equivalence_p(values: ArrayLike, bound: float, clusters: ArrayLike | None = None) -> float:
    """The p of "the mean is ``bound`` or more away from zero": the larger of two one-sided t tests (TOST).

    When small, the effect is shown to be below what would matter, which a large p of an ordinary test never shows.
    Schuirmann 1987. Raises `BadData` where the units do not vary: no test is possible then.
    """
    require(0 < bound < math.inf, f"bound={bound!r} is no positive number", "give the least effect that would matter")
    effect = paired_effect(values, clusters)
    require(effect.se > 0, f"every unit is at {effect.value:g}: no test is possible", "report the value itself")
    return float(stats.t.sf((bound - abs(effect.value)) / effect.se, effect.interval.n - 1))


def minimum_detectable_effect(se: float, *, alpha: float = 0.05, power: float = 0.8, tail: Side = "two-sided") -> float:
    """The true effect that a test with standard error ``se`` finds with chance ``power``: ``(z_alpha + z_power) se``.

    By the normal approximation, which is too small with few units: see `items_needed` for the exact relation.
    """
    require(0 < se < math.inf, f"se={se!r} is no positive number", "take it from paired_effect")
    return float(stats.norm.isf(one_tail(alpha, tail)) + stats.norm.ppf(fraction("power", power))) * se


def items_needed(sd: float, effect: float, *, alpha: float = 0.05, power: float = 0.8, tail: Side = "two-sided") -> int:
    """The fewest independent items with which a t test finds a mean of ``effect``: exact, by the noncentral t.

    ``sd`` is the standard deviation of one item's paired difference (of cluster means, to plan clusters). Rejections of
    the wrong sign do not count as power.
    """
    ok = 0 < sd < math.inf and 0 < abs(effect) < math.inf
    require(ok, f"sd={sd!r}, effect={effect!r}: no plan follows", "sd is positive, and effect is not 0")
    size, cut = abs(effect) / sd, one_tail(alpha, tail)
    n = max(2, math.ceil((minimum_detectable_effect(1, alpha=alpha, power=power, tail=tail) / size) ** 2))
    while stats.nct.sf(stats.t.isf(cut, n - 1), n - 1, size * math.sqrt(n)) < power:
        n += 1  # the normal figure is short by a few
    return n
