"""What all commands print with. Text that a model wrote never reaches the terminal as control characters or markup."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.errors import AssayError


def out() -> Console:
    """Standard output. Piped, it is plain text, and no line is broken."""
    return _console(stderr=False)


def err() -> Console:
    """Standard error, for errors and for how far the work is."""
    return _console(stderr=True)


def show_error(error: AssayError) -> None:
    """An error in its one form: what happened, what was found, what is near, one hint."""
    first, _, rest = str(error).partition("\n")
    err().print(Text.assemble((type(error).__name__, "bold red"), ": ", first, "\n", rest), soft_wrap=True)


def grid(*widths: int | None) -> Table:
    """A table without lines; columns of a fixed width do not wrap, the others do."""
    table = Table.grid(padding=(0, 2))
    for width in widths:
        table.add_column(width=width, no_wrap=width is not None, overflow="fold")
    return table


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=10_000, soft_wrap=True, no_color=True)
    return console
