"""``assay audit``: run an audit, show how far it is, and say one line of verdict per threat model."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from assay.cli.terminal import err, grid, out
from assay.errors import BadData

if TYPE_CHECKING:
    from assay.audit import Audited, Claim, Ledger
    from assay.run.model import Model

PLAIN_EVERY = 15.0
"""Seconds between two lines on how far the work is, where no bar can be drawn."""


def audit(
    name: Annotated[str, typer.Argument(metavar="AUDIT", help="An audit that comes with Assay, such as deception, or a file: my_audit.py[:function].")],
    model: Annotated[str | None, typer.Option(help="org/name, a folder or a .gguf file; SmolLM2-135M-Instruct unless given.")] = None,
    into: Annotated[Path | None, typer.Option(help="The run's folder; runs/AUDIT unless given. A run that is there goes on where it was.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a model on the hub.")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Let the model's own code run; it is recorded.")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An argument of the audit; may be given again.")] = None,
    auditor: Annotated[str, typer.Option(help="Who asks, for the report.")] = "",
    retry: Annotated[bool, typer.Option("--retry", help="Measure again what failed before.")] = False,
) -> None:
    """Audit a model for one problem class, and leave a report that can be checked.

    Claims are hashed into the ledger before the first forward pass. Stopped or killed, the same command goes on.
    """
    from assay.audit import audit_called

    plan = audit_called(name)(**_settings(settings or []))
    folder = into or Path("runs") / plan.name
    with _Screen(out()) as screen:

        def load() -> Model:
            from assay.run.model import Model

            screen.say(f"loading {model or 'the default model'}")
            loaded = Model.load(model, revision=revision, trust_remote_code=trust_remote_code)
            screen.say("")
            return loaded

        try:
            with plan.run(load, into=folder, auditor=auditor, watch=screen.watch, retry=retry) as ledger:
                ...
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
