"""What is given away cannot be changed: some of its bytes here, all by ``python -m reliability --only tamper``."""

from __future__ import annotations

from collections import Counter

import pytest

from assay.disclose import sdjwt
from assay.disclose.credential import TYPE
from assay.errors import NotVerified
from reliability import Row, tamper
from reliability.tamper import ATTACKS, Given, Keys


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[Given]:
    """Two audits: of two claims, and the same with another sentence."""
    home = tmp_path_factory.mktemp("tamper")
    keys = Keys.made(home)
    return [Given.made(home / "one", keys, 2), Given.made(home / "other", keys, 2, because="d")]


def test_what_was_not_changed_holds(given: list[Given]) -> None:
    one = given[0]
    release = one.verified
    assert (len(release.items), release.signed.claims_total) == (len(one.shown), len(one.shown) + len(one.hidden))
    assert {item.part for item in release.items} == {"threat", "verdict", "claim", "outcome"}
    one.read_credential(one.credential)


def test_no_byte_can_be_changed(given: list[Given]) -> None:
    rows = tamper.bytes_rows(given[:1], 1 / 240)
    assert [row for row in rows if not row.holds] == []
    assert len(rows) == 6
    assert "refused" in rows[0].found


@pytest.mark.parametrize("what", ATTACKS)
def test_every_attack_is_refused(what: str, given: list[Given]) -> None:
    came = {name: tamper.told(lambda _, attack=attack: attack(), b"") for name, attack in ATTACKS[what](*given)}
    assert len(came) > 4
    assert set(came.values()) == {NotVerified.__name__}, came


def test_what_other_files_tell(given: list[Given]) -> None:
    rows = tamper.further_rows(given[0])
    assert [row for row in rows if not row.holds] == []
    assert len(rows) == 5


def test_what_is_taken_misses_the_bar(given: list[Given]) -> None:
    """The measure can fail: without the holder's signature disclosures can be dropped, which is counted as taken."""
    one = given[0]

    def careless(data: bytes) -> None:
        sdjwt.verify(data, one.keys.public, typ=TYPE, bound=False)

    bare = "~".join((one.jwt, *one.shown, "")).encode()
    assert tamper.told(careless, bare.replace(one.shown[0].encode() + b"~", b"")) == "accepted"
    assert tamper.told(lambda data: data.decode("ascii"), b"\xff").startswith("UnicodeDecodeError, which is none")
    row: Row = tamper._bytes_row("x", Counter({"NotVerified": 9, "accepted": 1}))
    assert (row.holds, row.found) == (False, "9 of 10 refused: 1 accepted")
    assert not tamper._bytes_row("x", Counter()).holds


def test_all_places_are_shared_out_and_counted() -> None:
    def read(data: bytes) -> None:
        if data[:1] == b"a":
            raise NotVerified("a", hint="b")

    one, two = tamper.every_byte(read, b"abc", differences=(1, 2, 3))
    assert (one, two) == (Counter(NotVerified=6, accepted=3), Counter(NotVerified=4, accepted=2 + 16))
