"""The format of SD-JWT (RFC 9901), strictly: what is not exactly as the standard has it is refused.

An issuer signs digests instead of values; each *disclosure* (a salt, perhaps a name, a value) opens one digest, and
whoever passes the token on chooses which to include. With a key-binding JWT the holder signs that choice, so that
none can be dropped or added on the way; without one they can (RFC 9901, section 9.10).

Salts come from ``secrets``; the rest is `assay.disclose.jose`. Where the standard leaves a choice, the
stricter one is taken. A compact token signed with Ed25519 has one spelling, so that a changed byte is a refused token;
that is not so of ES256, whose signatures have two spellings each, nor of white space around JSON.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jwk

from assay.disclose.jose import (
    MAX_DEPTH,
    decode,
    digest_of,
    dumps,
    encode,
    making,
    open_jws,
    read_json,
    read_object,
    read_text,
    refuse,
    segments,
    sign_jws,
)
from assay.errors import BadData

_TAKEN = ("_sd", "...", "_sd_alg")  # names with a meaning of their own (RFC 9901, sections 4.1 and 4.2)
# 32 bytes in base64url. The last character has two bits to spare, which are zero.
_DIGEST = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")


@dataclass(frozen=True, slots=True)
class Disclosure:
    """What opens one digest. It is ``text`` that is hashed: the same content spelled otherwise is another disclosure."""

    text: str  # base64url of [salt, value] or [salt, name, value]
    digest: str  # base64url of the text's SHA-256
    salt: str
    value: Any
    name: str | None = None  # None: an element of an array

    @classmethod
    def make(cls, value: object, name: str | None = None, *, salt: str | None = None) -> Disclosure:
        """A new disclosure, of an array's element or, with a name, of an object's property.

        Args:
            value: any JSON value.
            name: the property's name.
            salt: 128 random bits unless given. Whoever knows the salt can guess the value from its digest.

        Raises:
            BadData: the value has no JSON form, or the name has a meaning of its own.
        """
        salt = secrets.token_urlsafe(16) if salt is None else salt
        content = [salt, value] if name is None else [salt, name, value]
        with making("a claim"):
            return cls.read(encode(dumps(content)))

    @classmethod
    def read(cls, text: str) -> Disclosure:
        """A disclosure from its base64url text. Raises ``NotVerified`` for anything but exactly that."""
        match read_json(decode(text, "a disclosure"), "a disclosure"):
            case [str(salt), value]:
                name = None
            case [str(salt), str(name), value] if name not in _TAKEN:
                pass
            case other:
                refuse("a disclosure is not [salt, value] or [salt, name, value]", other)
        return cls(text, digest_of(text), salt, value, name)


@dataclass(frozen=True)
class Verified:
    """A token that held: what was signed, what was disclosed of it, and how much was not."""

    header: dict[str, Any]
    payload: dict[str, Any]  # disclosed values in their places, nothing left of digests
    signed: dict[str, Any]  # the payload as it was signed
    jwt: str  # the issuer-signed JWT, compact
    disclosures: tuple[Disclosure, ...]
    undisclosed: int  # digests, in the payload or in disclosed values, that nothing opens; decoys count
    binding: dict[str, Any] | None  # the key-binding JWT's payload


def sign(payload: Mapping[str, object], key: jwk.Key, *, typ: str, headers: Mapping[str, object] | None = None) -> str:
    """The issuer-signed JWT, compact. Digests are in ``payload`` already, as ``_sd`` and ``{"...": digest}``.

    Args:
        payload: the claims.
        key: a private key; its curve says the algorithm: Ed25519, or ES256 and up for P-256 and up.
        typ: what kind of token it is, such as ``"example+sd-jwt"``.
        headers: further protected header parameters.

    Raises:
        BadData: ``verify`` would refuse what this would sign.
    """
    with making("a payload"):
        data = dumps(payload)
        _processed(read_object(data, "the payload"), {})
        return sign_jws(data, key, typ, headers or {})


def present(
    jwt: str,
    disclosures: Iterable[Disclosure | str],
    *,
    holder: jwk.Key | None = None,
    audience: str = "",
    nonce: str = "",
    at: int | None = None,
) -> str:
    """The compact SD-JWT with these disclosures; an SD-JWT+KB where a holder's key is given.

    Args:
        jwt: what ``sign`` gave.
        disclosures: what to show. A disclosure nested in another needs the outer one too.
        holder: the private key whose public half is in the payload's ``cnf``.
        audience: for whom; needed with a holder.
        nonce: for which occasion; needed with a holder.
        at: when the holder signed, in seconds since 1970; now unless given.

    Raises:
        NotVerified: a disclosure opens no digest of this token, or is there twice.
        BadData: a holder without an audience and a nonce.
    """
    shown = [item if isinstance(item, Disclosure) else Disclosure.read(item) for item in disclosures]
    _processed(read_object(decode(segments(jwt)[1], "the payload"), "the payload"), _by_digest(shown))
    text = read_text("~".join((jwt, *(item.text for item in shown), "")))
    if holder is None:
        return text
    if not audience or not nonce:
        raise BadData("a holder signs for nobody, or for no occasion", hint="give both audience= and nonce=")
    moment = int(time.time()) if at is None else at
    claims = {"iat": moment, "aud": audience, "nonce": nonce, "sd_hash": digest_of(text)}
    with making("a key binding"):
        return text + sign_jws(dumps(claims), holder, "kb+jwt", {})


def verify(
    text: str | bytes,
    key: jwk.Key,
    *,
    typ: str | None,
    algorithms: Collection[str] = ("Ed25519",),
    audience: str | None = None,
    nonce: str | None = None,
    bound: bool | None = None,
    now: float | None = None,
    leeway: float = 60.0,
    max_age: float | None = None,
) -> Verified:
    """What a token says, if everything about it is right (RFC 9901, sections 7.1, 7.3 and 8.4).

    It may be compact or in JWS JSON serialization, flattened or general. Of several signatures the first has to be
    the key's, since disclosures and key binding go with that one; the others must be well-formed and vouch for nothing.

    Args:
        text: the token.
        key: the issuer's public key. That it is the issuer's is for the caller to know.
        typ: the ``typ`` it must have; None takes any that ends in ``+sd-jwt``, as the standard's examples do.
        algorithms: the signature algorithms allowed, for the issuer and for the holder.
        audience: who is asking. Needed when ``aud`` is in the payload, and with ``bound=True``.
        nonce: the occasion that the holder must have signed for, if it is known.
        bound: whether a key-binding JWT must be there (True) or must not (False). One that is there is always
            checked against the key in ``cnf``.
        now: the time to judge by, in seconds since 1970; this moment unless given.
        leeway: how many seconds clocks may differ.
        max_age: how many seconds ago the holder may have signed at most; any number unless given.

    Raises:
        NotVerified: anything is not as it must be, whatever the bytes are.
    """
    now = time.time() if now is None else now
    if bound and audience is None:
        refuse("key binding cannot be checked for nobody", hint="give audience=")
    try:
        jwt, shown, binding = _split(read_text(text))
        header, signed = open_jws(jwt, key, algorithms, "the issuer's JWT")
        named = header.get("typ")
        if not (named == typ if typ is not None else isinstance(named, str) and named.endswith("+sd-jwt")):
            refuse(f"a token of another type than {typ or '…+sd-jwt'!r}", named)
        disclosures = tuple(map(Disclosure.read, shown))
        payload, undisclosed = _processed(signed, _by_digest(disclosures))
        _check_times(payload, now, leeway, "the token")
        if "aud" in payload:
            _check_audience(payload["aud"], audience)
        claims = None
        if binding is None and bound:
            refuse("a token without key binding", hint="ask the holder for an SD-JWT+KB")
        if binding is not None:
            if bound is False:
                refuse("a token with key binding, where none is allowed")
            hashed = digest_of("~".join((jwt, *shown, "")))
            claims = _bound(binding, payload, hashed, algorithms, audience, nonce)
            _check_times(claims, now, leeway, "the key binding")
            oldest = -math.inf if max_age is None else now - max_age
            if claims["iat"] < max(oldest, payload.get("iat", oldest)) - leeway:
                refuse("a key binding from too long ago", claims["iat"])
    except RecursionError:
        refuse("a token could not be read on the stack that was left")
    return Verified(header, payload, signed, jwt, disclosures, undisclosed, claims)


def _split(text: str) -> tuple[str, list[str], str | None]:
    """The issuer's JWT, the disclosures and the key binding of either serialization (sections 4 and 8)."""
    if not text.lstrip(" \t\r\n").startswith("{"):
        jwt, *shown = text.split("~")
        return (jwt, shown, shown.pop() or None) if shown else refuse("a token without a ~ is no SD-JWT", text)
    match read_object(text.encode(), "a token"):
        case {"disclosures": _} | {"kb_jwt": _}:
            refuse("a token has its disclosures or key binding outside its header, where drafts had them")
        case {"signatures": _, "signature": _} | {"signatures": _, "protected": _} | {"signatures": _, "header": _}:
            refuse("a token is both flattened and general JSON")
        case {"payload": str(payload), "signatures": [first, *others]}:
            pass
        case {"payload": str(payload), "signature": _} as first:
            others = []
        case _:
            refuse("a token is neither flattened nor general JSON")
    protected, signature, header = _signature(first)
    for other in others:
        if not {"disclosures", "kb_jwt"}.isdisjoint(_signature(other)[2]):
            refuse("disclosures or key binding beside another signature than the first")
    shown, binding = header.get("disclosures", []), header.get("kb_jwt")
    if not isinstance(shown, list) or not all(isinstance(item, str) for item in shown):
        refuse("disclosures are no list of texts", shown)
    if "kb_jwt" in header and (not isinstance(binding, str) or not binding):
        refuse("a key binding is no text", binding)
    return f"{protected}.{payload}.{signature}", shown, binding


def _signature(member: object) -> tuple[str, str, dict[str, Any]]:
    match member:
        case {"protected": str(protected), "signature": str(signature), **rest}:
            header = rest.get("header", {})
        case _:
            refuse("a signature without its protected header", member)
    names = read_object(decode(protected, "a header"), "a header").keys() | {"crit"}
    decode(signature, "a signature")
    if not isinstance(header, dict) or not names.isdisjoint(header):
        refuse("an unprotected header may not say this", header)
    return protected, signature, header


def _by_digest(disclosures: Iterable[Disclosure]) -> dict[str, Disclosure]:
    found: dict[str, Disclosure] = {}
    for item in disclosures:
        if found.setdefault(item.digest, item) is not item:
            refuse("one disclosure twice", item.text)
    return found


def _processed(payload: dict[str, Any], disclosures: Mapping[str, Disclosure]) -> tuple[dict[str, Any], int]:
    """The payload with disclosed values in place of their digests, and how many digests stay closed (section 7.1)."""
    seen: set[str] = set()

    def opened(digest: object, *, element: bool) -> Disclosure | None:
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            refuse("a digest is not the base64url of 32 bytes", digest)
        if digest in seen:
            refuse("one digest twice", digest)
        seen.add(digest)
        found = disclosures.get(digest)
        if found is not None and (found.name is None) is not element:
            refuse("a disclosure of the other kind than its place", found.text)
        return found

    def walk(value: Any, depth: int) -> Any:
        if not isinstance(value, dict | list):
            return value
        if depth > MAX_DEPTH:
            refuse(f"claims are nested more than {MAX_DEPTH} deep")
        if isinstance(value, list):
            return [kept for item in value for kept in element(item, depth + 1)]
        if "..." in value or (depth > 1 and "_sd_alg" in value):
            refuse("a name with a meaning of its own, where it has none", value)
        claims = {name: walk(item, depth + 1) for name, item in value.items() if name != "_sd"}
        digests = value.get("_sd", [])
        if not isinstance(digests, list):
            refuse("_sd is no list of digests", digests)
        for digest in digests:
            found = opened(digest, element=False)
            if found is not None and found.name is not None:
                if found.name in claims:
                    refuse("a disclosed claim is there already", found.name)
                claims[found.name] = walk(found.value, depth + 1)
        return claims

    def element(item: Any, depth: int) -> list[Any]:
        if not isinstance(item, dict) or "..." not in item:
            return [walk(item, depth)]
        if len(item) > 1:
            refuse("an array element's digest with something beside it", item)
        found = opened(item["..."], element=True)
        return [] if found is None else [walk(found.value, depth)]

    if payload.get("_sd_alg", "sha-256") != "sha-256":
        refuse("digests of another kind than sha-256", payload["_sd_alg"])
    processed = walk(payload, 1)
    if not disclosures.keys() <= seen:
        refuse("a disclosure that opens no digest of this token", disclosures[min(disclosures.keys() - seen)].text)
    processed.pop("_sd_alg", None)
    return processed, len(seen) - len(disclosures)


def _check_times(claims: Mapping[str, Any], now: float, leeway: float, what: str) -> None:
    for name in claims.keys() & {"iat", "nbf", "exp"}:
        value = claims[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or value < -(1 << 53):
            refuse(f"{name} of {what} is no time", value)
        if value <= now - leeway if name == "exp" else value > now + leeway:
            refuse(f"{what} is {'no longer' if name == 'exp' else 'not yet'} valid", f"{name} {value}, now {now:.0f}")


def _check_audience(claimed: object, audience: str | None) -> None:
    known = claimed if isinstance(claimed, list) else [claimed]
    if audience is None or audience not in known:
        refuse("the token is for another audience", claimed, hint="give the audience= that it was made for")


def _bound(
    binding: str,
    payload: Mapping[str, Any],
    hashed: str,
    algorithms: Collection[str],
    audience: str | None,
    nonce: str | None,
) -> dict[str, Any]:
    """What the holder signed, if it is this token for this audience (sections 4.3 and 7.3)."""
    match payload.get("cnf"):
        case {"jwk": {"kty": "OKP" | "EC"} as public} if "d" not in public:
            pass
        case other:
            refuse("key binding without a public key in cnf", other)
    try:
        holder = jwk.import_key(public)
    except Exception as error:
        refuse("the key in cnf is none", error)
    header, claims = open_jws(binding, holder, algorithms, "the key binding")
    if header.get("typ") != "kb+jwt":
        refuse("a key binding of another type than 'kb+jwt'", header.get("typ"))
    match claims:
        case {"sd_hash": str(signed), "aud": str(to), "nonce": str(occasion), "iat": _}:
            pass
        case _:
            refuse("a key binding without sd_hash, aud, nonce and iat", claims)
    if signed != hashed:
        refuse("the key binding is for other disclosures than these", signed)
    if audience is not None and to != audience:
        refuse("the key binding is for another audience", to)
    if nonce is not None and occasion != nonce:
        refuse("the key binding is for another occasion", occasion)
    return claims
