"""Assay's tokens against two other implementations of SD-JWT, both ways: `@sd-jwt/core` (Node) and `sd-jwt` (Python).

It needs Node 20, and npm's registry the first time.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from joserfc import jwk
from jwcrypto.jwk import JWK
from sd_jwt.common import SDObj
from sd_jwt.holder import SDJWTHolder
from sd_jwt.issuer import SDJWTIssuer
from sd_jwt.verifier import SDJWTVerifier

from assay.disclose.sdjwt import Disclosure, present, sign, verify
from assay.errors import NotVerified
from reliability import Row

HERE = Path(__file__).parent
TYP, AUDIENCE, NONCE = "cross+sd-jwt", "https://verifier.example.org", "occasion-1"
CLAIMS = [{"text": "ä claim", "effect": 0.25}, "text", None, [1, [2]]]


def run(scale: float = 1.0) -> list[Row]:
    """What was checked, and how many of how many held."""
    return [*with_node(), *with_python()]


def with_node() -> list[Row]:
    """Ed25519 throughout, every subset of the claims, with key binding and without."""
    issuer, holder = _keys("Ed25519")
    ours = _written(issuer, holder)
    subsets = _subsets(range(len(CLAIMS)))
    binding = {"iat": int(time.time()), "aud": AUDIENCE, "nonce": NONCE}
    shown = [{"frame": _frame(kept), "kb": kb} for kept in subsets for kb in (None, binding)]
    cut = [{"text": "~".join(text.split("~")[:1] + text.split("~")[2:]), "nonce": NONCE} for text, _, kb in ours if kb]
    answer = _node(
        {
            "issuer": issuer.as_dict(private=True),
            "holder": holder.as_dict(private=True),
            "typ": TYP,
            "ours": [*({"text": text, "nonce": NONCE if kb else None} for text, _, kb in ours), *cut],
            "claims": {"claims": CLAIMS, "about": "x", "cnf": {"jwk": _public(holder)}},
            "frame": {"_sd": ["about"], "claims": {"_sd": list(range(len(CLAIMS)))}},
            "show": shown,
        }
    )
    name = f"@sd-jwt/core {json.loads((HERE / 'package.json').read_text())['dependencies']['@sd-jwt/core']}"
    read, refused = answer["read"][: len(ours)], answer["read"][len(ours) :]
    expected = [({"payload": payload, "binding": kb}) for _, payload, kb in ours]
    rows = [_row(f"our tokens read by {name}, with the same payload", map(_same, read, expected))]
    rows.append(_row(f"our tokens less a disclosure, refused by {name}", ["error" in item for item in refused]))
    for form in ("compact", "flattened", "general"):
        held = []
        for (kept, kb), written in zip(itertools.product(subsets, (False, True)), answer["written"], strict=True):
            found = _read(written[form], issuer, "Ed25519", bound=kb)
            held.append(found == [CLAIMS[index] for index in kept])
        rows.append(_row(f"tokens of {name} read by us, {form}", held))
    return rows


def with_python() -> list[Row]:
    """ES256 with key binding, since the package knows no other there; Ed25519 without."""
    name = f"sd-jwt {importlib.metadata.version('sd-jwt')} (Python)"
    rows = []
    for algorithm, curve, bindings in (("Ed25519", "Ed25519", (False,)), ("ES256", "P-256", (False, True))):
        issuer, holder = _keys(curve)
        public, private = JWK(**_public(issuer)), JWK(**issuer.as_dict(private=True))
        held = []
        for text, payload, kb in _written(issuer, holder):
            if kb is None or True in bindings:
                asked = (AUDIENCE, NONCE) if kb else (None, None)
                theirs = SDJWTVerifier(text, lambda *_, key=public: key, *asked)
                held.append(theirs.get_verified_payload() == payload)
        rows.append(_row(f"our tokens read by {name}, {algorithm}", held))
        claims = {"claims": [SDObj(claim) for claim in CLAIMS if not isinstance(claim, dict | list)]}
        held_by = JWK(**holder.as_dict(private=True))
        issued = SDJWTIssuer(
            claims, private, held_by, sign_alg=algorithm, extra_header_parameters={"typ": TYP}
        ).sd_jwt_issuance
        plain, held = [claim.value for claim in claims["claims"]], []
        for kept, kb in itertools.product(_subsets(range(len(plain))), bindings):
            theirs = SDJWTHolder(issued)
            bound = (NONCE, AUDIENCE, held_by) if kb else ()
            theirs.create_presentation({"claims": [index in kept for index in range(len(plain))]}, *bound)
            found = _read(theirs.sd_jwt_presentation, issuer, algorithm, bound=kb)
            held.append(found == [plain[index] for index in kept])
        rows.append(_row(f"tokens of {name} read by us, {algorithm}", held))
    return rows


def _keys(curve: str) -> tuple[jwk.Key, jwk.Key]:
    make: Callable[[], jwk.Key] = lambda: jwk.generate_key("OKP" if curve == "Ed25519" else "EC", curve, auto_kid=False)
    return make(), make()


def _public(key: jwk.Key) -> dict[str, Any]:
    return dict(key.as_dict(private=False))


def _subsets(items: range) -> list[tuple[int, ...]]:
    return [kept for size in range(len(items) + 1) for kept in itertools.combinations(items, size)]


def _written(issuer: jwk.Key, holder: jwk.Key) -> list[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """Our own tokens, what is in each, and what its holder signed."""
    hidden, about = [Disclosure.make(claim) for claim in CLAIMS], Disclosure.make("x", "about")
    payload = {"claims": [{"...": item.digest} for item in hidden], "_sd": [about.digest], "_sd_alg": "sha-256"}
    signed = sign({**payload, "cnf": {"jwk": _public(holder)}}, issuer, typ=TYP)
    made = []
    for kept, by in itertools.product(_subsets(range(len(hidden))), (None, holder)):
        text = present(signed, [about, *(hidden[index] for index in kept)], holder=by, audience=AUDIENCE, nonce=NONCE)
        algorithm = "Ed25519" if issuer.key_type == "OKP" else "ES256"
        found = verify(text, issuer, typ=TYP, algorithms=(algorithm,), audience=AUDIENCE)
        made.append((text, found.payload, found.binding))
    return made


def _frame(kept: tuple[int, ...]) -> dict[str, Any]:
    return {"claims": {str(index): True for index in kept}}


def _read(text: str, issuer: jwk.Key, algorithm: str, *, bound: bool) -> object:
    try:
        found = verify(text, issuer, typ=TYP, algorithms=(algorithm,), audience=AUDIENCE, nonce=NONCE, bound=bound)
    except NotVerified as error:
        return error.what
    return found.payload["claims"]


def _same(one: object, other: object) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _row(what: str, held: Iterable[bool]) -> Row:
    answers = list(held)
    return Row(what, f"{sum(answers)} of {len(answers)}", all(answers))


def _node(asked: dict[str, Any]) -> Any:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise RuntimeError("Node 20 with npm is not installed")
    if not (HERE / "node_modules" / "@sd-jwt" / "core").is_dir():
        how = ["install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run([npm, *how], cwd=HERE, check=True, timeout=300)
    done = subprocess.run(
        [node, "check.mjs"], cwd=HERE, input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)
