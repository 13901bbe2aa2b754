"""Figure data as static SVG: the same bytes for the same data, text as text, readable in light and in dark.

Ink is ``currentColor``. The data's colours follow Okabe and Ito ("Color Universal Design", 2008), the blue a little
lighter; each has a contrast of at least 3 on white and on near-black, and markers and line styles say the same.
Math is not parsed, so a dollar sign is a dollar sign.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from assay.evidence import BarFigure, DoseFigure, Figure, LayerFigure, NullFigure, TableData
from assay.report.words import count, number, p_value, sized, visible

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', sans-serif"
BLUE, VERMILLION, GREEN, PURPLE = "#2583c4", "#d55e00", "#009e73", "#cc79a7"
_LINES = ((BLUE, "o", "-"), (VERMILLION, "s", "--"), (GREEN, "^", "-."), (PURPLE, "D", ":"))
_INK = "#010203"  # stands for currentColor until the SVG is written
_CHANCE: dict[str, Any] = dict(color=_INK, alpha=0.7, linewidth=1.2, linestyle=(0, (3, 3)))
_WIDTH = 390 / 72  # inches; one unit of the drawing is one point
_DOTS = 200  # above so many draws a histogram says it better
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "assay",
    "svg.id": None,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.16,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "figure.constrained_layout.use": True,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    "grid.color": _INK,
}


def figure_svg(figure: Figure, *, titled: bool = True, mark: str = "figure") -> str:
    """The figure as one ``<svg>`` element, which is also a whole SVG file.

    Args:
        figure: any figure of ``assay.evidence``.
        titled: whether its title is drawn too; a page that prints the title itself says False.
        mark: what the ids in it begin with; figures on one page need different ones.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # whatever the caller set
        mpl.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's fonts draw the text, not ours
        canvas = Canvas(figsize=(_WIDTH, (_height(figure) + 18 * titled) / 72))
        axes = canvas.add_subplot()
        if isinstance(figure, NullFigure):
            _draw_null(axes, figure)
        elif isinstance(figure, BarFigure):
            _draw_bars(axes, figure)
        else:
            _draw_lines(axes, figure)
            axes.set_ylabel(_wrap(figure.y_label, 32))
        axes.set_xlabel(_wrap(figure.x_label, 36 if isinstance(figure, BarFigure) else 52))
        if titled:
            canvas.suptitle(_wrap(figure.title, 48), x=0.02, ha="left", fontsize=11.5, fontweight="bold")
        drawn = io.StringIO()
        canvas.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    return _cleaned(drawn.getvalue(), figure, mark)


def figure_table(figure: Figure) -> TableData:
    """The figure's numbers, for those who cannot see it and those who want to check it."""
    rows: list[tuple[str | float | None, ...]]
    columns: tuple[str, ...] = ("", "value", "low", "high")
    caption = ""
    match figure:
        case NullFigure():
            columns = ("", "draws", "value or median", "low", "high", "p")
            caption = "Controls: the median, and the range that holds the middle 95 % of draws."
            rows = [("observed", None, figure.observed, figure.low, figure.high, None)]
            for control in figure.controls:
                low, middle, high = quantiles(control.values)
                rows.append((control.name, len(control.values), middle, low, high, control.p))
        case BarFigure():
            rows = list(zip(figure.labels, figure.values, figure.lows, figure.highs, strict=True))
        case DoseFigure() | LayerFigure():
            columns = ("", figure.x_label, "mean", "low", "high")
            lines = [(line.name, zip(line.x, line.means, line.lows, line.highs, strict=True)) for line in figure.series]
            rows = [(name, *point) for name, points in lines for point in points]
    return TableData(title=figure.title, columns=columns, rows=tuple(rows), caption=caption)


def quantiles(values: tuple[float, ...]) -> tuple[float | None, float | None, float | None]:
    """The 2.5 % point, the median and the 97.5 % point of draws; None where there are none."""
    if not values:
        return None, None, None
    low, middle, high = (float(value) for value in np.quantile(values, (0.025, 0.5, 0.975)))
    return low, middle, high


# ── drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _height(figure: Figure) -> int:
    match figure:
        case NullFigure():
            return 84 + 60 * len(figure.controls)
        case BarFigure():
            return 84 + 34 * len(figure.labels)
    return 260


def _draw_null(axes: Axes, figure: NullFigure) -> None:
    ends = [figure.observed, *(end for end in (figure.low, figure.high) if end is not None)]
    everything = np.concatenate([ends, *(control.values for control in figure.controls)])
    edges = np.linspace(everything.min(), everything.max(), 57)
    if edges[0] == edges[-1]:
        edges = np.linspace(edges[0] - 0.5, edges[0] + 0.5, 57)
    middles = (edges[:-1] + edges[1:]) / 2
    if figure.low is not None and figure.high is not None:
        axes.axvspan(figure.low, figure.high, color=VERMILLION, alpha=0.18, linewidth=0)
    axes.axvline(figure.observed, color=VERMILLION, linewidth=2.2, zorder=3)  # before the controls, not behind them
    for row, control in enumerate(reversed(figure.controls)):
        counts, _ = np.histogram(control.values, edges)
        step = min(0.085, 0.62 / max(1, counts.max()))
        if len(control.values) > _DOTS:
            axes.bar(middles, counts * step, np.diff(edges), bottom=row, color=BLUE, alpha=0.75, linewidth=0)
        else:
            x = np.repeat(middles, counts)
            y = [row + step * (place + 0.5) for draws in counts for place in range(draws)]
            axes.scatter(x, y, s=15, color=BLUE, alpha=0.75, linewidths=0)
        says = f"{control.name} · {count(len(control.values), 'draw')}"
        says += "" if control.p is None else f" · p {p_value(control.p)}"
        axes.text(0.0, row + 0.74, _line(says, 56), transform=axes.get_yaxis_transform(), fontsize=10)
        axes.axhline(row, color=_INK, alpha=0.35, linewidth=0.8)
    rows = len(figure.controls)
    where = (figure.observed - edges[0]) / (edges[-1] - edges[0])
    says = f"observed {sized(figure.observed, figure.low, figure.high)[0]}"
    side = "left" if where < 0.2 else "right" if where > 0.8 else "center"
    axes.text(figure.observed, rows + 0.06, says, ha=side, va="bottom", color=VERMILLION, fontweight="bold")
    axes.set_ylim(-0.06, rows)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)


def _draw_lines(axes: Axes, figure: DoseFigure | LayerFigure) -> None:
    if isinstance(figure, LayerFigure):
        for layer in figure.marked:
            axes.axvline(layer, color=_INK, alpha=0.13, linewidth=9, solid_capstyle="butt")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    elif min(min(line.x, default=0) for line in figure.series) < 0:
        axes.axvline(0, color=_INK, alpha=0.35, linewidth=0.8)
    for index, line in enumerate(figure.series):
        colour, marker, style = _LINES[index % len(_LINES)]
        axes.fill_between(line.x, line.lows, line.highs, color=colour, alpha=0.18, linewidth=0)
        axes.plot(line.x, line.means, color=colour, marker=marker, linestyle=style, label=_line(line.name, 30))
    if figure.chance is not None:
        axes.axhline(figure.chance, label=f"chance {number(figure.chance)}", **_CHANCE)
    if len(figure.series) > 1 or figure.chance is not None:
        columns = 2 if max(len(line.name) for line in figure.series) < 24 else 1
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, fontsize=10, columnspacing=1.4)


def _draw_bars(axes: Axes, figure: BarFigure) -> None:
    places = np.arange(len(figure.labels))[::-1]
    axes.barh(places, figure.values, height=0.62, color=BLUE, alpha=0.4, linewidth=0)
    axes.hlines(places, figure.lows, figure.highs, color=BLUE, linewidth=2.4)
    axes.plot(figure.values, places, "o", color=BLUE)
    if figure.chance is not None:
        axes.axvline(figure.chance, label=f"chance {number(figure.chance)}", **_CHANCE)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=10)
    axes.set_yticks(places, [_wrap(label, 22) for label in figure.labels])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(places) - 0.4)
    axes.margins(x=0.04)
    axes.grid(axis="y", visible=False)


def _line(text: str, width: int) -> str:
    return textwrap.shorten(visible(text), width, placeholder=" …")


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(visible(text), width, max_lines=2, placeholder=" …"))


# ── matplotlib's SVG made fit for a page ────────────────────────────────────────────────────────────────────────


def _cleaned(svg: str, figure: Figure, mark: str) -> str:
    """Without prolog, metadata and fixed size; ink as currentColor; system fonts; ids that no other figure shares."""
    svg = re.sub(r"\s*<(metadata|style).*?</\1>", "", svg[svg.index("<svg") :], flags=re.DOTALL)  # its style is global
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r'\sid="([^"]+)"', lambda found: f' id="{mark}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{mark}-", svg)
    svg = svg.replace(_INK, "currentColor")
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", FONTS, svg)
    view = re.search(r'viewBox="([^"]+)"', svg)
    opening = (
        f'<svg class="figure" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{view[1] if view else ""}" stroke-linejoin="round" '
        f'role="img" aria-labelledby="{mark}-title {mark}-desc">'
        f'<title id="{mark}-title">{escape(visible(figure.title))}</title>'
        f'<desc id="{mark}-desc">{escape(visible(figure.caption))}</desc>'
    )
    return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1).strip()
