"""What a report says, read from the record alone: the verdict on each threat model, and all that it rests on.

A threat model is *supported* only if every confirmatory claim that speaks to it is, since each of them had to come
true. One claim that is not supported settles the threat as *not supported*; failing that, one that cannot be tested
leaves it *not testable*. Requiring all is an intersection–union test (Berger 1982), so no correction over the claims
of one threat is needed. Exploratory claims are shown, and decide nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeVar

from assay.errors import BadData
from assay.evidence import (
    Audit,
    Body,
    Claim,
    Correction,
    Effect,
    End,
    Entry,
    Missing,
    Note,
    Origin,
    Outcome,
    Record,
    Standing,
    Threat,
)
from assay.evidence.ledger import RESULTS

Word = Literal["supported", "not supported", "not testable", "no outcome yet"]
AnyBody = TypeVar("AnyBody", bound=Body)


@dataclass(frozen=True)
class ClaimView:
    """A claim with what came of it: the outcome as it now stands, and its first version where that was corrected."""

    claim: Claim
    entry: Entry
    standing: Standing
    verdict: Word
    because: str
    outcome: Outcome | None
    outcome_entry: Entry | None
    first_said: Outcome | None
    correction: Correction | None

    @property
    def digest(self) -> str:
        return self.entry.key

    @property
    def controls_not_shown(self) -> tuple[str, ...]:
        """Controls that the claim named and the outcome does not report."""
        if self.outcome is None:
            return ()
        shown = {control.name for control in self.outcome.controls}
        return tuple(name for name in self.claim.controls if name not in shown)


@dataclass(frozen=True)
class ThreatView:
    """A threat model with its claims, and the verdict that follows from those that are confirmatory."""

    threat: Threat
    claims: tuple[ClaimView, ...]

    @property
    def confirmatory(self) -> tuple[ClaimView, ...]:
        return tuple(view for view in self.claims if view.standing == "confirmatory")

    @property
    def deciding(self) -> ClaimView | None:
        """The claim that settles the verdict: the first with the word that weighs most."""
        weight: tuple[Word, ...] = ("no outcome yet", "not supported", "not testable", "supported")
        return min(self.confirmatory, key=lambda view: weight.index(view.verdict), default=None)

    @property
    def verdict(self) -> Word:
        return self.deciding.verdict if self.deciding is not None else "not testable"

    @property
    def because(self) -> str:
        """One sentence on why."""
        if self.deciding is None:
            return "No claim about it was recorded before the first result."
        return self.deciding.because

    @property
    def effect(self) -> Effect | None:
        """The main effect of the claim that decides."""
        decided = None if self.deciding is None else self.deciding.outcome
        return None if decided is None or not decided.effects else decided.effects[0]

    @property
    def power(self) -> str:
        decided = None if self.deciding is None else self.deciding.outcome
        return "" if decided is None else decided.power


@dataclass(frozen=True)
class Run:
    """Consecutive entries of one kind, for the order of events."""

    kind: str
    first: int
    last: int


@dataclass(frozen=True)
class Page:
    """All that a report shows. ``strays`` are claims about a threat model that the audit did not name."""

    audit: Audit
    origin: Origin | None
    threats: tuple[ThreatView, ...]
    strays: tuple[ClaimView, ...]
    notes: tuple[Note, ...]
    end: End | None
    entries: tuple[Entry, ...]
    head: str

    @property
    def claims(self) -> tuple[ClaimView, ...]:
        return (*(view for threat in self.threats for view in threat.claims), *self.strays)

    @property
    def day(self) -> str:
        """The day of the last entry, by the writer's clock (UTC)."""
        return self.entries[-1].at[:10]

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


def read_page(record: Record) -> Page:
    """Read a record into what its report shows. The chain is verified first.

    Raises:
        LedgerBroken: the chain does not verify.
        BadData: it holds no audit.
    """
    head = record.verify()
    entries = record.entries()
    audits = [entry.read(Audit) for entry in entries if entry.kind == "audit"]
    if not audits:
        kinds = ", ".join(sorted({entry.kind for entry in entries})) or "no entries"
        raise BadData("a record without an audit has no report", hint="append an Audit first", found=kinds)
    audit = audits[0]
    corrections = {entry.key: entry.read(Correction) for entry in entries if entry.kind == "correction"}

    origins = _standing_bodies(entries, corrections, Origin)
    ended = [entry.read(End) for entry in entries if entry.kind == "end"]
    views = _claims(record, entries, corrections, over=bool(ended))
    keys = {threat.key for threat in audit.threats}
    return Page(
        audit=audit,
        origin=origins[-1] if origins else None,
        threats=tuple(ThreatView(t, tuple(v for v in views if v.claim.threat == t.key)) for t in audit.threats),
        strays=tuple(view for view in views if view.claim.threat not in keys),
        notes=tuple(_standing_bodies(entries, corrections, Note)),
        end=ended[-1] if ended else None,
        entries=tuple(entries),
        head=head,
    )


def _standing_bodies(entries: list[Entry], corrections: dict[str, Correction], kind: type[AnyBody]) -> list[AnyBody]:
    """All bodies of one kind as they stand: corrected where they were, without those withdrawn."""
    found = [entry for entry in entries if entry.kind == kind.kind]
    said = [(corrections[e.digest].body if e.digest in corrections else e.body) for e in found]
    return [kind.model_validate(body) for body in said if body is not None]


def _claims(record: Record, entries: list[Entry], corrections: dict[str, Correction], *, over: bool) -> list[ClaimView]:
    outcomes = {entry.key: entry for entry in entries if entry.kind == "outcome"}
    missing = {body.claim: body.reason for body in _standing_bodies(entries, corrections, Missing)}
    views = []
    for entry in (entry for entry in entries if entry.kind == "claim"):
        found = outcomes.get(entry.key)
        correction = corrections.get(found.digest) if found is not None else None
        first = None if found is None else found.read(Outcome)
        now = first
        if correction is not None:
            now = None if correction.body is None else Outcome.model_validate(correction.body)
        verdict: Word
        if now is not None:
            verdict, because = now.verdict, now.because
        elif correction is not None:
            verdict, because = "not testable", f"Its outcome was withdrawn: {correction.reason}"
        elif entry.key in missing:
            verdict, because = "not testable", f"There is no outcome: {missing[entry.key]}"
        elif over:
            verdict, because = "not testable", "The audit ended without an outcome for it, and without a reason."
        else:
            verdict, because = "no outcome yet", "The audit has not come to it yet."
        views.append(
            ClaimView(
                claim=entry.read(Claim),
                entry=entry,
                standing=record.standing(entry.key),
                verdict=verdict,
                because=because,
                outcome=now,
                outcome_entry=found,
                first_said=first if correction is not None else None,
                correction=correction,
            )
        )
    return views
