"""No reader is surprised by a file: two thousand inputs each here, a million by ``python -m reliability``."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.errors import BadData, NotVerified
from reliability import fuzz
from reliability.fuzz import Read, Reader
from reliability.tamper import Given, Keys

SLOW = {"ledgers by another hand": 600, "releases by a hostile signer": 1000, "what strangers seal": 1000}
NAMES = [
    "values of a ledger", "entries", "items", "policies (TOML)", "releases", "credentials", "releases as JSON",
    "releases by a hostile signer", "any SD-JWT", "seals", "what strangers seal", "public keys", "private keys", "recipients",
    "identities", "timestamps", "root certificates", "arrays (safetensors)", "directions (safetensors, torch)",
    "ledgers (SQLite)", "ledgers by another hand", "hypotheses", "pairs (JSON lines)", "pairs (JSON)", "pairs (CSV)",
    "facts (JSON lines)", "prompts (JSON lines)",
]  # fmt: skip
NEVER = {"releases", "credentials", "releases as JSON", "seals", "what strangers seal"}
"""Every byte of these counts: nothing that was changed is taken."""


@pytest.fixture(scope="module")
def readers() -> Iterator[dict[str, Reader]]:
    with fuzz.readers() as known:
        yield {reader.name: reader for reader in known}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz.tempfile, "gettempdir", lambda: str(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_whatever_the_bytes_are(readers: dict[str, Reader], name: str) -> None:
    count = SLOW.get(name, 2000)
    found = fuzz.tried(readers[name], count)
    assert found.failed == []
    assert found.inputs == count == found.unchanged + found.accepted + found.refused.total()
    assert found.refused.total() > count / 10
    assert found.accepted == 0 or name not in NEVER


def test_every_reader_is_tried_and_there_are_a_million_inputs(readers: dict[str, Reader]) -> None:
    assert list(readers) == NAMES
    assert sum(reader.inputs for reader in readers.values()) >= 1_000_000


def test_what_was_not_changed_is_read(readers: dict[str, Reader]) -> None:
    """Else nothing behind the first check would ever be reached."""
    for name, reader in readers.items():
        if name not in ("any SD-JWT", "policies (TOML)", "releases by a hostile signer"):
            for seed in reader.seeds:
                reader.read(seed)
    signer = readers["releases by a hostile signer"]
    assert fuzz.tried(signer, 100).accepted > 2


def test_inputs_repeat(readers: dict[str, Reader]) -> None:
    for reader in readers.values():
        once, again = ([data for _, data in fuzz.inputs_of(reader, 30)] for _ in range(2))
        if "signer" not in reader.name:
            assert once == again, reader.name
        assert len(set(once)) > 15, reader.name


def test_changed_json_stays_near_json() -> None:
    seeds = [json.dumps({"a": [1, {"b": "c"}], "d": None}).encode()]
    reads = 0
    for number in range(300):
        data = fuzz.json_changed(random.Random(number), seeds)
        try:
            json.loads(data)
            reads += 1
        except (ValueError, RecursionError):
            pass
    assert 150 < reads < 300


@pytest.mark.parametrize("iat", [-(10**18), -(10**400), -1e300, -1])
def test_times_that_no_calendar_has_are_refused(tmp_path: Path, iat: float) -> None:
    """Found by fuzzing: a signer's moment before all moments ended in an OverflowError."""
    given = Given.made(tmp_path / "run", Keys.made(tmp_path), 1)
    payload = json.loads(fuzz._decoded(given.jwt.split(".")[1]))
    with pytest.raises(NotVerified):
        given.read_release(fuzz.signed_by(given, {**payload, "iat": iat}, iat))
    assert given.read_release(fuzz.signed_by(given, payload, payload["iat"])).items


# ── the measure can fail ────────────────────────────────────────────────────────────────────────────────────────


def reading(read: Read) -> Reader:
    return Reader("a", read, [b"seed"], lambda chance, seeds: b"%d" % chance.randrange(10), 1)


def test_an_error_of_another_tree_is_a_failure_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def read(data: bytes) -> None:
        if data == b"7":
            raise KeyError("seven")
        raise BadData("no", hint="none")

    found = fuzz.tried(reading(read), 100)
    assert {what for _, what in found.failed} == {"KeyError: 'seven'"}
    assert len(found.failed) + found.refused["BadData"] == found.inputs == 100
    number = found.failed[0][0]
    assert (tmp_path / fuzz.FAILED / f"a-0-{number}").read_bytes() == b"7"
    assert "b'7'" in capsys.readouterr().err


def test_time_and_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)
    assert fuzz.tried(reading(lambda data: time.sleep(5)), 2).failed == [
        (0, "longer than 0.05 s"),
        (1, "longer than 0.05 s"),
    ]
    monkeypatch.setattr(fuzz, "SECONDS", 20)
    found = fuzz.tried(reading(lambda data: bytearray(3 << 30)), 1)
    assert [what.partition(":")[0] for _, what in found.failed] == ["MemoryError"]


def test_a_process_that_dies_of_an_input_is_a_failure_and_the_rest_goes_on() -> None:
    found = fuzz.tried(reading(lambda data: os._exit(9) if data == b"7" else None), 40)
    numbers = [number for number, data in fuzz.inputs_of(reading(len), 40) if data == b"7"]
    assert found.failed == [(number, "the process died of it (exit 9)") for number in numbers]
    assert numbers
