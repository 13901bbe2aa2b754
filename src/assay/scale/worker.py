"""The process at the other end of a cluster: it loads the model once, proves that it is the driver's, and does units.

What arrives and what leaves is plain data. Nothing here knows Ray.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import shutil
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import AssayError, CorruptFile, MissingExtra
from assay.evidence import of_bytes, of_text
from assay.files import write_whole
from assay.provenance import versions
from assay.scale.arrays import Arrays
from assay.scale.executor import Task, data_digest, perform
from assay.scale.unit import UNITS, code_digest, laboratory_digest

if TYPE_CHECKING:
    from assay.run.model import Model

Failed = tuple[Exception, str, int, str]
"""What a unit raised, and where: file, line, function."""


@dataclass(frozen=True)
class Order:
    """What a worker is to become: plain data.

    Attributes:
        source, revision, trust: where the model comes from, as `Model.load` takes it.
        model: its fingerprint; "" where units load what they work on.
        data: path and digest, by name.
        folder: of the arrays.
        mark: a file in it. Who sees the file shares the folder.
        threads: of a worker.
        code, versions: Assay's own digest, and the versions that bear on numbers.
    """

    source: str | None
    revision: str | None
    trust: bool
    model: str
    data: Mapping[str, tuple[str, str]]
    folder: str
    mark: str
    threads: int
    code: str
    versions: Mapping[str, str]


class Worker:
    """The process at the other end. It loads the model in `start`, so that what goes wrong there comes back typed."""

    def start(self, order: Order) -> tuple[bool, list[str], int]:
        """Load the model. Gives whether the run's folder is seen from here, what data are not, and bytes of memory."""
        self.order = order
        self.model = _model(order)
        shared = Path(order.mark).is_file()
        self.folder = Path(order.folder) if shared else self.home / "arrays"
        self.data = {name: Path(path) for name, (path, digest) in order.data.items() if _is(Path(path), digest)}
        self.known: set[tuple[str, str]] = set()
        return shared, sorted(set(order.data) - set(self.data)), memory()

    def receive(self, name: str, files: Mapping[str, bytes]) -> None:
        """Take data that is not seen from here: a file, or the files of a folder under their paths in it."""
        top = self.home / "data" / of_text(name)[:16]
        for inside, content in files.items():
            write_whole(top / inside, content)
        for path in (top / next(iter(files), "."), top):  # one file, or a folder
            if _is(path, self.order.data[name][1]):
                self.data[name] = path
                return
        raise CorruptFile(
            f"the data {name!r} are not those that the run began with",
            hint="leave an audit's data alone while it runs; bring them back, or give a folder of its own: --into",
        )

    def do(
        self, fields: Mapping[str, Any], code: tuple[str, bytes] | None, *arrays: bytes
    ) -> tuple[Any, dict[str, str], float] | Failed:
        """Do one unit; ``arrays`` are files that its parameters name and that are not seen from here."""
        task, data = Task(**fields), {name: digest for name, (_, digest) in self.order.data.items()}
        if (task.model, task.data) != (self.order.model, data):
            found = f"a task of another model or other data: {task.name}"
            raise CorruptFile("an executor works for one run", hint="make one for each", found=found)
        for content in arrays:
            write_whole(Arrays(self.folder).path(of_bytes(content)), content)
        if (task.name, task.code) not in self.known:
            self._learn(task, code)
        try:
            done = perform(task, self.model, self.data, self.folder, lambda *_: None)
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            return _sendable(error), at.filename, at.lineno or 1, at.name
        return done.result, dict(done.artefacts), done.seconds

    def fetch(self, digest: str) -> bytes:
        """The file of arrays that were made here."""
        return Arrays(self.folder).path(digest).read_bytes()

    def leave(self) -> None:
        """Take away what lies here only for this worker."""
        if "home" in vars(self):
            shutil.rmtree(self.home, ignore_errors=True)

    @cached_property
    def home(self) -> Path:
        """A folder for what is sent here and made here, where the run's own is not seen."""
        return Path(tempfile.mkdtemp(prefix="assay-"))

    def _learn(self, task: Task, code: tuple[str, bytes] | None) -> None:
        """Import the unit's module by its name or, as an audit from a file has none, from its file."""
        try:
            _import(task.module, code, lambda: self.home)
        except ImportError as error:
            hint = "install there what is installed here"
            raise MissingExtra(f"a worker cannot import {task.module!r}", hint=hint, found=error) from error
        if task.name not in UNITS or code_digest(UNITS[task.name]) != task.code:
            found = "another file" if task.name in UNITS else "no such unit when the module is imported"
            hint = "define it at the top of a file, the same here and there, and leave that alone while the audit runs"
            raise CorruptFile(f"a worker has other code for the unit {task.name!r}", hint=hint, found=found)
        self.known.add((task.name, task.code))


def _model(order: Order) -> Model | None:
    """The model, if all that its numbers depend on is what it is at the driver."""
    if (found := versions()) != order.versions:
        other = {name for name in {**found, **order.versions} if found.get(name) != order.versions.get(name)}
        told = ", ".join(f"{name} {found.get(name)} there, {order.versions.get(name)} here" for name in sorted(other))
        raise MissingExtra("a worker has other versions", found=told, hint="install there what is installed here")
    if laboratory_digest() != order.code:
        raise _other("Assay", order.code, laboratory_digest(), "install the same one, and leave it alone while it runs")

    import torch

    from assay.run.model import Model

    torch.set_num_threads(order.threads)
    if not order.model:
        return None
    try:
        model = Model.load(order.source, revision=order.revision, trust_remote_code=order.trust)
    except AssayError as error:
        raise CorruptFile(f"a worker cannot load the model: {error.what}", hint=error.hint, **error.fields) from error
    if model.fingerprint != order.model:
        raise _other("model", order.model, model.fingerprint, "give all machines the same files, or pin --revision")
    return model


def _other(what: str, here: str, there: str, hint: str) -> CorruptFile:
    fields = {"here": here[:16], "there": there[:16], "on": socket.gethostname()}
    return CorruptFile(f"a worker has another {what}", hint=hint, **fields)


def _is(path: Path, digest: str) -> bool:
    """Whether something of that digest lies there."""
    try:
        return data_digest(path) == digest
    except CorruptFile:
        return False


def _import(module: str, code: tuple[str, bytes] | None, home: Callable[[], Path]) -> None:
    """Import a module by name; one that no path leads to from its file, or from its content where there is none."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if code is None or error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        path = Path(code[0])
        if not path.is_file() or path.read_bytes() != code[1]:
            path = write_whole(home() / "code" / path.name, code[1])
        spec = importlib.util.spec_from_file_location(module, path)
        assert spec is not None and spec.loader is not None
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])


def _sendable(error: Exception) -> Exception:
    """An error that can be made again from what it holds, as it is at the other end."""
    try:
        copy.copy(error)
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def memory() -> int:
    """Bytes that this process has needed so far, at most."""
    try:
        import resource
    except ImportError:  # Windows
        return 1 << 30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
