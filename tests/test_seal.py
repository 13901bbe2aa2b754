"""A seal opens for each of its recipients and for nobody else, says nothing of its length, and bears no change."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.disclose.keys import Identity, Recipient, new_recipient, read_identity, read_recipients
from assay.disclose.seal import open_seal, seal, sizes
from assay.errors import BadData, NotVerified, SealClosed

PAGE = Path(__file__).parents[1] / "docs" / "errors" / "seal-closed.md"
BUCKET = 64
# What `age --passphrase` makes of b"claims" and the passphrase "phrase"; making one takes seconds, on purpose.
PASSPHRASE = (
    "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCB3WERrT1dabWExWTR1d1lvNjRYREN3IDE5CkxJbHZ5Q1JQNkZ0QWhZaGxK"
    "cnFISGFPeTFiK2RkbXo1eUd1dGpJbDB3RWsKLS0tIFpPdWVxMWZJRjB5ZWR2OEU1ejFwcWtzdDBrQ3FZSEpFbXRPYW8rWjJhU3MK"
    "iUqXZrwiOiBTN6Iz8VsC3ccmThuY5my90J0OVU6ykpnE+fdW3UE="
)
HEAD = 29  # bytes of the frame before the content


class Keys(NamedTuple):
    recipients: list[Recipient]
    identities: list[Identity]
    stranger: Identity


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Two age keys and an SSH key, and one that nothing is sealed to."""
    folder = tmp_path_factory.mktemp("keys")
    pairs = [new_recipient(folder / name) for name in ("one", "two", "stranger")]
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "ssh")], check=True)
    identities = [read_identity(path) for path, _ in pairs]
    recipients = read_recipients([*(path for _, path in pairs[:2]), folder / "ssh.pub"])
    return Keys(recipients, [*identities[:2], read_identity(folder / "ssh")], identities[2])


def framed(keys: Keys, frame: bytes) -> bytes:
    """An honest age file around any frame at all: anybody can make one."""
    return bytes(pyrage.encrypt(frame, [recipient.key for recipient in keys.recipients]))


def frame(content: bytes, *, bucket: int, size: int) -> bytes:
    start = b"assay-seal-1\n" + bucket.to_bytes(8, "big") + len(content).to_bytes(8, "big") + content
    return start.ljust(size, b"\0")


@pytest.mark.parametrize("content", [b"", b"claims", b"\0" * 35, b"x" * 4067, b"x" * 4068, b"\xff" * 200_000], ids=len)
def test_each_recipient_opens_it_alone(keys: Keys, content: bytes) -> None:
    data = seal(content, keys.recipients)
    assert [open_seal(data, [identity]) for identity in keys.identities] == [content] * 3
    assert open_seal(data, [keys.stranger, *keys.identities]) == content
    assert content[:40] not in data or len(content) < 4


def test_two_seals_of_the_same_differ(keys: Keys) -> None:
    assert seal(b"claims", keys.recipients) != seal(b"claims", keys.recipients)


def test_nobody_else_opens_it(keys: Keys) -> None:
    data = seal(b"claims", keys.recipients)
    for others, tried in (([keys.stranger], "1 key tried"), ([], "0 keys tried")):
        with pytest.raises(SealClosed, match=tried) as closed:
            open_seal(data, others)
        assert "altered" in closed.value.hint
        assert closed.value.fields["sealed to"] == "X25519, X25519, ssh-ed25519"


def test_the_error_is_the_one_on_its_page(keys: Keys) -> None:
    with pytest.raises(SealClosed) as closed:
        open_seal(seal(b"claims", keys.recipients[:2]), [keys.stranger])
    assert f"SealClosed: {closed.value}\n" in PAGE.read_text()


def test_a_seal_needs_two_recipients_that_differ(keys: Keys) -> None:
    for few in ([], keys.recipients[:1]):
        with pytest.raises(BadData, match=r"two recipients[\s\S]*escrow"):
            seal(b"claims", few)
    with pytest.raises(BadData, match="twice"):
        seal(b"claims", [keys.recipients[0], replace(keys.recipients[0])])
    for bucket in (0, -1, 1 << 40):
        with pytest.raises(BadData, match="padded"):
            seal(b"claims", keys.recipients, bucket=bucket)


# ── lengths ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("length", "bucket", "padded"),
    [
        (0, 4096, 4096), (4096 - HEAD, 4096, 4096), (4096 - HEAD + 1, 4096, 8192), (8192 - HEAD, 4096, 8192),
        (8192 - HEAD + 1, 4096, 16384), (65536 - HEAD, 4096, 65536), (65536 - HEAD + 1, 4096, 131072),
        (131072 - HEAD + 1, 4096, 262144), (0, 1, 32), (0, 29, 29), (1, 29, 58), (1000, 700, 1400),
    ],
)  # fmt: skip
def test_the_length_says_the_bucket_and_no_more(keys: Keys, length: int, bucket: int, padded: int) -> None:
    data = seal(b"x" * length, keys.recipients, bucket=bucket)
    said = sizes(data)
    assert (said.file, said.padded) == (len(data), padded)
    assert said.recipients == ("X25519", "X25519", "ssh-ed25519")
    assert open_seal(data, keys.identities[:1]) == b"x" * length


@pytest.mark.parametrize(
    "data", [b"", b"claims", b"age-encryption.org/v1\n", b"age-encryption.org/v1\n--- x\n", b"\xff" * 99]
)
def test_what_is_no_seal(keys: Keys, data: bytes) -> None:
    with pytest.raises(NotVerified):
        sizes(data)
    with pytest.raises(NotVerified):
        open_seal(data, keys.identities)


# ── changes ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("who", range(3), ids=["age", "another age", "ssh"])
def test_no_byte_can_be_changed(keys: Keys, who: int) -> None:
    """Every position, a few values each; all 255 were tried once (notes/LOG.md)."""
    data = seal(b"claims", keys.recipients, bucket=BUCKET)
    mine = [keys.identities[who]]
    tried = closed = 0
    for place, byte in enumerate(data):
        values = {byte ^ 1, byte ^ 0x20, (byte + 1) % 256, (byte - 1) % 256, 10, 13, 32, 61} - {byte}
        changed = [data[:place] + bytes([value]) + data[place + 1 :] for value in values]
        changed += [data[:place] + data[place + 1 :]] * (data[place : place + 1] != data[place + 1 : place + 2])
        changed += [data[:place], data[:place] + b"\n" + data[place:], data + data[: place + 1]]
        for other in changed:
            if other == data:
                continue
            tried += 1
            try:
                open_seal(other, mine)
            except NotVerified:
                continue
            except SealClosed:
                closed += 1
                continue
            pytest.fail(f"byte {place} of {len(data)} can be changed")
    assert tried > 8 * len(data)
    assert closed < tried / 5  # only what is not in one's own line is known to be damage


def test_an_altered_payload_is_never_taken_for_a_wrong_key(keys: Keys) -> None:
    data = seal(b"claims", keys.recipients, bucket=BUCKET)
    for place in range(data.index(b"\n--- "), len(data)):
        with pytest.raises(NotVerified):
            open_seal(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], keys.identities)


def test_one_seal_has_one_form(keys: Keys) -> None:
    data = seal(b"claims", keys.recipients)
    text = base64.b64encode(data)
    rows = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    armor = b"-----BEGIN AGE ENCRYPTED FILE-----\n" + rows + b"\n-----END AGE ENCRYPTED FILE-----\n"
    assert pyrage.decrypt(armor, [keys.identities[0].key])  # age itself takes this one
    lines = data.split(b"\n")
    swapped = b"\n".join([lines[0], *lines[3:5], *lines[1:3], *lines[5:]])
    for other in (armor, text, b"\n" + data, data + b"\n", swapped, data.replace(b"\n", b"\r\n", 3)):
        with pytest.raises((NotVerified, SealClosed)):
            open_seal(other, keys.identities)


def test_a_passphrase_file_is_no_seal(keys: Keys) -> None:
    data = base64.b64decode(PASSPHRASE)
    with pytest.raises((NotVerified, SealClosed)):
        open_seal(data, keys.identities)


def test_the_frame_is_read_strictly(keys: Keys) -> None:
    good = frame(b"claims", bucket=64, size=64)
    assert open_seal(framed(keys, good), keys.identities) == b"claims"
    assert open_seal(framed(keys, frame(b"x" * 36, bucket=64, size=128)), keys.identities) == b"x" * 36
    bad = {
        "nothing": b"",
        "a head cut short": good[: HEAD - 1],
        "other magic": b"X" + good[1:],
        "longer than it says": good[:20] + (36).to_bytes(8, "big") + good[28:],
        "no zeros at all": good[:35],
        "a zero too few": good[:-1],
        "a zero too many": good + b"\0",
        "the next bucket": good.ljust(128, b"\0"),
        "a later bucket": good.ljust(256, b"\0"),
        "padding that says something": good[:-1] + b"\1",
        "padding that begins with something": good[:35] + b"\1" + good[36:],
        "length beyond the end": good[:21] + (2**63).to_bytes(8, "big") + good[29:],
        "length one too many": good[:21] + (36).to_bytes(8, "big") + good[29:],
        "bucket 0": good[:13] + bytes(8) + good[21:],
        "another bucket": good[:13] + (63).to_bytes(8, "big") + good[21:],
        "an endless bucket": good[:13] + b"\xff" * 8 + good[21:],
    }
    for name, other in bad.items():
        with pytest.raises(NotVerified):
            open_seal(framed(keys, other), keys.identities)
            pytest.fail(name)


@given(st.binary(max_size=300))
def test_any_frame_is_content_or_not_verified(keys: Keys, noise: bytes) -> None:
    for inside in (noise, b"assay-seal-1\n" + noise):
        with pytest.raises(NotVerified):
            open_seal(framed(keys, inside), keys.identities[:1])


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(keys: Keys, noise: bytes) -> None:
    for data in (noise, b"age-encryption.org/v1\n" + noise, b"age-encryption.org/v1\n-> X25519 " + noise):
        with pytest.raises((NotVerified, SealClosed)):
            open_seal(data, keys.identities)
