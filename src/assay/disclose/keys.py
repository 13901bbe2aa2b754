"""Keys: an auditor's for signing (Ed25519, as JWK), and those that seals are made for and opened with (age, OpenSSH).

A signing key is a pair of JSON files, ``auditor.key`` and ``auditor.pub`` (RFC 7517, RFC 8037). A recipient of seals is
``age1…`` text or an SSH public key; what opens them is an age identity file or an OpenSSH private key. No error and no
``repr`` shows anything of a private key.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyrage  # type: ignore[import-untyped]
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)
from joserfc.jwk import OKPKey

from assay.errors import AssayError, BadData
from assay.files import read_bytes, write_whole

_MOST = 1 << 20  # bytes of a file of keys
_SSH = ("ssh-ed25519", "ssh-rsa")
_SECRETS = ("AGE-SECRET-KEY-", "PRIVATE KEY-----")
_AS_RECIPIENTS = "give age1…, ssh-ed25519 or ssh-rsa public keys, or a file with one on each line"
_AS_IDENTITY = "give an age identity file, or an OpenSSH private key of type ed25519 or rsa"


@dataclass(frozen=True)
class Recipient:
    """Someone whom a seal can be made for. Two are equal if their keys are, whatever comment stood beside them."""

    text: str
    key: Any = field(repr=False, compare=False)


Recipients = Sequence[Recipient]


@dataclass(frozen=True)
class Identity:
    """What opens a seal. ``recipient`` is the text of its public half."""

    recipient: str
    key: Any = field(repr=False, compare=False)


Identities = Sequence[Identity]


def new_signing_key(path: str | Path) -> tuple[Path, Path]:
    """Make an Ed25519 key: ``path.key``, which only its owner may read, and ``path.pub``. Gives both paths.

    Raises:
        Unwritable: the folder cannot be written, or one of the two is there already; neither is then new.
    """
    key = OKPKey.generate_key("Ed25519")
    return _pair(path, {".key": _json(key.as_dict(private=True)), ".pub": _json(key.as_dict(private=False))})


def new_recipient(path: str | Path) -> tuple[Path, Path]:
    """Make an age key: ``path.identity``, which only its owner may read, and ``path.recipient``, which is for those who
    seal. Gives both paths.

    Raises:
        Unwritable: the folder cannot be written, or one of the two is there already; neither is then new.
    """
    identity = pyrage.x25519.Identity.generate()
    public = str(identity.to_public())
    return _pair(path, {".identity": f"# public key: {public}\n{identity}\n", ".recipient": f"{public}\n"})


def read_private(path: str | Path) -> OKPKey:
    """The signing key in ``path``.

    Raises:
        BadData: it is no private Ed25519 JWK in the one form that `new_signing_key` writes.
        CorruptFile: there is no file that can be read.
    """
    members = _members(path)
    if "d" not in members and "x" in members:
        raise BadData(f"{str(path)!r} is a public key", hint="give the private one, the file that ends in .key")
    raw = _raw(path, members, "d")
    return _same(path, members, OKPKey.import_key(Ed25519PrivateKey.from_private_bytes(raw)))


def read_public(path: str | Path) -> OKPKey:
    """The public key in ``path``.

    Raises:
        BadData: it is no public Ed25519 JWK in the one form that `new_signing_key` writes, or it is a private key.
        CorruptFile: there is no file that can be read.
    """
    members = _members(path)
    if "d" in members:
        hint = "give the public one, the file that ends in .pub, and show the private one to nobody"
        raise BadData(f"{str(path)!r} is a private key", hint=hint)
    raw = _raw(path, members, "x")
    return _same(path, members, OKPKey.import_key(Ed25519PublicKey.from_public_bytes(raw)))


def public_of(key: OKPKey) -> OKPKey:
    """A signing key's public half."""
    return OKPKey.import_key(key.public_key)


def thumbprint(key: OKPKey) -> str:
    """A key's name: SHA-256 of its public half (RFC 7638), 43 characters of base64url; the same for both halves."""
    return key.thumbprint()


def read_recipients(given: str | Path | Iterable[str | Path]) -> list[Recipient]:
    """Those whom a seal is for, in the order given.

    Args:
        given: each ``age1…``, an ``ssh-ed25519 …`` or ``ssh-rsa …`` line, or the path of a file with one of these on each
            line (``#`` begins a comment line).

    Raises:
        BadData: one that does not read, one that is given twice, a private key, or none at all.
        CorruptFile: there is no file that can be read.
    """
    found: list[Recipient] = []
    for one in [given] if isinstance(given, str | Path) else given:
        for place, line in _lines(one):
            recipient = _recipient(place, line)
            if recipient in found:
                hint = "give each recipient once; another key of the same person is another recipient"
                raise BadData(f"{place} is given twice", hint=hint, found=f"{recipient.text:.80}")
            found.append(recipient)
    if not found:
        raise BadData("there are no recipients", hint=_AS_RECIPIENTS)
    return found


def read_identity(path: str | Path) -> Identity:
    """The key in ``path`` that opens seals.

    Raises:
        BadData: it is neither an age identity file nor an OpenSSH private key, has a passphrase, or holds several keys.
        CorruptFile: there is no file that can be read.
    """
    data = _bytes(path)
    if data.lstrip().startswith(b"-----BEGIN"):
        return _ssh_identity(path, data)
    if data.startswith(b"age-encryption.org/") or b"BEGIN AGE ENCRYPTED" in data:
        raise BadData(f"{str(path)!r} is encrypted", hint="decrypt it first: age --decrypt")
    lines = _told(data)
    if any(line.lower().startswith(("age1", *_SSH)) for _, line in lines):
        raise BadData(f"{str(path)!r} is a public key", hint=f"{_AS_IDENTITY}: the private half of it")
    if len(lines) != 1:
        hint = _AS_IDENTITY if not lines else "give a file for each key"
        raise BadData(f"{str(path)!r} is no identity", hint=hint, found=f"{len(lines)} lines where one key should be")
    with typed(lambda found: BadData(f"{str(path)!r} is no identity", hint=_AS_IDENTITY, found=found)):
        key = pyrage.x25519.Identity.from_str(lines[0][1])
        return Identity(str(key.to_public()), key)


@contextmanager
def typed(make: Callable[[str], AssayError]) -> Iterator[None]:
    """Whatever age or the readers of SSH keys raise, as ``make`` of its text."""
    try:
        yield
    except (AssayError, MemoryError):
        raise
    except Exception as error:
        raise make(str(error)) from None
    except BaseException as error:
        # A panic in Rust, which no Exception is: pyrage 1.4 panics on some keys, such as an X25519 point of small order.
        if type(error).__name__ != "PanicException":
            raise
        raise make(f"age gave up on it: {error}") from None


def _pair(path: str | Path, texts: dict[str, str]) -> tuple[Path, Path]:
    if not Path(path).name:
        raise BadData(f"{str(path)!r} names no file", hint="give a folder and a name without suffix: keys/auditor")
    (secret, secret_text), (public, public_text) = ((Path(f"{path}{suffix}"), text) for suffix, text in texts.items())
    write_whole(secret, secret_text, mode=0o600, fresh=True)
    try:
        write_whole(public, public_text, fresh=True)
    except BaseException:
        secret.unlink()  # it has just been made, and nothing was signed with it or sealed for it
        raise
    return secret, public


def _bytes(path: str | Path) -> bytes:
    # An error shows its path, so that a key in the path's place would be shown.
    if any(mark in str(path).upper() for mark in ("\n", '"D"', *_SECRETS)):
        raise BadData("a key is given where the path of its file should be", hint="write it into a file")
    return read_bytes(path, most=_MOST)


def _json(members: object) -> str:
    return f"{json.dumps(members, sort_keys=True)}\n"


def _no_key(path: str | Path, found: str) -> BadData:
    hint = "give a file that new_signing_key wrote: a JWK with kty OKP, crv Ed25519, and no members beside x and d"
    return BadData(f"{str(path)!r} is no signing key", hint=hint, found=found)


def _members(path: str | Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise _no_key(path, "a member that is there twice")
        return dict(pairs)

    try:
        members = json.loads(_bytes(path).decode(), object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise _no_key(path, "no JSON") from None
    if not isinstance(members, dict):
        raise _no_key(path, "no JSON object")
    return members


def _raw(path: str | Path, members: dict[str, Any], name: str) -> bytes:
    try:
        raw = base64.b64decode(members[name] + "=", altchars=b"-_", validate=True)
    except (KeyError, TypeError, ValueError):
        raise _no_key(path, f"no base64url in {name!r}") from None
    if len(raw) != 32:
        raise _no_key(path, f"{len(raw)} bytes in {name!r}, where Ed25519 has 32")
    return raw


def _same(path: str | Path, members: dict[str, Any], key: OKPKey) -> OKPKey:
    """``key``, if it is written as ``members`` and not otherwise: one key has one form, and its halves fit."""
    should = key.as_dict(private=key.is_private)
    wrong = sorted(name for name in {*should, *members} if should.get(name) != members.get(name))
    if wrong:
        raise _no_key(path, f"other than it should be: {', '.join(map(repr, wrong)):.80}")
    return key


def _lines(given: str | Path) -> list[tuple[str, str]]:
    """What is said in a text, or in the file that it names, line by line, with the words for each place."""
    text = given.strip() if isinstance(given, str) else ""
    if text.lower().startswith(("age1", "ssh-", "ecdsa-")):
        return [(f"the recipient {line[:40]!r}", line) for _, line in _told(text.encode(errors="replace"))]
    if any(secret in text.upper() for secret in _SECRETS):
        raise BadData("a private key is given as a recipient", hint="give its public half; nobody else needs this one")
    data = _bytes(given)
    if any(secret.encode() in data.upper() for secret in _SECRETS):
        hint = "give the file with its public half: .recipient or .pub"
        raise BadData(f"{str(given)!r} holds a private key", hint=hint)
    return [(f"line {number} of {str(given)!r}", line) for number, line in _told(data)]


def _told(data: bytes) -> list[tuple[int, str]]:
    lines = enumerate(map(str.strip, data.decode(errors="replace").splitlines()), 1)
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _recipient(place: str, line: str) -> Recipient:
    with typed(lambda found: BadData(f"{place} is no recipient", hint=_AS_RECIPIENTS, found=f"{found:.200}")):
        if line.startswith(_SSH):
            # Read twice: cryptography allows one form of a key only, so that one that is given twice is seen.
            public = load_ssh_public_key(" ".join(line.split()[:2]).encode())
            text = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
            key = pyrage.ssh.Recipient.from_str(text)
        else:
            key = pyrage.x25519.Recipient.from_str(line)
            text = str(key)
        pyrage.encrypt(b"", [key])  # some keys are seen to be none only when they are used
        return Recipient(text, key)


def _ssh_identity(path: str | Path, data: bytes) -> Identity:
    try:
        private = load_ssh_private_key(data, password=None)
    except (TypeError, UnsupportedAlgorithm, ValueError) as error:
        if isinstance(error, ValueError):
            found = "damaged, or a key of another kind"
            raise BadData(f"{str(path)!r} is no OpenSSH private key", hint=_AS_IDENTITY, found=found) from None
        hint = "take the passphrase off a copy: ssh-keygen -p -N '' -f COPY; or make a key without: new_recipient"
        raise BadData(f"{str(path)!r} has a passphrase", hint=hint) from None
    with typed(lambda found: BadData(f"{str(path)!r} does not open seals", hint=_AS_IDENTITY, found=f"{found:.200}")):
        public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        return Identity(public, pyrage.ssh.Identity.from_buffer(data))
