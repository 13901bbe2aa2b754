"""``assay audit``: run an audit, show how far it is, and say one line of verdict per threat model."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.options import ModelOption, Revision
from assay.cli.terminal import out
from assay.errors import BadData, nearest

if TYPE_CHECKING:
    from assay.audit import Plan
    from assay.run.model import Model
    from assay.scale import Executor

Name = Annotated[
    str,
    typer.Argument(
        metavar="AUDIT",
        help="backdoor, deception, tampering, transcripts, unwatched, or a file of your own: my_audit.py[:function].",
    ),
]
Into = Annotated[Path | None, typer.Option(help="The run's folder; runs/AUDIT unless given. A run there goes on.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An argument of the audit. May be repeated.")
]
Retry = Annotated[bool, typer.Option("--retry", help="Measure again what failed before.")]
Auditor = Annotated[str, typer.Option(help="Who asks, for the report.")]
PolicyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--policy", metavar="FILE.toml", help="Who may see what, beside the policies of Assay. May be repeated."
    ),
]
DataFiles = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="NAME=FILE", help="Data of your own in place of the audit's. May be repeated."),
]
Checkpoints = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|REVISIONS", help="Audit every checkpoint: a folder of models, or revisions: step1,step2,…"
    ),
]
On = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="local|ray[:ADDRESS]",
        help="Where the work is done: in this process, or by Ray's workers, here or on the cluster at ADDRESS.",
    ),
]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Let the model's own code run. It is recorded.")]


def audit(
    name: Name,
    model: ModelOption = None,
    into: Into = None,
    settings: Settings = None,
    retry: Retry = False,
    auditor: Auditor = "",
    policy: PolicyFiles = None,
    revision: Revision = None,
    trust_remote_code: Trust = False,
    on: On = "local",
    data: DataFiles = None,
    checkpoints: Checkpoints = None,
) -> None:
    """Audit a model for one problem class, and leave a report.

    Claims are hashed into the ledger before the first forward pass. Stopped or killed, the same command goes on.
    """
    from assay.audit import audit_called
    from assay.cli.screen import Screen
    from assay.disclose import load_policy

    plan = with_data(audit_called(name)(**read_settings(settings or [])), data or [])
    if checkpoints is not None:
        from assay.audit.training import over

        plan = over(plan, name, checkpoints, model)
        model, revision = _last(checkpoints, model)
    policies = [load_policy(path) for path in policy or []]
    home = into or Path("runs") / plan.name
    with executor_on(on, model, plan, home, revision, trust_remote_code) as executor, Screen(out()) as screen:

        def load() -> Model:
            from assay.run.model import Model

            return Model.load(model, revision=revision, trust_remote_code=trust_remote_code)

        try:
            ledger = plan.run(
                load, into=home, executor=executor, auditor=auditor, watch=screen, retry=retry, policies=policies
            )
        except KeyboardInterrupt:
            screen.stopped()
            raise typer.Exit(130) from None
        with ledger:
            screen.verdicts(ledger)


def executor_on(
    place: str, model: str | None, plan: Plan, home: Path, revision: str | None, trust: bool
) -> AbstractContextManager[Executor | None]:
    """Who does an audit's work where ``--on`` says; nobody special in this process. Raises `BadData` for no place."""
    from assay.audit.runner import ARRAYS
    from assay.scale import RayExecutor

    kind, _, address = place.partition(":")
    if place == "local":
        return nullcontext()
    if kind != "ray":
        raise BadData(f"--on {place!r} is no place to work", hint="write --on local, --on ray or --on ray:ADDRESS")
    return RayExecutor(
        model,
        plan.data,
        home / ARRAYS,
        address=address or None,
        revision=revision,
        trust_remote_code=trust,
    )


def with_data(plan: Plan, texts: list[str]) -> Plan:
    """The audit on other data: ``name=file``. Raises `BadData`."""
    data = dict(plan.data)
    for text in texts:
        name, _, path = text.partition("=")
        if name not in data or not Path(path).exists():
            raise BadData(
                f"--data {text!r} names no data of the audit {plan.name!r}, or no file",
                found=", ".join(data),
                nearest=nearest(name, data),
                hint="write --data NAME=FILE with one of these names",
            )
        data[name] = Path(path)
    return replace(plan, data=data)


def _last(given: str, model: str | None) -> tuple[str | None, str | None]:
    """The last checkpoint, as model and revision: it is the one that the report names."""
    from assay.audit.training import checkpoints

    last = checkpoints(given)[-1]
    return (str(Path(given) / last.folder), None) if last.folder else (model, last.revision)


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
