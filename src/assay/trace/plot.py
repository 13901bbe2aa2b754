"""The two figures of causal tracing: tokens × layers for one prompt, and curves over layers for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from assay.figure import INK, styled, svg, titled

if TYPE_CHECKING:
    from assay.trace.traced import AverageTrace, CausalTrace

_MAPS = {"resid": "Purples", "mlp.out": "Greens", "attn.out": "Reds"}
_NAMES = {"resid": "one state (resid)", "mlp.out": "mlp.out", "attn.out": "attn.out"}
_LINES = ("#009e73", "#56b4e9", "#d55e00", "#e69f00", "#999999", "#0072b2")


def heat_map(trace: CausalTrace) -> str:
    """How much probability each restored state brings back: a panel per part, tokens down, layers across."""
    with styled():
        count, height = len(trace.restored), 1.3 + 0.24 * len(trace.tokens)
        canvas = Figure(figsize=(1.6 + 3.6 * count, height))
        panels = canvas.subplots(1, count, squeeze=False)[0]
        start, stop = trace.subject
        for number, (part, axes) in enumerate(zip(trace.restored, panels, strict=True)):
            effect = trace.effect(part)
            shown = axes.pcolormesh(effect, cmap=_MAPS.get(part, "Blues"), vmin=0, vmax=max(float(effect.max()), 1e-6))
            axes.invert_yaxis()
            names = [f"{_shown(text)}{'*' if start <= at < stop else ''}" for at, text in enumerate(trace.tokens)]
            axes.set_yticks(np.arange(len(names)) + 0.5, names if number == 0 else [""] * len(names))
            axes.tick_params(length=0)
            steps = np.arange(0, effect.shape[1], 5)
            axes.set_xticks(steps + 0.5, [str(step) for step in steps])
            axes.set_xlabel("layer")
            window = "" if part == "resid" or trace.window == 1 else f", {trace.window} layers around"
            axes.set_title(_NAMES[part] + window, fontsize=10, loc="left")
            canvas.colorbar(shown, ax=axes, fraction=0.05).outline.set_visible(False)
        severed = f", {trace.severed} severed" if trace.severed else ""
        titled(
            canvas,
            f"Restoring brings back P({trace.answer!r}): {trace.clean:.2f} clean, "
            f"{float(trace.corrupted.mean()):.2f} corrupted (*){severed}",
        )
        return svg(canvas)


def averages(trace: AverageTrace, buckets: Sequence[str]) -> str:
    """Average indirect effects over layers, a curve with its interval for each place in the prompt."""
    with styled():
        count = len(trace.effects)
        canvas = Figure(figsize=(0.8 + 3.6 * count, 3.6))
        panels = canvas.subplots(1, count, squeeze=False, sharey=True)[0]
        for part, axes in zip(trace.effects, panels, strict=True):
            axes.axhline(0, color=INK, alpha=0.35, linewidth=0.8)
            for name, curve, color in zip(buckets, trace.effects[part], _LINES, strict=True):
                layers = np.arange(len(curve))
                axes.fill_between(layers, curve[:, 1], curve[:, 2], color=color, alpha=0.15, linewidth=0)
                axes.plot(layers, curve[:, 0], color=color, label=name, linewidth=1.6)
            axes.set_xlabel("layer")
            axes.set_title(_NAMES.get(part, part), fontsize=10, loc="left")
        panels[0].set_ylabel("average indirect effect")
        canvas.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
        )
        titled(canvas, f"What restoring brings back, mean over {trace.prompts} prompts, {trace.level:.0%} intervals")
        return svg(canvas)


def _shown(token: str) -> str:
    return token.strip() or repr(token)
