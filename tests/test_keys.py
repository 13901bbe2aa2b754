"""Keys are written once, read strictly, and shown to nobody; files are written whole or not at all."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.disclose.keys import (
    Identity,
    Recipient,
    new_recipient,
    new_signing_key,
    public_of,
    read_identity,
    read_private,
    read_public,
    read_recipients,
    thumbprint,
)
from assay.errors import AssayError, BadData, CorruptFile, Unwritable
from assay.files import read_bytes, write_whole

# RFC 8037, appendix A.
RFC_PUBLIC = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
RFC_PRIVATE = RFC_PUBLIC | {"d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}
RFC_THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
READERS: list[Callable[[Path], object]] = [read_private, read_public, read_recipients, read_identity]
# An X25519 point of order 1, on which age 0.12 panics.
LOW_ORDER = "age1qyqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqj7vrya"


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SSH keys by ssh-keygen: ed25519, rsa, ecdsa, and locked, which has a passphrase."""
    folder = tmp_path_factory.mktemp("ssh")
    for name, kind, phrase in [
        ("ed25519", "ed25519", ""),
        ("rsa", "rsa", ""),
        ("ecdsa", "ecdsa", ""),
        ("locked", "ed25519", "phrase"),
    ]:
        call = ["ssh-keygen", "-q", "-t", kind, "-N", phrase, "-C", "me@here and there", "-f", str(folder / name)]
        call += ["-b", "3072"] * (kind == "rsa")
        subprocess.run(call, check=True)
    return folder


def written(folder: Path, members: object) -> Path:
    path = folder / "some.key"
    path.write_text(members if isinstance(members, str) else json.dumps(members))
    return path


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_written_whole_with_its_mode_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    old = os.umask(0o077)
    try:
        assert write_whole(path, b"one") == path
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    write_whole(path, "zwölf\n", mode=0o600)
    assert path.read_bytes() == "zwölf\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_fresh_file_replaces_nothing(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "file", b"one", fresh=True)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for taken in (path, link):
        with pytest.raises(Unwritable, match="is there already"):
            write_whole(taken, b"two", fresh=True)
    assert path.read_bytes() == b"one"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "link"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_whole(tmp_path / "file", b"one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Unwritable, match="No space left"):
        write_whole(path, b"two")
    assert path.read_bytes() == b"one"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["file/below", "nul\0", ".", "x" * 300])
def test_what_cannot_be_written_is_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unwritable):
        write_whole(tmp_path / name, b"one")
    with pytest.raises(Unwritable):
        write_whole(tmp_path / "fine", "\ud800")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_reading_has_a_limit(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "file", b"12345")
    assert read_bytes(path, most=5) == b"12345"
    with pytest.raises(CorruptFile, match="more than 4 bytes"):
        read_bytes(path, most=4)
    for missing in (tmp_path, tmp_path / "none", tmp_path / "nul\0"):
        with pytest.raises(CorruptFile, match="cannot be read"):
            read_bytes(missing, most=5)


# ── signing keys ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_signing_key_is_two_files_that_belong_together(tmp_path: Path) -> None:
    private, public = new_signing_key(tmp_path / "keys" / "auditor.v2")
    assert (private.name, public.name) == ("auditor.v2.key", "auditor.v2.pub")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert set(json.loads(public.read_text())) == {"kty", "crv", "x"}
    key, half = read_private(private), read_public(public)
    assert key.is_private and not half.is_private
    assert thumbprint(key) == thumbprint(half) == thumbprint(public_of(key))
    assert public_of(key) == half and not public_of(key).is_private
    assert public_of(half) == half


@pytest.mark.parametrize("there", [".key", ".pub"])
def test_no_key_is_written_over(tmp_path: Path, there: str) -> None:
    (tmp_path / f"auditor{there}").write_text("mine")
    with pytest.raises(Unwritable):
        new_signing_key(tmp_path / "auditor")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(f"auditor{there}", "mine")]


def test_a_key_needs_a_name() -> None:
    with pytest.raises(BadData):
        new_signing_key("/")


def test_thumbprints_are_those_of_the_standard(tmp_path: Path) -> None:
    assert thumbprint(read_public(written(tmp_path, RFC_PUBLIC))) == RFC_THUMBPRINT
    assert thumbprint(read_private(written(tmp_path, RFC_PRIVATE))) == RFC_THUMBPRINT


def test_one_half_is_not_taken_for_the_other(tmp_path: Path) -> None:
    private, public = new_signing_key(tmp_path / "auditor")
    with pytest.raises(BadData, match=r"is a private key[\s\S]*\.pub"):
        read_public(private)
    with pytest.raises(BadData, match=r"is a public key[\s\S]*\.key"):
        read_private(public)


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "EC"},
        {"kty": "okp"},
        {"crv": "X25519"},
        {"crv": "Ed448"},
        {"kid": "extra"},
        {"x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURp"},  # the same 32 bytes, the last character otherwise
        {"x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
        {"x": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHUR\n"},
        {"x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURoAAAA"},
        {"x": "é" * 43},
        {"x": ""},
        {"x": 5},
        {"x": None},
        {"x": ["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"]},
    ],
    ids=str,
)
def test_a_key_has_one_form(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(BadData):
        read_public(written(tmp_path, RFC_PUBLIC | change))
    with pytest.raises(BadData):
        read_private(written(tmp_path, RFC_PRIVATE | change))


@pytest.mark.parametrize("name", list(RFC_PRIVATE))
def test_every_member_is_needed_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadData):
        read_private(written(tmp_path, {key: value for key, value in RFC_PRIVATE.items() if key != name}))
    twice = json.dumps(RFC_PRIVATE)[:-1] + f', "{name}": "{RFC_PRIVATE[name]}"}}'
    with pytest.raises(BadData, match="twice"):
        read_private(written(tmp_path, twice))


def test_halves_that_do_not_fit_are_no_key(tmp_path: Path) -> None:
    other = base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")
    with pytest.raises(BadData, match="'x'"):
        read_private(written(tmp_path, RFC_PRIVATE | {"x": other}))


# ── recipients and identities ───────────────────────────────────────────────────────────────────────────────────


def test_an_age_key_is_two_files_that_belong_together(tmp_path: Path) -> None:
    secret, public = new_recipient(tmp_path / "researcher")
    assert (secret.name, public.name) == ("researcher.identity", "researcher.recipient")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    (recipient,) = read_recipients(public)
    assert recipient.text in secret.read_text() and "SECRET" not in public.read_text()
    assert read_identity(secret).recipient == recipient.text
    with pytest.raises(Unwritable):
        new_recipient(tmp_path / "researcher")


def test_recipients_from_texts_and_files(tmp_path: Path, ssh: Path) -> None:
    _, one = new_recipient(tmp_path / "one")
    _, two = new_recipient(tmp_path / "two")
    many = tmp_path / "many"
    many.write_text(f"# who\n\n  {two.read_text()}{(ssh / 'rsa.pub').read_text()}")
    found = read_recipients([one.read_text(), many, str(ssh / "ed25519.pub")])
    assert [recipient.text[:8] for recipient in found] == [
        one.read_text()[:8],
        two.read_text()[:8],
        "ssh-rsa ",
        "ssh-ed25",
    ]
    assert read_recipients((ssh / "rsa.pub").read_text()) == [found[2]]
    assert all("me@here" not in recipient.text for recipient in found)


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_an_ssh_key_and_its_public_half(ssh: Path, kind: str) -> None:
    assert read_identity(ssh / kind).recipient == read_recipients(ssh / f"{kind}.pub")[0].text


def test_a_recipient_is_given_once(tmp_path: Path, ssh: Path) -> None:
    _, one = new_recipient(tmp_path / "one")
    line = (ssh / "ed25519.pub").read_text().split()
    for pair in ([one, one], [one.read_text(), one.read_text().upper()], [ssh / "rsa.pub", str(ssh / "rsa.pub")]):
        with pytest.raises(BadData, match="twice"):
            read_recipients(pair)
    # 407 bytes, so that the last character has two bits to spare.
    kind, text, *_ = (ssh / "rsa.pub").read_text().split()
    assert text.endswith("=")
    spare = text[:-2] + chr(ord(text[-2]) + 1) + "="
    assert base64.b64decode(spare) == base64.b64decode(text)
    with pytest.raises(BadData, match="twice"):
        read_recipients([f"{kind} {text}", f"{kind} {spare}"])
    with pytest.raises(BadData, match="line 2 of .* twice"):
        read_recipients(write_whole(tmp_path / "file", f"{' '.join(line[:2])} a\n{'  '.join(line[:2])}\tb\n"))


def test_an_ssh_key_has_one_form(ssh: Path) -> None:
    kind, text, *_ = (ssh / "ed25519.pub").read_text().split()
    raw = base64.b64decode(text)
    # age itself takes this one.
    with pytest.raises(BadData):
        read_recipients(f"{kind} {base64.b64encode(raw + b'abc').decode()}")
    with pytest.raises(BadData):
        read_recipients(f"ssh-rsa {text}")


@pytest.mark.parametrize(
    "text",
    ["age1", "age1pq1abc", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-dss AAAA", LOW_ORDER, "age1 \ud800", "ssh-rsa é"],
)
def test_a_text_that_is_no_recipient(text: str) -> None:
    with pytest.raises(BadData, match="is no recipient"):
        read_recipients(text)


def test_other_keys_are_refused(tmp_path: Path, ssh: Path) -> None:
    with pytest.raises(BadData, match="is no recipient"):
        read_recipients(ssh / "ecdsa.pub")
    with pytest.raises(BadData, match="no OpenSSH private key|does not open seals"):
        read_identity(ssh / "ecdsa")
    with pytest.raises(BadData, match=r"has a passphrase[\s\S]*ssh-keygen -p"):
        read_identity(ssh / "locked")
    with pytest.raises(BadData, match="is encrypted"):
        read_identity(write_whole(tmp_path / "sealed", b"age-encryption.org/v1\n-> scrypt"))
    with pytest.raises(BadData, match="no recipients"):
        read_recipients(write_whole(tmp_path / "empty", "# nobody\n"))
    with pytest.raises(BadData, match="no recipients"):
        read_recipients([])
    with pytest.raises(CorruptFile):
        read_recipients("no such file")


def test_private_and_public_are_told_apart(tmp_path: Path, ssh: Path) -> None:
    secret, public = new_recipient(tmp_path / "researcher")
    for path in (secret, ssh / "ed25519", ssh / "locked"):
        with pytest.raises(BadData, match="private key"):
            read_recipients(path)
        with pytest.raises(BadData, match="private key"):
            read_recipients(path.read_text())
    for path in (public, ssh / "rsa.pub"):
        with pytest.raises(BadData, match="is a public key"):
            read_identity(path)
    other, _ = new_recipient(tmp_path / "other")
    with pytest.raises(BadData, match="2 lines"):
        read_identity(write_whole(tmp_path / "both", secret.read_text() + other.read_text()))


def test_nothing_private_is_ever_shown(tmp_path: Path, ssh: Path) -> None:
    signing, _ = new_signing_key(tmp_path / "auditor")
    opening, _ = new_recipient(tmp_path / "researcher")
    hidden = [
        json.loads(signing.read_text())["d"][4:-4],
        opening.read_text().split()[-1][20:-4],
        *(line[4:-4] for line in (ssh / "ed25519").read_text().splitlines()[3:-2]),
    ]
    shown = [repr(read_identity(opening)), repr(read_identity(ssh / "ed25519")), str(read_private(signing))]
    for path in (signing, opening, ssh / "ed25519"):
        text = path.read_text()
        for spoiled in (
            text,
            text[:-9],
            text.replace("A", "B"),
            text.lower(),
            f"{text}\n{text}",
            text.replace('"', ""),
        ):
            for read in READERS:
                for form in (write_whole(tmp_path / "spoiled", spoiled), spoiled):
                    try:
                        shown.append(repr(read(form)))  # type: ignore[arg-type]
                    except AssayError as error:
                        shown.append(f"{error} {error.fields} {error.__cause__}")
    lowered = "\n".join(shown).lower().replace("a", "b")
    assert len(shown) > 30
    assert not [text for text in hidden if text.lower().replace("a", "b") in lowered]


@settings(max_examples=150)
@given(
    which=st.integers(0, 5),
    cut=st.integers(0, 3000),
    bytes_=st.binary(max_size=6),
    drop=st.sampled_from([0, 1, 5, 10**6]),
)
def test_whatever_the_bytes_one_error(
    tmp_path_factory: pytest.TempPathFactory, ssh: Path, which: int, cut: int, bytes_: bytes, drop: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    if not folder.exists():
        new_signing_key(folder / "a")
        new_recipient(folder / "a")
    sources = [folder / f"a.{end}" for end in ("key", "pub", "identity", "recipient")] + [ssh / "rsa", ssh / "rsa.pub"]
    data = sources[which].read_bytes()
    cut %= len(data) + 1
    path = write_whole(folder / "spoiled", data[:cut] + bytes_ + data[cut + drop :])
    for read in READERS:
        try:
            found = read(path)
        except BadData:
            continue
        assert isinstance(found, Identity) or not isinstance(found, list) or isinstance(found[0], Recipient)
