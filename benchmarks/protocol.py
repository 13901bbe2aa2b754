"""How the driver and a candidate talk: each candidate has its own process and does jobs, a line of JSON for each.

A candidate is a module with a class `Candidate` that meets the protocol below. ``python -m benchmarks.protocol MODULE
FOLDER THREADS`` serves it; `Worker` is the driver's end. Only the standard library, numpy and torch are needed here,
because the candidates' environments have little else in common.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.jobs import Capture, Job, Scores, Steered, Traced, from_json, kind_of, to_json

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}


class Candidate(Protocol):
    """What is measured. A module gives one under the name ``Candidate``, with methods for the jobs that it can do.

    The model is loaded once, in ``__init__``: fp32, CPU, evaluation mode. A method is timed as a whole, from token ids
    and tuples of floats to its result. ``notes``, if there, is sent along after each job (a batch size that was
    chosen, say); ``estimate`` in it replaces the measured seconds, for a limit that is computed. The driver calls
    every method once before it measures.
    """

    version: str
    notes: dict[str, Any]

    def __init__(self, folder: Path) -> None: ...

    def steered(self, job: Steered) -> Sequence[Sequence[int]]:
        """New tokens of each row, condition-major; up to and including ``job.stop`` where it comes."""

    def capture(self, job: Capture) -> Any:
        """``[layer, prompt, d_model]``, anything that `numpy.asarray` takes: block outputs, none of them normed."""

    def scores(self, job: Scores) -> Any:
        """``[condition, prompt, answer]``, anything that `numpy.asarray` takes: natural logarithms."""

    def traced(self, job: Traced) -> Any:
        """``[part, token, layer]``, anything that `numpy.asarray` takes: mean probabilities of the answer."""

    def floor(self, job: Job) -> None:
        """The limit of the job, measured or estimated; only the reference has it."""


@dataclass(frozen=True)
class Reply:
    """What one run gave.

    ``peak`` and ``loaded`` are bytes: the most that was resident during the run, and what was resident after the first
    run.
    """

    seconds: float
    peak: int | None
    loaded: int | None
    result: Any
    notes: dict[str, Any] = field(default_factory=dict)


class Failed(Exception):
    """The candidate raised an error, or its process ended."""


class Worker:
    """A candidate's process, seen from the driver. Its complaints go to ``log``."""

    def __init__(self, python: Path | str, module: str, folder: Path, threads: int, log: Path) -> None:
        root = Path(__file__).resolve().parent.parent
        command = [str(python), "-m", "benchmarks.protocol", module, str(folder), str(threads)]
        environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        try:
            self.version = str(self._reply(timeout=300)["version"])
        except Failed:
            self.close()
            raise

    def call(self, method: str, job: Job, timeout: float = 3600) -> Reply:
        """Do a job. Raises `Failed` with the last line of the candidate's error."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"method": method, "job": to_json(job)}).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise Failed(f"the process has ended; see {self.log.parent.name}/{self.log.name}") from error
        return Reply(**self._reply(timeout))

    def close(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _reply(self, timeout: float) -> dict[str, Any]:
        out = self.process.stdout
        assert out is not None
        if not select.select([out], [], [], timeout)[0]:
            self.close()
            raise Failed(f"no answer in {timeout:.0f} s")
        line = out.readline()
        if not line:
            raise Failed(f"the process has ended; see {self.log.parent.name}/{self.log.name}")
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(reply["error"])
        return dict(reply)


def serve(module: str, folder: Path, threads: int) -> None:
    """Load the candidate, then do the jobs that come in until the pipe closes."""
    import torch

    # Libraries print; the pipe is for replies alone.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def send(reply: dict[str, Any]) -> None:
        pipe.write(json.dumps(reply) + "\n")
        pipe.flush()

    torch.set_num_threads(threads)
    try:
        candidate = importlib.import_module(module).Candidate(folder)
    except Exception as error:
        traceback.print_exc()
        send({"error": _told(error)})
        return
    send({"version": candidate.version})
    loaded = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = _run(candidate, request["method"], from_json(request["job"]))
            if loaded is None:  # weights are mapped files, resident only once they have been read
                _settle()
                loaded = _resident("VmRSS")
            send(reply | {"loaded": loaded})
        except Exception as error:
            traceback.print_exc()
            send({"error": _told(error)})


def _run(candidate: Any, method: str, job: Job) -> dict[str, Any]:
    do = getattr(candidate, method, None)
    if do is None:
        raise NotImplementedError(f"has no {method}")
    _settle()
    start = time.perf_counter()
    value = do(job)
    seconds = time.perf_counter() - start
    notes = getattr(candidate, "notes", {})
    result = _summary(method, job, value)
    return {"seconds": notes.get("estimate", seconds), "peak": _resident("VmHWM"), "result": result, "notes": notes}


def _summary(method: str, job: Job, value: Any) -> Any:
    """What two candidates are compared by: tokens, scores, or each captured vector's length along a fixed direction."""
    if method != kind_of(job) or value is None:
        return None
    if isinstance(job, Steered):
        return [[int(token) for token in row] for row in value]
    import numpy as np

    values = np.asarray(value, dtype=np.float64)
    if isinstance(job, Capture):
        values = values @ np.random.default_rng(0).standard_normal(values.shape[-1])
    return values.tolist()


def _settle() -> None:
    """Give freed memory back, and set the high-water mark to what is resident now. Only Linux can."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        pass


def _resident(mark: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(mark)), None)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
