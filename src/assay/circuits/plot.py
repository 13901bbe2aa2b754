"""The figures of circuits: a head's pattern over tokens, all heads as a map beside the best ones, what ablating costs, and
what each layer would say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from assay.figure import BLUE, INK, VERMILLION, styled, svg, titled

if TYPE_CHECKING:
    from assay.circuits.ablation import Ablation
    from assay.circuits.attention import Attention
    from assay.circuits.lens import Lens
    from assay.circuits.scored import HeadScores

_SHOWN = 10  # heads in the list
_NAMED = 48  # tokens whose names find room


def patterns(found: Attention) -> str:
    """Where heads look: a panel each, queries down, keys across."""
    with styled():
        count, tokens = len(found.sites), [_visible(text) for text in found.tokens]
        side = min(9.0, max(2.6, 0.17 * len(tokens)))
        canvas = Figure(figsize=(1.6 + (side + 0.5) * count, side + 1.7))
        panels = canvas.subplots(1, count, squeeze=False)[0]
        # What a query cannot see stays blank, and is not the same as what it does not look at.
        ahead = np.triu(np.ones((len(tokens), len(tokens)), dtype=bool), 1)
        for number, (site, axes) in enumerate(zip(found.sites, panels, strict=True)):
            shown = axes.pcolormesh(np.ma.array(found.pattern[number], mask=ahead), cmap="Blues", vmin=0, vmax=1)
            axes.invert_yaxis()
            axes.set_aspect("equal")
            axes.set_title(f"L{site.layer}.head[{site.head}]", fontsize=10, loc="left")
            _name_tokens(axes, tokens, number == 0)
            axes.set_xlabel("key: what is looked at")
        panels[0].set_ylabel("query: who looks")
        bar = canvas.colorbar(shown, ax=list(panels), fraction=0.03, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("share of attention")
        titled(canvas, "Where " + ("heads look" if count > 1 else "a head looks"))
        return svg(canvas)


def head_map(found: HeadScores) -> str:
    """All heads, layers across and heads down; beside them the best, with intervals over sequences."""
    with styled():
        layers, heads = found.mean.shape
        best = found.top(min(_SHOWN, found.mean.size))
        canvas = Figure(
            figsize=(min(12, 5.2 + 0.17 * layers), max(3.0, min(7.0, 1.5 + 0.19 * heads), 1.4 + 0.21 * len(best)))
        )
        left, right = canvas.subplots(1, 2, width_ratios=(max(2.0, 0.17 * layers), 2.4))
        least, most = float(found.mean.min()), max(float(found.mean.max()), 1e-9)
        signed = least < -0.02 * most
        size = max(most, -least)
        shown = left.pcolormesh(
            found.mean.T,
            cmap="RdBu_r" if signed else "Blues",
            vmin=-size if signed else 0,
            vmax=size,
            edgecolors="white",
            linewidth=0.3,
        )
        left.invert_yaxis()
        left.set_xticks(np.arange(0, layers, 5) + 0.5, [str(at) for at in range(0, layers, 5)])
        step = 1 if heads <= 16 else 4
        left.set_yticks(np.arange(0, heads, step) + 0.5, [str(at) for at in range(0, heads, step)])
        left.tick_params(length=0)
        left.set_xlabel("layer")
        left.set_ylabel("head")
        canvas.colorbar(shown, ax=left, fraction=0.05, pad=0.02).outline.set_visible(False)
        rows = np.arange(len(best))
        right.barh(rows, [value for _, value in best], color=BLUE, height=0.7)
        for row, (site, _) in enumerate(best):
            interval = found.interval(site)
            if interval is not None:
                right.plot([interval.low, interval.high], [row, row], color=INK, linewidth=1.2)
        right.set_yticks(rows, [f"L{site.layer}.head[{site.head}]" for site, _ in best])
        right.tick_params(axis="y", length=0)
        right.invert_yaxis()
        right.axvline(0, color=INK, linewidth=0.8)
        many = len(found.values)
        right.set_xlabel(f"mean of {many} sequences, 95%" if many > 1 else "score")
        titled(canvas, _TITLES.get(found.score, found.score))
        return svg(canvas)


_TITLES = {
    "induction": "Induction: attention to the token that followed an earlier occurrence",
    "previous": "Attention to the token before",
    "duplicate": "Attention to earlier occurrences of the same token",
    "copying": "Copying: share of what a head raises that goes to the token it looks at",
    "copying by eigenvalues": "Copying, by the eigenvalues of each head's map from tokens to tokens",
}


def ablated(found: Ablation) -> str:
    """What the model loses without the chosen heads, among what it loses without random ones."""
    with styled():
        canvas = Figure(figsize=(7.2, 2.7))
        axes = canvas.subplots()
        chance, effect = found.chance, found.effect
        # Dots that would lie on one another stand on one another.
        low, high = min(0.0, float(chance.min()), effect.low), max(float(chance.max()), effect.high)
        edges = np.linspace(low, high + 1e-9, 90)
        counts, _ = np.histogram(chance, edges)
        x = np.repeat((edges[:-1] + edges[1:]) / 2, counts)
        y = np.concatenate([np.arange(count) for count in counts])
        axes.axvspan(effect.low, effect.high, color=VERMILLION, alpha=0.15, linewidth=0)
        axes.axvline(effect.value, color=VERMILLION, linewidth=2)
        axes.scatter(x, y, s=22, color=BLUE, alpha=0.8, linewidths=0)
        axes.axvline(0, color=INK, linewidth=0.8, alpha=0.5)
        axes.set_ylim(-0.7, max(4, counts.max() + 1))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        many = len(found.heads)
        where = "the same layers" if found.among == "layers" else "the model"
        axes.set_xlabel(
            "rise of the loss of repeated random tokens, nats per token\n"
            f"line: the {many} chosen, with its 95% interval; dots: {many} random of {where}, {len(chance)} draws"
        )
        titled(canvas, f"Without {many} heads: {effect.value:+.2f} nats per token, p = {found.p:.2g}")
        return svg(canvas)


def lens_map(found: Lens) -> str:
    """Layers up, tokens across; each cell has the likeliest token, darker where it is likelier."""
    with styled():
        layers, tokens = found.likely.shape[:2]
        canvas = Figure(figsize=(1.8 + 0.95 * tokens, 1.5 + 0.2 * layers))
        axes = canvas.subplots()
        shown = axes.pcolormesh(found.likely[:, :, 0], cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.3)
        for layer in range(layers):
            for at in range(tokens):
                ink = "white" if found.likely[layer, at, 0] > 0.6 else INK
                said = _visible(found.said[layer][at][0])[:10]
                axes.text(at + 0.5, layer + 0.5, said, ha="center", va="center", fontsize=7, color=ink)
        axes.set_yticks(np.arange(layers) + 0.5, found.layers, fontsize=8)
        axes.set_xticks(np.arange(tokens) + 0.5, [_visible(text) for text in found.tokens], fontsize=8)
        axes.tick_params(length=0)
        axes.set_xlabel("after")
        bar = canvas.colorbar(shown, ax=axes, fraction=0.05)
        bar.outline.set_visible(False)
        bar.set_label("probability")
        titled(canvas, "What each layer would say")
        return svg(canvas)


def _name_tokens(axes: Axes, tokens: list[str], first: bool) -> None:
    axes.tick_params(length=0)
    if len(tokens) > _NAMED:
        steps = np.arange(0, len(tokens), 10)
        axes.set_xticks(steps + 0.5, [str(step) for step in steps])
        axes.set_yticks(steps + 0.5, [str(step) for step in steps] if first else [""] * len(steps))
        return
    places = np.arange(len(tokens)) + 0.5
    axes.set_xticks(places, tokens, rotation=90, fontsize=8)
    axes.set_yticks(places, tokens if first else [""] * len(tokens), fontsize=8)


def _visible(token: str) -> str:
    text = token.strip() or repr(token)
    return text if text.isprintable() else repr(text)[1:-1]
