"""Disks that fail or fill, clocks that jump, files cut short, second writers and workers that die.

None is mocked: the kernel refuses the call (`reliability.seccomp`), the disk is a small one that is full, the other writer
is another process. After each, what was acknowledged has to be there, what was not must not have been half added, the
error has to be one of Assay's tree, and the next writer has to go on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import AssayError, LedgerInUse, Unwritable
from assay.evidence import Ledger
from reliability import Row, torn
from reliability.child import Child, Tell, forked
from reliability.ledgers import entries
from reliability.seccomp import KILL
from reliability.sweep import Fault, Tally, calls_of, faults, suffer

if TYPE_CHECKING:
    from assay import Model
    from assay.scale import Done, Report, Task

GROUPS: tuple[tuple[Any, ...], ...] = ((1,), ({"pad": "x" * 30_000},), (2, 3, 4), (5,))
"""Bodies that are added together; the large one spills over many pages."""
BODIES = [body for group in GROUPS for body in group]
_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER


def add_all(path: Path, tell: Tell, *, go_on: bool = False) -> None:
    """Make a ledger of ``BODIES``; tell after each group how many entries are safe. ``go_on`` past errors."""
    with Ledger.open(path) as ledger:
        safe = 0
        for group in GROUPS:
            try:
                ledger.extend([("log", "k", body) for body in group])
            except Unwritable:
                if not go_on:
                    raise
                ledger.verify()
                safe = len(ledger.entries())
                continue
            safe += len(group)
            tell(safe)


def found(path: Path) -> list[Any]:
    """The bodies that a reader finds in a ledger that verifies."""
    return [entry.body for entry in entries(path)]


def goes_on(path: Path) -> bool:
    """Whether the next writer can open and add."""
    before = len(found(path))
    with Ledger.open(path) as ledger:
        return ledger.append("log", "k", "after").seq == before + 1


def whole(path: Path, safe: int) -> str:
    """What is wrong with a ledger of which ``safe`` entries were acknowledged; nothing if it holds."""
    there = found(path)
    ends = [sum(map(len, GROUPS[:number])) for number in range(len(GROUPS) + 1)]
    allowed = {safe, *(end for end in ends if end > safe and end == min(e for e in ends if e > safe))}
    if len(there) not in allowed or there != BODIES[: len(there)]:
        return f"{len(there)} entries where {safe} were acknowledged"
    return "" if goes_on(path) else "the next writer cannot go on"


def ledger_io(folder: Path, errors: Sequence[int], calls: Sequence[str], step: int = 1) -> Tally:
    """A fault at each call that making and filling a ledger takes."""
    tally = Tally()
    count = calls_of(lambda tell: add_all(folder / "counted" / "ledger", tell), calls)
    for number, fault in enumerate(faults(count, errors, step=step)):
        path = folder / str(number) / "ledger"
        ending = suffer(lambda tell, path=path: add_all(path, tell), fault, calls)  # type: ignore[misc]
        wrong = whole(path, ending.told[-1] if ending.told else 0)
        if ending.error not in ("", "Unwritable", "CorruptFile"):
            wrong = wrong or f"raised {ending.error}"
        if ending.status != (-signal.SIGKILL if fault.error == KILL else 0):
            wrong = wrong or f"ended with {ending.status}"
        tally.add(ending.error, wrong and f"{fault}: {wrong}")
    return tally


def ledger_goes_on(folder: Path, step: int = 1) -> Tally:
    """An error at each call, once: the same open ledger says so, verifies, and takes the next entries."""
    tally = Tally()
    count = calls_of(lambda tell: add_all(folder / "counted" / "ledger", tell))
    for at in range(1, count + 1, step):
        path = folder / str(at) / "ledger"
        ending = suffer(lambda tell, path=path: add_all(path, tell, go_on=True), Fault(at, errno.EIO))  # type: ignore[misc]
        there = found(path)
        orderly = [body for body in BODIES if body in there] == there and (
            not ending.told or len(there) >= max(ending.told)
        )
        wrong = "" if orderly and ending.error in ("", "Unwritable") else f"{ending}: {len(there)} entries"
        tally.add(ending.error, wrong and f"call {at}: {wrong}")
    return tally


def audit_io(made: Model, folder: Path, errors: Sequence[int], step: int) -> Tally:
    """A fault at every ``step``-th call of a whole audit, to the reports; then it is run again, to the same end."""
    from reliability import subject

    calls, tally = ("sync", "remove", "cut", "rename", "write"), Tally()
    forked(lambda _: subject.run(made, folder / "whole", 1))
    expected = subject.findings(folder / "whole")
    count = calls_of(lambda _: subject.run(made, folder / "counted", 1), calls)
    for number, fault in enumerate(faults(count, errors, step=step)):
        into = folder / str(number)
        ending = suffer(lambda _, into=into: subject.run(made, into, 1), fault, calls)  # type: ignore[misc]
        wrong = "" if ending.error in ("", "Unwritable") else f"raised {ending.error}"
        _, status = forked(lambda _, into=into: subject.run(made, into, 1))  # type: ignore[misc]
        if status or subject.findings(into) != expected or not (into / "report.html").exists():
            wrong = wrong or f"ended with {status} and otherwise than without the fault"
        tally.add(ending.error, wrong and f"{fault}: {wrong}")
    return tally


def reports_io(made: Model, folder: Path, errors: Sequence[int]) -> Tally:
    """A fault at each call of a finished audit that is run again, which writes its reports anew: they stay whole."""
    from reliability import subject

    def again(_: Tell) -> None:
        subject.run(made, folder, 1)

    tally = Tally()
    forked(again)
    reports = {name: (folder / name).read_bytes() for name in ("report.html", "report.md")}
    for fault in faults(calls_of(again), errors):
        ending = suffer(again, fault)
        wrong = "" if ending.error in ("", "Unwritable") else f"raised {ending.error}"
        if any((folder / name).read_bytes() != whole for name, whole in reports.items()):
            wrong = "a report is not whole"
        tally.add(ending.error, wrong and f"{fault}: {wrong}")
    return tally


# ── a disk that is full ─────────────────────────────────────────────────────────────────────────────────────────


def small_disk(at: Path, size: int) -> None:
    """Mount a disk of so many bytes there, for this process and its children alone. Raises `OSError` where it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    for made in (
        libc.unshare(_NEW_MOUNTS if os.geteuid() == 0 else _NEW_MOUNTS | _NEW_USERS),
        libc.mount(None, b"/", None, 0x44000, None),  # private, so that nobody else sees it: MS_REC | MS_PRIVATE
        libc.mount(b"none", os.fsencode(at), b"tmpfs", 0, f"size={size}".encode()),
    ):
        if made:
            raise OSError(ctypes.get_errno(), "no disk of its own")


def fill(folder: Path, leave: int) -> Path:
    """Take all space there, but for ``leave`` pages of 4096 bytes; the file that takes it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            file.truncate(max(0, file.tell() - leave * 4096))
    return ballast


def full_disk(folder: Path, pages: Sequence[int], made: Model | None = None) -> Tally:
    """Ledgers (audits, where there is a model) on a disk with so many pages left, then with space again."""
    from reliability import subject

    def ledger(disk: Path) -> str:
        path, safe = disk / "ledger", [0]
        Ledger.open(path).close()
        ballast = fill(disk, leave)
        error = ""
        try:
            add_all(path, safe.append)
        except AssayError as raised:
            error = type(raised).__name__
        ballast.unlink()
        return f"{error}|{whole(path, safe[-1])}"

    def audit(disk: Path) -> str:
        assert made is not None
        subject.run(made, folder / "whole", 2)
        ballast = fill(disk, leave)
        error = ""
        try:
            subject.run(made, disk / "run", 2)
        except AssayError as raised:
            error = type(raised).__name__
        ballast.unlink()
        subject.run(made, disk / "run", 2)
        return f"{error}|{'' if subject.findings(disk / 'run') == subject.findings(folder / 'whole') else 'other end'}"

    tally = Tally()
    for leave in pages:
        disk = folder / f"disk{leave}"
        disk.mkdir(parents=True)

        def child(tell: Tell, disk: Path = disk) -> None:
            small_disk(disk, 1 << 20)
            tell((ledger if made is None else audit)(disk))

        told, status = forked(child)
        if status or not told:
            tally.add("", f"{leave} pages left: the process ended with {status}")
            continue
        error, _, wrong = told[0].partition("|")
        if error not in ("", "Unwritable"):
            wrong = wrong or f"raised {error}"
        tally.add(error, wrong and f"{leave} pages left: {wrong}")
    return tally


def size_limit(folder: Path, limits: Sequence[int]) -> Tally:
    """Ledgers under a limit of the file's size (RLIMIT_FSIZE), which fails as a full disk or a quota does."""
    tally = Tally()
    for limit in limits:
        path = folder / str(limit) / "ledger"

        def child(tell: Tell, path: Path = path, limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                add_all(path, tell)
            except AssayError as raised:
                tell(type(raised).__name__)

        told, status = forked(child)
        error = told.pop() if told and isinstance(told[-1], str) else ""
        wrong = whole(path, told[-1] if told else 0) or (f"ended with {status}" if status else "")
        tally.add(error, wrong and f"limit {limit}: {wrong}")
    return tally


# ── clocks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def jumping() -> Callable[[], datetime]:
    """A clock that goes forwards 30 years, backwards 50, stands still, and so on."""
    jumps = (timedelta(days=365 * 30), timedelta(days=-365 * 50), timedelta(0), timedelta(milliseconds=-1))
    now, count = [datetime(2026, 1, 1, tzinfo=UTC)], [0]

    def clock() -> datetime:
        count[0] += 1
        now[0] = max(datetime(1, 1, 2, tzinfo=UTC), now[0] + jumps[count[0] % len(jumps)])
        return now[0]

    return clock


def clocks(folder: Path, made: Model) -> Tally:
    """An audit whose clock jumps at every entry: order, standing and findings are what they are without."""
    import assay.evidence.ledger as module
    from reliability import subject

    clock = jumping()

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return clock()

    def work(_: Tell) -> None:
        module.datetime = Jumping  # type: ignore[attr-defined]  # in this child alone
        subject.run(made, folder / "jumped", 2)

    tally = Tally()
    _, status = forked(work)
    forked(lambda _: subject.run(made, folder / "steady", 2))
    with Ledger.read(folder / "jumped" / "ledger") as one, Ledger.read(folder / "steady" / "ledger") as other:
        one.verify()
        times = [entry.at for entry in one.entries()]
        same = [(e.kind, one.standing(e.key)) for e in one.entries("claim")] == [
            (e.kind, other.standing(e.key)) for e in other.entries("claim")
        ] and [e.kind for e in one.entries()] == [e.kind for e in other.entries()]
    backwards = sum(later < earlier for earlier, later in pairwise(times))
    same = same and subject.findings(folder / "jumped") == subject.findings(folder / "steady")
    tally.cases = len(times)
    tally.note = f"{backwards} of them earlier than the one before; order, standing and findings as without"
    if status or not same or not backwards:
        tally.wrong.append(f"status {status}, same {same}, {backwards} times backwards")
    return tally


# ── others at work ──────────────────────────────────────────────────────────────────────────────────────────────


def second_writer(folder: Path, times: int) -> Tally:
    """Another process opens a ledger that is being written; then the first is killed, and it may."""
    tally, path = Tally(), folder / "ledger"

    def first(tell: Tell) -> None:
        with Ledger.open(path) as ledger:
            while True:
                tell(ledger.append("log", "k", 1).seq)

    for number in range(times):
        writer = Child(first)
        writer.hear()
        wrong = error = ""
        try:
            Ledger.open(path).close()
            wrong = "a second writer was let in"
        except LedgerInUse as raised:
            error = type(raised).__name__
            wrong = "" if str(writer.pid) in str(raised) else "the error does not name the writer"
        writer.kill()
        told, _ = writer.end()
        if not 0 <= len(found(path)) - told[-1] <= 1:
            wrong = wrong or f"{len(found(path))} entries where {told[-1]} were acknowledged"
        wrong = wrong or ("" if goes_on(path) else "the next writer cannot go on")
        tally.add(error, wrong and f"{number}: {wrong}")
    return tally


class Forked:
    """An executor whose every task runs in a worker process. A worker that dies raises `ChildProcessError`."""

    def __init__(self, made: Model, folder: Path) -> None:
        self.made, self.folder = made, folder

    def run(self, tasks: Sequence[Task], report: Report) -> Iterator[Done]:
        """Every task in order, each in a worker of its own."""
        from assay.scale import Done
        from assay.scale.executor import perform

        def work(tell: Tell) -> None:
            done = perform(task, self.made, {}, self.folder / "arrays", lambda *_: None)
            tell([done.result, dict(done.artefacts), done.seconds])

        for task in tasks:
            told, status = forked(work)
            if status:
                raise ChildProcessError(f"the worker ended with {status}")
            yield Done(task, *told[0])


def deaths(made: Model, folder: Path, hows: Sequence[str] = ("exit", "kill")) -> Tally:
    """A unit that ends its process, by ``os._exit`` or SIGKILL, in the audit's own process and in a worker."""
    from reliability import subject

    tally = Tally()
    forked(lambda _: subject.run(made, folder / "whole", 2))
    expected = sorted(subject.findings(folder / "whole", "claim", "outcome"))  # what is measured again comes later
    for how in hows:
        for executor in ("here", "worker"):
            into, log = folder / f"{how}-{executor}", folder / f"{how}-{executor}.log"

            def sitting(_: Tell, how: str = how, executor: str = executor, into: Path = into, log: Path = log) -> None:
                os.environ |= {subject.LOG: str(log), subject.END: f"{how} 2 1"}
                workers = Forked(made, into) if executor == "worker" else None
                subject.subject(draws=2).run(made, into=into, executor=workers).close()

            def again(_: Tell, into: Path = into, log: Path = log) -> None:
                os.environ[subject.LOG] = str(log)
                subject.subject(draws=2).run(made, into=into, retry=True).close()

            _, status = forked(sitting)
            died = 7 if how == "exit" else -signal.SIGKILL
            wrong = "" if status == (0 if executor == "worker" else died) else f"ended with {status}"
            _, status = forked(again)
            done = subject.executed(log)
            if status or sorted(subject.findings(into, "claim", "outcome")) != expected:
                wrong = wrong or "the run that went on ended otherwise"
            reasons = [reason for reason in subject.findings(into, "missing") if "the worker ended with" in reason]
            if len(reasons) != (executor == "worker"):
                wrong = wrong or f"{len(reasons)} reasons are in the ledger"
            if len(done) - len(set(done)) != 1:
                wrong = wrong or f"{len(done) - len(set(done))} units were done again"
            tally.add("", wrong and f"{how}, {executor}: {wrong}")
    return tally


def run(scale: float = 1.0) -> Sequence[Row]:
    """At scale 1 a fault at every call; below, at every second, third, …"""
    from assay.scale.unit import laboratory_digest
    from reliability import subject

    made, step = subject.model(), max(1, round(1 / scale))
    laboratory_digest()  # once for all children
    rows: list[Row] = []

    def row(what: str, tally: Tally) -> None:
        rows.append(Row(what, str(tally), not tally.wrong))

    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        writing = ("sync", "write", "remove", "cut", "rename")
        row("ledger: EIO at each writing call", ledger_io(top / "a", [errno.EIO], writing, step))
        row("ledger: ENOSPC at each writing call", ledger_io(top / "b", [errno.ENOSPC], writing, step))
        row("ledger: EIO at each sync", ledger_io(top / "c", [errno.EIO], ("sync",)))
        row("ledger: EIO at each read", ledger_io(top / "d", [errno.EIO], ("read",)))
        row("ledger: SIGKILL before each writing call", ledger_io(top / "e", [KILL], writing, step))
        row("ledger: EIO once, and the open ledger goes on", ledger_goes_on(top / "f", step))
        row("audit: EIO or ENOSPC at writing calls", audit_io(made, top / "g", [errno.EIO, errno.ENOSPC], 4 * step))
        row("reports: EIO at each writing call", reports_io(made, top / "reports", [errno.EIO]))
        row("ledger on a full disk", full_disk(top / "h", range(0, 40, step)))
        row("audit on a full disk", full_disk(top / "i", range(0, 60, 3 * step), made))
        row("ledger under a limit of size", size_limit(top / "j", range(0, 80_000, 1_000 * step)))
        row("clock that jumps by decades, both ways", clocks(top / "k", made))
        rows.extend(torn.run(top / "l", step))
        row("second writer, in another process", second_writer(top / "m", max(2, 20 // step)))
        row("unit that ends its process, or is killed", deaths(made, top / "n"))
    return rows
