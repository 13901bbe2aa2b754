r"""Seals: content that only those it was made for can open. An age file (age-encryption.org/v1) around a padded frame.

::

    frame = "assay-seal-1\n" | bucket, 8 bytes | length of content, 8 bytes | content | zeros up to bucket · 2^k

Numbers are big-endian, and k is the smallest that holds the rest. A seal's length therefore says k and who can open it,
not how much is in it.

What a seal is not:

- It is not signed. Anyone can make one for anybody, so its digest belongs into what is signed, and what is inside must
  be checked against it.
- It is not post-quantum. Who keeps it until there are quantum computers can open it then, for X25519 and SSH recipients
  alike.
- It is not silent about its readers: an SSH recipient can be told by a tag of four bytes of its key's digest. X25519
  ones name nobody, but can be counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyrage  # type: ignore[import-untyped]

from assay.disclose.keys import Identity, Recipients, typed
from assay.errors import BadData, NotVerified, SealClosed

_AGE = b"age-encryption.org/v1\n"
_MAGIC = b"assay-seal-1\n"
_HEAD = len(_MAGIC) + 16
_CHUNK, _TAG, _NONCE = 1 << 16, 16, 16  # of age's payload: every chunk has its tag, and a nonce comes first


@dataclass(frozen=True)
class Sizes:
    """What a seal says to those who cannot open it, in bytes."""

    file: int
    padded: int
    recipients: tuple[str, ...]  # each one's kind


def seal(content: bytes, recipients: Recipients, *, bucket: int = 4096) -> bytes:
    """``content`` for ``recipients``, each of whom can open it alone.

    Args:
        content: what to seal; at most half of what a seal holds is padding, or less than ``bucket``.
        recipients: at least two (`assay.disclose.keys.read_recipients`).
        bucket: the smallest padded size, in bytes; others are its doubles.

    Raises:
        BadData: fewer than two recipients, one twice, or a bucket that is no positive number.
    """
    if len(recipients) < 2:
        raise BadData(
            "a seal needs two recipients or more",
            hint="a lost key would lose the content; add an escrow: a key that is kept elsewhere",
            found=f"{len(recipients)}",
        )
    if len(set(recipients)) < len(recipients):
        raise BadData("a seal has a recipient twice", hint="give each recipient once; an escrow is another key")
    if not 0 < bucket < 1 << 40:
        raise BadData(f"a seal cannot be padded to {bucket!r} bytes", hint="give a number of bytes, such as 4096")
    framed = _MAGIC + bucket.to_bytes(8) + len(content).to_bytes(8) + content
    with typed(lambda found: BadData("the content cannot be sealed", hint="check each recipient's key", found=found)):
        sealed: bytes = pyrage.encrypt(framed.ljust(_padded(len(framed), bucket), b"\0"), [r.key for r in recipients])
    return sealed


def open_seal(data: bytes, identities: Sequence[Identity]) -> bytes:
    """What was sealed.

    Raises:
        SealClosed: none of ``identities`` opens it. To one whose line in the header was altered it looks the same.
        NotVerified: a byte of it is not as it was written, or it is no seal.
    """
    if not data.startswith(_AGE):  # age would read its text form (armor) as well, of which there are many for one seal
        raise _altered(f"it does not begin with {_AGE.decode().strip()!r}")
    with typed(_altered):
        try:
            frame: bytes = pyrage.decrypt(data, [identity.key for identity in identities])
        except pyrage.DecryptError as error:
            if str(error) == "No matching keys found":
                raise _closed(data, len(identities)) from None
            raise
    return _content(frame)


def sizes(data: bytes) -> Sizes:
    """What anybody can tell of a seal. Raises ``NotVerified`` where ``data`` is none."""
    header, ends, rest = data.partition(b"\n--- ")
    _, begins, payload = rest.partition(b"\n")
    size = len(payload) - _NONCE
    padded = size - _TAG * max(1, -(-size // (_CHUNK + _TAG)))
    if not (data.startswith(_AGE) and ends and begins and padded >= 0):
        raise _altered("no age file")
    kinds = [line.decode(errors="replace").split() for line in header.split(b"\n") if line.startswith(b"-> ")]
    # Noise that age adds, so that programs learn to pass over what they do not know.
    known = tuple(kind[1] for kind in kinds if len(kind) > 1 and not kind[1].endswith("-grease"))
    return Sizes(len(data), padded, known)


def _padded(length: int, bucket: int) -> int:
    while bucket < length:
        bucket *= 2
    return bucket


def _content(frame: bytes) -> bytes:
    head, rest = frame[:_HEAD], frame[_HEAD:]
    if len(head) < _HEAD or not head.startswith(_MAGIC):
        raise _altered("what is inside does not begin as a seal does")
    bucket, length = int.from_bytes(head[-16:-8]), int.from_bytes(head[-8:])
    content, padding = rest[:length], rest[length:]
    if not bucket or _padded(_HEAD + length, bucket) != len(frame):
        raise _altered("what is inside is longer or shorter than it says")
    if padding.count(0) != len(padding):
        raise _altered("the padding is not empty")
    return content


def _altered(found: str) -> NotVerified:
    return NotVerified(
        "the seal is not as it was written",
        hint="take it from its source again, and compare its SHA-256 with the one that was signed",
        found=found.partition("\n")[0],
    )


def _closed(data: bytes, tried: int) -> SealClosed:
    return SealClosed(
        "none of the keys at hand opens the seal",
        hint="give the key of one it was sealed to; if you did, the seal was altered: take it from its source again",
        found=f"{tried} {'key' if tried == 1 else 'keys'} tried",
        sealed_to=", ".join(sizes(data).recipients),
    )
