"""Timestamps by a real authority: OpenSSL's, behind a web server of its own on this machine."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rfc3161_client import decode_timestamp_response

from assay.disclose.timestamp import check, fetch, request
from assay.errors import AssayError, BadData, MissingExtra, NotVerified

DATA = b"the digest of a credential"
CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
CONFIG = """
[tsa]
default_tsa = here
[here]
serial = serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
"""


def openssl(folder: Path, *args: str) -> str:
    done = subprocess.run(["openssl", *args], check=True, cwd=folder, capture_output=True, text=True)
    return done.stdout


def root(folder: Path, name: str) -> bytes:
    out = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", "-days", "9"]
    openssl(folder, "req", "-x509", *CURVE, *out, "-addext", "keyUsage=critical,keyCertSign")
    return (folder / f"{name}.pem").read_bytes()


def certified(folder: Path, name: str, by: str, usage: str) -> bytes:
    openssl(folder, "req", *CURVE, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    (folder / "ext").write_text(f"authorityKeyIdentifier = keyid\nsubjectKeyIdentifier = hash\n{usage}\n")
    signer = ["-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial"]
    openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", *signer, "-out", f"{name}.pem", "-days", "9", "-extfile", "ext"
    )
    return (folder / f"{name}.pem").read_bytes()


@dataclass
class Authority:
    """OpenSSL's authority over HTTP. What it does wrong, if anything, is said by ``mood``."""

    folder: Path
    mood: str = "honest"
    signer: str = "tsa"
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    url: str = ""

    def reply(self, query: bytes) -> bytes:
        (self.folder / "query").write_bytes(query)
        keys = ["-signer", f"{self.signer}.pem", "-inkey", f"{self.signer}.key"]
        openssl(self.folder, "ts", "-reply", "-config", "config", "-queryfile", "query", *keys, "-out", "reply")
        return (self.folder / "reply").read_bytes()

    def answer(self, query: bytes) -> tuple[int, bytes]:
        match self.mood:
            case "out of order":
                return 503, b"later"
            case "talkative":
                return 200, b"x" * (2 << 20)
            case "another protocol":
                return 200, b"<html>welcome</html>"
            case "refusing":
                return 200, bytes.fromhex("30053003020102")
            case "repeating itself":
                return 200, self.reply(request(DATA))
            case "deaf":
                return 200, self.reply(request(b"other data"))
        return 200, self.reply(query)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    (folder / "config").write_text(CONFIG)
    (folder / "serial").write_text("01\n")
    for name in ("root", "other"):
        root(folder, name)
    certified(folder, "between", "root", "basicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign")
    stamping = "extendedKeyUsage = critical,timeStamping\nkeyUsage = critical,digitalSignature"
    certified(folder, "tsa", "root", stamping)
    certified(folder, "deep", "between", stamping)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Authority]:
    authority = Authority(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            authority.asked.append((self.headers["Content-Type"], query))
            status, body = authority.answer(query)
            self.send_response(status)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the other side may have had enough
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    authority.url = f"http://127.0.0.1:{server.server_port}/tsr"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield authority
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def authority(served: Authority) -> Authority:
    served.mood, served.signer = "honest", "tsa"
    served.asked.clear()
    return served


@pytest.fixture(scope="module")
def stamp(folder: Path) -> bytes:
    """An honest answer for `DATA`."""
    return Authority(folder).reply(request(DATA))


def pem(folder: Path, *names: str) -> list[bytes]:
    return [(folder / f"{name}.pem").read_bytes() for name in names]


def test_a_request_is_what_openssl_reads(tmp_path: Path) -> None:
    (tmp_path / "query").write_bytes(request(DATA))
    told = openssl(tmp_path, "ts", "-query", "-in", "query", "-text")
    (tmp_path / "data").write_bytes(DATA)
    digest = openssl(tmp_path, "dgst", "-sha256", "-r", "data").split()[0]
    assert "Hash Algorithm: sha256" in told and "Certificate required: yes" in told and "Nonce: 0x" in told
    assert "".join(re.findall(r"(?<= - )(?:[0-9a-f]{2}[ -]){16}", told)).replace(" ", "").replace("-", "") == digest
    assert request(DATA) != request(DATA)  # the nonce


def test_a_timestamp_from_the_question_to_the_time(authority: Authority) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    response = fetch(authority.url, DATA)
    ((kind, query),) = authority.asked
    assert kind == "application/timestamp-query" and DATA not in query
    time = check(response, DATA, pem(authority.folder, "root"))
    assert time.utcoffset() == timedelta(0)
    assert before <= time <= datetime.now(UTC) + timedelta(seconds=1)
    assert check(response, DATA, pem(authority.folder, "other", "root", "root")) == time


def test_other_data_is_not_verified(stamp: bytes, folder: Path) -> None:
    for other in (b"", DATA[:-1], DATA + b"\n"):
        with pytest.raises(NotVerified, match="Mismatch"):
            check(stamp, other, pem(folder, "root"))


def test_another_root_is_not_verified(stamp: bytes, folder: Path) -> None:
    for others in (["other"], ["between"], ["deep", "other"]):
        with pytest.raises(NotVerified):
            check(stamp, DATA, pem(folder, *others))


def test_a_root_of_the_same_name_is_not_the_same(stamp: bytes, tmp_path: Path) -> None:
    with pytest.raises(NotVerified):
        check(stamp, DATA, [root(tmp_path, "root")])


def test_a_certificate_in_between(authority: Authority) -> None:
    authority.signer = "deep"
    response = fetch(authority.url, DATA)
    with pytest.raises(NotVerified):
        check(response, DATA, pem(authority.folder, "root"))
    check(response, DATA, pem(authority.folder, "root"), intermediates=pem(authority.folder, "between"))
    with pytest.raises(NotVerified):
        check(response, DATA, pem(authority.folder, "other"), intermediates=pem(authority.folder, "between"))


def test_roots_are_certificates(stamp: bytes, folder: Path) -> None:
    for roots in ([], [b""], [b"no certificate"], [pem(folder, "root")[0].replace(b"MII", b"MIJ", 1)]):
        with pytest.raises(BadData):
            check(stamp, DATA, roots)


def test_no_byte_changes_the_time_or_the_data(stamp: bytes, folder: Path) -> None:
    """Every byte is replaced by a few others, and dropped: that is refused, or nothing is said that was not said before.

    What nobody signs: CMS's two version numbers, the eight bytes that name the signature's algorithm, and whether the
    issuer's name, written a second time beside the signature, is one kind of text or another.
    """
    roots = pem(folder, "root")
    time = check(stamp, DATA, roots)
    free = set()
    for place, byte in enumerate(stamp):
        for value in {byte ^ 1, byte ^ 0x80, (byte + 7) % 256, 0} - {byte}:
            changed = stamp[:place] + bytes([value]) + stamp[place + 1 :]
            try:
                assert check(changed, DATA, roots) == time
            except NotVerified:
                continue
            free.add(place)
            with pytest.raises(NotVerified):
                check(changed, b"other data", roots)
        for other in (stamp[:place] + stamp[place + 1 :], stamp[:place]):
            with pytest.raises(NotVerified):
                check(other, DATA, roots)
    with pytest.raises(NotVerified):
        check(stamp + b"\0", DATA, roots)
    assert len(free) <= 11
    imprint = stamp.index(decode_timestamp_response(stamp).tst_info.message_imprint.message)
    assert not free & set(range(imprint - 40, imprint + 80))  # what is said of data and time


def test_a_time_that_was_not_signed(stamp: bytes, folder: Path) -> None:
    time = check(stamp, DATA, pem(folder, "root"))
    written = f"{time:%Y%m%d%H%M%S}Z".encode()
    assert stamp.count(written) == 1
    for earlier in (time - timedelta(seconds=1), time - timedelta(hours=1)):
        with pytest.raises(NotVerified):
            check(stamp.replace(written, f"{earlier:%Y%m%d%H%M%S}Z".encode()), DATA, pem(folder, "root"))


@pytest.mark.parametrize("bytes_", [b"", b"\x30", b"\x30\x80", b"<html>", bytes(1000), b"\x30\x84\xff\xff\xff\xff"])
def test_any_bytes_are_not_verified(bytes_: bytes, folder: Path) -> None:
    with pytest.raises(NotVerified):
        check(bytes_, DATA, pem(folder, "root"))


@pytest.mark.parametrize(
    ("mood", "kind", "says"),
    [
        ("out of order", BadData, "503"),
        ("talkative", BadData, "more than"),
        ("another protocol", NotVerified, "does not verify"),
        ("refusing", NotVerified, "status 2"),
        ("repeating itself", NotVerified, "another question"),
        ("deaf", NotVerified, "another question|other data"),
    ],
)
def test_an_authority_that_does_otherwise(authority: Authority, mood: str, kind: type[AssayError], says: str) -> None:
    authority.mood = mood
    with pytest.raises(kind, match=says):
        fetch(authority.url, DATA)
    assert len(authority.asked) == 1


def test_an_authority_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(BadData, match="no timestamp came from"):
            fetch(url, DATA, timeout=5)
        taken.listen()  # and never answers
        with pytest.raises(BadData, match="timed out"):
            fetch(url, DATA, timeout=0.2)


@pytest.mark.parametrize(
    "url", ["", "tsa.example", "file:///etc/passwd", "ftp://tsa.example/", "http://[", "http://a b/"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(BadData, match="no timestamp came from"):
        fetch(url, DATA, timeout=1)


def test_there_is_something_to_timestamp() -> None:
    for ask in (request, lambda data: fetch("http://127.0.0.1:1/", data)):
        with pytest.raises(BadData, match="nothing to timestamp"):
            ask(b"")


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    for call in (lambda: request(DATA), lambda: fetch("http://127.0.0.1:1/", DATA), lambda: check(b"", DATA, [b""])):
        with pytest.raises(MissingExtra, match=r"assay\[timestamp\]"):
            call()
