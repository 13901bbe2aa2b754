"""SD-JWT as RFC 9901 has it: any choice of claims verifies as that choice, and nothing else verifies at all."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwk

from assay.disclose import jose
from assay.disclose.sdjwt import Disclosure, Verified, present, sign, verify
from assay.errors import BadData, NotVerified

RFC = json.loads((Path(__file__).parent / "fixtures" / "rfc9901.json").read_text(encoding="utf-8"))
KEY, HOLDER, STRANGER = (
    jwk.OKPKey.generate_key("Ed25519", auto_kid=False, parameters={"use": "sig"}) for _ in range(3)
)
TYP, NOW = "assay-test+sd-jwt", 1_800_000_000
CNF = {"cnf": {"jwk": {name: HOLDER.as_dict(private=False)[name] for name in ("kty", "crv", "x")}}}
NAMES = st.text(max_size=8).filter(lambda name: name not in ("_sd", "...", "_sd_alg"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def b64(data: bytes | str) -> str:
    return base64.urlsafe_b64encode(data.encode() if isinstance(data, str) else data).rstrip(b"=").decode()


def digest(text: str) -> str:
    return b64(hashlib.sha256(text.encode()).digest())


def jwt(payload: object, header: object = None, key: jwk.OKPKey = KEY) -> str:
    """Signed whatever it says; text and bytes are taken as they are."""
    parts = [{"alg": "Ed25519", "typ": TYP} if header is None else header, payload]
    head, body = (b64(part if isinstance(part, str | bytes) else json.dumps(part)) for part in parts)
    return f"{head}.{body}.{b64(key.private_key.sign(f'{head}.{body}'.encode()))}"


def alone(payload: object, header: object = None, key: jwk.OKPKey = KEY) -> str:
    return jwt(payload, header, key) + "~"


def read(text: str | bytes, **how: Any) -> Verified:
    return verify(text, KEY, **{"typ": TYP, "now": NOW, "audience": "them", **how})


def element(*items: Disclosure) -> dict[str, object]:
    return {"claims": [{"...": item.digest} for item in items]}


def bound(text: str, header: object = None, key: jwk.OKPKey = HOLDER, **claims: object) -> str:
    said = {"iat": NOW, "aud": "them", "nonce": "n", "sd_hash": digest(text), **claims}
    return text + jwt(
        {name: value for name, value in said.items() if value is not None},
        {"alg": "Ed25519", "typ": "kb+jwt"} if header is None else header,
        key,
    )


def refused(text: str | bytes, **how: Any) -> str:
    """What the one error says."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotVerified) as caught:
            read(text, **how)
    assert type(caught.value) is NotVerified
    assert len(str(caught.value)) < 1000
    return caught.value.what


# ---- laws


@given(st.lists(JSON, max_size=5), st.dictionaries(NAMES, JSON, max_size=5), st.data())
def test_any_subset_is_what_verifies(elements: list[Any], named: dict[str, Any], data: st.DataObject) -> None:
    hidden = [Disclosure.make(value) for value in elements]
    properties = [Disclosure.make(value, name) for name, value in named.items()]
    shuffled = data.draw(st.permutations([item.digest for item in properties]))
    signed = sign({**element(*hidden), "about": {"_sd": shuffled}, "iat": NOW}, KEY, typ=TYP)
    everything = [*hidden, *properties]
    kept = [item for item in everything if data.draw(st.booleans())]
    holder = HOLDER if data.draw(st.booleans()) else None
    if holder:
        signed = sign({**element(*hidden), "about": {"_sd": shuffled}, "iat": NOW, **CNF}, KEY, typ=TYP)
    shown = data.draw(st.permutations(kept))
    text = present(signed, shown, holder=holder, audience="them", nonce="n", at=NOW)
    found = read(text.encode() if data.draw(st.booleans()) else text, bound=holder is not None, nonce="n")
    assert found.payload == {
        "claims": [item.value for item in hidden if item in kept],
        "about": {item.name: item.value for item in properties if item in kept},
        "iat": NOW,
        **(CNF if holder else {}),
    }
    assert found.undisclosed == len(everything) - len(kept)
    assert found.disclosures == tuple(shown)
    assert found.jwt == signed
    assert (found.binding is None) is (holder is None)


@given(JSON, st.none() | NAMES)
def test_a_disclosure_reads_back(value: Any, name: str | None) -> None:
    made = Disclosure.make(value, name)
    assert Disclosure.read(made.text) == made
    assert made.value == value
    assert made.digest == digest(made.text)


def test_salts_are_128_bits_and_fresh() -> None:
    salts = {Disclosure.make("same").salt for _ in range(50)}
    assert len(salts) == 50
    assert {len(base64.urlsafe_b64decode(f"{salt}==")) for salt in salts} == {16}


def test_disclosures_nest_and_the_inner_needs_the_outer() -> None:
    inner = Disclosure.make("deep", "leaf")
    outer = Disclosure.make([{"...": (middle := Disclosure.make({"_sd": [inner.digest]})).digest}], "list")
    signed = sign({"_sd": [outer.digest], "_sd_alg": "sha-256"}, KEY, typ=TYP)
    whole = read(present(signed, [inner, outer, middle]))
    assert (whole.payload, whole.undisclosed) == ({"list": [{"leaf": "deep"}]}, 0)
    assert whole.signed == {"_sd": [outer.digest], "_sd_alg": "sha-256"}
    part = read(present(signed, [outer]))
    assert (part.payload, part.undisclosed) == ({"list": []}, 1)
    with pytest.raises(NotVerified, match="opens no digest"):
        present(signed, [inner])


def test_ten_thousand_claims_are_read_again() -> None:
    claims = [Disclosure.make({"effect": 0.5}) for _ in range(10_000)]  # past joserfc's own limit of size
    signed = sign(element(*claims), KEY, typ=TYP)
    found = read(present(signed, claims[::2]))
    assert (len(found.payload["claims"]), found.undisclosed) == (5000, 5000)


def test_headers_and_algorithm() -> None:
    signed = sign({"iat": NOW}, KEY, typ=TYP, headers={"kid": "first", "of-my-own": [1]})
    assert read(f"{signed}~").header == {"alg": "Ed25519", "typ": TYP, "kid": "first", "of-my-own": [1]}


def test_nothing_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        signed = sign(CNF, KEY, typ=TYP)
        read(present(signed, [], holder=HOLDER, audience="them", nonce="n", at=NOW))


# ---- the standard's own examples


@pytest.mark.parametrize("case", RFC["tokens"], ids=lambda case: f"{case['section']} {case['what']}")
def test_rfc_9901_token(case: dict[str, Any]) -> None:
    issuer, how = jwk.import_key(RFC["keys"]["issuer"]), {"typ": None, "algorithms": ("ES256",), "now": RFC["now"]}
    with_binding = "key binding" in case["what"]
    text = case["token"] if isinstance(case["token"], str) else json.dumps(case["token"], indent=2)
    asked = {"audience": RFC["audience"], "nonce": RFC["nonce"]}
    found = verify(text, issuer, bound=with_binding, **asked, **how)
    assert found.payload == case["payload"]
    assert found.undisclosed == case["undisclosed"]
    assert (found.binding is not None) is with_binding
    with pytest.raises(NotVerified):
        verify(text, issuer, bound=not with_binding, **asked, **how)
    with pytest.raises(NotVerified):
        verify(text, jwk.import_key(RFC["keys"]["holder"]), bound=with_binding, **asked, **how)
    if with_binding:
        with pytest.raises(NotVerified, match="another audience"):
            verify(text, issuer, audience="https://other.example.org", **how)
        with pytest.raises(NotVerified, match="another occasion"):
            verify(text, issuer, audience=RFC["audience"], nonce="0", **how)


@pytest.mark.parametrize("case", RFC["digests"], ids=lambda case: f"{case['section']} {case['what']}")
def test_rfc_9901_digest(case: dict[str, str]) -> None:
    assert Disclosure.read(case["text"]).digest == case["digest"]


def test_rfc_9901_spellings_of_one_claim_are_different_disclosures() -> None:
    found = [Disclosure.read(text) for text in RFC["spellings"]["texts"]]
    assert {(item.name, item.value) for item in found} == {("family_name", "Möbius")}
    assert len({item.digest for item in found}) == 4


# ---- JWS JSON serialization


def in_json(text: str, *, general: bool = False) -> dict[str, Any]:
    head, *shown, binding = text.split("~")
    protected, payload, signature = head.split(".")
    header = {"disclosures": shown} | ({"kb_jwt": binding} if binding else {})
    member = {"protected": protected, "signature": signature, "header": header}
    return {"payload": payload, "signatures": [member]} if general else {"payload": payload, **member}


@pytest.mark.parametrize("general", [False, True])
def test_json_says_what_compact_says(general: bool) -> None:
    items = [Disclosure.make(number) for number in range(3)]
    text = present(sign({**element(*items), **CNF}, KEY, typ=TYP), items[:2], holder=HOLDER, audience="them", nonce="n")
    token = in_json(text, general=general)
    assert read(json.dumps(token), bound=True, now=None) == read(text, bound=True, now=None)
    del (token["signatures"][0] if general else token)["header"]["disclosures"]
    assert refused(json.dumps(token), now=None) == "the key binding is for other disclosures than these"


A, B = Disclosure.make("a", salt="salt"), Disclosure.make("b", "b", salt="salt")
PLAIN = present(jwt({**element(A), **CNF}), [A])
BOUND = bound(PLAIN)


def changed(change: Callable[[dict[str, Any]], object], *, general: bool = True, text: str = BOUND) -> str:
    token = in_json(text, general=general)
    change(token)
    return json.dumps(token)


def other(**header: object) -> dict[str, Any]:
    return {**in_json(PLAIN), "header": header} | {"payload": None}


IN_JSON = {
    "disclosures at the top, as in drafts": (
        lambda: changed(lambda t: t.update(disclosures=[]), general=False),
        "outside its header",
    ),
    "key binding at the top, as in drafts": (lambda: changed(lambda t: t.update(kb_jwt="")), "outside its header"),
    "both forms": (lambda: changed(lambda t: t.update(signature="AA")), "both flattened and general"),
    "no signatures": (lambda: changed(lambda t: t.update(signatures=[])), "neither flattened nor general"),
    "no payload": (lambda: changed(lambda t: t.pop("payload")), "neither flattened nor general"),
    "a payload that is no text": (lambda: changed(lambda t: t.update(payload=1)), "neither flattened nor general"),
    "no protected header": (
        lambda: changed(lambda t: t.pop("protected"), general=False),
        "a signature without its protected header",
    ),
    "a second signature that is none": (
        lambda: changed(lambda t: t["signatures"].append(None)),
        "a signature without its protected header",
    ),
    "a second signature in no base64url": (
        lambda: changed(lambda t: t["signatures"].append(other() | {"signature": "A"})),
        "a signature is no base64url",
    ),
    "disclosures beside the second signature": (
        lambda: changed(lambda t: t["signatures"].append(other(disclosures=[A.text]))),
        "beside another signature",
    ),
    "a key binding beside the second signature": (
        lambda: changed(lambda t: t["signatures"].append(other(kb_jwt="x"))),
        "beside another signature",
    ),
    "an unprotected alg": (lambda: changed(lambda t: t["header"].update(alg="none"), general=False), "may not say"),
    "an unprotected crit": (lambda: changed(lambda t: t["header"].update(crit=[]), general=False), "may not say"),
    "a header that is none": (lambda: changed(lambda t: t.update(header=[]), general=False), "may not say this"),
    "disclosures that are no list": (
        lambda: changed(lambda t: t["header"].update(disclosures=A.text), general=False),
        "no list of texts",
    ),
    "a disclosure that is no text": (
        lambda: changed(lambda t: t["header"].update(disclosures=[1]), general=False),
        "no list of texts",
    ),
    "two disclosures in one text": (
        lambda: changed(
            lambda t: t["header"].update(disclosures=["~".join([A.text, B.text])], kb_jwt=None) or t, general=False
        ),
        "a key binding is no text",
    ),
    "a joined disclosure": (
        lambda: changed(lambda t: t["header"].update(disclosures=[f"{A.text}~{B.text}"]), general=False, text=PLAIN),
        "a disclosure is no base64url as it must be written",
    ),
    "an empty key binding": (
        lambda: changed(lambda t: t["header"].update(kb_jwt=""), general=False),
        "a key binding is no text",
    ),
    "one member twice": (lambda: changed(lambda t: t, general=False)[:-1] + ', "payload": ""}', "no JSON that can"),
    "the signature of another key first": (
        lambda: changed(
            lambda t: t.update(signatures=[in_json(alone({}, key=STRANGER)), {**in_json(alone({})), "header": {}}]),
            text=alone({}),
        ),
        "does not hold",
    ),
}


@pytest.mark.parametrize("name", IN_JSON)
def test_forbidden_in_json(name: str) -> None:
    make, what = IN_JSON[name]
    assert what in refused(make())


def test_further_signatures_vouch_for_nothing_and_hinder_nothing() -> None:
    text = changed(lambda t: t["signatures"].append({**in_json(PLAIN), "header": {"kid": "x"}, "payload": None}))
    assert read(text, bound=True).payload["claims"] == ["a"]
    assert read(changed(lambda t: t.update(extra=1)), bound=True).payload["claims"] == ["a"]


# ---- what must be refused, each by its own check


def spelled(*content: object) -> str:
    return b64(json.dumps(content))


def opening(payload: object, *texts: str) -> str:
    return "~".join((jwt(payload), *texts, ""))


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


D = digest("nothing")
ODD = "a name with a meaning of its own, where it has none"
FORBIDDEN: dict[str, tuple[Callable[[], str | bytes], str]] = {
    # digests and disclosures: sections 4.2 and 7.1
    "a digest twice in an array": (lambda: opening({"x": [{"...": D}, {"...": D}]}), "one digest twice"),
    "a digest twice in _sd": (lambda: opening({"_sd": [D, D]}), "one digest twice"),
    "a digest twice in two places": (lambda: opening({"_sd": [D], "x": [[{"...": D}]]}), "one digest twice"),
    "a digest again inside a disclosure": (
        lambda: opening({"_sd": [digest(t := spelled("s", "x", {"_sd": [D]})), D]}, t),
        "one digest twice",
    ),
    "a disclosure that opens nothing": (lambda: opening(element(A), A.text, B.text), "opens no digest"),
    "a disclosure twice": (lambda: opening(element(A), A.text, A.text), "one disclosure twice"),
    "a disclosed _sd": (lambda: opening({"_sd": [digest(t := spelled("s", "_sd", []))]}, t), "is not [salt, value]"),
    "a disclosed ...": (lambda: opening({"_sd": [digest(t := spelled("s", "...", D))]}, t), "is not [salt, value]"),
    "a disclosed _sd_alg": (lambda: opening({"_sd": [digest(t := spelled("s", "_sd_alg", 1))]}, t), "is not [salt"),
    "a claim already there": (lambda: opening({"_sd": [B.digest], "b": 1}, B.text), "there already"),
    "one claim by two disclosures": (
        lambda: opening({"_sd": [B.digest, digest(t := spelled("other", "b", 2))]}, B.text, t),
        "there already",
    ),
    "a property where an element belongs": (lambda: opening(element(B), B.text), "of the other kind"),
    "an element where a property belongs": (lambda: opening({"_sd": [A.digest]}, A.text), "of the other kind"),
    "_sd that is no list": (lambda: opening({"_sd": D}), "_sd is no list"),
    "_sd of numbers": (lambda: opening({"_sd": [1]}), "not the base64url of 32 bytes"),
    "a digest too short": (lambda: opening({"_sd": [D[:-1]]}), "not the base64url of 32 bytes"),
    "a digest with bits to spare set": (lambda: opening({"x": [{"...": "A" * 42 + "B"}]}), "of 32 bytes"),
    "a digest and a newline": (lambda: opening({"_sd": [D + "\n"]}), "of 32 bytes"),
    "a placeholder with more in it": (lambda: opening({"x": [{"...": D, "y": 1}]}), "with something beside it"),
    "a placeholder of null": (lambda: opening({"x": [{"...": None}]}), "of 32 bytes"),
    "a placeholder outside an array": (lambda: opening({"x": {"...": D}}), ODD),
    "... at the top": (lambda: opening({"...": D}), ODD),
    "_sd_alg below the top": (lambda: opening({"x": {"_sd_alg": "sha-256"}}), ODD),
    "an element that is itself a placeholder": (
        lambda: opening({"x": [{"...": digest(t := spelled("s", {"...": D}))}]}, t),
        ODD,
    ),
    "_sd_alg unknown": (lambda: opening({"_sd_alg": "sha-512"}), "another kind than sha-256"),
    "_sd_alg null": (lambda: opening({"_sd_alg": None}), "another kind than sha-256"),
    "a disclosure of one part": (lambda: opening({}, spelled("s")), "is not [salt, value]"),
    "a disclosure of four parts": (lambda: opening({}, spelled("s", "n", 1, 2)), "is not [salt, value]"),
    "a salt that is no text": (lambda: opening({}, spelled(1, 2)), "is not [salt, value]"),
    "a name that is no text": (lambda: opening({}, spelled("s", 1, 2)), "is not [salt, value]"),
    "a disclosure that is an object": (lambda: opening({}, b64('{"a": 1}')), "is not [salt, value]"),
    "an empty disclosure": (lambda: opening({}, ""), "no base64url as it must be"),
    # base64url and JSON
    "padding": (lambda: opening(element(A), A.text + "="), "no base64url as it must be"),
    "bits to spare set": (lambda: opening({}, b64('["s",12]')[:-1] + "1"), "no base64url as it must be"),
    "the other alphabet": (lambda: opening({}, "++//"), "no base64url as it must be"),
    "a newline in base64url": (lambda: opening(element(A), A.text[:4] + "\n" + A.text[4:]), "no base64url as it must"),
    "a letter that is none": (lambda: opening({}, "é" * 4), "a disclosure is no base64url"),
    "a length that none has": (lambda: opening({}, "AAAAA"), "a disclosure is no base64url"),
    "a name twice in a disclosure": (lambda: opening({}, b64('["s",{"a":1,"a":1}]')), "no JSON that can be read"),
    "a name twice in the payload": (lambda: alone('{"a":1,"a":2}'), "no JSON that can be read"),
    "a name twice in the header": (
        lambda: alone({}, '{"alg":"none","alg":"Ed25519"}'),
        "no JSON that can be read",
    ),
    "NaN": (lambda: alone('{"a":NaN}'), "no JSON that can be read"),
    "Infinity": (lambda: opening({}, b64('["s",-Infinity]')), "no JSON that can be read"),
    "a number that overflows": (lambda: alone('{"a":1e999}'), "no JSON that can be read"),
    "a number of 5,000 digits": (lambda: alone('{"a":' + "9" * 5000 + "}"), "no JSON that can be read"),
    "bad UTF-8 in the payload": (lambda: alone(b'{"a":"\xff"}'), "no JSON that can be read"),
    "UTF-16": (lambda: alone("{}".encode("utf-16")), "no JSON that can be read"),
    "a byte order mark": (lambda: alone(b"\xef\xbb\xbf{}"), "no JSON that can be read"),
    "a lone surrogate": (lambda: alone('{"a":"\\ud800"}'), "no JSON that can be read"),
    "a lone surrogate, disclosed": (lambda: opening({}, b64('["s","\\uDFFF"]')), "no JSON that can be read"),
    "nested too deep": (lambda: alone('{"a":' + deep(64) + "}"), "no JSON that can be read"),
    "a header nested too deep": (
        lambda: alone({}, {"alg": "Ed25519", "typ": TYP, "x": json.loads(deep(64))}),
        "no JSON",
    ),
    "nested without end": (lambda: alone("[" * 100_000), "no JSON that can be read"),
    "a disclosure nested without end": (lambda: opening({}, b64(deep(50_000))), "no JSON that can be read"),
    "nested too deep by disclosures": (lambda: nested(65), "nested more than 64 deep"),
    "a payload that is no object": (lambda: alone([]), "the payload of the issuer's JWT is no JSON object"),
    "a header that is no object": (lambda: alone({}, []), "the header of the issuer's JWT is no JSON object"),
    "trailing text after JSON": (lambda: alone("{} {}"), "no JSON that can be read"),
    # the form
    "no ~ at all": (lambda: jwt({}), "without a ~"),
    "two parts": (lambda: "e30.e30~", "has not three parts"),
    "four parts": (lambda: f"{jwt({})}.e30~", "has not three parts"),
    "nothing": (lambda: "", "without a ~"),
    "bytes that are no UTF-8": (lambda: b"\xff\xfe", "no UTF-8"),
    "text with a lone surrogate": (lambda: "\ud800", "no UTF-8"),
    "a header too long": (lambda: alone({}, {"alg": "Ed25519", "typ": TYP, "x": "y" * 20_000}), "is too long"),
    # the issuer's JWT
    "alg none": (lambda: alone({}, {"alg": "none", "typ": TYP}), "is not signed with Ed25519"),
    "alg EdDSA": (lambda: alone({}, {"alg": "EdDSA", "typ": TYP}), "is not signed with Ed25519"),
    "no alg": (lambda: alone({}, {"typ": TYP}), "is not signed with Ed25519"),
    "an alg that is a list": (lambda: alone({}, {"alg": ["Ed25519"], "typ": TYP}), "is not signed with Ed25519"),
    "another typ": (lambda: alone({}, {"alg": "Ed25519", "typ": "kb+jwt"}), "a token of another type"),
    "no typ": (lambda: alone({}, {"alg": "Ed25519"}), "a token of another type"),
    "crit": (lambda: alone({}, {"alg": "Ed25519", "typ": TYP, "crit": ["exp"], "exp": 1}), "asks for extensions"),
    "b64": (lambda: alone({}, {"alg": "Ed25519", "typ": TYP, "b64": False}), "asks for extensions"),
    "another key": (lambda: alone({}, key=STRANGER), "the signature of the issuer's JWT does not hold"),
    "no signature": (lambda: jwt({}).rsplit(".", 1)[0] + ".~", "the signature of the issuer's JWT is no base64url"),
    "a padded signature": (lambda: f"{jwt({})}==~", "the signature of the issuer's JWT is no base64url"),
    "expired": (lambda: alone({"exp": NOW - 60}), "the token is no longer valid"),
    "not yet valid": (lambda: alone({"nbf": NOW + 61}), "the token is not yet valid"),
    "issued tomorrow": (lambda: alone({"iat": NOW + 61.5}), "the token is not yet valid"),
    "an exp that is true": (lambda: alone({"exp": True}), "exp of the token is no time"),
    "an exp that is text": (lambda: alone({"exp": "1"}), "exp of the token is no time"),
    "an exp that is disclosed": (
        lambda: opening({"_sd": [digest(t := spelled("s", "exp", 1))]}, t),
        "the token is no longer valid",
    ),
    "for another audience": (lambda: alone({"aud": ["you", "me"]}), "for another audience"),
    # key binding: sections 4.3 and 7.3
    "a binding by another key": (lambda: bound(PLAIN, key=STRANGER), "the signature of the key binding does not hold"),
    "a binding by the issuer": (lambda: bound(PLAIN, key=KEY), "the signature of the key binding does not hold"),
    "a binding that is no JWT": (lambda: PLAIN + "x", "has not three parts"),
    "a binding of another typ": (lambda: bound(PLAIN, {"alg": "Ed25519", "typ": "JWT"}), "another type than 'kb+jwt'"),
    "a binding with alg none": (lambda: bound(PLAIN, {"alg": "none", "typ": "kb+jwt"}), "key binding is not signed"),
    "a binding with crit": (lambda: bound(PLAIN, {"alg": "Ed25519", "typ": "kb+jwt", "crit": []}), "extensions"),
    "a disclosure dropped": (
        lambda: PLAIN.split("~", 1)[0] + "~" + BOUND.rsplit("~", 1)[1],
        "is for other disclosures than these",
    ),
    "a binding to another token": (lambda: bound(PLAIN, sd_hash=D), "is for other disclosures than these"),
    "a binding for others": (lambda: bound(PLAIN, aud="you"), "the key binding is for another audience"),
    "a binding for a list": (lambda: bound(PLAIN, aud=["them"]), "without sd_hash, aud, nonce and iat"),
    "a binding of another occasion": (lambda: bound(PLAIN, nonce="m"), "for another occasion"),
    "a binding without nonce": (lambda: bound(PLAIN, nonce=None), "without sd_hash, aud, nonce and iat"),
    "a binding without iat": (lambda: bound(PLAIN, iat=None), "without sd_hash, aud, nonce and iat"),
    "a binding without sd_hash": (lambda: bound(PLAIN, sd_hash=None), "without sd_hash, aud, nonce and iat"),
    "a binding from tomorrow": (lambda: bound(PLAIN, iat=NOW + 61), "the key binding is not yet valid"),
    "a binding from before the token": (
        lambda: bound(alone({**CNF, "iat": NOW}), iat=NOW - 61),
        "from too long ago",
    ),
    "a binding that has expired": (lambda: bound(PLAIN, exp=NOW - 60), "the key binding is no longer valid"),
    "a binding whose time is none": (lambda: bound(PLAIN, iat="now"), "iat of the key binding is no time"),
    "a binding without cnf": (lambda: bound(alone({})), "without a public key in cnf"),
    "a binding to a kid": (lambda: bound(alone({"cnf": {"kid": "x"}})), "without a public key in cnf"),
    "a binding to a shared secret": (
        lambda: bound(alone({"cnf": {"jwk": {"kty": "oct", "k": "AAAA"}}})),
        "without a public key in cnf",
    ),
    "a private key in cnf": (
        lambda: bound(alone({"cnf": {"jwk": HOLDER.as_dict(private=True)}})),
        "without a public key in cnf",
    ),
    "a cnf that is no key": (
        lambda: bound(alone({"cnf": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": 5}}})),
        "the key in cnf is none",
    ),
}


def nested(levels: int) -> str:
    """Disclosures in each other, none of which is deep by itself."""
    texts, value = [], 0
    for _ in range(levels):
        texts.append(spelled("s", [value] if not texts else [{"...": digest(texts[-1])}]))
    return opening({"x": [{"...": digest(texts[-1])}]}, *texts)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_forbidden(name: str) -> None:
    make, what = FORBIDDEN[name]
    assert what in refused(make(), nonce="n")


def test_what_stands_just_inside_the_limits() -> None:
    assert read(alone('{"a":' + deep(63) + "}")).payload["a"]
    assert read(nested(62)).payload["x"]
    assert read(alone({"exp": NOW - 59, "nbf": NOW + 60, "iat": NOW + 60.0, "aud": ["you", "them"]}))
    assert read(alone({"exp": NOW + 1}), leeway=0)
    assert read(alone({"exp": 10**4000}))
    assert read(alone('{"a":"\\ud83d\\ude00"}')).payload == {"a": "😀"}
    assert read(alone({"_sd": []})).payload == {}
    assert read(bound(PLAIN, iat=NOW - 10**9), bound=True).binding is not None
    assert read(BOUND, audience=None).binding == read(BOUND, bound=True).binding


def test_what_the_caller_asks_for() -> None:
    assert "without key binding" in refused(PLAIN, bound=True)
    assert "with key binding, where none is allowed" in refused(BOUND, bound=False)
    assert "for nobody" in refused(BOUND, bound=True, audience=None)
    assert "from too long ago" in refused(bound(PLAIN, iat=NOW - 3661), max_age=3600)
    assert read(bound(PLAIN, iat=NOW - 3660), max_age=3600).binding
    assert "from too long ago" in refused(bound(alone({**CNF, "iat": NOW}), iat=NOW - 61), max_age=3600)
    assert "for another audience" in refused(alone({"aud": "them"}), audience=None)
    assert "not signed with ES256" in refused(PLAIN, algorithms=("ES256",))
    assert "not signed with any algorithm known" in refused(PLAIN, algorithms=())
    assert "not signed with any algorithm known" in refused(PLAIN, algorithms=("none", "HS256"))
    assert "not signed with any algorithm known" in refused(alone({}, {"alg": "none"}), algorithms=("none",))
    assert "not signed with any algorithm known" in refused(alone({}, {"alg": "E"}), algorithms="Ed")
    assert read(PLAIN, typ=None, algorithms="Ed25519")
    assert "of another type" in refused(alone({}, {"alg": "Ed25519", "typ": "JWT"}), typ=None)
    assert "does not hold" in refused(alone({}, {"alg": "Ed25519", "typ": 7}), typ=None)  # joserfc minds first
    for nothing in (None, 10**12, ["{}"], object()):
        assert "no UTF-8" in refused(nothing)  # type: ignore[arg-type]


def test_sizes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jose, "MAX_BYTES", 500)
    assert refused("x" * 501) == "a token of more than 500 bytes"
    with pytest.raises(BadData, match="too large"):
        sign({"x": "y" * 300}, KEY, typ=TYP)
    with pytest.raises(BadData, match="too large"):
        sign({}, KEY, typ=TYP, headers={"x": "y" * jose.MAX_HEADER})


def test_the_stack_may_be_short() -> None:
    def below(levels: int) -> str:
        return below(levels - 1) if levels else refused(nested(62), audience=None)

    import sys

    depth, frame = 0, sys._getframe()
    while frame.f_back:
        depth, frame = depth + 1, frame.f_back
    assert below(sys.getrecursionlimit() - depth - 60)


# ---- writing


NO_JSON = {
    "nan": float("nan"),
    "inf": float("inf"),
    "set": {1},
    "surrogate": "\ud800",
    "one name twice": {1: 1, "1": 2},
}


@pytest.mark.parametrize("value", [*NO_JSON.values(), 10**5000], ids=[*NO_JSON, "long"])
def test_what_has_no_json_form_is_not_disclosed(value: object) -> None:
    with pytest.raises(BadData, match="a claim cannot be written"):
        Disclosure.make(value)
    with pytest.raises(BadData, match="a payload cannot be written"):
        sign({"x": value}, KEY, typ=TYP)


@pytest.mark.parametrize("name", ["_sd", "...", "_sd_alg"])
def test_names_with_a_meaning_are_not_disclosed(name: str) -> None:
    with pytest.raises(BadData, match="a claim cannot be written"):
        Disclosure.make(1, name)


def test_what_could_not_be_read_is_not_signed() -> None:
    loop: list[object] = []
    loop.append(loop)
    for payload in ({"_sd": [D, D]}, {"x": [{"...": 1}]}, {"_sd_alg": "md5"}, {"x": loop}, {"x": json.loads(deep(70))}):
        with pytest.raises(BadData, match="a payload cannot be written"):
            sign(payload, KEY, typ=TYP)
    for headers in ({"alg": "none"}, {"typ": "x"}, {"crit": []}, {"b64": True}):
        with pytest.raises(BadData, match="cannot be signed so"):
            sign({}, KEY, typ=TYP, headers=headers)
    with pytest.raises(BadData, match="cannot be signed so"):
        sign({}, jwk.OctKey.generate_key(256, auto_kid=False), typ=TYP)
    with pytest.raises(BadData, match="a header cannot be written"):
        sign({}, KEY, typ=TYP, headers={"x": float("nan")})
    with pytest.raises(BadData, match="a key cannot sign"):
        sign({}, jwk.import_key(CNF["cnf"]["jwk"]), typ=TYP)


def test_what_does_not_fit_is_not_presented() -> None:
    signed = sign(element(A), KEY, typ=TYP)
    with pytest.raises(NotVerified, match="opens no digest"):
        present(signed, [B])
    with pytest.raises(NotVerified, match="one disclosure twice"):
        present(signed, [A, A.text])
    with pytest.raises(NotVerified, match="no base64url"):
        present(signed, ["§"])
    with pytest.raises(NotVerified, match="has not three parts"):
        present("x", [])
    with pytest.raises(BadData, match="for nobody"):
        present(signed, [A], holder=HOLDER, audience="them")
    with pytest.raises(BadData, match="for nobody"):
        present(signed, [A], holder=HOLDER, nonce="n")
    with pytest.raises(BadData, match="a key binding cannot be written"):
        present(signed, [A], holder=HOLDER, audience="\ud800", nonce="n")


# ---- whatever the bytes are


def test_every_byte_counts() -> None:
    text, drawn = BOUND, random.Random(0)
    for place in range(len(text)):
        for letter in drawn.sample("AZaz09-_~.={ \n", 3):
            if letter != text[place]:
                refused(text[:place] + letter + text[place + 1 :], bound=True)
        refused(text[:place] + text[place + 1 :], bound=True)


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_random_input_is_refused_with_the_one_error(text: bytes | str) -> None:
    refused(text)


@settings(max_examples=300)
@given(st.lists(st.sampled_from([*BOUND.split("~"), *PLAIN.split("."), "", "{", "~", ".", "e30", "W10"]), max_size=8))
def test_mixed_up_pieces_are_refused_with_the_one_error(pieces: list[str]) -> None:
    text = "~".join(pieces)
    if text not in (PLAIN, BOUND, f"{PLAIN.split('~')[0]}~"):
        refused(text)


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.just(D)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["_sd", "...", "_sd_alg", "cnf", "jwk", "kty", "exp", "aud", "a"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(["_sd", "x", "cnf", "iat", "exp", "aud", "_sd_alg"]), ANY), ANY, ANY)
def test_anything_signed_is_read_or_refused_with_the_one_error(payload: Any, header: Any, disclosed: Any) -> None:
    head = {"alg": "Ed25519", "typ": TYP} | (header if isinstance(header, dict) else {})
    shown = spelled("salt", disclosed)
    text = "~".join((jwt({**payload, "list": [{"...": digest(shown)}]}, head), shown, ""))
    for token in (text, bound(text), json.dumps({**in_json(text), "header": {"disclosures": disclosed, "x": header}})):
        with suppress(NotVerified):
            read(token)


# ---- another implementation. It ignores what it does not know, so it judges only what is right.


def test_the_python_package_reads_what_we_write() -> None:
    from jwcrypto.jwk import JWK
    from sd_jwt.verifier import SDJWTVerifier

    key, holder = jwk.ECKey.generate_key("P-256"), jwk.ECKey.generate_key("P-256")
    items, named = [Disclosure.make({"effect": number}) for number in range(4)], Disclosure.make([1, None], "named")
    cnf = {"cnf": {"jwk": holder.as_dict(private=False)}}
    signed = sign({**element(*items), "_sd": [named.digest], **cnf}, key, typ=TYP)
    text = present(signed, [items[2], named, items[0]], holder=holder, audience="them", nonce="n")
    public = JWK(**key.as_dict(private=False))
    theirs = SDJWTVerifier(text, lambda *_: public, "them", "n").get_verified_payload()
    ours = verify(text, key, typ=TYP, algorithms=("ES256",), audience="them", nonce="n", bound=True)
    assert theirs == ours.payload
    assert ours.payload["claims"] == [{"effect": 2}, {"effect": 0}][::-1]


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers() | st.text(max_size=5)), st.lists(st.integers()), st.data()
)
def test_we_read_what_the_python_package_writes(named: dict[str, Any], listed: list[int], data: st.DataObject) -> None:
    from jwcrypto.jwk import JWK
    from sd_jwt.common import SDObj
    from sd_jwt.holder import SDJWTHolder
    from sd_jwt.issuer import SDJWTIssuer

    private = JWK(**KEY.as_dict(private=True))
    claims = {SDObj(name): value for name, value in named.items()} | {"list": [SDObj(value) for value in listed]}
    issued = SDJWTIssuer(claims, private, sign_alg="Ed25519", extra_header_parameters={"typ": TYP}).sd_jwt_issuance
    assert read(issued).payload == {**named, "list": listed}
    keep = {name: True for name in named if data.draw(st.booleans())}
    shown = [data.draw(st.booleans()) for _ in listed]
    theirs = SDJWTHolder(issued)
    theirs.create_presentation({**keep, "list": shown})
    found = read(theirs.sd_jwt_presentation)
    assert found.payload == {
        **{name: named[name] for name in keep},
        "list": [value for value, kept in zip(listed, shown, strict=True) if kept],
    }
    assert found.undisclosed == len(named) - len(keep) + shown.count(False)
