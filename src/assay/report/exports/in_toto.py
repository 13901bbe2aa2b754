"""A release as an in-toto attestation, for gates in a supply chain: about this model, an audit came to these verdicts.

A Statement v1 (in-toto attestation framework, spec/v1/statement.md) in a DSSE envelope (secure-systems-lab/dsse 1.0,
protocol.md), signed with Ed25519 by the key that signed the audit, or the one that signs its releases: by nobody else,
for the envelope would look like theirs.

Subjects are what the audit says it looked at: the manifest of the model's files (SHA-256 of Assay's canonical JSON of
names and digests), the model as loaded (Assay's fingerprint), and each file by itself, where the release shows the
manifest. A tool that matches files by digest then finds the audit by ``model.safetensors``.

The predicate's type is a URI of our own under ``.invalid``, which RFC 6761 keeps from ever being anyone's: a TypeURI
"may be unresolvable", needs an authority in lower case and a version, and one under a domain that is not ours could
come to mean something else. It carries verdicts and points at the release; it proves nothing without it, and a verdict
of *supported* says that a threat was found, not that a check passed.
"""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import OKPKey
from pydantic import JsonValue

from assay.disclose.keys import thumbprint
from assay.disclose.verify import Release
from assay.errors import BadData
from assay.report.exports.shown import Shown, is_sha256, json_bytes

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://assay.invalid/attestation/audit-release/v1"
PAYLOAD = "application/vnd.in-toto+json"
_RELEASE = "application/assay-audit+sd-jwt"


def in_toto(release: Release, sha256: str, key: OKPKey | None) -> bytes:
    """The envelope's bytes.

    Args:
        key: the private key of the auditor, or the one that signs releases.

    Raises:
        BadData: no key, a public one, or another's.
    """
    hint = "give the private key that signed the audit, the file that ends in .key"
    if key is None:
        raise BadData("an in-toto attestation is signed, and there is no key", hint=hint)
    secret = key.private_key if key.is_private else None
    if not isinstance(secret, Ed25519PrivateKey):
        raise BadData("an in-toto attestation is signed with a private Ed25519 key", hint=hint, found="another key")
    known = {release.key, thumbprint(OKPKey.import_key(release.signed.cnf["jwk"]))}  # type: ignore[arg-type]
    if thumbprint(key) not in known:
        raise BadData("this is not the key that signed the audit", hint=hint, found=thumbprint(key), wanted=release.key)
    payload = json_bytes(statement(release, sha256), indent=None)
    return json_bytes(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD,
            "signatures": [
                {"keyid": thumbprint(key), "sig": base64.b64encode(secret.sign(pae(PAYLOAD, payload))).decode()}
            ],
        }
    )


def pae(kind: str, body: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(body), body)


def statement(release: Release, sha256: str) -> dict[str, JsonValue]:
    """The statement, before it is signed."""
    shown = Shown(release, sha256)
    audit, signed = release.findings.audit, release.signed
    threats: list[JsonValue] = []
    for found, told in shown.threats:
        effect = found.effect
        threats.append(
            {
                "key": found.threat.key,
                "statement": found.threat.statement,
                "scope": found.threat.scope,
                "verdict": told,
                "because": found.because,
                "effect": None if effect is None else effect.model_dump(mode="json"),
            }
        )
    return {
        "_type": STATEMENT,
        "subject": _subjects(shown),
        "predicateType": PREDICATE,
        "predicate": {
            "release": {"name": "release", "digest": {"sha256": sha256}, "mediaType": _RELEASE},
            "credential": {"name": "credential", "digest": {"sha256": release.credential}},
            "auditor": {"keyThumbprint": release.key, "says": audit.auditor},
            "audience": release.audience,
            "releasedAt": shown.at,
            "problem": signed.problem,
            "question": audit.question,
            "policy": {
                "name": release.policy.policy.name, "digest": {"sha256": release.policy.policy.digest},
            },
            "items": {"shown": len(release.items), "total": signed.claims_total},
            "ledgerHead": release.findings.head,
            "tool": dict(signed.tool),
            "threats": threats,
        },
    }  # fmt: skip


def _subjects(shown: Shown) -> list[JsonValue]:
    signed, origin = shown.release.signed, shown.release.findings.origin
    named = {
        f"{shown.model} (manifest of its files)": signed.model.get("files"),
        f"{shown.model} (as loaded)": signed.model.get("fingerprint"),
        **({} if origin is None else origin.model_files),
    }
    subjects: list[JsonValue] = [
        {"name": name, "digest": {"sha256": digest}} for name, digest in named.items() if is_sha256(digest)
    ]
    if not subjects:
        raise BadData("the release names no digest of its model", hint="ask the auditor for a release that does")
    return subjects
