"""What a ledger comes to: the verdict on each threat model, and all that it rests on.

A threat model is *supported* only if every confirmatory claim that speaks to it is, since each of them had to come
true. One claim that is not supported settles the threat as *not supported*; failing that, one that cannot be tested
leaves it *not testable*. Requiring all is an intersection–union test (Berger 1982), so no correction over the claims
of one threat is needed. Exploratory claims are shown, and decide nothing.

`Findings` are what reports and exports are made of. They are read from a ledger, or put together from the claims of a
release (`assay.disclose`); then ``entries`` is empty, and what was withheld is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeVar

from assay.errors import BadData
from assay.evidence.entry import (
    Audit,
    Body,
    Claim,
    Correction,
    End,
    Entry,
    Missing,
    Note,
    Origin,
    Outcome,
    Policy,
    Threat,
    Unit,
)
from assay.evidence.ledger import RESULTS, Record, Standing
from assay.evidence.measured import Effect

Word = Literal["supported", "not supported", "not testable", "no outcome yet", "withheld"]
AnyBody = TypeVar("AnyBody", bound=Body)


@dataclass(frozen=True)
class Finding:
    """A claim with what came of it: the outcome as it now stands, and its first version where that was corrected."""

    claim: Claim
    standing: Standing
    verdict: Word
    because: str
    outcome: Outcome | None
    first_said: Outcome | None = None
    correction: Correction | None = None
    entry: Entry | None = None
    outcome_entry: Entry | None = None

    @property
    def controls_not_shown(self) -> tuple[str, ...]:
        """Controls that the claim named and the outcome does not report."""
        if self.outcome is None:
            return ()
        shown = {control.name for control in self.outcome.controls}
        return tuple(name for name in self.claim.controls if name not in shown)


@dataclass(frozen=True)
class ThreatFinding:
    """A threat model with its claims, and the verdict that follows from those that are confirmatory."""

    threat: Threat
    claims: tuple[Finding, ...]
    verdict: Word
    because: str
    deciding: Finding | None

    @classmethod
    def of(cls, threat: Threat, claims: Sequence[Finding]) -> ThreatFinding:
        """The verdict is that of the claim that settles it: the first with the word that weighs most, a risky one first."""
        weight: tuple[Word, ...] = ("no outcome yet", "not supported", "not testable", "supported")
        own = tuple(finding for finding in claims if finding.claim.threat == threat.key)
        confirmatory = (finding for finding in own if finding.standing == "confirmatory")
        risky = {one.claim for one in threat.predictions if one.risky}
        order = lambda finding: (weight.index(finding.verdict), finding.claim.key not in risky)
        deciding = min(confirmatory, key=order, default=None)
        if deciding is None:
            return cls(threat, own, "not testable", "No claim about it was recorded before the first result.", None)
        return cls(threat, own, deciding.verdict, deciding.because, deciding)

    @property
    def effect(self) -> Effect | None:
        """The main effect of the claim that decides."""
        decided = None if self.deciding is None else self.deciding.outcome
        return None if decided is None or not decided.effects else decided.effects[0]

    @property
    def power(self) -> str:
        """What the deciding claim could have seen."""
        decided = None if self.deciding is None else self.deciding.outcome
        return "" if decided is None else decided.power


@dataclass(frozen=True)
class Run:
    """Consecutive entries of one kind, for the order of events."""

    kind: str
    first: int
    last: int


@dataclass(frozen=True)
class Findings:
    """All that a report shows. ``strays`` are claims about a threat model that the audit did not name.

    ``day`` is that of the last entry, by the writer's clock (UTC); ``head`` the digest of the last entry.
    """

    audit: Audit
    origin: Origin | None
    threats: tuple[ThreatFinding, ...]
    strays: tuple[Finding, ...]
    notes: tuple[Note, ...]
    end: End | None
    day: str
    head: str
    policies: tuple[Policy, ...] = ()
    units: tuple[Unit, ...] = ()
    entries: tuple[Entry, ...] = ()

    @property
    def claims(self) -> tuple[Finding, ...]:
        """Every claim, by threat model."""
        return (*(finding for threat in self.threats for finding in threat.claims), *self.strays)

    @property
    def runs(self) -> tuple[Run, ...]:
        """The order of events."""
        grouped = [list(group) for _, group in groupby(self.entries, key=lambda entry: entry.kind)]
        return tuple(Run(group[0].kind, group[0].seq, group[-1].seq) for group in grouped)

    @property
    def first_result(self) -> int | None:
        """The number of the first entry from which somebody could have learned something."""
        return next((entry.seq for entry in self.entries if entry.kind in RESULTS), None)

    def noted(self, about: str) -> tuple[str, ...]:
        """The notes on method, data or limits."""
        return tuple(note.text for note in self.notes if note.about == about)


def read_findings(record: Record, *, until: int | None = None) -> Findings:
    """What a record comes to, or its first ``until`` entries. The chain is verified first.

    Raises:
        LedgerBroken: the chain does not verify.
        BadData: it holds no audit.
    """
    head = record.verify()
    entries = record.entries()
    if until is not None:
        entries = entries[:until]
        head = entries[-1].digest if entries else head
    audits = [entry.read(Audit) for entry in entries if entry.kind == "audit"]
    if not audits:
        kinds = ", ".join(sorted({entry.kind for entry in entries})) or "no entries"
        raise BadData("a record without an audit has no report", hint="append an Audit first", found=kinds)
    audit = audits[0]
    corrections = {entry.key: entry.read(Correction) for entry in entries if entry.kind == "correction"}

    origins = _standing_bodies(entries, corrections, Origin)
    ended = [entry.read(End) for entry in entries if entry.kind == "end"]
    found = _claims(entries, corrections, over=bool(ended))
    keys = {threat.key for threat in audit.threats}
    return Findings(
        audit=audit,
        origin=origins[-1] if origins else None,
        threats=tuple(ThreatFinding.of(threat, found) for threat in audit.threats),
        strays=tuple(finding for finding in found if finding.claim.threat not in keys),
        notes=tuple(_standing_bodies(entries, corrections, Note)),
        end=ended[-1] if ended else None,
        day=entries[-1].at[:10],
        head=head,
        policies=tuple(entry.read(Policy) for entry in _before_results(entries) if entry.kind == "policy"),
        units=tuple(entry.read(Unit) for entry in entries if entry.kind == "unit"),
        entries=tuple(entries),
    )


def _before_results(entries: list[Entry]) -> list[Entry]:
    first = next((place for place, entry in enumerate(entries) if entry.kind in RESULTS), len(entries))
    return entries[:first]


def _standing_bodies(entries: list[Entry], corrections: dict[str, Correction], kind: type[AnyBody]) -> list[AnyBody]:
    """All bodies of one kind as they stand: corrected where they were, without those withdrawn."""
    found = [entry for entry in entries if entry.kind == kind.kind]
    said = [(corrections[e.digest].body if e.digest in corrections else e.body) for e in found]
    return [kind.model_validate(body) for body in said if body is not None]


def _claims(entries: list[Entry], corrections: dict[str, Correction], *, over: bool) -> list[Finding]:
    early = {entry.key for entry in _before_results(entries) if entry.kind == "claim"}
    outcomes = {entry.key: entry for entry in entries if entry.kind == "outcome"}
    missing = {body.claim: body.reason for body in _standing_bodies(entries, corrections, Missing)}
    found = []
    for entry in (entry for entry in entries if entry.kind == "claim"):
        told = outcomes.get(entry.key)
        correction = corrections.get(told.digest) if told is not None else None
        first = None if told is None else told.read(Outcome)
        now = first
        if correction is not None:
            now = None if correction.body is None else Outcome.model_validate(correction.body)
        verdict: Word
        if now is not None:
            verdict, because = now.verdict, now.because
        elif correction is not None:
            verdict, because = "not testable", "Its outcome was withdrawn."
        elif entry.key in missing:
            verdict, because = "not testable", f"There is no outcome: {missing[entry.key]}"
        elif over:
            verdict, because = "not testable", "The audit ended without an outcome for it, and without a reason."
        else:
            verdict, because = "no outcome yet", "The audit has not come to it yet."
        found.append(
            Finding(
                claim=entry.read(Claim),
                standing="confirmatory" if entry.key in early else "exploratory",
                verdict=verdict,
                because=because,
                outcome=now,
                first_said=first if correction is not None else None,
                correction=correction,
                entry=entry,
                outcome_entry=told,
            )
        )
    return found
