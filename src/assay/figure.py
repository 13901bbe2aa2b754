"""What figures have in common: one style, vectors without a script, the same bytes for the same numbers."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from assay.errors import Unwritable

BLUE, VERMILLION, INK = "#2583c4", "#d55e00", "#333333"  # Okabe and Ito, the blue a little lighter
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "assay",
    "text.parse_math": False,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.constrained_layout.use": True,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the house's style, whatever the caller has set."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def titled(canvas: Figure, title: str) -> None:
    """Put a title at the top left."""
    canvas.suptitle(textwrap.shorten(title, 90, placeholder=" …"), x=0.01, ha="left", fontsize=11, fontweight="bold")


def svg(canvas: Figure) -> str:
    """The figure as SVG."""
    text = io.StringIO()
    canvas.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def save(path: str | Path, text: str) -> Path:
    """Write a figure. Raises `Unwritable`."""
    path = Path(path)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unwritable(
            f"{str(path)!r} cannot be written", found=str(error), hint="give a folder that exists"
        ) from error
    return path
