"""Every subject audited, here or on Ray; results in a ledger, so that what was done is found again after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from assay.audit.calibration import SCORED
from assay.evidence import Ledger, TableData, Unit
from assay.scale import Done, Executor, RayExecutor, Task
from assay.scale.executor import perform
from assay.scale.unit import code_digest
from assay.twinbench.blind import audited
from assay.twinbench.rates import Rates, Row, rates
from assay.twinbench.subjects import Subject

PROBLEMS = tuple(SCORED)
Say = Callable[[int, int], None]
"""Told how many subjects are done, of how many."""


def bench(
    problem: str,
    who: Sequence[Subject],
    *,
    into: str | Path,
    executor: Executor | None = None,
    series: int = 0,
    say: Say = lambda *_: None,
) -> list[Row]:
    """Audit all subjects; the ledger in ``into`` keeps what was found.

    Args:
        problem: the class that is audited.
        who: models, in an order that tells nothing.
        into: a folder.
        executor: who does the work; nothing is this process.
        series: of so many planted models every checkpoint is audited.
        say: told how far it is.

    Raises what an audit raises; `LedgerInUse`, `Unwritable`.
    """
    planted = sorted(one.seed for one in who if one.kind == "planted")[:series]
    tasks = [_task(problem, one, one.kind == "planted" and one.seed in planted) for one in who]
    with Ledger.open(Path(into) / "ledger") as ledger:
        found = {task.address: _known(ledger, task) for task in tasks}
        waiting = [task for task in tasks if found[task.address] is None]
        for done in (executor or _Here(Path(into))).run(waiting, lambda *_: None):
            found[done.task.address] = _keep(ledger, done)
            say(sum(one is not None for one in found.values()), len(tasks))
    return [
        {**one.to_json(), **(found[task.address] or {}), "bar": SCORED[problem].bar}
        for one, task in zip(who, tasks, strict=True)
    ]


def table_of(problem: str, rows: Sequence[Row]) -> tuple[Rates, TableData]:
    """The rates, and how they read."""
    found = rates(problem, rows)
    return found, found.table()


def on(place: str, folder: Path) -> AbstractContextManager[Executor | None]:
    """Who does the work, at ``local`` or ``ray[:ADDRESS]``."""
    kind, _, address = place.partition(":")
    return nullcontext() if kind == "local" else RayExecutor(None, {}, folder / "arrays", address=address or None)


class _Here:
    """One subject after the other, in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, tasks: Sequence[Task], report: Callable[[str, int, int], None]) -> Any:
        for task in tasks:
            yield perform(task, None, {}, self.folder / "arrays", report)


def _task(problem: str, one: Subject, series: bool) -> Task:
    params = {"problem": problem, **one.to_json(), "series": series}
    return Task("twinbench.audit", audited.__module__, params, "", {}, code_digest(audited))


def _known(ledger: Ledger, task: Task) -> Row | None:
    entry = ledger.latest(Unit.kind, task.address)
    return None if entry is None else _row(entry.read(Unit).result)


def _keep(ledger: Ledger, done: Done) -> Row:
    task = done.task
    ledger.record(
        Unit(
            address=task.address,
            measure=task.name,
            params=dict(task.params),
            result=done.result,
            artefacts=dict(done.artefacts),
            seconds=done.seconds,
        )
    )
    return _row(done.result)


def _row(result: Any) -> Row:
    assert isinstance(result, dict), "a subject's result is a JSON object"
    return result
