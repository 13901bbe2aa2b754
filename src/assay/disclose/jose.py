"""JSON, base64url and signed JWTs, strictly: one spelling each, and one error for whatever is read that is not so.

Signatures are joserfc's, SHA-256 is hashlib's. Written wrongly by a caller it is `BadData`; read, `NotVerified`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from joserfc import jwk, jws
from joserfc.errors import JoseError

from assay.errors import BadData, NotVerified

MAX_BYTES = 64 << 20  # a whole token; 100,000 claims of 400 bytes fit
MAX_HEADER = 16 << 10
MAX_DEPTH = 64  # lists and objects in each other, what disclosures add included

_ALGORITHMS = {"Ed25519": "Ed25519", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}  # by a key's curve
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Registry(jws.JWSRegistry):
    # joserfc's own limit of 128,000 bytes holds on reading alone: it would issue what it then refuses.
    max_payload_length = MAX_BYTES * 4 // 3
    max_header_length = MAX_HEADER * 4 // 3


def refuse(what: str, found: object = None, *, hint: str = "") -> NoReturn:
    """Raise `NotVerified`. What was found is cut short: a token can be long."""
    hint = hint or "get it again from where it came; if it comes the same, do not rely on it"
    if isinstance(found, str):
        found = found[:80]  # a token can be long
    shown = None if found is None else f"{found!s:.160}" if isinstance(found, Exception) else f"{found!r:.80}"
    raise NotVerified(what, hint=hint, found=shown) from None


@contextmanager
def making(what: str) -> Iterator[None]:
    """What would be refused when read is a caller's mistake when it is written."""
    try:
        yield
    except (NotVerified, TypeError, ValueError, RecursionError) as error:
        found = error.what if isinstance(error, NotVerified) else error
        raise BadData(f"{what} cannot be written", hint="change what is found", found=found) from None


def read_text(text: str | bytes) -> str:
    """A token's text from its bytes."""
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > MAX_BYTES:
            refuse(f"a token of more than {MAX_BYTES} bytes", len(data))
        return data.decode()
    except (AttributeError, TypeError, UnicodeError) as error:
        refuse("a token is no UTF-8 text", error)


def encode(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str, what: str) -> bytes:
    """Bytes from base64url in its one spelling."""
    try:
        data = base64.urlsafe_b64decode(text + "==")
    except ValueError:
        refuse(f"{what} is no base64url", text)
    if not text or encode(data) != text:  # padding, stray characters, bits in the last one that say nothing
        refuse(f"{what} is no base64url as it must be written", text)
    return data


def digest_of(text: str) -> str:
    """The base64url of a text's SHA-256."""
    return encode(hashlib.sha256(text.encode()).digest())


def dumps(value: object) -> bytes:
    """JSON as it is signed."""
    return _WRITER.encode(value).encode()


def read_json(data: bytes, what: str) -> Any:
    """A JSON value: no name twice, nothing infinite, no lone surrogate, not too deep."""
    try:
        value = _READER.decode(data.decode())
        if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
            _check_depth(value)
        if _SURROGATE.search(data):
            dumps(value)
    except (ValueError, RecursionError) as error:
        refuse(f"{what} is no JSON that can be read", error)
    return value


def read_object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object."""
    value = read_json(data, what)
    return value if isinstance(value, dict) else refuse(f"{what} is no JSON object", value)


def segments(jwt: str) -> list[str]:
    """The three parts of a compact JWT."""
    parts = jwt.split(".")
    return parts if len(parts) == 3 else refuse("a JWT has not three parts", jwt)


def sign_jws(data: bytes, key: jwk.Key, typ: str, headers: Mapping[str, object]) -> str:
    """A compact JWT of these bytes; the key's curve says the algorithm."""
    name = _ALGORITHMS.get(getattr(key, "curve_name", ""))
    if name is None or not {"alg", "typ", "crit", "b64"}.isdisjoint(headers):
        hint = "give an Ed25519 or ECDSA key, and alg and typ not as headers"
        raise BadData("a token cannot be signed so", hint=hint, found=sorted(headers) if name else type(key).__name__)
    with making("a header"):
        header = read_object(dumps({"alg": name, "typ": typ, **headers}), "a header")
        registry = _Registry(algorithms=[name], strict_check_header=False)
        if len(data) > MAX_BYTES // 2 or len(dumps(header)) > MAX_HEADER:
            refuse("a token too large to be read again")
    try:
        return jws.serialize_compact(header, data, key, registry=registry)
    except JoseError as error:
        raise BadData("a key cannot sign", hint="give the private key", found=error) from error


def open_jws(jwt: str, key: jwk.Key, algorithms: Collection[str], what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the payload of a JWT whose signature is the key's."""
    head, body, signature = segments(jwt)
    if len(head) > _Registry.max_header_length:
        refuse(f"the header of {what} is too long", len(head))
    header = read_object(decode(head, f"the header of {what}"), f"the header of {what}")
    wanted = {algorithms} if isinstance(algorithms, str) else set(algorithms)
    allowed = wanted & set(_ALGORITHMS.values())  # none and MACs prove nothing, whoever allows them
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in allowed:
        refuse(f"{what} is not signed with {' or '.join(sorted(allowed)) or 'any algorithm known here'}", algorithm)
    if "crit" in header or "b64" in header:
        refuse(f"{what} asks for extensions, and none is known here", header)
    decode(signature, f"the signature of {what}")
    data = decode(body, f"the payload of {what}")
    try:
        jws.deserialize_compact(jwt, key, registry=_Registry(algorithms=[algorithm], strict_check_header=False))
    except Exception as error:  # joserfc's and cryptography's errors have no common base
        refuse(f"the signature of {what} does not hold", error)
    return header, read_object(data, f"the payload of {what}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("one name twice in an object")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no JSON number")
    return value


_READER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)
_WRITER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for outer in level for item in _items(outer) if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _items(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
