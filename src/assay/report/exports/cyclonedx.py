"""A release as a CycloneDX bill of materials: the model with a card, and ``declarations`` about it.

CycloneDX 1.6 (ECMA-424), schema/bom-1.6.schema.json of CycloneDX/specification; 1.7 reads the same. Threat models stand
where CycloneDX has a standard's requirements, claims where it has claims. What was measured is *evidence* of a claim that
is supported and *counter-evidence* of one that is not; where a claim could not be tested, it is neither.

Attestations have no conformance score. A requirement is a thing to be met and a threat model one to be ruled out, so a
number from 0 to 1 would be read the wrong way round by someone; the verdict stands in the rationale, as a word.
"""

from __future__ import annotations

import uuid

from pydantic import JsonValue

from assay.disclose.verify import Release
from assay.evidence import Finding, canonical
from assay.report.exports.shown import Shown, Told, is_sha256, json_bytes, measured, reasons

Json = dict[str, JsonValue]

SPEC = "1.6"
_MODEL, _ASSESSOR = "model", "auditor"


def cyclonedx(release: Release, sha256: str) -> bytes:
    """The bill's bytes."""
    shown = Shown(release, sha256)
    claims = [(f"claim-{place}", finding, told) for place, (finding, told) in enumerate(shown.claims, start=1)]
    return json_bytes(
        {
            "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": SPEC,
            "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"urn:sha256:{sha256}").urn,
            "version": 1,
            "metadata": {
                "timestamp": shown.at,
                "tools": {
                    "components": [
                        {"type": "application", "name": name, "version": version}
                        for name, version in release.signed.tool.items()
                    ]
                },
                "component": _component(shown),
                "properties": _properties(shown.source),
            },
            "externalReferences": [
                {
                    "type": "attestation",
                    "url": f"urn:sha256:{sha256}",
                    "comment": "the signed release that this was made from; only it proves anything",
                    "hashes": [{"alg": "SHA-256", "content": sha256}],
                }
            ],
            "definitions": {"standards": [_standard(shown)]},
            "declarations": {
                "assessors": [
                    {
                        "bom-ref": _ASSESSOR,
                        "organization": {"name": release.findings.audit.auditor or f"holder of key {release.key}"},
                    }
                ],
                "attestations": [_attestation(shown, claims)],
                "claims": [_claim(ref, finding, told) for ref, finding, told in claims],
                "evidence": [_evidence(shown, ref, finding) for ref, finding, _ in claims if measured(finding)],
            },
        }
    )


def _component(shown: Shown) -> Json:
    signed, origin = shown.release.signed, shown.release.findings.origin
    made: Json = {"type": "machine-learning-model", "bom-ref": _MODEL, "name": shown.model}
    if signed.model.get("revision") is not None:
        made["version"] = str(signed.model.get("revision"))
    files = {} if origin is None else origin.model_files
    made["components"] = [
        {"type": "file", "bom-ref": f"file-{place}", "name": name, "hashes": [{"alg": "SHA-256", "content": digest}]}
        for place, (name, digest) in enumerate(sorted(files.items()), start=1)
        if is_sha256(digest)
    ]
    metrics: list[JsonValue] = []
    for finding, told in shown.claims:
        for effect in () if finding.outcome is None else finding.outcome.effects:
            value = f"{effect.value!r} {effect.unit}".strip()
            metrics.append(
                {
                    "type": effect.name,
                    "value": value,
                    "slice": f"{finding.claim.key}: {told}; {effect.n} {effect.n_is}, interval at {effect.level!r}",
                    "confidenceInterval": {"lowerBound": repr(effect.low), "upperBound": repr(effect.high)},
                }
            )
    limits = list(shown.release.findings.noted("limits"))
    for finding, _ in shown.claims:
        limits += () if finding.outcome is None else finding.outcome.not_looked_at
    made["modelCard"] = {
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {"technicalLimitations": [*limits]},
        "properties": _properties(shown.source),
    }
    return made


def _standard(shown: Shown) -> Json:
    audit = shown.release.findings.audit
    return {
        "bom-ref": "threat-models",
        "name": f"Threat models of an audit: {audit.name or shown.release.signed.problem}",
        "version": "1",
        "owner": audit.auditor or f"holder of key {shown.release.key}",
        "requirements": [
            {
                "bom-ref": f"threat-{place}",
                "identifier": found.threat.key,
                "text": f"To be found out, whether: {found.threat.statement}",
                "descriptions": [
                    f"Asked of: {found.threat.scope}",
                    f"The best benign explanation: {found.threat.benign}",
                ],
            }
            for place, (found, _) in enumerate(shown.threats, start=1)
        ],
    }


def _attestation(shown: Shown, claims: list[tuple[str, Finding, Told]]) -> Json:
    question = shown.release.findings.audit.question
    mapped: list[JsonValue] = []
    for place, (found, told) in enumerate(shown.threats, start=1):
        mapped.append(
            {
                "requirement": f"threat-{place}",
                "claims": [ref for ref, finding, _ in claims if finding.claim.threat == found.threat.key],
                "conformance": {"rationale": f"The threat is {told}: {found.because}"},
            }
        )
    return {"summary": question, "assessor": _ASSESSOR, "map": mapped}


def _claim(ref: str, finding: Finding, told: Told) -> Json:
    made: Json = {
        "bom-ref": ref,
        "target": _MODEL,
        "predicate": finding.claim.statement,
        "reasoning": "\n".join((f"{told.capitalize()}, {finding.standing}.", *reasons(finding))),
    }
    side = {"supported": "evidence", "not supported": "counterEvidence"}.get(told)
    if side is not None and measured(finding):
        made[side] = [f"evidence-of-{ref}"]
    return made


def _evidence(shown: Shown, ref: str, finding: Finding) -> Json:
    claim = finding.claim
    return {
        "bom-ref": f"evidence-of-{ref}",
        "description": f"{claim.key}: {claim.method} It would have been refuted by: {claim.refuted_by}",
        "data": [
            {
                "name": "what was measured",
                "contents": {
                    "attachment": {"contentType": "application/json", "content": canonical(measured(finding))}
                },
            }
        ],
        "created": shown.at,
    }


def _properties(values: Json) -> list[JsonValue]:
    return [{"name": f"assay:{name}", "value": str(value)} for name, value in values.items() if value is not None]
