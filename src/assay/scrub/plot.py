"""The figures of causal scrubbing: the hypothesis as a tree, and what scrubbing did to each input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from assay.figure import BLUE, INK, VERMILLION, styled, svg, titled

if TYPE_CHECKING:
    from assay.scrub.compare import Null
    from assay.scrub.hypothesis import Node
    from assay.scrub.recovered import Recovered

_ROW, _COLUMN, _LETTER = 0.52, 2.9, 0.064
"""Inches."""


def tree(hypothesis: Node, title: str = "") -> str:
    """The hypothesis from its output at the left to what it is computed from at the right; long runs are a line."""
    placed: list[tuple[float, int, str, str]] = []
    lines: list[tuple[tuple[float, float], tuple[int, float]]] = []

    def place(one: Node | None, depth: int, note: str = "") -> float:
        if one is None or not one.parts:
            at = float(sum(1 for _, _, _, leaf in placed if leaf == "leaf"))
            placed.append((at, depth, note or _said(one), "leaf"))
            return at
        below = [place(part, depth + 1, f"⋮ {more} more" if part is None else "") for part, more in one.drawn()]
        at = (below[0] + below[-1]) / 2
        edge = depth + min(0.9, (0.2 + _LETTER * max(map(len, _said(one).splitlines()))) / _COLUMN)
        lines.extend(((edge, at), (depth + 1, end)) for end in below)
        placed.append((at, depth, _said(one), "node"))
        return at

    place(hypothesis, 0)
    leaves, deep = sum(1 for one in placed if one[3] == "leaf"), max(one[1] for one in placed)
    with styled():
        canvas = Figure(
            figsize=(max(_COLUMN * (deep + 1), 0.092 * len(title)), _ROW * leaves + (0.75 if title else 0.35))
        )
        axes = canvas.subplots()
        axes.set_axis_off()
        axes.set_xlim(-0.02, deep + 0.98)
        axes.set_ylim(leaves - 0.4, -0.6)
        for (left, start), (right, end) in lines:
            axes.plot(
                [left, right - 0.08, right - 0.02],
                [start, end, end],
                color=INK,
                alpha=0.35,
                linewidth=1,
                zorder=1,
            )
        for at, depth, text, _ in placed:
            first, _, rest = text.partition("\n")
            box = dict(boxstyle="round,pad=0.35", facecolor="white", edgecolor=INK if rest else "none", linewidth=0.8)
            axes.text(
                depth, at, f"{first}\n{rest}" if rest else first, va="center", ha="left", fontsize=9, bbox=box, zorder=2
            )
        if title:
            titled(canvas, title)
        return svg(canvas)


def _said(one: Node | None) -> str:
    if one is None:
        return "⋮"
    place, _, feature = one.label.partition(": ")
    return f"{place}\n{feature}"


def changes(found: Recovered, chance: Null | None = None) -> str:
    """What scrubbing did to the loss of each input, and where the share recovered lies among random hypotheses."""
    with styled():
        canvas = Figure(figsize=(9.2 if chance else 5.2, 3.2))
        panels = canvas.subplots(1, 2 if chance else 1, squeeze=False)[0]
        _inputs(panels[0], found)
        if chance is not None:
            _among(panels[1], chance)
        share = found.share
        titled(
            canvas, f"{share.value:.0%} of the loss recovered ({share.low:.0%} to {share.high:.0%}), {share.n} inputs"
        )
        return svg(canvas)


def _inputs(axes: Axes, found: Recovered) -> None:
    change = found.change
    axes.hist(change, bins=40, color=BLUE, alpha=0.8)
    axes.axvline(0, color=INK, linewidth=0.8, alpha=0.5)
    axes.axvline(float(change.mean()), color=VERMILLION, linewidth=1.6)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xlabel("change of an input's loss, scrubbed − model")
    axes.set_ylabel("inputs")
    axes.set_title(f"mean {change.mean():+.3g} (line), mean size {np.abs(change).mean():.3g}", fontsize=10, loc="left")


def _among(axes: Axes, chance: Null) -> None:
    axes.hist(chance.values, bins=20, color=INK, alpha=0.35)
    axes.axvline(chance.observed, color=VERMILLION, linewidth=1.6)
    axes.set_xlabel("share of loss recovered")
    axes.set_ylabel("random hypotheses")
    axes.set_title(
        f"{len(chance.values)} with random {chance.kind}; this one (line), p {chance.p:.2g}", fontsize=10, loc="left"
    )
