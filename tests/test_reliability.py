"""A run survives kills, disks that fail, clocks that jump and files that are cut: a few of each; `reliability` has all."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay import Model
from assay.errors import Unwritable
from assay.evidence import Ledger
from assay.scale import Arrays
from assay.scale.unit import laboratory_digest
from reliability import PARTS, Row, __main__, determinism, faults, kill, resume, subject, torn
from reliability.child import Child, Tell, forked
from reliability.ledgers import entries
from reliability.seccomp import KILL, judged, refuse
from reliability.sweep import Fault, Tally, calls_of, suffer
from tests.skips import skip

WRITING = ("sync", "write", "remove", "cut", "rename")


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    """Whether this kernel refuses calls when a process asks for it."""
    if forked(lambda _: refuse({"sync": errno.EIO}))[1]:
        skip("kernel")


@pytest.fixture(scope="module")
def model() -> Model:
    laboratory_digest()  # once for all children
    return subject.model()


def held(tally: Tally, *errors: str) -> None:
    """Nothing was wrong, something was tried, and these errors came of it."""
    assert tally.wrong == []
    assert tally.cases > 0
    assert {name for name, count in tally.errors.items() if name and count} == set(errors)


# ── the means ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_kernel_refuses_what_it_is_told_to(tmp_path: Path) -> None:
    def work(tell: Tell) -> None:
        with (tmp_path / "file").open("wb", buffering=0) as file:
            os.fsync(file.fileno())
            refuse({"sync": errno.EIO, "write": errno.ENOSPC}, spare=(2, 100))
            for call in (
                lambda: os.fsync(file.fileno()),
                lambda: os.fdatasync(file.fileno()),
                lambda: file.write(b"x"),
            ):
                try:
                    call()
                except OSError as error:
                    tell(error.errno)
            os.ftruncate(file.fileno(), 3)

    assert forked(work) == ([errno.EIO, errno.EIO, errno.ENOSPC], 0)
    assert (tmp_path / "file").read_bytes() == b"\0" * 3


@pytest.mark.parametrize(
    ("verdict", "told", "status"), [(errno.EIO, [["c", errno.EIO]], 0), (KILL, [], -signal.SIGKILL)]
)
def test_one_call_of_many_is_judged(tmp_path: Path, verdict: int, told: list[Any], status: int) -> None:
    def work(tell: Tell) -> None:
        judged(("sync", "remove"), lambda number, call: verdict if (number, call) == (3, "remove") else 0)
        for name in "abcd":
            try:
                (tmp_path / name).unlink()
            except OSError as error:
                tell([name, error.errno])

    for name in "abcd":
        (tmp_path / name).touch()
    assert forked(work) == (told, status)
    assert sorted(path.name for path in tmp_path.iterdir()) == (["c"] if status == 0 else ["c", "d"])


def test_a_child_tells_whole_lines_and_is_killed() -> None:
    def work(tell: Tell) -> None:
        while True:
            tell({"n": 1})

    child = Child(work)
    child.hear()
    child.kill()
    told, status = child.end()
    assert (status, told[0]) == (-signal.SIGKILL, {"n": 1})
    assert forked(lambda _: os._exit(3)) == ([], 3)


# ── kills ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_writers_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    counts = kill.writers(30, tmp_path)
    assert (counts.wrong, counts.rounds) == ([], 30)
    assert counts.acknowledged > 20
    assert counts.hot > 0, "none was killed within a commit"


def test_a_writer_that_acknowledges_too_early_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(path: Path, tell: Tell) -> None:
        with Ledger.open(path) as ledger:
            number = len(ledger.entries())
            while True:
                bodies = [kill.claim(one) for one in kill.group(number)]
                number += len(bodies)
                tell(number - 1)
                ledger.extend([(body.kind, body.entry_key, body) for body in bodies])

    monkeypatch.setattr(kill, "write_on", hasty)
    assert "were acknowledged" in kill.writers(10, tmp_path).wrong[0]


def test_audits_that_are_killed_repeat_one_unit_at_most(tmp_path: Path) -> None:
    counts = kill.audits(5, tmp_path, draws=8)
    assert (counts.wrong, counts.rounds) == ([], 5)
    assert counts.most <= 1
    assert counts.repeated <= 5


def test_a_killed_run_goes_on_elsewhere() -> None:
    (row,) = resume.run(0.1)
    assert row.holds, row.found


# ── disks ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "calls", "step", "raised"),
    [
        (errno.EIO, WRITING, 12, ["Unwritable"]),
        (errno.ENOSPC, WRITING, 17, ["Unwritable"]),
        (errno.EIO, ("sync",), 4, ["Unwritable"]),
        (errno.EIO, ("read",), 4, ["CorruptFile", "Unwritable"]),
        (KILL, WRITING, 6, []),
    ],
    ids=["EIO", "ENOSPC", "fsync", "read", "kill"],
)
def test_a_ledger_whose_calls_fail(
    tmp_path: Path, error: int, calls: Sequence[str], step: int, raised: list[str]
) -> None:
    held(faults.ledger_io(tmp_path, [error], calls, step), *raised)


def test_a_ledger_that_half_adds_is_found_out(tmp_path: Path) -> None:
    faults.add_all(tmp_path / "ledger", lambda _: None)
    assert faults.whole(tmp_path / "ledger", 6) == ""
    shutil.rmtree(tmp_path)
    with Ledger.open(tmp_path / "ledger") as ledger:
        ledger.extend([("log", "k", body) for body in faults.BODIES[:4]])
    assert faults.whole(tmp_path / "ledger", 2) == "4 entries where 2 were acknowledged"


def test_an_open_ledger_goes_on_after_an_error(tmp_path: Path) -> None:
    tally = faults.ledger_goes_on(tmp_path, 8)
    assert tally.wrong == []
    assert tally.cases > 10


def test_a_lock_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    ending = suffer(lambda _: Ledger.open(tmp_path / "ledger").close(), Fault(1, errno.ENOSPC), ("cut", "write"))
    assert (ending.error, ending.status) == ("Unwritable", 0)
    Ledger.open(tmp_path / "ledger").close()


def test_a_commit_whose_last_sync_fails_says_that_it_may_be_there(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    Ledger.open(path).close()

    def work(tell: Tell, error: int = 0, at: int = 0) -> None:
        with Ledger.open(path) as ledger:
            judged(("sync",), lambda number, _: error if number == at else 0, spare=(2, 100))
            try:
                ledger.append("log", "k", at)
            except Unwritable as raised:
                tell(raised.hint)

    last = calls_of(lambda _: Ledger.open(path).append("log", "k", 0), ("sync",))
    told, _ = forked(lambda tell: work(tell, errno.EIO, last))
    assert "what was to be added may be there" in told[0]
    told, _ = forked(lambda tell: work(tell, errno.EIO, last - 1))
    assert "nothing was added" in told[0]
    assert [entry.body for entry in entries(path)] == [0, last]


def test_an_array_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    calls = ("sync", "write", "rename")
    put = lambda _, folder=tmp_path: Arrays(folder).put(x=[1.0, 2.0])
    for at in range(1, calls_of(lambda _: Arrays(tmp_path / "counted").put(x=[1.0, 2.0]), calls) + 1):
        ending = suffer(put, Fault(at, errno.EIO), calls)
        assert (ending.error, ending.status) == ("Unwritable", 0)
        for path in tmp_path.glob("*.*"):  # where only the folder's sync failed it is there, and whole
            assert list(Arrays(tmp_path).get(path.stem)["x"]) == [1.0, 2.0]
            path.unlink()
    Arrays(tmp_path).get(Arrays(tmp_path).put(x=[1.0, 2.0]))


def test_an_audit_whose_calls_fail_goes_on_to_the_same_end(model: Model, tmp_path: Path) -> None:
    held(faults.audit_io(model, tmp_path, [errno.EIO], 200), "Unwritable")


def test_a_full_disk(model: Model, tmp_path: Path) -> None:
    if forked(lambda _: faults.small_disk(tmp_path, 1 << 20))[1]:
        skip("disk")
    held(faults.full_disk(tmp_path / "ledgers", range(0, 40, 6)), "Unwritable")
    held(faults.full_disk(tmp_path / "audits", (0, 12), model), "Unwritable")


def test_a_limit_of_size(tmp_path: Path) -> None:
    held(faults.size_limit(tmp_path, range(0, 80_000, 8_000)), "Unwritable")


# ── clocks, damage, others at work ──────────────────────────────────────────────────────────────────────────────


def test_a_clock_that_jumps_changes_no_order(model: Model, tmp_path: Path) -> None:
    held(faults.clocks(tmp_path, model))


def test_a_ledger_that_is_cut_is_refused(tmp_path: Path) -> None:
    tally = torn.cut_ledger(tmp_path)
    assert tally.wrong == []
    assert set(tally.errors) <= {"CorruptFile", "LedgerBroken"}
    assert tally.cases > 50


def test_a_journal_that_is_cut(tmp_path: Path) -> None:
    before, after = torn.cut_journal(tmp_path, step=3)
    assert (before.wrong, after.wrong) == ([], [])
    assert before.cases > 5
    assert after.cases > 5


def test_an_array_that_is_cut_is_refused(tmp_path: Path) -> None:
    held(torn.cut_arrays(tmp_path), "CorruptFile")


def test_a_second_writer_in_another_process(tmp_path: Path) -> None:
    held(faults.second_writer(tmp_path, 3), "LedgerInUse")


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_unit_that_ends_its_process(model: Model, tmp_path: Path, how: str) -> None:
    held(faults.deaths(model, tmp_path, [how]))


# ── the same again ──────────────────────────────────────────────────────────────────────────────────────────────


def test_two_processes_make_the_same_bytes(model: Model, tmp_path: Path) -> None:
    def here(_: Tell) -> None:
        laboratory_digest.cache_clear()  # of the code as it is now, as the other reads it
        subject.still()
        subject.run(model, tmp_path / "other", determinism.DRAWS)

    one, other = determinism.made(tmp_path / "one", 1, "--still"), tmp_path / "other"
    assert forked(here) == ([], 0)
    assert determinism.still(one, other).holds
    (one / "report.md").write_text("other")
    assert not determinism.still(one, other).holds


def test_only_times_differ(model: Model, tmp_path: Path) -> None:
    for name in ("one", "other"):
        assert forked(lambda _, name=name: subject.run(model, tmp_path / name, 1)) == ([], 0)
    row = determinism.ordinary(tmp_path / "one", tmp_path / "other")
    assert row.holds, row.found
    assert "heads differ" in row.found


# ── the front ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missed_bar_is_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def found(rows: list[Any]) -> int:
        monkeypatch.setitem(sys.modules, "reliability.vectors", SimpleNamespace(run=lambda scale: rows))
        monkeypatch.setattr("sys.argv", ["reliability", "--only", "vectors"])
        return __main__.main()

    assert found([Row("a", "1 of 1"), Row("b", "2 of 2")]) == 0
    assert "2 of 2" in capsys.readouterr().out
    assert found([Row("a", "1 of 1"), Row("b", "1 of 2", holds=False)]) == 1
    assert "1 bars are missed" in capsys.readouterr().out


def test_a_part_that_breaks_off_shows_nothing() -> None:
    (row,) = __main__.rows_of("no_such_part", 1.0)
    assert not row.holds


def test_the_readme_has_a_place_for_every_part() -> None:
    text = Path(__main__.__file__).with_name("README.md").read_text(encoding="utf-8")
    for part in PARTS:
        assert text.count(f"<!-- {part} -->\n") == text.count(f"\n<!-- end {part} -->") == 1
