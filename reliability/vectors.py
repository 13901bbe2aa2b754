"""The examples of RFC 9901, read by Assay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from joserfc import jwk

from assay.disclose.sdjwt import Disclosure, verify
from assay.errors import NotVerified
from reliability import Row

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "rfc9901.json"


def run(scale: float = 1.0) -> list[Row]:
    """What was checked, and how many of how many held."""
    rfc = json.loads(FIXTURE.read_text(encoding="utf-8"))
    compact = [_holds(case, rfc) for case in rfc["tokens"] if isinstance(case["token"], str)]
    in_json = [_holds(case, rfc) for case in rfc["tokens"] if not isinstance(case["token"], str)]
    digests = [Disclosure.read(case["text"]).digest == case["digest"] for case in rfc["digests"]]
    return [
        _row("RFC 9901 vectors, compact", compact),
        _row("RFC 9901 vectors, JSON serialization", in_json),
        _row("RFC 9901 disclosures with their digests", digests),
    ]


def _holds(case: dict[str, Any], rfc: dict[str, Any]) -> bool:
    text = case["token"] if isinstance(case["token"], str) else json.dumps(case["token"])
    bound = "key binding" in case["what"]
    try:
        found = verify(
            text,
            jwk.import_key(rfc["keys"]["issuer"]),
            typ=None,
            algorithms=("ES256",),
            audience=rfc["audience"],
            nonce=rfc["nonce"],
            bound=bound,
            now=rfc["now"],
        )
    except NotVerified:
        return False
    return found.payload == case["payload"] and found.undisclosed == case["undisclosed"]


def _row(what: str, held: list[bool]) -> Row:
    return Row(what, f"{sum(held)} of {len(held)}", all(held))
