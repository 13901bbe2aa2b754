"""The commands, and what becomes of their errors."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli import audit, check, doctor, sites, steer
from assay.cli.terminal import out, show_error
from assay.errors import AssayError

app = typer.Typer(
    name="assay",
    help="Targeted interpretability audits of language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("audit")(audit.audit)
app.command("steer")(steer.steer)
app.command("sites")(sites.sites)
app.command("check")(check.check)
app.command("report")(check.report)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from assay import __version__

        out().print(f"assay {__version__}")
        raise typer.Exit


@app.callback()
def assay(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Targeted interpretability audits of language models."""


def run() -> None:
    """Run one command and leave with its exit code. An error of Assay prints in its own form, without a traceback."""
    try:
        app()
    except AssayError as error:
        show_error(error)
        raise SystemExit(2) from None
