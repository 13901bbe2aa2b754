"""What all commands print with. Text that a model wrote never reaches the terminal as control characters or markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from assay.errors import AssayError

VERDICT_WIDTH = len("not supported")


def out() -> Console:
    """Standard output. Where it is no terminal, no line is broken and nothing is coloured."""
    return _console(stderr=False)


def err() -> Console:
    """Standard error."""
    return _console(stderr=True)


def show_error(error: AssayError) -> None:
    """An error in its one form: what happened, what was found, what is near, one hint."""
    err().print(Text.assemble((type(error).__name__, "bold red"), f": {error}"), soft_wrap=True)
