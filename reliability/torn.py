"""Files of a run that are cut short: the ledger, the journal beside it, an array.

A cut ledger is refused with one error and left as it is. A journal may be cut by a crash while it is written, before the
ledger is touched: then everything acknowledged is there. A journal that is cut afterwards is damage: what is read is what
was there before that commit or after it, or it is refused; never a mixture.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from assay.errors import AssayError, CorruptFile, LedgerBroken
from assay.evidence import Ledger
from assay.scale import Arrays
from reliability import Row
from reliability.child import Tell
from reliability.seccomp import KILL
from reliability.sweep import Fault, Tally, calls_of, suffer

PAGE = 4096
_BEFORE, _AFTER = list(range(40)), list(range(60))


def write_ledger(path: Path, bodies: Sequence[int]) -> None:
    """One commit of large and small entries."""
    with Ledger.open(path) as ledger:
        ledger.extend([("log", f"k{n}", {"n": n, "pad": "x" * (n * 131 % 3000)}) for n in bodies])


def numbers(path: Path) -> list[int]:
    """What a ledger says, verified and then read through."""
    with Ledger.read(path) as ledger:
        ledger.verify()
        return [entry.body["n"] for entry in ledger.entries()]  # type: ignore[index, call-overload, misc]


def cuts(size: int, step: int = 1, seed: int = 0) -> list[int]:
    """Every page's end, one byte to both sides of it, and as many places at random."""
    chance, edges = random.Random(seed), range(0, size, PAGE)
    near = {edge + by for edge in edges for by in (-1, 0, 1)}
    near |= {chance.randrange(size) for _ in edges}
    return sorted(cut for cut in near if 0 <= cut < size)[::step]


def cut_ledger(folder: Path, step: int = 1) -> Tally:
    """Cut, it does not open for writing or verify, and its bytes stay as they are. Cut to nothing it is a new file
    (or to one byte, which SQLite takes for nothing).
    """
    tally, path = Tally(), folder / "ledger"
    write_ledger(path, _AFTER)
    data, damaged = path.read_bytes(), folder / "damaged"
    for cut in cuts(len(data), step):
        wrong = error = ""
        for use in (lambda p: Ledger.open(p).close(), numbers):
            if cut <= 1 and use is not numbers:
                continue
            damaged.write_bytes(data[:cut])
            try:
                use(damaged)
                wrong = "it was taken for whole"
            except (CorruptFile, LedgerBroken) as raised:
                error = type(raised).__name__
            if damaged.read_bytes() != data[:cut]:
                wrong = "it was changed"
        tally.add(error, wrong and f"cut at {cut}: {wrong}")
    return tally


def crashes(folder: Path) -> list[Path]:
    """Folders as a crash leaves them at each call of one commit, where a journal lies beside the ledger."""
    start = folder / "start"
    write_ledger(start / "ledger", _BEFORE)

    def commit(at: Path) -> None:
        write_ledger(at / "ledger", range(len(_BEFORE), len(_AFTER)))

    def copied(name: str) -> Path:
        shutil.copytree(start, folder / name)
        return folder / name

    counted = copied("counted")
    kept = []
    for at in range(1, calls_of(lambda _: commit(counted)) + 1):
        into = copied(str(at))

        def work(_: Tell, into: Path = into) -> None:
            commit(into)

        suffer(work, Fault(at, KILL))
        if (into / "ledger-journal").exists():
            kept.append(into)
    return kept


def cut_journal(folder: Path, *, step: int = 1) -> tuple[Tally, Tally]:
    """Cut the journal of each crash: of those before the ledger was touched, and of those after."""
    before, after = Tally(), Tally()
    untouched = None
    for crash in crashes(folder)[::step]:
        ledger, journal = (crash / "ledger").read_bytes(), (crash / "ledger-journal").read_bytes()
        untouched = ledger if untouched is None else untouched
        tally = before if ledger == untouched else after
        for cut in [*cuts(len(journal), 4 * step), len(journal)]:
            torn = folder / "torn"
            shutil.rmtree(torn, ignore_errors=True)
            torn.mkdir()
            (torn / "ledger").write_bytes(ledger)
            (torn / "ledger-journal").write_bytes(journal[:cut])
            wrong = error = ""
            try:
                there = numbers(torn / "ledger")
                allowed = [_BEFORE] if tally is before or cut == len(journal) else [_BEFORE, _AFTER]
                wrong = "" if there in allowed else f"{len(there)} entries"
            except AssayError as raised:
                error = type(raised).__name__
                wrong = f"raised {error}" if tally is before or cut == len(journal) else ""
            tally.add(error, wrong and f"crash at {crash.name}, journal cut at {cut}: {wrong}")
    return before, after


def cut_arrays(folder: Path, step: int = 1) -> Tally:
    """Every cut of an array's file is refused; put again, nothing is silently kept of the damage."""
    tally, arrays = Tally(), Arrays(folder)
    digest = arrays.put(x=np.arange(24, dtype=np.float32))
    path = arrays.path(digest)
    data = path.read_bytes()
    for cut in range(0, len(data), step):
        path.write_bytes(data[:cut])
        error, wrong = "", "it was read"
        try:
            arrays.get(digest)
        except CorruptFile as raised:
            error, wrong = type(raised).__name__, ""
        tally.add(error, wrong and f"cut at {cut}: {wrong}")
    return tally


def run(folder: Path, step: int = 1) -> list[Row]:
    """The rows of `reliability.faults` about files that were cut."""
    before, after = cut_journal(folder / "journal", step=step)
    tallies = {
        "ledger cut at every page, beside it and at random": cut_ledger(folder / "ledger", step),
        "journal cut by the crash that wrote it": before,
        "journal cut after a crash within the commit": after,
        "array cut at every byte": cut_arrays(folder / "arrays", step),
    }
    return [Row(what, str(tally), not tally.wrong) for what, tally in tallies.items()]
