"""A verdict as a picture: null distributions behind the observed slope, and the dose curve beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from assay.figure import BLUE, INK, VERMILLION, save, styled, svg, titled
from assay.stats import Interval


def draw(
    path: Path,
    *,
    title: str,
    observed: Interval,
    nulls: Mapping[str, tuple[Sequence[float], float | None]],
    curve: tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]],
) -> Path:
    """Write the figure as SVG: the same bytes for the same numbers. Raises `Unwritable`."""
    with styled():
        canvas = Figure(figsize=(9, 1.6 + 0.62 * max(3, len(nulls))))
        left, right = canvas.subplots(1, 2, width_ratios=(3, 2))
        _nulls(left, observed, nulls)
        _curve(right, *curve)
        titled(canvas, title)
        return save(path, svg(canvas))


def _nulls(axes: Axes, observed: Interval, nulls: Mapping[str, tuple[Sequence[float], float | None]]) -> None:
    everything = np.concatenate([[0, observed.low, observed.high], *(values for values, _ in nulls.values())])
    edges = np.linspace(everything.min(), everything.max() or 1, 61)
    axes.axvspan(observed.low, observed.high, color=VERMILLION, alpha=0.15, linewidth=0)
    axes.axvline(observed.value, color=VERMILLION, linewidth=2)
    for row, (name, (values, p)) in enumerate(reversed(list(nulls.items()))):
        counts, _ = np.histogram(values, edges)
        step = min(0.1, 0.62 / max(1, counts.max()))
        x = np.repeat((edges[:-1] + edges[1:]) / 2, counts)
        y = [row + step * (place + 0.5) for count in counts for place in range(count)]
        axes.scatter(x, y, s=12, color=BLUE, alpha=0.75, linewidths=0)
        axes.axhline(row, color=INK, alpha=0.35, linewidth=0.8)
        told = f"{name} · {len(values)} draws" + ("" if p is None else f" · p {p:.3g}")
        axes.text(0, row + 0.76, told, transform=axes.get_yaxis_transform(), fontsize=9)
    axes.set_ylim(-0.05, max(1, len(nulls)))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"score per dose, nats: {observed.value:+.3g} [{observed.low:+.3g}, {observed.high:+.3g}]")


def _curve(
    axes: Axes, doses: Sequence[float], means: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> None:
    axes.axhline(0, color=INK, alpha=0.35, linewidth=0.8)
    axes.axvline(0, color=INK, alpha=0.35, linewidth=0.8)
    axes.fill_between(doses, lows, highs, color=VERMILLION, alpha=0.15, linewidth=0)
    axes.plot(doses, means, color=VERMILLION, marker="o", markersize=4.5)
    axes.set_xlabel("dose")
    axes.set_ylabel("change of score, nats")
