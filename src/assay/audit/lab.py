"""The `Lab`: what a measure works with, and the place where units of work are found again or done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import JsonValue

from assay.errors import BadData
from assay.evidence import Claim, Ledger, Note, Unit
from assay.evidence.digest import plain
from assay.scale import Bench, Done, Executor, Task
from assay.scale.unit import UNITS, check_arguments, code_digest


@dataclass(frozen=True)
class Lab(Bench):
    """A bench with an executor and a ledger behind it.

    Attributes:
        claim: the claim that is tested; its digest goes into the outcome.
        digests: of the data, by name.
        executor: who does the units.
        ledger: where their results are kept.
    """

    claim: Claim
    digests: Mapping[str, str]
    executor: Executor
    ledger: Ledger

    def unit(self, unit: str | Callable[..., Any], /, **params: Any) -> Any:
        """Do one unit of work, or find what it gave before. Its result is in the ledger when this returns.

        Args:
            unit: the name of a registered unit, or the function itself.
            params: its arguments, JSON values.

        Raises:
            BadData: no such unit, parameters that it does not take, or a result that is no JSON value.
            Exception: whatever the unit raises.
        """
        return self.units(unit, [params])[0]

    def units(self, unit: str | Callable[..., Any], over: Sequence[Mapping[str, Any]], /) -> list[Any]:
        """Do one unit for each set of parameters; results in their order. An executor may do them side by side."""
        name = UNITS.named(unit)
        function = UNITS[name]
        for params in over:
            check_arguments(function, params, f"the unit {name!r}")
        home, code, model = function.__module__, code_digest(function), self.model.fingerprint
        tasks = [Task(name, home, _json(params), model, self.digests, code) for params in over]
        found = {task.address: self._recorded(task) for task in tasks}
        waiting = {task.address: task for task in tasks if found[task.address] is None}
        if waiting:
            self.progress(name, 0, len(waiting))
        for place, done in enumerate(self.executor.run(list(waiting.values()), self.report), start=1):
            found[done.task.address] = self._keep(done)
            self.progress(name, place, len(waiting))
        bodies = [found[task.address] for task in tasks]
        assert None not in bodies, "the executor gave back fewer tasks than it took"
        return [body.result for body in bodies if body is not None]

    def note(self, about: Literal["method", "data", "limits"], text: str) -> None:
        """Words for the report's section on method, data or limits. Said once, however often this is called."""
        note = Note(about=about, text=text)
        if all(entry.body != note.model_dump(mode="json") for entry in self.ledger.entries(Note.kind)):
            self.ledger.record(note)

    def _recorded(self, task: Task) -> Unit | None:
        """What the unit gave before, if all that it left is still there."""
        entry = self.ledger.latest(Unit.kind, task.address)
        body = None if entry is None else entry.read(Unit)
        return body if body is not None and all(digest in self.arrays for digest in body.artefacts.values()) else None

    def _keep(self, done: Done) -> Unit:
        body = Unit(
            address=done.task.address,
            measure=done.task.name,
            params=dict(done.task.params),
            result=done.result,
            artefacts=dict(done.artefacts),
            seconds=round(done.seconds, 3),
        )
        before = self.ledger.latest(Unit.kind, body.address)
        if before is None:
            self.ledger.record(body)
        elif (was := before.read(Unit)).result != body.result or was.artefacts != body.artefacts:
            raise BadData(
                f"the unit {body.measure!r} gave another result than it did before",
                found=f"{body.result!r:.80}",
                recorded=f"{was.result!r:.80}",
                hint="a unit draws on its parameters alone: no clock, no unseeded chance, no file beside its data",
            )
        return body


def _json(params: Mapping[str, Any]) -> dict[str, JsonValue]:
    made = plain(dict(params))
    assert isinstance(made, dict)
    return made
