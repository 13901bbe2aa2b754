"""Tables in Markdown, printed and put between the marks of a README."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns."""
    every = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in every) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in every
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def write(path: Path, mark: str, text: str) -> None:
    """Replace what stands between ``<!-- mark -->`` and ``<!-- end mark -->``."""
    old = path.read_text(encoding="utf-8")
    new, count = re.subn(
        f"(<!-- {mark} -->\n).*?(\n<!-- end {mark} -->)",
        lambda found: f"{found[1]}\n{text}\n{found[2]}",
        old,
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(f"{path} has no place for {mark!r}")
    path.write_text(new, encoding="utf-8")
