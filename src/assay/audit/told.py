"""Small things that all outcomes need: measured values in the record's form, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from assay.evidence import BarFigure, Control, Effect, Series
from assay.model.core import Core
from assay.stats import Interval, clopper_pearson, minimum_detectable_effect, paired_effect

Array = NDArray[np.float64]


def effect(name: str, found: Interval, unit: str = "", chance: float | None = None, n_is: str = "clusters") -> Effect:
    """An interval as an effect."""
    low, high = min(found.low, found.value), max(found.high, found.value)
    return Effect(
        name=name,
        value=found.value,
        unit=unit,
        low=low,
        high=high,
        level=found.level,
        n=found.n,
        n_is=n_is,
        chance=chance,
    )


def control(name: str, values: ArrayLike, p: float | None = None, note: str = "") -> Control:
    """A null distribution."""
    return Control(name=name, values=tuple(np.asarray(values, dtype=float).tolist()), p=p, note=note)


def series(name: str, x: Sequence[float], found: Sequence[Interval]) -> Series:
    """Intervals along an axis."""
    lows, highs = [min(one.low, one.value) for one in found], [max(one.high, one.value) for one in found]
    return Series(name=name, x=tuple(x), means=tuple(one.value for one in found), lows=tuple(lows), highs=tuple(highs))


def bars(
    found: Mapping[str, Interval], title: str, caption: str, x_label: str = "share of items", chance: float = 0.5
) -> BarFigure:
    """One bar with its interval for each label."""
    every = list(found.values())
    return BarFigure(
        title=title,
        x_label=x_label,
        labels=tuple(found),
        values=tuple(one.value for one in every),
        lows=tuple(min(one.low, one.value) for one in every),
        highs=tuple(max(one.high, one.value) for one in every),
        chance=chance,
        caption=caption,
    )


def paired(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean over clusters, one value each, with its t interval."""
    return paired_effect(values, level=level).interval


def detectable(values: Array, alpha: float) -> float:
    """The least mean, one-sided at ``alpha``, that these clusters would have shown with chance .8.

    Where no cluster differs from another there is no standard error: then the largest share of clusters that could
    differ by 1 and all be missed with chance .05.
    """
    se = paired_effect(values).se
    if se > 0:
        return minimum_detectable_effect(se, alpha=alpha, tail="greater")
    return clopper_pearson(0, len(values), level=0.9).high


def share(values: ArrayLike) -> Interval:
    """The mean of shares, one for each cluster, with its t interval, which ends where shares do."""
    found = paired(values)
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def work(model: Core, tokens: int) -> str:
    """``12,000 tokens (3.2 TFLOP)``, at two operations for each parameter and token."""
    size = sum(weight.numel() for weight in model.hf.parameters())
    return f"{tokens:,} tokens ({2e-12 * size * tokens:.2g} TFLOP)"


def between(found: Interval, decimals: int = 2) -> str:
    """``0.71 (0.68 to 0.74)``."""
    return f"{found.value:.{decimals}f} ({found.low:.{decimals}f} to {found.high:.{decimals}f})"


def signed(found: Interval, decimals: int = 3) -> str:
    """``+0.012 (-0.020 to +0.044)``."""
    return f"{found.value:+.{decimals}f} ({found.low:+.{decimals}f} to {found.high:+.{decimals}f})"
