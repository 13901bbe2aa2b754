"""What all commands print with. Foreign text reaches the terminal without control characters, and never as markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from assay.errors import AssayError


@dataclass(frozen=True)
class Row:
    """One thing that was looked at. ``remedy`` is what to do where it does not hold."""

    holds: bool
    what: str
    found: str
    remedy: str = ""

    @property
    def word(self) -> str:
        """``ok`` or ``no``."""
        return "ok" if self.holds else "no"


def out() -> Console:
    """Standard output. Where it is no terminal, lines are not broken and nothing is coloured."""
    return Console(highlight=False, markup=False, soft_wrap=not Console().is_terminal)


def show_error(error: AssayError) -> None:
    """An error in its one form, on standard error: what happened, what was found, what is near, one hint."""
    console = Console(stderr=True, highlight=False)
    console.print(Text.assemble((type(error).__name__, "bold red"), f": {error}"), soft_wrap=True)


def show_rows(
    console: Console,
    rows: Sequence[Sequence[str]],
    *,
    heads: Sequence[str] = (),
    styles: Mapping[str, str] | None = None,
    widths: Sequence[int] = (),
    indent: int = 0,
) -> None:
    """Rows in columns; on a terminal the last column wraps, elsewhere a row is a line.

    ``styles`` gives a cell's style by its text; ``widths`` the least width of the first columns.
    """
    if not rows:
        return
    styles = styles or {}
    whole = [list(heads), *map(list, rows)] if heads else [list(row) for row in rows]
    least = [*widths, *[0] * (max(map(len, whole)) - len(widths))]
    wide = [max([least[column], *(len(row[column]) for row in whole)]) for column in range(len(least))]
    if not console.is_terminal:
        for row in whole:
            told = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, wide, strict=True))
            console.print(" " * indent + told.rstrip())
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    for width in wide[:-1]:
        table.add_column(min_width=width, no_wrap=True)
    table.add_column(overflow="fold")
    for place, row in enumerate(whole):
        style = "dim" if heads and place == 0 else ""
        table.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row), style=style)
    console.print(Padding(table, (0, 0, 0, indent)))


def show_checks(console: Console, rows: Sequence[Row]) -> None:
    """What was looked at, line by line. Leaves with exit code 1 unless all of it holds."""
    told = [(row.word, row.what, row.found if row.holds else f"{row.found}; {row.remedy}") for row in rows]
    show_rows(console, told, styles={"no": "bold red"})
    if not all(row.holds for row in rows):
        raise typer.Exit(1)
