"""A circuit as a graph: components from the embedding below to the scores above, a line for every edge that is in it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from assay.errors import EmptyData
from assay.figure import INK, save, styled, svg, titled
from assay.graph import Edge

_COLORS = {"q": "#0072b2", "k": "#d55e00", "v": "#009e73", "": "#777777"}
_TOLD = {"q": "into queries", "k": "into keys", "v": "into values", "": "into MLPs and scores"}
_PLACE = re.compile(r"^L(?P<layer>\d+)\.(?P<kind>head|attn|mlp)(?:\[(?P<head>\d+)\])?")


def draw(circuit: Iterable[Edge], path: str | Path, title: str = "") -> Path:
    """Draw edges as SVG. Raises `EmptyData` for none, `Unwritable`."""
    return save(path, picture(circuit, title))


def picture(circuit: Iterable[Edge], title: str = "") -> str:
    """The circuit as SVG."""
    edges = sorted(circuit)
    if not edges:
        raise EmptyData("the circuit has no edges", hint="take more of them: ranking.circuit(20)")
    names = sorted({component(end) for edge in edges for end in edge}, key=_order)
    rows: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name in names:
        rows[_order(name)[:2]].append(name)
    wide = max(map(len, rows.values()))
    where = {
        name: ((at + 0.5) * wide / len(members), height)
        for height, members in enumerate(rows.values())
        for at, name in enumerate(members)
    }
    roles = {_role(reader) for _, reader in edges}
    with styled():
        canvas = Figure(
            figsize=(max(3.6, 1.35 * wide + 1, 0.092 * len(title)), 0.85 * len(rows) + (1.15 if title else 0.8))
        )
        axes = canvas.subplots()
        axes.set_axis_off()
        axes.set_xlim(0, wide)
        axes.set_ylim(-0.45, len(rows) - 0.55)
        for writer, reader in edges:
            start, end, role = where[component(writer)], where[component(reader)], _role(reader)
            straight = abs(end[1] - start[1]) <= 1 or start[0] != end[0]
            bend = {"q": -0.12, "k": 0.0, "v": 0.12, "": 0.0}[role] + (0 if straight else 0.55)
            axes.add_patch(
                FancyArrowPatch(
                    (start[0], start[1] + 0.17),
                    (end[0], end[1] - 0.19),
                    connectionstyle=f"arc3,rad={bend}",
                    arrowstyle="-|>",
                    mutation_scale=9,
                    color=_COLORS[role],
                    linewidth=1.3,
                    alpha=0.85,
                )
            )
        for name, (x, y) in where.items():
            box = dict(boxstyle="round,pad=0.35", facecolor="white", edgecolor=INK, linewidth=0.9)
            axes.text(x, y, name, ha="center", va="center", fontsize=9, bbox=box, zorder=3)
        shown = [role for role in _COLORS if role in roles]
        handles = [Line2D([], [], color=_COLORS[role], linewidth=1.6, label=_TOLD[role]) for role in shown]
        canvas.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        if title:
            titled(canvas, title)
        return svg(canvas)


def component(end: str) -> str:
    """What writes or reads under a name: ``L3.head[5]`` for ``L3.head[5].out`` and ``L3.head[5].q``."""
    found = _PLACE.match(end)
    return found.group(0) if found else end


def _role(reader: str) -> str:
    last = reader.rpartition(".")[2]
    return last if last in ("q", "k", "v") else ""


def _order(name: str) -> tuple[int, int, int]:
    found = _PLACE.match(name)
    if found is None:
        return (-1, 0, 0) if name == "embed" else (1 << 30, 0, 0)
    return int(found["layer"]), int(found["kind"] == "mlp"), int(found["head"] or 0)
