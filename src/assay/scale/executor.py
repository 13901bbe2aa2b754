"""What travels between an audit and whatever does its work.

A `Task` is pure data at an address that covers all it depends on; `Done` is JSON, and the digests of files. An
`Executor` is anything with `run`: it takes tasks and gives back what was done, in any order. The local one works in
this process; a cluster engine calls `perform` on its machines, and no audit changes.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic import JsonValue

from assay.evidence import of_file, of_folder, of_json
from assay.evidence.digest import plain
from assay.scale.arrays import Arrays
from assay.scale.unit import UNITS

if TYPE_CHECKING:
    from assay.run.model import Model

Report = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

LEFT_OUT = (".git", "__pycache__")
"""Names that are no part of an audit's data."""


@dataclass(frozen=True)
class Bench:
    """What a unit works with.

    Attributes:
        model: the model that is audited. A unit of a task that names none loads what it works on, and never asks for it.
        data: the audit's files and folders, by name.
        arrays: where large results go.
        report: told how far the work is.
    """

    model: Model
    data: Mapping[str, Path]
    arrays: Arrays
    report: Report

    def progress(self, text: str, done: int, total: int) -> None:
        """Say what is being done: ``done`` of ``total``."""
        self.report(text, done, total)


@dataclass(frozen=True)
class Task:
    """One unit of work to be done.

    Attributes:
        name, module: the registered unit, and the module that registers it when imported.
        params: its arguments, JSON values.
        model: the model's fingerprint; "" for a unit that loads what it works on.
        data: digests of the audit's data, by name.
        code: digest of the code that the unit rests on.
    """

    name: str
    module: str
    params: Mapping[str, Any]
    model: str
    data: Mapping[str, str]
    code: str

    @cached_property
    def address(self) -> str:
        """SHA-256 of everything that the result depends on."""
        return of_json([self.name, self.params, self.model, self.data, self.code])


@dataclass(frozen=True)
class Done:
    """A task's result, a JSON value; ``artefacts`` are digests of the arrays that it put, by file name."""

    task: Task
    result: JsonValue
    artefacts: Mapping[str, str]
    seconds: float


class Executor(Protocol):
    """Does tasks. Whatever a unit raises, `run` raises; what was done before that has been given back."""

    def run(self, tasks: Sequence[Task], report: Report) -> Iterator[Done]:
        """Every task, done, in any order, each as soon as it is."""
        ...


def data_digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's manifest. Raises `CorruptFile` where neither is there."""
    return of_json(of_folder(path, leave_out=LEFT_OUT)) if path.is_dir() else of_file(path)


def perform(task: Task, model: Model | None, data: Mapping[str, Path], folder: Path, report: Report) -> Done:
    """Do one task on this machine. Arrays go into ``folder``. Raises what the unit raises."""
    if task.name not in UNITS:
        importlib.import_module(task.module)
    function, arrays = UNITS[task.name], Arrays(folder)
    start = time.perf_counter()
    bench = Bench(cast("Model", model), data, arrays, report)
    result = plain(function(bench, **task.params))
    seconds = time.perf_counter() - start
    return Done(task, result, {arrays.path(digest).name: digest for digest in arrays.made}, seconds)
