"""Dose and response."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from assay.stats.effects import paired_effect
from assay.stats.nulls import sign_flip_p
from assay.stats.planning import holm
from assay.stats.values import Array, Effect, Side, codes_of, finite, require, standard_error


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


def dose_slopes(doses: ArrayLike, scores: ArrayLike) -> Array:
    """Each item's least-squares slope through the origin, ``sum_k x_k s_k / sum_k x_k^2``: score per unit of dose.

    With doses in mirrored pairs this is the slope of the odd part ``(s(x) - s(-x)) / 2``: the undosed score, and damage
    that both signs do alike, cancel exactly, and the negated direction has the negated slope. That makes it the
    statistic of a verdict. With other doses pass changes against dose 0.

    Args:
        doses: ``[doses]``.
        scores: ``[..., items, doses]``, to ``[..., items]``.
    """
    x, s = finite("doses", doses), finite("scores", scores, ndim=None)
    require(s.shape[-1] == len(x), f"{s.shape[-1]} columns for {len(x)} doses", "pass scores as [items, doses]")
    require(len(np.unique(x)) == len(x), f"doses={x.tolist()} repeat", "give each dose once")
    require(bool(np.any(x)), f"doses={x.tolist()} give no slope", "give a dose other than 0")
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
    x, e = finite("doses", doses), finite("effects", effects, ndim=2)
    dose_slopes(x, e)  # refuses what does not fit
    codes, count = codes_of(clusters, len(e))
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
    mean, se = gains.mean(axis=0), standard_error(gains, codes, count)
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


def _saturation(gains: Array, below: int) -> float | None:
    """From ``gains [steps]`` by rising dose, in the trend's sign; the first ``below`` of them lie under dose 0."""
    sides = [side for side in (gains[:below][::-1], gains[below:]) if len(side)]
    inner, outer = sum(side[0] for side in sides), sum(side[-1] for side in sides)
    return float(outer / inner) if inner > 0 and any(len(side) > 1 for side in sides) else None
