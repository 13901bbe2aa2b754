"""Units of work on Ray: on the cores of this machine, or on those of a cluster.

`RayExecutor` starts actors. Each is a process that loads the model once, proves that it is the driver's (by its
fingerprint; so too the code, the data and the versions), and then does one unit after the other. Only Ray Core is used,
and none of its own retries: a worker that dies is replaced, and its unit is given out again. The ledger stays with its
one writer, the driver. Where that is killed, what it recorded is recorded, and the next sitting goes on from there.

What travels is plain data: a unit's name and parameters, bytes of files, JSON, errors. Ray's own serialisation carries
it, between processes that trust each other, as Ray's always must; nothing of it is kept, and no file is read that way.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import re
import socket
import sys
import tempfile
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from assay.errors import BadData, CorruptFile, MissingExtra, Unwritable
from assay.evidence import of_bytes
from assay.files import write_whole
from assay.provenance import versions
from assay.scale.arrays import Arrays
from assay.scale.executor import LEFT_OUT, Done, Report, Task
from assay.scale.unit import laboratory_digest
from assay.scale.worker import Order, Worker

if TYPE_CHECKING:
    pass

DEATHS = 3
"""So often may a unit end its worker, and a worker end while it loads, before that is an error."""
STORE = 128 << 20
"""Bytes of shared memory for a Ray of our own. What is large goes through files."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(eq=False)
class _Hand:
    """A worker as the driver sees it. ``ref`` is what it owes, nothing where it is idle; ``task`` is nothing until it
    is ready; ``turn`` is the call of `RayExecutor.run` that gave the task.
    """

    actor: Any
    ref: Any
    task: Task | None = None
    turn: int = 0
    shared: bool = True
    ready: bool = False
    has: set[str] = field(default_factory=set)  # arrays and modules


class RayExecutor:
    """Does units on Ray. ``with RayExecutor(...) as executor:`` ends what it started; so does the end of the process.

    Args:
        source: where workers load the model from: a hub name, a folder, a ``.gguf`` file, or nothing for the default.
            A loaded model cannot be sent; save it into a folder.
        data: the audit's files and folders. They are read in place where a worker sees them, else sent.
        folder: of the run's arrays; likewise.
        address: of a cluster that runs, such as ``10.0.0.1:6379`` or ``auto``; it is tried at once. Nothing starts a
            Ray on this machine, with the first unit. One that this process is connected to is used, and left as it is.
        workers: how many processes, each with a model; as many as cores and memory allow unless given.
        threads: of each. Rounding depends on them: results are the same bits where these are the same.
        revision, trust_remote_code: as in `Model.load`.

    Workers compute on processors, with the numbers as they are stored, which is what `Model.load` does by itself.

    Raises:
        MissingExtra: Ray is not installed, does not answer, or has workers without what is installed here.
        CorruptFile: a worker reads another model, other data or other code under the same name. Like the error above,
            this stops a run; nothing is recorded of it.
        BadData: a source that cannot be sent; a unit that ended its worker `DEATHS` times.
    """

    def __init__(
        self,
        source: str | Path | None,
        data: Mapping[str, Path],
        folder: str | Path,
        *,
        address: str | None = None,
        workers: int | None = None,
        threads: int = 1,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if not isinstance(source, str | Path | None):
            raise BadData(
                f"a {type(source).__name__} cannot be sent to workers",
                hint="give what they can load: a name, or a folder that save_pretrained wrote",
            )
        if threads < 1 or (workers is not None and workers < 1):
            raise BadData(
                "no work is done by nobody", found=f"workers={workers}, threads={threads}", hint="give 1 or more"
            )
        self.source = str(Path(source).absolute()) if source is not None and Path(source).exists() else source
        self.data = {name: Path(path).absolute() for name, path in data.items()}
        self.arrays = Arrays(Path(folder).absolute())
        self.address, self.workers, self.threads = address, workers, threads
        self.revision, self.trust = revision, trust_remote_code
        self._ray = _ray(own=address is None)
        self._hands: list[_Hand] = []
        self._sent: dict[str, Any] = {}  # what was put into Ray's store for workers, by name
        self._memory: int | None = None  # of one worker, in bytes
        self._most = workers or 1
        self._mark: Any = None
        self._turn = self._stillborn = 0
        self._ours = False

    def __enter__(self) -> Self:
        if self.address is not None:
            self._connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(self, tasks: Sequence[Task], report: Report) -> Iterator[Done]:
        """Every task, each as soon as it is done. Where a unit raises, those in work are finished and given first."""
        if not tasks:
            return
        self._connect()
        self._turn += 1
        waiting, deaths = deque(tasks), Counter[str]()
        failed: Exception | None = None
        while waiting or any(hand.task and hand.turn == self._turn for hand in self._hands):
            self._hire(len(waiting), tasks[0], report)
            for hand in self._hands:
                if waiting and hand.ready and hand.ref is None:
                    self._give(hand, waiting.popleft())
            hand = self._heard()
            task = hand.task if hand.turn == self._turn else None  # else from a run that nobody finished
            try:
                done = self._answer(hand)
            except self._ray.exceptions.RayTaskError as error:  # the worker lives, and says what is wrong with it
                hand.ref = hand.task = None
                if not hand.ready:
                    self._dismiss(hand)
                raise error.cause from error
            except self._ray.exceptions.RayError as error:
                self._bury(hand, error)
                if task is None or failed is not None:
                    continue
                deaths[task.address] += 1
                waiting.appendleft(task)
                if deaths[task.address] == DEATHS:
                    done = _deadly(task, error)
                else:
                    continue
            if isinstance(done, Exception) and task is not None:
                failed = failed or done
                waiting.clear()
            elif isinstance(done, Done) and task is not None:
                yield done
        if failed is not None:
            raise failed

    def close(self) -> None:
        """End the workers, and Ray where it was started here."""
        if self._mark is not None:
            self._mark.close()
            self._mark = None
        if self._hands and self._ray.is_initialized():
            idle = [hand.actor.leave.remote() for hand in self._hands if hand.ready and hand.ref is None]
            if idle:
                self._ray.wait(idle, num_returns=len(idle), timeout=5)
            for hand in self._hands:
                self._ray.kill(hand.actor)
        self._hands, self._sent = [], {}
        if self._ours:
            self._ray.shutdown()
            self._ours = False

    # ── workers ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _hire(self, waiting: int, task: Task, report: Report) -> None:
        """As many workers as there is work for, and room."""
        busy = sum(hand.task is not None for hand in self._hands)
        while len(self._hands) < min(self._most, waiting + busy):
            room = {} if self.workers is not None or self._memory is None else {"memory": self._memory}
            options = dict(num_cpus=self.threads, max_restarts=0, max_task_retries=0, **room)
            actor = self._ray.remote(Worker).options(**options).remote()
            self._hands.append(_Hand(actor, actor.start.remote(self._order(task))))
            report("starting workers", sum(hand.ready for hand in self._hands), len(self._hands))

    def _room(self) -> int:
        """How many workers there is room for, now that the first has shown how much memory one takes."""
        found, memory = self._ray.cluster_resources(), self._memory or 1
        return max(1, min(int(found.get("CPU", 1)) // self.threads, int(found.get("memory", 0)) // memory))

    def _order(self, task: Task) -> Order:
        self._mark = self._mark or _marked(self.arrays.folder)
        return Order(
            source=None if self.source is None else str(self.source),
            revision=self.revision,
            trust=self.trust,
            model=task.model,
            data={name: (str(path), task.data[name]) for name, path in self.data.items() if name in task.data},
            folder=str(self.arrays.folder),
            mark=self._mark.name,
            threads=self.threads,
            code=laboratory_digest(),
            versions=versions(),
        )

    def _bury(self, hand: _Hand, error: Exception) -> None:
        """Take a dead worker off the list. Raises `MissingExtra` where none comes to life."""
        self._dismiss(hand)
        if hand.ready:
            return
        self._stillborn += 1
        if self._stillborn >= DEATHS:
            raise MissingExtra(
                "workers end while they start",
                found=_told(error),
                hint="install there the Assay that is installed here; where memory ends, take fewer workers",
            )

    def _dismiss(self, hand: _Hand) -> None:
        self._hands.remove(hand)
        with contextlib.suppress(Exception):  # it may have ended, or be out of reach
            self._ray.kill(hand.actor)

    # ── what they are given and give ────────────────────────────────────────────────────────────────────────────

    def _give(self, hand: _Hand, task: Task) -> None:
        fields = {name: getattr(task, name) for name in Task.__dataclass_fields__}
        code = None if task.module in hand.has else _code(task)
        hand.has.add(task.module)
        named = set() if hand.shared else {one for one in _digests(task.params) if one in self.arrays} - hand.has
        hand.has |= named
        refs = [self._put(digest, self.arrays.path(digest).read_bytes) for digest in sorted(named)]
        hand.task, hand.turn = task, self._turn
        hand.ref = hand.actor.do.remote(fields, code, *refs)

    def _put(self, name: str, read: Callable[[], object]) -> Any:
        """Something for workers that do not see it, in Ray's store once."""
        if name not in self._sent:
            self._sent[name] = self._ray.put(read())
        return self._sent[name]

    def _heard(self) -> _Hand:
        """Wait for the next worker that has something to say."""
        owed = {hand.ref: hand for hand in self._hands if hand.ref is not None}
        ((ref, *_), _) = self._ray.wait(list(owed), num_returns=1)
        return owed[ref]

    def _answer(self, hand: _Hand) -> Done | Exception | None:
        """What a worker gave: a task, done or failed, or nothing but that it is ready. Raises what Ray raises."""
        answer, task = self._ray.get(hand.ref), hand.task
        if task is None:
            hand.shared, lacks, self._memory = answer
            for name in lacks:
                content = self._put(f"data {name}", partial(_files, self.data[name]))
                self._ray.get(hand.actor.receive.remote(name, content))
            hand.ready, hand.ref, self._stillborn = True, None, 0
            self._most = self.workers or self._room()
            return None
        if isinstance(answer[0], Exception):
            hand.ref = hand.task = None
            return _raised(*answer)
        result, artefacts, seconds = answer
        for digest in artefacts.values():
            hand.has.add(digest)
            if digest not in self.arrays:
                content = self._ray.get(hand.actor.fetch.remote(digest))
                write_whole(self.arrays.path(of_bytes(content)), content)
        hand.ref = hand.task = None
        return Done(task, result, artefacts, seconds)

    # ── Ray itself ──────────────────────────────────────────────────────────────────────────────────────────────

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        quiet = dict(log_to_driver=False, logging_level=logging.ERROR)
        try:
            if self.address is None:
                cores = max(_cores(), (self.workers or 1) * self.threads)
                with _environment(RAY_USAGE_STATS_ENABLED="0"):
                    self._ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=STORE, **quiet)
            else:
                _knock(self.address)
                self._ray.init(self.address, **quiet)
        except (Exception, SystemExit) as error:  # where what listens is no Ray, it ends the process after 200 s
            raise MissingExtra(
                f"no Ray answers at {self.address!r}" if self.address else "Ray does not start",
                found=_told(error),
                hint="start one, ray start --head, and give the address that it prints; or leave it out: --on ray",
            ) from error
        self._ours = True


def _ray(own: bool) -> Any:
    """The package. Under ``uv run`` it would send the working folder to its workers; those of our own Ray see it."""
    with _environment(**{"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"} if own else {}):
        try:
            return importlib.import_module("ray")
        except ImportError as error:
            raise MissingExtra("this needs Ray", found=str(error), hint="pip install 'assay[ray]'") from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _marked(folder: Path) -> Any:
    """An open file in a folder, by which workers know that folder; it goes when it is closed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(".assay-*.mark"):  # of a driver that was killed
            old.unlink(missing_ok=True)
        return tempfile.NamedTemporaryFile(dir=folder, prefix=".assay-", suffix=".mark")
    except OSError as error:
        hint = "free space, or choose a folder that you may write in"
        raise Unwritable(f"cannot write into {str(folder)!r}", hint=hint, found=error.strerror) from error


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Variables that are set inside, and as before after it."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _knock(address: str) -> None:
    """Raise `OSError` where nothing listens at ``host:port``. Ray would wait for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():  # else a word, such as auto
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _told(error: BaseException) -> str:
    """What Ray says, without its frame."""
    text = " ".join(str(error).split())
    return (text.partition("Worker exit detail: ")[2] or text)[:200]


def _deadly(task: Task, error: Exception) -> BadData:
    """What is said of a unit that ends every worker. It is recorded, so it names no parameters: they may say where."""
    return BadData(
        f"the unit {task.name!r} at {task.address[:12]}… ended its worker {DEATHS} times",
        found=_told(error),
        hint="see why it ends with --on local; where memory ends, take fewer workers",
    )


def _raised(error: Exception, file: str, line: int, name: str) -> Exception:
    """An error whose traceback ends where it was raised on the worker, so that what is recorded is the same as here."""
    code = _raise.__code__.replace(co_filename=file, co_name=name, co_qualname=name, co_firstlineno=line - 1)
    try:
        types.FunctionType(code, {})(error)
    except Exception as raised:
        return raised
    return error


def _raise(error: Exception) -> None:
    raise error


def _code(task: Task) -> tuple[str, bytes] | None:
    """The file of a unit's module, its path and content; nothing where the module was never imported here."""
    module = sys.modules.get(task.module)
    if module is None:
        return None
    file = getattr(module, "__file__", None)
    if task.module == "__main__" or file is None or not Path(file).is_file():
        raise CorruptFile(
            f"the unit {task.name!r} is in no file that workers could import",
            found=f"module {task.module}",
            hint="put units and measures into a file of their own, and import that",
        )
    return str(Path(file).absolute()), Path(file).read_bytes()


def _digests(value: Any) -> Iterator[str]:
    """Every digest within a JSON value. Arrays are named by such."""
    match value:
        case str() if _DIGEST.fullmatch(value):
            yield value
        case Mapping():
            for item in value.values():
                yield from _digests(item)
        case list() | tuple():
            for item in value:
                yield from _digests(item)


def _files(path: Path) -> dict[str, bytes]:
    """A file, or the files of a folder, by path in it."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    inside = {one.relative_to(path): one for one in sorted(path.rglob("*")) if one.is_file()}
    return {name.as_posix(): one.read_bytes() for name, one in inside.items() if not set(name.parts) & set(LEFT_OUT)}
