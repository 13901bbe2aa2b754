"""The ledger keeps what it acknowledged, in order, and shows every change to it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import AssayError, BadData, CorruptFile, LedgerBroken, LedgerInUse, Unwritable
from assay.evidence import (
    Correction,
    Effect,
    Ledger,
    Missing,
    NullFigure,
    Outcome,
    Unit,
    canonical,
    of_bytes,
    of_file,
    of_folder,
    of_json,
)
from assay.evidence.entry import KINDS
from assay.evidence.store import GENESIS
from tests.fixtures import audit_ledger as audit

KEEP_APPENDING = """
import os, sys
from assay.evidence import Ledger
with Ledger.open(sys.argv[1]) as ledger:
    for number in range(int(sys.argv[2]), 10**9):
        ledger.append("count", str(number), {"number": number, "pad": "x" * (number % 5000)})
        os.write(1, f"{number}\\n".encode())
"""

texts = st.text(max_size=20)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
bodies = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "ledger"


@pytest.fixture
def written(path: Path) -> Path:
    audit.write_audit(path)
    return path


# ── canonical JSON and digests ──────────────────────────────────────────────────────────────────────────────────


def test_canonical_json_sorts_keys_and_keeps_kinds_apart():
    assert canonical({"b": (1, 2.0), "a": "é", "c": {"z": None, "y": True}}) == (
        '{"a":"é","b":[1,2.0],"c":{"y":true,"z":null}}'
    )
    assert of_json(1) != of_json(1.0) != of_json(True)
    assert of_json({"a": 1, "b": 2}) == of_json({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"effects": [{"low": float("nan")}]}, "$.effects[0].low = nan (float)"),
        ([float("inf")], "$[0] = inf (float)"),
        ({1: "a"}, "$ = {1: 'a'} (dict)"),
        ({"x": {1, 2}}, "$.x = {1, 2} (set)"),
        ("\ud800", "$ = '\\ud800' (str)"),
        (b"raw", "$ = b'raw' (bytes)"),
    ],
)
def test_what_is_no_json_is_one_typed_error_that_names_the_place(value, found):
    with pytest.raises(BadData, match="no JSON form") as error:
        canonical(value)
    assert error.value.fields["found"] == found


def test_too_deep_and_too_long_values_are_typed_errors():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, 10**5000):
        with pytest.raises(BadData):
            canonical(value)


@given(bodies)
def test_canonical_json_is_a_fixed_point(value):
    import json

    text = canonical(value)
    assert canonical(json.loads(text)) == text
    assert json.loads(text) == value


def test_files_and_folders_are_digested_with_their_names(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    for name, data in (("a", b"1"), ("sub/b", b"2"), (".git/c", b"3")):
        (tmp_path / name).write_bytes(data)
    manifest = of_folder(tmp_path)
    assert manifest == {"a": of_bytes(b"1"), "sub/b": of_file(tmp_path / "sub" / "b")}

    (tmp_path / "a").write_bytes(b"2")
    (tmp_path / "sub" / "b").write_bytes(b"1")
    assert of_json(of_folder(tmp_path)) != of_json(manifest), "two files that trade places are a change"

    with pytest.raises(CorruptFile, match="cannot be read"):
        of_file(tmp_path / "none")
    with pytest.raises(CorruptFile, match="holds no files"):
        of_folder(tmp_path / "none")


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_value_of_an_audit_survives_json(written: Path):
    with Ledger.read(written) as ledger:
        entries = ledger.entries()
    assert {entry.kind for entry in entries} == set(KINDS), "the fixture holds every kind"
    for entry in entries:
        kind = KINDS[entry.kind]
        value = entry.read(kind)
        assert kind.model_validate_json(value.model_dump_json()) == value
        assert value.entry_key == entry.key
        assert type(entry).model_validate_json(entry.model_dump_json()) == entry


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: audit.make_claim("a", "b", "c", grade="enormous"), "grade: Input should be"),
        (lambda: audit.make_claim("a", "b", "c", colour="red"), "colour: Extra inputs"),
        (lambda: audit.make_claim("a", "b", "c", params={"x": float("nan")}), "$.x = nan"),
        (lambda: Effect(name="e", value=0, unit="", low=1, high=0, level=0.95, n=1), "low 1.0 is above high 0.0"),
        (lambda: Effect(name="e", value=float("nan"), unit="", low=0, high=0, level=0.95, n=1), "value: "),
        (lambda: audit.band("s", (1.0,), (1.0, 2.0), 0.1), "lengths {'x': 1, 'means': 2"),
        (lambda: NullFigure(title="", x_label="", caption="", observed=0, controls=()), "controls: "),
        (lambda: Outcome(claim="c", verdict="supported", because=""), "supported, but no effect is given"),
        (lambda: audit.causes_outcome().model_validate({**audit.causes_outcome().model_dump(), "verdict": "supported"}),
         "p 0.38 is above alpha 0.05"),
        (lambda: Correction(corrects="d", author="", reason="r"), "author: "),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_typed_error_that_names_the_field(make, says):
    with pytest.raises(BadData) as error:
        make()
    assert says in str(error.value)


def test_values_are_frozen_and_copy_what_they_were_given():
    params = {"doses": (-2, 0, 2)}
    claim = audit.make_claim("a", "b", "c", params=params)
    before = claim.digest
    params["doses"] = (9,)
    assert claim.digest == before
    assert claim.params == {"doses": [-2, 0, 2]}
    with pytest.raises(ValueError, match="frozen"):
        claim.statement = "other"
    assert audit.make_claim("a", "b", "d").digest != audit.make_claim("a", "b", "c").digest


# ── appending and reading ───────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["note to self", "log"]), texts, bodies), max_size=8))
def test_any_sequence_of_json_bodies_round_trips_and_verifies(tmp_path_factory, items):
    path = tmp_path_factory.mktemp("any") / "ledger"
    with Ledger.open(path) as ledger:
        added = ledger.extend(items)
        head = ledger.head
    with Ledger.read(path) as ledger:
        entries = ledger.entries()
        assert ledger.verify() == ledger.head == head == (entries[-1].digest if items else GENESIS)
        assert entries == added
        assert [(entry.kind, entry.key, entry.body) for entry in entries] == items
        assert [entry.seq for entry in entries] == list(range(1, len(items) + 1))
        for kind, key, _ in items:
            assert ledger.latest(kind, key).body == [b for k, n, b in items if (k, n) == (kind, key)][-1]


def test_the_same_entries_at_the_same_times_give_the_same_head(tmp_path: Path):
    for name in ("a", "b"):
        audit.write_audit(tmp_path / name)
    with Ledger.read(tmp_path / "a") as one, Ledger.read(tmp_path / "b") as other:
        assert one.head == other.head


def test_entries_can_be_asked_for_by_kind_and_a_copied_folder_goes_on(written: Path, tmp_path: Path):
    shutil.copytree(written.parent, tmp_path / "elsewhere")
    with Ledger.open(tmp_path / "elsewhere" / "ledger") as ledger:
        assert len(ledger.entries("unit")) == 24
        assert ledger.entries("nothing") == []
        assert ledger.latest("unit", "nothing") is None
        seen = ledger.latest("unit", ledger.entries("unit")[3].key)
        assert seen.read(Unit).result == {"score": 3 / 7}
        before = ledger.entries()[-1]
        assert ledger.append("log", "again", 1).prev == before.digest


def test_a_unit_an_outcome_and_a_claim_are_said_once(written: Path):
    with Ledger.open(written) as ledger:
        count, unit = len(ledger.entries()), ledger.entries("unit")[0]
        assert ledger.append("unit", unit.key, unit.body) == unit
        assert ledger.record(audit.DECODES).seq == 6
        assert len(ledger.entries()) == count

        better = audit.causes_outcome().model_copy(update=dict(verdict="supported", p=0.01))
        with pytest.raises(BadData, match="recorded before, and was different") as error:
            ledger.record(better)
        assert "ledger.correct" in error.value.hint
        assert len(ledger.entries()) == count


def test_claims_come_before_outcomes(path: Path):
    with Ledger.open(path) as ledger:
        for body in (audit.causes_outcome(), Missing(claim=audit.CAUSES.digest, reason="out of memory")):
            with pytest.raises(BadData, match="never recorded"):
                ledger.record(body)
        assert ledger.head == GENESIS


def test_several_entries_are_added_together_or_not_at_all(path: Path):
    with Ledger.open(path) as ledger:
        with pytest.raises(BadData, match="never recorded"):
            ledger.extend([("log", "a", 1), ("outcome", audit.CAUSES.digest, audit.causes_outcome())])
        with pytest.raises(BadData, match="no JSON form"):
            ledger.extend([("log", "a", 1), ("log", "b", {2})])
        assert ledger.entries() == []
        assert ledger.append("log", "a", 1).seq == 1


def test_a_known_kind_takes_only_its_own_body_and_key(path: Path):
    with Ledger.open(path) as ledger:
        with pytest.raises(BadData, match="no Claim"):
            ledger.append("claim", "x", {"statement": "anything"})
        with pytest.raises(BadData, match="a key that is not its own") as error:
            ledger.append("claim", "x", audit.DECODES)
        assert error.value.fields["wanted"] == audit.DECODES.digest
        assert ledger.append("claim", audit.DECODES.digest, audit.DECODES.model_dump()).body["key"] == "decodes"


def test_standing_follows_from_the_order_of_events(written: Path, path: Path):
    with Ledger.read(written) as ledger:
        assert ledger.standing(audit.DECODES) == ledger.standing(audit.DECODES.digest) == "confirmatory"
        assert ledger.standing(audit.LATER) == "exploratory"
        with pytest.raises(BadData, match="no claim") as error:
            ledger.standing(audit.DECODES.digest[:-1] + "x")
        assert audit.DECODES.digest in error.value.fields["nearest"]


@pytest.mark.parametrize("result", ["unit", "missing"])
def test_a_claim_after_any_result_is_exploratory(path: Path, result: str):
    bodies = dict(
        unit=Unit(address="a", measure="m", result=0),
        missing=Missing(claim=audit.DECODES.digest, reason="out of time"),
    )
    with Ledger.open(path) as ledger:
        ledger.extend([("claim", audit.DECODES.digest, audit.DECODES), ("log", "free words", "are no result")])
        ledger.record(bodies[result])
        ledger.record(audit.CAUSES)
        ledger.record(audit.DECODES)
        assert ledger.standing(audit.CAUSES) == "exploratory"
        assert ledger.standing(audit.DECODES) == "confirmatory", "saying it again changes nothing"


def test_corrections_are_new_entries_with_author_and_reason(written: Path):
    with Ledger.open(written) as ledger:
        said = ledger.latest("outcome", audit.CAUSES.digest)
        fixed = ledger.correct(said, None, author="A. Auditor", reason="the wrong data were read")
        assert fixed.read(Correction) == Correction(
            corrects=said.digest, author="A. Auditor", reason="the wrong data were read", body=None
        )
        assert ledger.latest("outcome", audit.CAUSES.digest) == said
        with pytest.raises(BadData, match="cannot be corrected") as error:
            ledger.correct(ledger.latest("claim", audit.CAUSES.digest), audit.CAUSES, author="A", reason="r")
        assert "a changed claim is a new claim" in error.value.hint
        with pytest.raises(BadData, match="a key that is not its own"):
            ledger.correct(said, audit.decodes_outcome(), author="A", reason="r")
        with pytest.raises(BadData, match="no Outcome"):
            ledger.correct(said, Missing(claim=audit.CAUSES.digest, reason="r"), author="A", reason="r")


# ── one writer, any readers ─────────────────────────────────────────────────────────────────────────────────────


def test_a_second_writer_is_refused_at_once_and_told_by_whom(path: Path):
    with Ledger.open(path) as first:
        begun = time.monotonic()
        with pytest.raises(LedgerInUse) as error:
            Ledger.open(path)
        assert time.monotonic() - begun < 1
        assert str(error.value) == (
            f"another process is writing the ledger at {str(path)!r}\n\n"
            f"  found     process {os.getpid()}\n\n"
            "  hint: wait for it to end, or write into another folder; readers need not wait\n"
            "  see:  docs/errors/ledger-in-use.md"
        )
        first.append("log", "a", 1)
        with Ledger.read(path) as reader, Ledger.read(path) as other:
            first.append("log", "b", 2)
            assert [entry.body for entry in reader.entries()] == [1, 2]
            assert other.verify() == first.head
            with pytest.raises(Unwritable, match="open for reading only"):
                reader.append("log", "c", 3)
    with Ledger.open(path) as second:
        assert second.append("log", "c", 3).seq == 3


def test_a_leftover_lock_file_means_nothing(path: Path):
    Ledger.open(path).close()
    path.with_name("ledger.lock").write_text("1\n")  # as a crash of another process would leave it
    Ledger.open(path).close()


def test_kill_9_loses_nothing_that_was_acknowledged(path: Path):
    """Twenty rounds: append as fast as it goes, be killed at a random moment, check, let the next writer go on."""
    chance = random.Random(0)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    acknowledged = -1
    for _ in range(20):
        writer = subprocess.Popen(
            [sys.executable, "-c", KEEP_APPENDING, str(path), str(acknowledged + 1)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        lines = [int(writer.stdout.readline()) for _ in range(chance.randint(1, 6))]
        time.sleep(chance.random() * 0.02)
        writer.send_signal(signal.SIGKILL)
        lines += [int(line) for line in writer.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        assert lines[0] == acknowledged + 1

        with Ledger.read(path) as ledger:  # before any writer could repair anything
            ledger.verify()
            kept = [entry.body["number"] for entry in ledger.entries()]
        assert kept == list(range(len(kept)))
        assert len(kept) - 1 in (lines[-1], lines[-1] + 1), "all that was acknowledged, and at most the one in flight"
        acknowledged = len(kept) - 1
        Ledger.open(path).close()
    assert acknowledged >= 19


# ── damage ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sql_itself_refuses_to_change_remove_or_reorder_entries(written: Path):
    database = sqlite3.connect(written)
    row = "VALUES ({}, 'log', 'k', 'now', '1', 'p', 'd')"
    for statement, says in (
        ("UPDATE entry SET body = '1' WHERE seq = 3", "entries are never changed"),
        ("DELETE FROM entry WHERE seq = 41", "entries are never removed"),
        ("INSERT OR REPLACE INTO entry " + row.format(3), "entries are only added at the end"),
        ("INSERT INTO entry " + row.format(99), "entries are only added at the end"),
    ):
        with pytest.raises(sqlite3.IntegrityError, match=says):
            database.execute(statement)
    database.close()


@pytest.mark.parametrize(
    ("statement", "broken", "found"),
    [
        ("UPDATE entry SET body = replace(body, 'supported', 'Supported') WHERE seq = 21", 21, "its content is not"),
        ("UPDATE entry SET at = '2020' WHERE seq = 7", 7, "its content is not"),
        ("UPDATE entry SET key = 'other' WHERE seq = 1", 1, "its content is not"),
        ("UPDATE entry SET kind = 'log' WHERE seq = 27", 27, "its content is not"),
        ("UPDATE entry SET body = CAST(x'ff' || body AS TEXT) WHERE seq = 12", 12, "its content is not"),
        ("UPDATE entry SET body = CAST(body AS BLOB) WHERE seq = 12", 12, "a field that is no text"),
        ("UPDATE entry SET prev = digest WHERE seq = 9", 9, "it does not follow"),
        ("UPDATE entry SET digest = prev WHERE seq = 5", 5, "its content is not"),
        ("DELETE FROM entry WHERE seq = 20", 20, "entry 21 in its place"),
        ("DELETE FROM entry WHERE seq = 1", 1, "entry 2 in its place"),
        ("UPDATE entry SET seq = seq + 1000 WHERE seq > 30", 31, "entry 1031 in its place"),
    ],
)
def test_a_change_through_sqlite_is_found_and_named(written: Path, statement: str, broken: int, found: str):
    database = sqlite3.connect(written)
    for trigger in ("no_update", "no_delete", "in_order"):
        database.execute(f"DROP TRIGGER {trigger}")
    database.execute(statement)
    database.commit()
    database.close()
    before = written.read_bytes()
    with Ledger.read(written) as ledger, pytest.raises(LedgerBroken, match=f"breaks at entry {broken}\n") as error:
        ledger.verify()
    assert found in error.value.fields["found"]
    with pytest.raises(LedgerBroken):
        Ledger.open(written)
    assert written.read_bytes() == before, "a broken ledger is left as it is"


def test_a_ledger_cut_short_is_found_by_a_head_that_was_kept(written: Path):
    with Ledger.read(written) as ledger:
        head, earlier = ledger.head, ledger.entries()[20].digest
        assert ledger.verify(head) == ledger.verify(earlier) == ledger.verify(GENESIS) == head
    database = sqlite3.connect(written)
    database.execute("DROP TRIGGER no_delete")
    database.execute("DELETE FROM entry WHERE seq > 30")
    database.commit()
    database.close()
    with Ledger.read(written) as ledger:
        ledger.verify()
        assert ledger.verify(earlier) != head
        with pytest.raises(LedgerBroken, match="does not contain the head"):
            ledger.verify(head)


def test_no_damaged_byte_is_ever_read_as_something_else(written: Path, tmp_path: Path):
    with Ledger.read(written) as ledger:
        entries = ledger.entries()
    chance = random.Random(1)
    data = written.read_bytes()
    damaged = tmp_path / "damaged"
    refused = 0
    for _ in range(150):
        place = chance.randrange(len(data))
        changed = data[place] ^ chance.randrange(1, 256)
        damaged.write_bytes(data[:place] + bytes([changed]) + data[place + 1 :])
        try:
            with Ledger.read(damaged) as ledger:
                ledger.verify()
                assert ledger.entries() == entries
        except AssayError:
            refused += 1
    assert refused > 75, "most of the file is what entries say"


def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path: Path):
    text = tmp_path / "text"
    text.write_text("a long letter\n" * 300)
    other = tmp_path / "other.db"
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE entry (seq, kind)")
    database.commit()
    database.close()
    short = tmp_path / "short"
    audit.write_audit(tmp_path / "whole")
    short.write_bytes((tmp_path / "whole").read_bytes()[:20_000])
    for path in (text, other, short):
        before = path.read_bytes()
        for use in (Ledger.open, lambda path: Ledger.read(path).verify()):
            with pytest.raises(CorruptFile) as error:
                use(path)
            assert str(path) in error.value.what
        assert path.read_bytes() == before
    with pytest.raises(CorruptFile, match="there is no ledger at"):
        Ledger.read(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(CorruptFile):
        Ledger.read(tmp_path / "empty")
    with Ledger.open(tmp_path / "empty") as ledger:
        assert ledger.head == GENESIS, "an empty file is where a writer may begin"


def test_a_folder_that_cannot_be_written_is_a_typed_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unwritable) as error:
        Ledger.open(tmp_path / "file" / "ledger")
    assert "choose a folder that you may write in" in error.value.hint
    (tmp_path / "folder").mkdir()
    with pytest.raises(Unwritable):
        Ledger.open(tmp_path / "folder")
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(Unwritable):
            Ledger.open(tmp_path / "closed" / "ledger")


def test_a_full_disk_adds_nothing_and_loses_nothing(written: Path):
    with Ledger.open(written) as ledger:
        head, pages = ledger.head, ledger._database.execute("PRAGMA page_count").fetchone()[0]
        ledger._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(Unwritable, match="cannot write the ledger") as error:
            ledger.append("log", "big", "x" * 100_000)
        assert "SQLITE_FULL" in error.value.fields["found"]
        assert ledger.verify() == head
        ledger._database.execute(f"PRAGMA max_page_count = {pages + 100}")
        assert ledger.append("log", "big", "x" * 100_000).prev == head


def test_commits_are_synced_and_no_log_lies_beside(written: Path):
    with Ledger.open(written) as ledger:
        assert ledger._database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert ledger._database.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA: FULL and the folder
    assert sorted(file.name for file in written.parent.iterdir()) == ["ledger", "ledger.lock"]
