"""What a report may say: findings, and where they come from a release, in which words it speaks of what is not there.

What is missing from a release was withheld, or was never there. Which of the two is said only where the policy settles
it, and never how many items of a kind there are: only the total is told, which the auditor signed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from assay.disclose.policy import in_words, shows
from assay.evidence import Correction, Finding, Findings
from assay.evidence.entry import Part
from assay.report.words import count, number

if TYPE_CHECKING:
    from assay.disclose.verify import Release

_MEASURED: dict[Part, str] = {
    "effects": "sizes of effects",
    "controls": "controls",
    "side effects": "side effects",
    "figure": "figures",
    "table": "tables",
    "examples": "examples of its text",
    "places": "places inside the model",
    "correction": "corrections",
}


@dataclass(frozen=True)
class Shown:
    """Findings as a report shows them. ``release`` is the verified release that they were put together from, if any."""

    findings: Findings
    release: Release | None = None

    @property
    def released(self) -> bool:
        """Whether this is a part of an audit: a ledger has entries, a release has none."""
        return self.release is not None or not self.findings.entries

    def hidden(self, part: Part, finding: Finding | None = None) -> bool:
        """Whether there may be something of a part that is not shown: of one claim, or of the whole audit."""
        if not self.released or self.release is None:
            return self.released
        claim = None if finding is None else finding.claim
        needed: list[Part] = [part, "places"] if claim is None else [part, "places", "claim"]
        return not shows(
            self.release.policy.policy,
            needed,  # what names a place is withheld with places
            about=None if claim is None else claim.about,
            problem=self.findings.audit.problem,
            grade=None if claim is None else claim.grade,
        )

    def unsaid(self, part: Part, word: str = "stated", finding: Finding | None = None) -> str:
        """``Not stated.``, or what can be said where it may have been withheld."""
        return f"Withheld or not {word}." if self.hidden(part, finding) else f"Not {word}."

    def anchor(self, view: Finding) -> str:
        """What a claim is linked by: its number, since a digest over withheld settings could be guessed at."""
        return self._anchors[id(view)]

    @cached_property
    def _anchors(self) -> dict[int, str]:
        return {id(view): f"claim-{place}" for place, view in enumerate(self.findings.claims, start=1)}

    def unseen(self, view: Finding) -> tuple[str, ...]:
        """The parts of a claim of which nothing is shown, and of which there may have been something."""
        outcome = view.outcome
        there = {
            "effects": outcome and outcome.effects,
            "controls": outcome and outcome.controls,
            "side effects": outcome and outcome.side_effects,
            "figure": outcome and outcome.figures,
            "table": outcome and outcome.tables,
            "examples": outcome and (outcome.examples or outcome.read_first),
            "places": outcome and outcome.where,
            "correction": view.correction,
        }
        if not self.released or (outcome is None and view.verdict != "withheld"):
            return ()  # without an outcome there is nothing to withhold of it
        named = [words for part, words in _MEASURED.items() if not there[part] and self.hidden(part, view)]
        return (*(["the outcome"] if outcome is None else []), *named)

    # ── the whole audit ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def model(self) -> dict[str, str]:
        """Name, revision and fingerprint: a release says them in the clear."""
        origin = self.findings.origin
        if self.release is not None:
            said = self.release.signed.model
            return {name: str(said.get(name) or "") for name in ("name", "revision", "fingerprint")}
        if origin is None:
            return {}
        return {"name": origin.model, "revision": origin.revision or "", "fingerprint": origin.fingerprint}

    @property
    def interim(self) -> bool:
        """Whether the audit had not ended; False where that is not known."""
        return self.findings.end is None and (not self.released or bool(self.findings.day))

    @cached_property
    def policy_in_words(self) -> dict[str, list[str]]:
        """What the release's policy ``shows`` and ``withholds``."""
        return {"shows": [], "withholds": []} if self.release is None else in_words(self.release.policy.policy)

    @property
    def process(self) -> dict[str, list[str]]:
        """How the audit came about, after the headings of Audit Cards (arXiv 2504.13839)."""
        audit, end = self.findings.audit, self.findings.end
        policies = [f"{policy.name}: {policy.says}" for policy in self.findings.policies]
        none = (
            self.unsaid("question", "recorded") if self.released else "None, so nothing of this audit can be released."
        )
        told = {
            "Who audited": [audit.auditor or self.unsaid("question")],
            "With what access to the model": [audit.access or self.unsaid("question")],
            "Who may see what, recorded before the first result": policies or [none],
            "Corrections": self._corrections(),
            "Review by others": ["Not stated."],
        }
        if end is not None:
            told["Work"] = [f"{count(end.units, 'unit')} of work, {number(end.seconds)} seconds."]
        return told

    def _corrections(self) -> list[str]:
        if self.released:
            found = [(f"The outcome of {view.claim.key!r}", view.correction) for view in self.findings.claims]
            said = [_corrected(what, correction) for what, correction in found if correction is not None]
            return said or ["None is shown."]
        places = {entry.digest: entry for entry in self.findings.entries}
        made = [entry.read(Correction) for entry in self.findings.entries if entry.kind == "correction"]
        return [_corrected(f"Entry {places[one.corrects].seq} ({places[one.corrects].kind})", one) for one in made] or [
            "None."
        ]

    @property
    def order(self) -> str:
        """What stands before the order of events, or in its place."""
        first = self.findings.first_result
        if not self.released:
            after = "" if first is None else (
                f" The first result is entry {first}: claims before it are confirmatory, claims after it exploratory."
            )  # fmt: skip
            return f"Claims are written into the ledger before they are measured.{after}"
        return (
            "Entry by entry it is in the ledger, which a release does not hold. Whether a claim was recorded before the "
            "first result is signed, claim by claim: those that were are confirmatory."
        )

    @property
    def proofs(self) -> list[str]:
        """What verifying the release shows, and what it cannot."""
        return [
            "It shows that every item here is what the auditor signed, that the total is exact, and that nothing was left "
            "out which this audience's policy shows. The policy was fixed before the first result.",
            "It does not show that what the auditor signed is true, nor that there was no other audit of this model: "
            + (
                f"this one names the one before it, {self.release.signed.prev}."
                if self.release is not None and self.release.signed.prev is not None
                else "this one names none before it. Ask."
            ),
        ]

    @property
    def digests(self) -> Mapping[str, str]:
        """What a release can be recognised by, and compared with what was published elsewhere."""
        if self.release is None:
            return {"last entry of the ledger": self.findings.head}
        return {
            "credential": self.release.credential,
            f"last of the ledger's {self.release.signed.ledger['entries']} entries": self.findings.head,
            **{
                f"seal for {one.to}, {count(one.recipients, 'recipient')}": one.sha256
                for one in self.release.signed.seals
            },
        }

    @property
    def command(self) -> str:
        """What verifies the release's file."""
        to = "AUDIENCE" if self.release is None else self.release.audience
        return f"assay verify FILE --key AUDITOR.pub --to {shlex.quote(to)}"


def _corrected(what: str, correction: Correction) -> str:
    return f"{what}, by {correction.author}: {correction.reason}"
