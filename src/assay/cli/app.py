"""The commands, and what becomes of their errors."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli import (
    audit,
    benchmark,
    check,
    diff,
    doctor,
    edit,
    heads,
    keys,
    organisms,
    plan,
    release,
    scrub,
    sites,
    steer,
    trace,
    verify,
)
from assay.cli.terminal import out, show_error
from assay.errors import AssayError, laboratory_missing

app = typer.Typer(
    name="assay",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    plan.plan,
    audit.audit,
    benchmark.benchmark,
    steer.steer,
    trace.trace,
    heads.heads,
    edit.edit,
    scrub.scrub,
    sites.sites,
    check.check,
    check.report,
    diff.diff,
    release.policy,
    release.seal,
    release.release,
    verify.verify,
    doctor.doctor,
):
    app.command()(command)
app.command("open")(verify.open_)
app.add_typer(keys.app, name="keys")
app.add_typer(organisms.app, name="organisms")


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
    except ModuleNotFoundError as error:
        if (missing := laboratory_missing(error)) is None:
            raise
        show_error(missing)
        raise SystemExit(2) from None
