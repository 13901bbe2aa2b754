"""Timestamps (RFC 3161): the word of an authority that some data was there at a time. Optional: ``assay[timestamp]``.

The authority sees a SHA-256 digest and nothing else. Its answer can be checked without a network, for as long as one
trusts its root certificate; that a certificate was revoked later is not looked up.

A few bytes of an answer are signed by nobody: version numbers, the name of the signature's algorithm, the kind of text
that a name is written in. Changed, they leave the time and the data as they were; but what verifies need not be, byte
for byte, what was sent, so an answer is not to be named by its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from cryptography import x509

from assay.errors import BadData, MissingExtra, NotVerified

if TYPE_CHECKING:
    from rfc3161_client import TimeStampRequest

_MOST = 1 << 20  # bytes of an answer; they have a few thousand
_AGAIN = "ask the authority for another, or another authority"


def request(data: bytes) -> bytes:
    """The question to an authority (DER): SHA-256 of ``data``, a fresh nonce, and its certificates, please.

    Raises:
        BadData: there is no data.
        MissingExtra: rfc3161-client is not installed.
    """
    return _asked(data).as_bytes()


def fetch(url: str, data: bytes, timeout: float = 30) -> bytes:
    """An authority's answer for ``data``, to be kept beside it and to be given to `check`.

    It answers this very question, but no certificate has been checked yet.

    Raises:
        BadData: there is no data, ``url`` is none of http or https, or nobody answers there.
        NotVerified: what came is no timestamp of ``data``, or answers another question.
        MissingExtra: rfc3161-client is not installed.
    """
    asked = _asked(data)
    answer = _post(url, asked.as_bytes(), timeout)
    with _extra():
        from rfc3161_client import PKIStatus, decode_timestamp_response
    with _as_not_verified():
        told = decode_timestamp_response(answer)
        if told.status != PKIStatus.GRANTED:
            raise _refused(f"status {told.status} {' '.join(told.status_string)}".strip())
        if told.tst_info.nonce != asked.nonce:
            raise _refused("the answer to another question")
        if told.tst_info.message_imprint.message != hashlib.sha256(data).digest():
            raise _refused("a timestamp of other data")
    return answer


def check(response: bytes, data: bytes, roots: Sequence[bytes], *, intermediates: Sequence[bytes] = ()) -> datetime:
    """When ``data`` was there, in UTC, according to an authority whose certificate comes from one of ``roots``.

    Args:
        response: what `fetch` gave (DER).
        data: what was timestamped.
        roots: trusted certificates, as PEM; each may be several.
        intermediates: further certificates, as PEM, where the response does not bring them.

    Raises:
        NotVerified: it is no timestamp of ``data`` by such an authority.
        BadData: ``roots`` or ``intermediates`` hold something else than certificates, or there are no roots.
        MissingExtra: rfc3161-client is not installed.
    """
    with _extra():
        from rfc3161_client import VerifierBuilder, decode_timestamp_response
    trusted, between = _certificates(roots), _certificates(intermediates)
    if not trusted:
        raise BadData("a timestamp is checked against nothing", hint="give the authority's root certificate, as PEM")
    with _as_not_verified():
        told = decode_timestamp_response(response)
        VerifierBuilder(roots=trusted, intermediates=between).build().verify_message(told, data)
        return told.tst_info.gen_time


def _asked(data: bytes) -> TimeStampRequest:
    with _extra():
        from rfc3161_client import HashAlgorithm, TimestampRequestBuilder
    if not data:
        raise BadData("there is nothing to timestamp", hint="give the bytes of a file that is not empty")
    return TimestampRequestBuilder(data, HashAlgorithm.SHA256, nonce=True, cert_req=True).build()


def _post(url: str, body: bytes, timeout: float) -> bytes:
    asked_for = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("no address that begins with http:// or https://")
        query = Request(url, data=body, headers=asked_for)  # noqa: S310 - the line above
        with urlopen(query, timeout=timeout) as answer:  # noqa: S310
            data: bytes = answer.read(_MOST + 1)
            if len(data) > _MOST:
                raise ValueError(f"an answer of more than {_MOST:,} bytes")
            return data
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()
        raise BadData(
            f"no timestamp came from {url!r}",
            hint="try again later, or another authority; nothing else waits for it",
            found=f"{error}"[:200] or type(error).__name__,
        ) from error


def _certificates(pems: Sequence[bytes]) -> list[x509.Certificate]:
    try:
        return [certificate for pem in pems for certificate in x509.load_pem_x509_certificates(pem)]
    except (ValueError, x509.InvalidVersion) as error:
        hint = "give certificates as PEM, the text from BEGIN CERTIFICATE to END CERTIFICATE"
        raise BadData("a root certificate does not read", hint=hint, found=error) from error


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingExtra(
            "timestamps need rfc3161-client", found=str(error), hint="pip install 'assay[timestamp]'"
        ) from error


@contextmanager
def _as_not_verified() -> Iterator[None]:
    """The client raises what its parts raise, which is all sorts."""
    try:
        yield
    except NotVerified:
        raise
    except Exception as error:
        raise _refused(f"{error}"[:200] or type(error).__name__) from error
    except BaseException as error:
        # A panic in Rust, which no Exception is: rfc3161-client panics on some certificates that load.
        if type(error).__name__ != "PanicException":
            raise
        raise _refused(f"the client gave up on it: {error}"[:200]) from None


def _refused(found: str) -> NotVerified:
    return NotVerified("the timestamp does not verify", hint=_AGAIN, found=found)
