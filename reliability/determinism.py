"""The same inputs and seeds, in two processes: is the record the same, byte for byte?

What a ledger has that differs from run to run is time: when an entry was made (``at``), and the ``seconds`` of each unit
and of the whole run. These are in the chain, so heads of two ordinary runs differ. Compared are therefore two runs whose
clocks stand still, byte for byte; and two ordinary ones, entry for entry, without ``at``, ``seconds`` and the links that
cover them. Every process has a hash seed of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import assay
from assay.evidence import Ledger, of_bytes
from reliability import Row
from reliability.ledgers import entries
from reliability.resume import code_elsewhere

ROOT, SOURCE = Path(__file__).parents[1], Path(assay.__file__).parents[1]
DRAWS = 3
TIMES = ("seconds",)


def made(folder: Path, hash_seed: int, *options: str, code: Sequence[Path] = (SOURCE, ROOT)) -> Path:
    """The folder of a whole run of `reliability.subject`, in a process of its own."""
    path = os.pathsep.join(map(str, code))
    subprocess.run(
        [sys.executable, "-m", "reliability.subject", str(folder), str(DRAWS), *options], check=True, timeout=300,
        cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return folder


def timeless(folder: Path) -> list[Any]:
    """Entries without times, and without the links that cover them."""
    return [(entry.seq, entry.kind, entry.key, _without_times(entry.body)) for entry in entries(folder / "ledger")]


def figures(folder: Path) -> list[str]:
    """The report's figures."""
    return re.findall(r"<svg.*?</svg>", (folder / "report.html").read_text(encoding="utf-8"), re.DOTALL)


def files(folder: Path) -> dict[str, str]:
    """Digests of all that a run leaves but the ledger's file and its lock, which has the process's number."""
    every = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("ledger"))
    return {path.relative_to(folder).as_posix(): of_bytes(path.read_bytes()) for path in every}


def head(folder: Path) -> str:
    """Of the ledger there."""
    with Ledger.read(folder / "ledger") as ledger:
        return ledger.verify()


def _without_times(body: Any) -> Any:
    return {name: value for name, value in body.items() if name not in TIMES} if isinstance(body, dict) else body


def still(one: Path, other: Path) -> Row:
    """Of two runs whose clocks stood still."""
    same_files = files(one) == files(other)
    same = head(one) == head(other) and (one / "ledger").read_bytes() == (other / "ledger").read_bytes()
    found = f"head {head(one)[:12]}… and the ledger's bytes {'equal' if same else 'DIFFER'}; "
    found += f"{len(files(one))} files (arrays, report.html, report.md) {'equal' if same_files else 'DIFFER'}"
    return Row("two processes, clocks that stand still", found, same and same_files)


def ordinary(one: Path, other: Path) -> Row:
    """Of two runs with clocks that go."""
    left, right = timeless(one), timeless(other)
    drawn = figures(one) == figures(other) and len(figures(one)) > 0
    heads = head(one) != head(other)
    found = f"{len(left)} entries {'equal' if left == right else 'DIFFER'} without `at` and `seconds`; "
    found += f"{len(figures(one))} figures {'equal' if drawn else 'DIFFER'}; heads {'differ, by times alone' if heads else 'equal'}"
    return Row("two processes, ordinary clocks", found, left == right and drawn)


def run(scale: float = 1.0) -> Sequence[Row]:
    """Four processes, whatever the scale."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        code = code_elsewhere(top / "code")  # a copy: somebody may be editing the code meanwhile
        for number in (1, 2):
            made(top / f"still{number}", number, "--still", code=code)
            made(top / f"moving{number}", number, code=code)
        return [still(top / "still1", top / "still2"), ordinary(top / "moving1", top / "moving2")]
