"""``assay audit``: run an audit, show how far it is, and say one line of verdict per threat model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.options import ModelOption, Revision
from assay.cli.terminal import out
from assay.errors import BadData

if TYPE_CHECKING:
    from assay.run.model import Model

Name = Annotated[str, typer.Argument(metavar="AUDIT", help="deception, or a file of your own: my_audit.py[:function].")]
Into = Annotated[Path | None, typer.Option(help="The run's folder; runs/AUDIT unless given. A run there goes on.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An argument of the audit. May be repeated.")
]
Retry = Annotated[bool, typer.Option("--retry", help="Measure again what failed before.")]
Auditor = Annotated[str, typer.Option(help="Who asks, for the report.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Let the model's own code run. It is recorded.")]


def audit(
    name: Name,
    model: ModelOption = None,
    into: Into = None,
    settings: Settings = None,
    retry: Retry = False,
    auditor: Auditor = "",
    revision: Revision = None,
    trust_remote_code: Trust = False,
) -> None:
    """Audit a model for one problem class, and leave a report.

    Claims are hashed into the ledger before the first forward pass. Stopped or killed, the same command goes on.
    """
    from assay.audit import audit_called
    from assay.cli.screen import Screen

    plan = audit_called(name)(**read_settings(settings or []))
    with Screen(out()) as screen:

        def load() -> Model:
            from assay.run.model import Model

            return Model.load(model, revision=revision, trust_remote_code=trust_remote_code)

        try:
            ledger = plan.run(load, into=into or Path("runs") / plan.name, auditor=auditor, watch=screen, retry=retry)
        except KeyboardInterrupt:
            screen.stopped()
            raise typer.Exit(130) from None
        with ledger:
            screen.verdicts(ledger)


def read_settings(texts: list[str]) -> dict[str, Any]:
    """``name=value``, the value as JSON where it reads as JSON, else as text. Raises `BadData`."""
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise BadData(f"--set {text!r} sets nothing", hint="write --set name=value: --set draws=64")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
