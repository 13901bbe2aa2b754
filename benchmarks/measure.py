"""Running candidates in turn, and keeping only the runs that had the machine to themselves."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.jobs import Capture, Job, Steered, Traced, kind_of
from benchmarks.protocol import Failed, Reply, Worker


@dataclass(frozen=True)
class Entry:
    """A line of a table: which candidate, by which of its methods."""

    label: str
    candidate: str
    method: str


@dataclass
class Series:
    """What was measured of one entry.

    ``others`` holds, for each run that was kept, the cores that other processes used meanwhile. An ``error`` ends it.
    """

    label: str
    replies: list[Reply] = field(default_factory=list)
    others: list[float | None] = field(default_factory=list)
    discarded: int = 0
    error: str = ""
    agreement: str = ""
    result: Any = None

    @property
    def seconds(self) -> float | None:
        """The median of the runs that were kept."""
        return statistics.median(reply.seconds for reply in self.replies) if self.replies else None

    @property
    def memory(self) -> int | None:
        """Bytes resident at the peak, above the loaded model; the median."""
        above = [
            reply.peak - reply.loaded for reply in self.replies if reply.peak is not None and reply.loaded is not None
        ]
        return int(statistics.median(above)) if above else None


class Session:
    """The candidates' processes, and the rounds.

    Args:
        folder: the model's.
        threads: of each candidate.
        logs: a folder for what candidates print.
        busy: a run is discarded when other processes used more cores than this.
        retries: a discarded run is repeated at most so many times.
    """

    def __init__(self, folder: Path, threads: int, logs: Path, *, busy: float, retries: int) -> None:
        self.folder, self.threads, self.logs = folder, threads, logs
        self.busy, self.retries = busy, retries
        logs.mkdir(parents=True, exist_ok=True)
        self.workers: dict[str, Worker] = {}
        self.absent: list[str] = []

    @property
    def versions(self) -> dict[str, str]:
        """What each candidate says it is."""
        return {name: worker.version for name, worker in self.workers.items()}

    def start(self, name: str, python: Path | str, module: str) -> None:
        """Load a candidate; one that cannot be loaded is noted as absent."""
        _progress(f"loading {name}")
        try:
            self.workers[name] = Worker(python, module, self.folder, self.threads, self.logs / f"{name}.log")
        except Failed as error:
            self.absent.append(f"{name} did not load: {error}")

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers.values():
            worker.close()

    def measure(self, job: Job, entries: Iterable[Entry], rounds: int, expected: str) -> list[Series]:
        """One unmeasured run of each entry, then ``rounds`` of all in turn; results are compared with `expected`."""
        present = [entry for entry in entries if entry.candidate in self.workers]
        series = {entry: Series(entry.label) for entry in present}
        for entry in present:
            _progress(f"{entry.label}: first run")
            self._run(entry, job, series[entry], keep=False)
        model = next((one.result for one in series.values() if one.label == expected), None)
        for one in series.values():
            if one.result is not None and model is not None:
                one.agreement = _early(job, model) if one.label == expected else agreement(job, one.result, model)
        for turn in range(rounds):
            for entry in present:
                _progress(f"{entry.label}: run {turn + 1} of {rounds}")
                for _ in range(self.retries + 1):
                    if series[entry].error or self._run(entry, job, series[entry], keep=True):
                        break
                    time.sleep(1)
        _progress("")
        return list(series.values())

    def _run(self, entry: Entry, job: Job, into: Series, *, keep: bool) -> bool:
        """Whether the run can stand: it failed for good, or it had the machine to itself."""
        before, start = self._others(), time.perf_counter()
        try:
            reply = self.workers[entry.candidate].call(entry.method, job)
        except Failed as error:
            into.error = str(error)
            return True
        wall, after = time.perf_counter() - start, self._others()
        if not keep:
            into.result = reply.result
            return True
        cores = None if before is None or after is None else max(0.0, (after - before) / wall)
        if cores is not None and cores > self.busy:
            into.discarded += 1
            return False
        into.replies.append(reply)
        into.others.append(cores)
        return True

    def _others(self) -> float | None:
        """CPU seconds that the machine has spent on others than this session; None where /proc is not Linux's."""
        try:
            user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        except (OSError, ValueError):
            return None
        ours = sum(map(_ticks, [os.getpid(), *(worker.process.pid for worker in self.workers.values())]))
        return (user + nice + system + irq + soft + steal - ours) / os.sysconf("SC_CLK_TCK")


def agreement(job: Job, found: Any, expected: Any) -> str:
    """How far a result is from the one made with plain hooks."""
    if isinstance(job, Steered):
        same = sum(a == b for a, b in zip(found, expected, strict=True))
        return f"{same}/{len(expected)} rows"
    a, b = np.asarray(found), np.asarray(expected)
    if a.shape != b.shape:
        return f"shape {a.shape}, not {b.shape}"
    if isinstance(job, Capture):
        off = np.abs(a - b).max(axis=1) / b.std(axis=1)
        wrong = np.flatnonzero(off > 1e-3)  # rounding stays far below
        return f"{len(off) - len(wrong)}/{len(off)} layers" + (
            f"; not {', '.join(map(str, wrong))}" if len(wrong) else ""
        )
    unit = "of probability" if isinstance(job, Traced) else "nats"
    return f"within {np.abs(a - b).max():.0e} {unit}" if (a != b).any() else "equal"


def _early(job: Job, rows: Any) -> str:
    """Rows that met the stop token did less work than the reference's, and make the comparison unfair: say so."""
    early = sum(len(row) < job.new for row in rows) if isinstance(job, Steered) else 0
    return f"{early} rows ended early" if early else ""


def _ticks(pid: int) -> int:
    """A process's CPU time in clock ticks; 0 when it has ended."""
    try:
        # utime and stime are fields 14 and 15; the second field, a name in brackets, may hold spaces
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    except OSError:
        return 0


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def entries_of(job: Job, candidates: Sequence[str], reference: str, hooks: str) -> tuple[list[Entry], str]:
    """The lines of a job's table, and the label of the one that the others are divided by."""
    kind = kind_of(job)
    plain = [Entry(name, name, kind) for name in candidates if name != reference]
    if kind == "steered":
        first = Entry("transformers generate, unsteered", reference, kind)
        return [first, Entry("limit: its matrix products alone", reference, "floor"), *plain], first.label
    limit = Entry("limit: fewest FLOPs at the GEMM rate", reference, "floor")
    if kind == "capture":
        first = Entry("bucketed forward passes, no capture", reference, kind)
        return [first, limit, *plain], first.label
    return [limit, *plain], hooks
