"""A million inputs that nobody meant: whatever a file holds, its reader gives a value or one of our errors, and soon.

Each reader gets files that are right, changed at random: bytes flipped, cut out, put in, taken from another file; and
where they are JSON, values exchanged for ones of another type, far too large, far too deep, or no JSON at all. Where a
signature, a chain or an encryption would refuse all that at the door, files are made by one who holds the key.
Readers run in a process of their own with a limit of memory and a time for each input. Everything repeats from its seed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import mmap
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from assay.disclose.credential import TYPE
from assay.errors import AssayError
from reliability import Row
from reliability.tamper import FEW, Given, Keys

MEMORY = 1 << 30  # bytes beyond what a reader's process has when it begins
SECONDS = 10  # for one input; machines may be busy
MOST = 1 << 20  # bytes of an input
FAILED = "assay-fuzz"  # below the folder of temporary files: where inputs go that were not refused as they should be

Read = Callable[[bytes], object]
Change = Callable[[random.Random, Sequence[bytes]], bytes]


@dataclass(frozen=True)
class Reader:
    """One reader: what it reads rightly, how that is changed, and how many inputs it gets at full scale."""

    name: str
    read: Read
    seeds: Sequence[bytes]
    change: Change
    inputs: int


@dataclass
class Found:
    """What came of a reader's inputs."""

    inputs: int = 0
    accepted: int = 0
    unchanged: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[int, str]] = field(default_factory=list)  # the input's number, and what happened
    slowest: float = 0.0
    seconds: float = 0.0


class TooLong(BaseException):
    """An input took longer than it may."""


# ── changes ─────────────────────────────────────────────────────────────────────────────────────────────────────

_BYTES = (b"\x00", b"\xff", b"\x80", b"\n", b"\r\n", b'"', b"{", b"}", b"[", b"]", b"~", b".", b"=", b"-", b"\xef\xbb\xbf",
          b"\xed\xa0\x80", b"null", b"true", b"NaN", b"1e999", b"-1", b"\\ud800", b"\xe2\x80\xae", b"9" * 400, b"[" * 3000, b'{"a":' * 3000)  # fmt: skip


def bytes_changed(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One to eight changes of single bytes or ranges."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        at = chance.randrange(len(data) + 1)
        length = chance.choice((1, 1, 2, 4, 16, 64))
        match chance.randrange(8):
            case 0 | 1 if data:
                data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
            case 2 if data:
                data[min(at, len(data) - 1)] = chance.randrange(256)
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = chance.choice(_BYTES)
            case 5:
                other = chance.choice(seeds)
                begin = chance.randrange(len(other) + 1)
                data[at : at + length * chance.randrange(2)] = other[begin : begin + length]
            case 6:
                data[at:at] = data[chance.randrange(len(data) + 1) :][:length]
            case _:
                del data[at : None if chance.random() < 0.3 else at + 1]
    return bytes(data[:MOST])


_DEEP = ("[" * 200 + "]" * 200, "[" * 50_000 + "]" * 50_000, '{"a":' * 50_000 + "1" + "}" * 50_000)
_RAW = (
    "null", "true", "false", "0", "-0.0", "1", "-1", "2", "1.5", "1e308", "1e999", "-1e999", "NaN", "Infinity",
    "9" * 19, "9" * 400, "9" * 5000, "1e-400", '""', '"a"', '"\\ud800"', '"\\u0000"', '"\\u202e"', '"L13.resid"', "[]", "{}", "[[]]", '[null]',
    '{"":0}', '{"a":1,"a":2}', '["a","b"]', "[1,[2],3]", '"{subject}"', '"{"', '"' + "x" * 20_000 + '"', "[" + "0," * 5000 + "0]",
    '"low"', '"supported"', '"0123456789abcdef"', '"' + "0" * 64 + '"', *_DEEP[:1],
)  # fmt: skip


def json_changed(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A value of it exchanged, removed, doubled or renamed; now and then bytes."""
    if chance.random() < 0.15:
        return bytes_changed(chance, seeds)
    return changed_value(chance, json.loads(chance.choice(seeds)))


def changed_value(chance: random.Random, value: Any) -> bytes:
    """JSON of a value with one to three changes in it."""
    raws: dict[str, str] = {}
    holder = [value]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        ways = list(_ways(holder))
        parent, key = chance.choice(ways)
        mark = f"\x01{len(raws)}\x01"
        match chance.randrange(8):
            case 0 if parent is not holder:
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[chance.choice(["", "a", "...", "_sd", "kind", "places", "of", "\ud800"])] = parent.pop(key)
            case 2 if isinstance(parent, list):
                parent.insert(key, parent[key])
            case 3:
                other, at = chance.choice(ways)
                parent[key] = json.loads(_dumped(other[at])) if other is not holder else None
            case 4 if isinstance(parent, dict):
                parent[mark], raws[mark] = 0, f"{_dumped(str(key))}:1,{_dumped(str(key))}"
            case 5 if chance.random() < 0.1:
                parent[key], raws[mark] = mark, chance.choice(_DEEP)
            case _:
                parent[key], raws[mark] = mark, chance.choice(_RAW)
    text = _dumped(holder[0])
    for mark, raw in raws.items():
        text = text.replace(_dumped(mark), raw)
    return text.encode("utf-8", "surrogatepass")[:MOST]


def _dumped(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _ways(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a value: what holds it, and the key."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in list(pairs):
        yield value, key
        yield from _ways(one)


def lines_changed(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """JSON lines: one of them changed."""
    lines = chance.choice(seeds).split(b"\n")
    at = chance.randrange(len(lines))
    full = [line for line in lines if line.strip()]
    lines[at] = json_changed(chance, full) if chance.random() < 0.9 else bytes_changed(chance, full)
    return b"\n".join(lines)


def in_header_changed(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Safetensors: the header's JSON, its length, or bytes of the rest."""
    data = chance.choice(seeds)
    if chance.random() < 0.3:
        return bytes_changed(chance, seeds)
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = data[8 : 8 + length], data[8 + length :]
    header = json_changed(chance, [header])
    said = chance.choice([len(header)] * 6 + [0, length, 1 << 62, len(data)])
    return struct.pack("<Q", said) + header + rest


# ── one process per reader ──────────────────────────────────────────────────────────────────────────────────────


def inputs_of(reader: Reader, count: int, seed: int = 0) -> Iterator[tuple[int, bytes]]:
    """The reader's inputs, each with its number: the same for the same seed."""
    for number in range(count):
        yield number, reader.change(random.Random(f"{reader.name} {seed} {number}"), reader.seeds)


def tried(reader: Reader, count: int, seed: int = 0) -> Found:
    """Try inputs in a process of its own, which may die of one: that input is a failure, and the rest goes on."""
    found = Found()
    fork = multiprocessing.get_context("fork")
    begun = time.monotonic()
    first = 0
    while first < count:
        at = mmap.mmap(-1, 8)
        here, there = fork.Pipe(duplex=False)
        child = fork.Process(target=_child, args=(reader, count, seed, first, at, there), daemon=True)
        child.start()
        there.close()
        try:
            part: Found | None = here.recv()
        except EOFError:
            part = None
        child.join()
        if part is not None:
            _add(found, part)
            break
        number = struct.unpack("<q", at[:8])[0]
        found.inputs += 1
        found.failed.append((number, f"the process died of it (exit {child.exitcode})"))
        first = number + 1  # what came before it in that process is lost with it, and is not counted
    found.seconds = time.monotonic() - begun
    _keep(reader, found, seed)
    return found


def _child(reader: Reader, count: int, seed: int, first: int, at: mmap.mmap, there: Connection) -> None:
    _bounded()
    found = Found()
    for number in range(first, count):
        at[:8] = struct.pack("<q", number)
        data = reader.change(random.Random(f"{reader.name} {seed} {number}"), reader.seeds)
        found.inputs += 1
        if data in reader.seeds:
            found.unchanged += 1
        else:
            one(reader.read, data, number, found)
    there.send(found)
    there.close()
    os._exit(0)  # what was registered to run at the end belongs to the parent


def one(read: Read, data: bytes, number: int, found: Found) -> None:
    """Read one input, and count what came of it beyond that there was one."""
    begun = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        read(data)
        found.accepted += 1
    except AssayError as error:
        found.refused[type(error).__name__] += 1
    except TooLong:
        found.failed.append((number, f"longer than {SECONDS} s"))
    except BaseException as error:  # a panic in Rust is no Exception
        found.failed.append((number, f"{type(error).__name__}: {error}"[:300]))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    found.slowest = max(found.slowest, time.monotonic() - begun)


def _bounded() -> None:
    """Limit this process: its memory, and the time of one input."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _stop)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a panic in Rust is told there as well


def _stop(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise TooLong


def _add(found: Found, part: Found) -> None:
    found.inputs += part.inputs
    found.accepted += part.accepted
    found.unchanged += part.unchanged
    found.refused += part.refused
    found.failed += part.failed
    found.slowest = max(found.slowest, part.slowest)


def _keep(reader: Reader, found: Found, seed: int) -> None:
    """Failures as files, and by their repr."""
    for number, what in found.failed[:20]:
        data = reader.change(random.Random(f"{reader.name} {seed} {number}"), reader.seeds)
        folder = Path(tempfile.gettempdir()) / FAILED
        folder.mkdir(exist_ok=True)
        path = folder / f"{reader.name.replace(' ', '-').replace('/', '-')}-{seed}-{number}"
        path.write_bytes(data)
        sys.stderr.write(f"{path}: {what}\n  {data[:200]!r}{'…' if len(data) > 200 else ''}\n")


# ── readers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def through_a_file(read: Callable[[Path], object], folder: Path, name: str) -> Read:
    """What reads a path, reading bytes."""
    path = folder / name

    def reading(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return reading


def values() -> Iterator[Reader]:
    """What a ledger holds, as it is read from there."""
    from assay.disclose.items import Item
    from assay.evidence import Entry
    from assay.evidence.entry import KINDS
    from reliability.leak import Maker

    maker = Maker(random.Random(0))
    bodies = maker.bodies(maker.policy("p"))
    seeds = [_dumped({"kind": body.kind, "body": body.model_dump(mode="json")}).encode() for body in bodies]
    entry = Entry(seq=1, kind="a", key="b", at="c", body={"d": [1]}, prev="e", digest="f")
    item = Item(part="claim", of="0123456789abcdef", about="behaviour", grade="low", problem="p", value={"key": "k"})

    def loaded(data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise NotJson("no JSON", hint="none of our readers sees it") from error

    def value(data: bytes) -> object:
        said = loaded(data)
        kind = KINDS.get(str(said.get("kind"))) if isinstance(said, dict) else None
        return None if kind is None else kind.model_validate(said.get("body"))

    yield Reader("values of a ledger", value, seeds, json_changed, 250_000)
    yield Reader(
        "entries",
        lambda data: Entry.model_validate(loaded(data)),
        [entry.model_dump_json().encode()],
        json_changed,
        50_000,
    )
    yield Reader(
        "items", lambda data: Item.model_validate(loaded(data)), [item.model_dump_json().encode()], json_changed, 50_000
    )


class NotJson(AssayError):
    """What `json` itself refuses, before a reader of ours sees it."""


def policies() -> Iterator[Reader]:
    """Policies as TOML."""
    from assay.disclose import policy, read_policy

    folder = Path(policy.__file__).with_name("policies")
    seeds = [path.read_bytes() for path in sorted(folder.glob("*.toml"))]
    seeds += [b'name="a"\nsays="b"\nextends="public"\n[[show]]\nparts=["claim"]\nabout=["circuit"]\nup_to="low"\n',
              b'name="a"\nsays="b"\nshow=[]\n[why]\nclaim="c"\n', b'name="a"\nsays="b"\nshow=[]\n', b'name="a"\nsays="b"\nextends=["public"]\nshow=3\nwhy=[1]\n']  # fmt: skip
    yield Reader("policies (TOML)", read_policy, seeds, bytes_changed, 150_000)


def releases(folder: Path) -> Iterator[Reader]:
    """Releases changed on their way, and such as their signer changed."""
    from assay.disclose import sdjwt

    given = Given.made(folder / "run", Keys.made(folder), 1)
    key, public = given.keys.auditor, given.keys.public
    head, body, signature = given.jwt.split(".")
    flat = {
        "payload": body,
        "protected": head,
        "signature": signature,
        "header": {"disclosures": given.shown, "kb_jwt": given.binding},
    }
    general = {"payload": body, "signatures": [{name: flat[name] for name in ("protected", "signature", "header")}]}

    def verified(data: bytes) -> object:
        return given.read_release(data).findings

    yield Reader("releases", given.read_release, [given.release], bytes_changed, 80_000)
    yield Reader("credentials", given.read_credential, [given.credential], bytes_changed, 40_000)
    seeds = [_dumped(one).encode() for one in (flat, general)]
    yield Reader("releases as JSON", given.read_release, seeds, json_changed, 60_000)

    payload = json.loads(_decoded(body))
    shown = [json.loads(_decoded(text)) for text in given.shown]

    def by_the_signer(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
        """Statement, items, or key binding changed, and signed again: every digest fits."""
        said, items = json.loads(seeds[0]), [one.encode() for one in given.shown]
        which = chance.randrange(3)
        if which == 0:
            at = chance.randrange(len(items))
            items[at] = _encoded(changed_value(chance, json.loads(_dumped(shown[at]))))
            kept = [one["..."] for one in said["claims"]]
            kept[kept.index(_hashed(given.shown[at].encode()))] = _hashed(items[at])
            said["claims"] = [{"...": one} for one in sorted(kept)]
        made = changed_value(chance, said) if which == 1 else _dumped(said).encode()
        text = b"~".join((_signed(made, key, TYPE), *items, b""))
        claims = _binding(text, payload["iat"])
        return text + _signed(changed_value(chance, claims) if which == 2 else _dumped(claims).encode(), key, "kb+jwt")

    yield Reader("releases by a hostile signer", verified, [_dumped(payload).encode()], by_the_signer, 30_000)

    es = sdjwt.sign({"a": 1}, _key_of_p256(), typ="x+sd-jwt") + "~"

    def wide(data: bytes) -> object:
        return sdjwt.verify(data, public, typ=None, algorithms=("Ed25519", "ES256"))

    yield Reader("any SD-JWT", wide, [es.encode(), given.release, b"a.b.c~", seeds[0]], bytes_changed, 40_000)


def signed_by(given: Given, payload: dict[str, Any], iat: float) -> bytes:
    """A release of any statement at all, with the items of this one, by the auditor."""
    key = given.keys.auditor
    items = [one.encode() for one in given.shown]
    text = b"~".join((_signed(_dumped(payload).encode(), key, TYPE), *items, b""))
    return text + _signed(_dumped(_binding(text, iat)).encode(), key, "kb+jwt")


def _binding(text: bytes, iat: float) -> dict[str, Any]:
    return {"iat": iat, "aud": FEW, "nonce": "n", "sd_hash": _hashed(text)}


def _key_of_p256() -> Any:
    """A key of another kind, for tokens of another algorithm."""
    from joserfc.jwk import ECKey

    return ECKey.generate_key("P-256")


def _signed(data: bytes, key: Any, typ: str) -> bytes:
    """A JWT of any bytes at all: a library would refuse to write most of them."""
    signed = b".".join((_encoded(_dumped({"alg": "Ed25519", "typ": typ}).encode()), _encoded(data)))
    return signed + b"." + _encoded(key.private_key.sign(signed))


def _hashed(data: bytes) -> str:
    import hashlib

    return _encoded(hashlib.sha256(data).digest()).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def seals(folder: Path) -> Iterator[Reader]:
    """Seals, and content that somebody sealed who was not asked to."""
    from assay.disclose import open_sealed
    from assay.disclose.seal import open_seal, seal, sizes

    given = Given.made(folder / "sealed", Keys.made(folder), 1)
    release, keys = given.verified, given.keys
    small = [seal(b"claims" * n, keys.recipients, bucket=64) for n in (1, 30)]
    content = open_seal(given.sealed, keys.identities)

    def closed(data: bytes) -> object:
        return sizes(data) and open_seal(data, keys.identities)

    def unasked(data: bytes) -> object:
        return open_sealed(seal(data, keys.recipients, bucket=64), release, keys.public, keys.identities[:1])[
            0
        ].findings

    yield Reader("seals", closed, [*small, given.sealed], bytes_changed, 60_000)
    yield Reader("what strangers seal", unasked, [content], json_changed, 20_000)


def keys_of_all_kinds(folder: Path) -> Iterator[Reader]:
    """Files of keys."""
    from assay.disclose.keys import (
        new_recipient,
        new_signing_key,
        read_identity,
        read_private,
        read_public,
        read_recipients,
    )

    private, public = new_signing_key(folder / "signing")
    identity, recipient = new_recipient(folder / "age")
    ssh = [b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + base64.b64encode(bytes(range(32)))[:43] + b" x\n"]
    if shutil.which("ssh-keygen"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "ssh")], check=True)
        ssh = [(folder / "ssh.pub").read_bytes()]
    opens = [identity.read_bytes()] + ([(folder / "ssh").read_bytes()] if (folder / "ssh").exists() else [])
    file = "key"
    yield Reader("public keys", through_a_file(read_public, folder, file), [public.read_bytes()], json_changed, 30_000)
    yield Reader(
        "private keys", through_a_file(read_private, folder, file), [private.read_bytes()], json_changed, 30_000
    )
    many = [recipient.read_bytes(), *ssh, recipient.read_bytes() + ssh[0]]
    yield Reader("recipients", through_a_file(read_recipients, folder, file), many, bytes_changed, 20_000)
    yield Reader("identities", through_a_file(read_identity, folder, file), opens, bytes_changed, 20_000)


_AUTHORITY = """[tsa]
default_tsa = here
[here]
serial = serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
"""


def timestamps(folder: Path) -> Iterator[Reader]:
    """Answers of an authority, and its certificates. Without OpenSSL there is none to ask."""
    from assay.disclose import timestamp

    if not shutil.which("openssl"):
        return
    folder.mkdir()
    (folder / "config").write_text(_AUTHORITY)
    (folder / "serial").write_text("01\n")
    (folder / "ext").write_text("extendedKeyUsage = critical,timeStamping\nkeyUsage = critical,digitalSignature\n")
    (folder / "query").write_bytes(timestamp.request(b"data"))
    curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    for line in (
        f"req -x509 {curve} -keyout root.key -out root.pem -subj /CN=root -days 9 -addext keyUsage=critical,keyCertSign",
        f"req {curve} -keyout tsa.key -out tsa.csr -subj /CN=tsa",
        "x509 -req -in tsa.csr -CA root.pem -CAkey root.key -CAcreateserial -out tsa.pem -days 9 -extfile ext",
        "ts -reply -config config -queryfile query -signer tsa.pem -inkey tsa.key -out reply",
    ):
        subprocess.run(["openssl", *line.split()], check=True, cwd=folder, capture_output=True)
    reply, root = (folder / "reply").read_bytes(), (folder / "root.pem").read_bytes()
    timestamp.check(reply, b"data", [root])
    yield Reader("timestamps", lambda data: timestamp.check(data, b"data", [root]), [reply], bytes_changed, 40_000)
    yield Reader(
        "root certificates", lambda data: timestamp.check(reply, b"data", [data]), [root], bytes_changed, 20_000
    )


def arrays(folder: Path) -> Iterator[Reader]:
    """Safetensors: a run's arrays, of any digest, and a direction."""
    import numpy as np
    import torch

    from assay.direction import Direction
    from assay.evidence import of_bytes
    from assay.provenance import Provenance
    from assay.scale.arrays import Arrays
    from assay.site import Site

    kept = Arrays(folder / "arrays")
    digests = [kept.put(a=np.zeros((2, 3), np.float32), b=np.ones(4, np.int64)), kept.put(c=np.zeros(0, np.bool_))]
    seeds = [kept.path(digest).read_bytes() for digest in digests]

    def get(data: bytes) -> object:
        digest = of_bytes(data)
        kept.path(digest).write_bytes(data)
        try:
            return kept.get(digest)
        finally:
            kept.path(digest).unlink()

    yield Reader("arrays (safetensors)", get, seeds, in_header_changed, 40_000)
    made = Direction(torch.ones(4), Site.parse("L1.resid"), Provenance(method="by hand"), "d", 1.0)
    data = made.save(folder / "direction.safetensors").read_bytes()
    yield Reader(
        "directions (safetensors, torch)",
        through_a_file(Direction.load, folder, "d.safetensors"),
        [data],
        in_header_changed,
        20_000,
    )


def ledgers(folder: Path) -> Iterator[Reader]:
    """A ledger's file, and one that somebody else wrote with a chain that holds."""
    from assay.evidence import Ledger, read_findings
    from assay.evidence.store import GENESIS, SCHEMA, link
    from reliability.tamper import write_audit

    write_audit(folder / "small", 1)
    seed = (folder / "small" / "ledger").read_bytes()

    def read(path: Path) -> object:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(f"{path.name}-journal").unlink()
        with Ledger.read(path) as ledger:
            ledger.verify()
            return read_findings(ledger)

    with Ledger.read(folder / "small" / "ledger") as ledger:
        rows = [[entry.kind, entry.key, entry.body] for entry in ledger.entries()]
    path = folder / "other"

    def by_another(data: bytes) -> object:
        lines = data.decode("utf-8", "replace").split("\n")
        path.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = OFF")
            database.execute("BEGIN")
            prev = GENESIS
            for statement in SCHEMA:
                database.execute(statement)
            for seq, line in enumerate(lines, 1):
                kind, key, body = [*line.split("\t", 2), "", ""][:3]
                digest = link(seq, kind, key, "2026-11-21", body, prev)
                database.execute(
                    "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)", (seq, kind, key, "2026-11-21", body, prev, digest)
                )
                prev = digest
            database.execute("COMMIT")
        return read(path)

    def entry_changed(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
        lines = seeds[0].split(b"\n")
        at = chance.randrange(len(lines))
        kind, key, body = lines[at].split(b"\t", 2)
        if chance.random() < 0.1:
            kind = chance.choice(lines).split(b"\t")[0]
        lines[at] = b"\t".join((kind, key, json_changed(chance, [body]).replace(b"\n", b" ")))
        if chance.random() < 0.1:
            chance.shuffle(lines)
        return b"\n".join(lines)

    lines = "\n".join("\t".join((kind, key, _dumped(body))) for kind, key, body in rows).encode()
    yield Reader("ledgers (SQLite)", through_a_file(read, folder, "ledger"), [seed], bytes_changed, 20_000)
    yield Reader("ledgers by another hand", by_another, [lines], entry_changed, 20_000)


def data_of_users(folder: Path) -> Iterator[Reader]:
    """Hypotheses, pairs, facts and prompts."""
    from assay.edit.fact import Fact
    from assay.pairs import Pairs
    from assay.scrub import Data, Node, node

    tree = node("a", parts=[node("b", at="L1.resid", along=[[1.0, 2.0]]), node("c", at="L0.mlp.out @ 3", pool=2)])
    tree.save(folder / "tree.json")
    yield Reader(
        "hypotheses",
        through_a_file(Node.load, folder, "h.json"),
        [(folder / "tree.json").read_bytes()],
        json_changed,
        40_000,
    )
    pair = b'{"positive":"yes","negative":"no","question":"q","answers":["a","b"],"cluster":"c","topic":null}\n'
    items = b'[{"question":"q","answer_matching_behavior":"(A)","answer_not_matching_behavior":"(B)"}]'
    table = b'positive,negative,answers,cluster\nyes,no,a|b,c\n"x,\ny",no,a|b,d\n'
    yield Reader(
        "pairs (JSON lines)", through_a_file(Pairs.load, folder, "p.jsonl"), [pair * 2, pair], lines_changed, 40_000
    )
    yield Reader("pairs (JSON)", through_a_file(Pairs.load, folder, "p.json"), [items], json_changed, 20_000)
    yield Reader("pairs (CSV)", through_a_file(Pairs.load, folder, "p.csv"), [table], bytes_changed, 20_000)
    fact = (
        b'{"prompt":"{subject} is in","subject":"Nara","old":" J","new":" P","paraphrases":["a"],"neighbourhood":[]}\n'
    )
    yield Reader(
        "facts (JSON lines)", through_a_file(Fact.load, folder, "f.jsonl"), [fact * 2, fact], lines_changed, 30_000
    )
    prompt = b'{"prompt":"{subject} is {b}","answer":"x","subject":"s","b":"t","feature":3}\n'
    yield Reader(
        "prompts (JSON lines)",
        through_a_file(Data.load, folder, "d.jsonl"),
        [prompt * 2, prompt],
        lines_changed,
        30_000,
    )


@contextlib.contextmanager
def readers() -> Iterator[list[Reader]]:
    """All of them, with the folder that some read files from: in memory, where there is such a place."""
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=fast if os.access(fast, os.W_OK) else None) as name:
        folder = Path(name)
        found = [*values(), *policies()]
        for number, make in enumerate((releases, seals, keys_of_all_kinds, timestamps, arrays, ledgers, data_of_users)):
            own = folder / str(number)
            if make is not timestamps:
                own.mkdir()
            found += make(own)
        yield found


def run(scale: float = 1.0) -> list[Row]:
    """At full scale more than a million inputs."""
    rows, total = [], 0
    with readers() as known:
        for reader in known:
            found = tried(reader, max(200, round(reader.inputs * scale)))
            total += found.inputs
            told = ", ".join(f"{count:,} {name}" for name, count in found.refused.most_common())
            bad = f"; {len(found.failed)} FAILED: {found.failed[0][1]}" if found.failed else ""
            told = f"{found.inputs:,} inputs: {found.accepted:,} read, {told}; at most {found.slowest:.1g} s{bad}"
            rows.append(Row(reader.name, told.partition("\n")[0], not found.failed and found.inputs > 0))
    rows.append(Row("YAML", "written in one export, read nowhere"))
    limits = f"{total:,} inputs, {SECONDS} s each, {MEMORY >> 20:,} MiB a process"
    rows.append(Row("all of them", limits, total >= 1_000_000 or scale < 1))
    return rows
