"""What all exports say of a release, in the same words: where it comes from, and the verdicts that it shows."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import JsonValue

from assay.disclose.verify import Release
from assay.errors import BadData
from assay.evidence import Effect, Finding, ThreatFinding, Word
from assay.report.words import interval, number, p_value, sized

Told = Word | Literal["withheld"]
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shown:
    """A verified release with the SHA-256 of its file. Raises ``BadData`` where that is none.

    `Findings` have no word for a verdict that is withheld and call it not testable; exports are read by programs, so
    here it is *withheld*.
    """

    release: Release
    sha256: str

    def __post_init__(self) -> None:
        if not is_sha256(self.sha256):
            raise BadData("an export names its release by digest", hint="give SHA-256 of its file", found=self.sha256)

    @cached_property
    def claims(self) -> tuple[tuple[Finding, Told], ...]:
        """Every claim that is shown, with its verdict."""
        keys = {item.of: _member(item.value, "key") for item in self.release.items if item.part == "claim"}
        told = {keys.get(item.of) for item in self.release.items if item.part == "outcome"}
        found = self.release.findings.claims
        return tuple((one, one.verdict if one.claim.key in told else "withheld") for one in found)

    @cached_property
    def threats(self) -> tuple[tuple[ThreatFinding, Told], ...]:
        """Every threat model that is shown, with its verdict."""
        told = {_member(item.value, "threat") for item in self.release.items if item.part == "verdict"}
        found = self.release.findings.threats
        return tuple((one, one.verdict if one.threat.key in told else "withheld") for one in found)

    @property
    def at(self) -> str:
        """When the release was signed, as RFC 3339 in UTC: the only time that an export knows."""
        return self.release.released_at.strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def model(self) -> str:
        """The model's name, from the credential's clear part."""
        return str(self.release.signed.model.get("name"))

    @cached_property
    def source(self) -> dict[str, JsonValue]:
        """Where an export comes from, and how much of the whole it can know of."""
        release = self.release
        signed = release.signed
        return {
            "release_sha256": self.sha256,
            "credential_sha256": release.credential,
            "auditor_key": release.key,
            "audience": release.audience,
            "policy": release.policy.policy.name,
            "policy_sha256": release.policy.policy.digest,
            "problem": signed.problem,
            "model": self.model,
            "model_revision": signed.model.get("revision"),
            "model_fingerprint": signed.model.get("fingerprint"),
            "model_files_sha256": signed.model.get("files"),
            "items_shown": len(release.items),
            "items_total": signed.claims_total,
        }


def _member(value: JsonValue, name: str) -> str:
    return str(value.get(name)) if isinstance(value, dict) else ""


def is_sha256(text: object) -> bool:
    """Whether it is 64 hex digits in lower case."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def effect_line(effect: Effect) -> str:
    """``accuracy 0.84 (95 % interval 0.79 to 0.89, 210 statements)``."""
    value = " ".join(filter(None, (sized(effect.value, effect.low, effect.high)[0], effect.unit)))
    return f"{effect.name} {value} ({interval(effect)}, {number(effect.n)} {effect.n_is})"


def reasons(finding: Finding) -> list[str]:
    """Why the verdict is what it is, a sentence or two to a line."""
    outcome = finding.outcome
    lines = [finding.because]
    if outcome is not None:
        lines += [f"Effect: {effect_line(effect)}." for effect in outcome.effects]
        if outcome.p is not None:
            lines.append(f"p {p_value(outcome.p)} at α {number(outcome.alpha)}.")
        for control in outcome.controls:
            lines.append(f"Control: {control.name}, {number(len(control.values))} draws, p {p_value(control.p)}.")
        lines += [f"Power: {outcome.power}"] if outcome.power else []
        lines += [f"Not looked at: {text}" for text in outcome.not_looked_at]
    if finding.correction is not None:
        lines.append(f"Corrected by {finding.correction.author}: {finding.correction.reason}")
        if finding.first_said is not None:
            lines.append(f"First said: {finding.first_said.verdict}. {finding.first_said.because}")
    return lines


def measured(finding: Finding) -> dict[str, JsonValue]:
    """All that is shown of what a claim came to, as JSON values; empty where it was not measured or is withheld.

    Without the claim's digest: it is one over settings, which may be withheld.
    """
    outcome = finding.outcome
    if outcome is None:
        return {}
    told: dict[str, JsonValue] = outcome.model_dump(mode="json", exclude={"claim"})
    return {name: value for name, value in told.items() if value not in ([], "", None)}


def json_bytes(value: JsonValue, *, indent: int | None = 1) -> bytes:
    """JSON in UTF-8, with a line's end, the same at each call."""
    return (json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode()
