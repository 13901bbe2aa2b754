"""A run that was killed goes on elsewhere, from a copy of its folder alone.

Elsewhere is another Python process, with its code and the run's folder at other paths, another working directory, host
name and hash seed, an environment of nothing but paths, and the first folder gone. Whether other hardware gives the same
numbers is not shown: where a unit's result differs, the ledger refuses to mix them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import assay
from assay.evidence import Ledger
from assay.scale.unit import laboratory_digest
from reliability import Row, subject
from reliability.child import Child, Tell, forked
from reliability.ledgers import entries

ROOT, SOURCE = Path(__file__).parents[1], Path(assay.__file__).parents[1]
DRAWS = 6
CACHE = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
"""Of Matplotlib's fonts, which take seconds to list."""
_NEW_NAMES = 0x04000000  # CLONE_NEWUTS


def started(made: object, folder: Path, log: Path, units: int, draws: int = DRAWS) -> None:
    """Kill a run as soon as so many units were begun."""
    sitting = Child(lambda _: subject.run(made, folder, draws, log))  # type: ignore[arg-type]
    until = time.monotonic() + 60
    while len(subject.executed(log)) < units and time.monotonic() < until:
        time.sleep(0.001)
    sitting.kill()
    assert sitting.end()[1] == -9, "it ended before it was killed"


def code_elsewhere(top: Path) -> list[Path]:
    """A copy of the code that a run needs; what to import it from."""
    leave = shutil.ignore_patterns("__pycache__", ".envs", "results", "cross", "*.npz", "*.safetensors")
    shutil.copytree(SOURCE, top / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for room in ("reliability", "calibration", "evaluation"):
        shutil.copytree(ROOT / room, top / room, ignore=leave)
    return [top / "src", top]


def go_on(folder: Path, log: Path, code: Sequence[Path], at: Path, draws: int = DRAWS) -> str:
    """Go on with the run in ``folder`` as on another machine; its standard error if that failed."""

    def elsewhere() -> None:
        if ctypes.CDLL(None).unshare(_NEW_NAMES) == 0:
            socket.sethostname("elsewhere")

    told = subprocess.run(
        [sys.executable, "-m", "reliability.subject", str(folder), str(draws), "--log", str(log)],
        cwd=at, capture_output=True, text=True, timeout=300, check=False, preexec_fn=elsewhere,
        env={"PYTHONPATH": os.pathsep.join(map(str, code)), "HOME": str(at), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": CACHE},
    )  # fmt: skip
    return told.stderr if told.returncode else ""


def run(scale: float = 1.0) -> Sequence[Row]:
    """Copied at three moments; at a small scale, one."""
    made, wrong, kept, again = subject.model(), [], 0, 0
    moments = (3, 9, 17)[: max(1, round(3 * scale))]
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)

        def uncut(_: Tell) -> None:
            subject.run(made, top / "whole", DRAWS)

        code = code_elsewhere(top / "code")
        laboratory_digest.cache_clear()  # that of the code as it was just copied
        laboratory_digest()
        forked(uncut)
        for units in moments:
            here, there, log = top / f"here{units}", top / f"other{units}" / "copied", top / f"log{units}"
            started(made, here, log, units)
            shutil.copytree(here, there)
            shutil.rmtree(here)
            before = [entry.digest for entry in entries(there / "ledger")]
            if failed := go_on(there, log, code, top):
                wrong.append(failed.strip().splitlines()[-1])
                continue
            with Ledger.read(there / "ledger") as ledger:
                if [entry.digest for entry in ledger.entries()][: len(before)] != before:
                    wrong.append("entries were lost")
            if subject.findings(there) != subject.findings(top / "whole"):
                wrong.append("it ended otherwise")
            done = subject.executed(log)
            repeated = len(done) - len(set(done))
            kept, again = kept + len(before), again + repeated
            if repeated > 1:
                wrong.append(f"{repeated} units were executed again")
    found = f"{len(moments)} runs copied after {', '.join(map(str, moments))} of {4 * DRAWS} units: "
    found += f"{len(wrong)} WRONG ({wrong[0]})" if wrong else f"all end as the uncut one; {kept} entries kept"
    return [Row("run killed, folder copied, original removed", f"{found}; {again} units executed again", not wrong)]
