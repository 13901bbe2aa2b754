"""Running an audit: claims into the ledger, then measures, then outcomes; and going on after a kill.

What is told to the audit's generator comes from the ledger wherever it is there, so a run that goes on makes the same
claims, finds the same answers, and starts measuring where it stopped. The order of events decides what is confirmatory.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from assay.audit.calibration import own_rates, weighed
from assay.audit.claim import ELSEWHERE, MEASURES, Audited, checked, refuse_changed
from assay.audit.lab import Lab
from assay.audit.origin import data_digests, origin_of
from assay.audit.threat import refuse_unpredicted
from assay.disclose import Policy, shipped_policies
from assay.errors import AssayError, BadData, FileError, MissingExtra, ModelMismatch, PolicyTooLate, RecordError
from assay.evidence import Audit, Body, Claim, End, Ledger, Missing, Origin, Outcome, Threat, Unit, read_findings
from assay.evidence.digest import canonical
from assay.report import write_reports
from assay.scale import Arrays, Executor, LocalExecutor

if TYPE_CHECKING:
    from assay.audit.plan import Plan, Source
    from assay.run.model import Model

LEDGER, ARRAYS = "ledger", "arrays"


class Watch:
    """Told what happens in a run. Every method does nothing; override what you want to show."""

    def opened(self, folder: Path, resumed: bool) -> None:
        """The folder is good; the model is about to be loaded."""

    def claimed(self, claims: Sequence[Claim]) -> None:
        """These claims are in the ledger."""

    def measuring(self, claim: Claim) -> None:
        """The work on a claim begins."""

    def progress(self, text: str, done: int, total: int) -> None:
        """How far it is."""

    def answered(self, answer: Audited) -> None:
        """A claim has its outcome, now or from before."""


class Session:
    """One sitting of a run, from the opening of its ledger to the report.

    ``retry`` measures claims again whose measure failed before; ``policies`` are recorded beside those of Assay.
    """

    def __init__(self, plan: Plan, folder: Path, watch: Watch, retry: bool, policies: Sequence[Policy] = ()) -> None:
        self.plan, self.folder, self.watch, self.retry = plan, folder, watch, retry
        self.policies = _by_name(policies)
        self.arguments = plan.bound
        self.digests = data_digests(plan.data)
        self.claims: list[Claim] = []
        self.began = time.monotonic()

    def run(self, source: Source, executor: Executor | None, auditor: str, reports: bool = True) -> Ledger:
        """See `assay.audit.Plan.run`."""
        story = cast(Generator[object, list[Audited], None], self.plan.story(**self.arguments))
        claims = checked(next(story, None), self.plan.threats)
        refuse_unpredicted(self.plan.threats, claims)
        with Ledger.open(self.folder / LEDGER) as ledger:
            self._refuse_other_audit(ledger)
            self._refuse_late_policies(ledger)
            self._refuse_other_claims(ledger, claims)
            earlier = [entry.read(Unit).seconds or 0.0 for entry in ledger.entries(Unit.kind)]
            self.watch.opened(self.folder, resumed=bool(ledger.entries(Claim.kind)))
            model = _loaded(source)
            self._open(ledger, model, claims, auditor)
            executor = executor or LocalExecutor(model, self.plan.data, self.folder / ARRAYS)
            while True:
                self.claims += claims
                self.watch.claimed(claims)
                answers = [self._answer(claim, model, ledger, executor) for claim in claims]
                try:
                    claims = checked(story.send(answers), self.plan.threats, before=self.claims)
                except StopIteration:
                    break
                self._refuse_other_claims(ledger, claims)
                _record(ledger, claims)
            if not _over(ledger):
                spent = sum(earlier) + time.monotonic() - self.began
                ledger.record(End(seconds=round(spent, 3), units=len(ledger.entries(Unit.kind))))
            if reports:
                write_reports(read_findings(ledger), self.folder)
        return Ledger.read(self.folder / LEDGER)

    def _answer(self, claim: Claim, model: Model, ledger: Ledger, executor: Executor) -> Audited:
        """What came of a claim: found in the ledger, or measured now."""
        answer = _recorded(claim, ledger)
        if answer is None or (self.retry and answer.missing):
            self.watch.measuring(claim)
            lab = Lab(
                model=model,
                data=self.plan.data,
                arrays=Arrays(self.folder / ARRAYS),
                report=self.watch.progress,
                claim=claim,
                digests=self.digests,
                executor=executor,
                ledger=ledger,
            )
            answer = _measured(lab, self.plan)
        self.watch.answered(answer)
        return answer

    def _open(self, ledger: Ledger, model: Model, claims: Sequence[Claim], auditor: str) -> None:
        """Say what is asked, of what, and what is claimed: all at once in a new ledger, or the same as before."""
        origin = origin_of(model, self.digests, claims, self.arguments)
        recorded = [entry.read(Origin) for entry in ledger.entries(Origin.kind)]
        if not recorded:
            asked = Audit(
                name=self.plan.name,
                problem=self.plan.problem,
                question=self.plan.question.replace("{model}", origin.model),
                threats=self.plan.threats,
                auditor=auditor,
                access="weights and activations",
            )
            _record(ledger, [asked, *self.policies, origin, *self.plan.notes, *own_rates(self.plan.name), *claims])
            return
        was = recorded[-1]
        if was.fingerprint != origin.fingerprint:
            raise ModelMismatch(
                f"the run in {str(self.folder)!r} audits another model",
                recorded=f"{was.model} {was.fingerprint[:16]}",
                this_model=f"{origin.model} {origin.fingerprint[:16]}",
                hint="go on with the model it began with, at the same revision, or give a folder of its own: --into",
            )
        if was != origin and not _over(ledger):  # other versions or another machine, which a reader should know
            ledger.record(origin)

    def _refuse_other_audit(self, ledger: Ledger) -> None:
        """Raise `BadData` where the folder holds something else than this audit with these arguments and data."""
        if not ledger.entries():
            return
        asked = [entry.read(Audit) for entry in ledger.entries(Audit.kind)]
        origins = [entry.read(Origin) for entry in ledger.entries(Origin.kind)]
        now = _identity(self.plan.name, self.plan.threats, self.arguments, self.digests)
        was = dict.fromkeys(now)
        if asked and origins:
            was = _identity(asked[0].name, asked[0].threats, origins[0].more.get("arguments"), origins[0].data)
        for what, value in now.items():
            if was[what] != value:
                raise BadData(
                    f"the run in {str(self.folder)!r} is another audit: other {what}",
                    recorded=canonical(was[what])[:160],
                    now=canonical(value)[:160],
                    hint=ELSEWHERE,
                )

    def _refuse_late_policies(self, ledger: Ledger) -> None:
        """Raise `PolicyTooLate` for a policy that the run did not begin with."""
        recorded = [entry.read(Policy) for entry in ledger.entries(Policy.kind)]
        late = [policy.name for policy in self.policies if policy not in recorded]
        if ledger.entries() and late:
            raise PolicyTooLate(
                f"the policy {late[0]!r} was not in the ledger before the first result",
                found=f"a run in {str(self.folder)!r} that began without it, or with another of that name",
                hint="go on without it, or give it to a run of its own: --into",
            )

    def _refuse_other_claims(self, ledger: Ledger, claims: Sequence[Claim]) -> None:
        recorded = [entry.read(Claim) for entry in ledger.entries(Claim.kind)]
        refuse_changed(recorded[len(self.claims) :], claims, str(self.folder))


def _by_name(policies: Sequence[Policy]) -> list[Policy]:
    """Assay's own policies and those given, one of each name. Raises `BadData`."""
    every = [*shipped_policies(), *policies]
    names = [policy.name for policy in every]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadData(f"two policies are called {twice!r}", hint="give yours a name of its own")
    return every


def _identity(name: str, threats: Sequence[Threat], arguments: object, data: dict[str, str]) -> dict[str, Any]:
    return {
        "audit": name,
        "threat models": [threat.model_dump() for threat in threats],
        "arguments": arguments,
        "data": data,
    }


def _loaded(source: Source) -> Model:
    if source is None or isinstance(source, str | Path):
        from assay.run.model import Model  # here, so that plans and ledgers are read without torch

        return Model.load(source)
    return source() if callable(source) else source


def _record(ledger: Ledger, bodies: Sequence[Body]) -> None:
    """All of them or none."""
    ledger.extend([(body.kind, body.entry_key, body) for body in bodies])


def _over(ledger: Ledger) -> bool:
    """Whether the run came to its end."""
    return ledger.entries()[-1].kind == End.kind


def _recorded(claim: Claim, ledger: Ledger) -> Audited | None:
    if (entry := ledger.latest(Outcome.kind, claim.digest)) is not None:
        return Audited(claim, entry.read(Outcome))
    if (entry := ledger.latest(Missing.kind, claim.digest)) is not None:
        return Audited(claim, None, entry.read(Missing).reason)
    return None


def _measured(lab: Lab, plan: Plan) -> Audited:
    """Test a claim. What fails in its measure is recorded as the reason that there is no outcome.

    What is wrong with the disk or the ledger is raised: the run goes on from here when that is mended.
    """
    claim = lab.claim
    try:
        outcome = MEASURES[claim.measure](lab, **claim.params)
        if not isinstance(outcome, Outcome) or outcome.claim != claim.digest:
            raise BadData(
                f"the measure {claim.measure!r} gave no outcome of its claim",
                found=f"{outcome!r:.80}",
                hint="return Outcome(claim=lab.claim.digest, ...)",
            )
        threat = next(one for one in plan.threats if one.key == claim.threat)
        size = sum(weight.numel() for weight in lab.model.hf.parameters())
        outcome = weighed(outcome, claim, threat, plan.name, size)
        lab.ledger.record(outcome)
    except (RecordError, FileError, MissingExtra):
        raise
    except Exception as error:
        missing = Missing(claim=claim.digest, reason=_told(error))
        lab.ledger.record(missing)
        return Audited(claim, None, missing.reason)
    return Audited(claim, outcome)


def _told(error: Exception) -> str:
    """An error in one line, with the place where it was raised."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    what = " ".join((error.what if isinstance(error, AssayError) else str(error)).split())[:300]
    return f"{type(error).__name__}: {what} ({Path(at.filename).name}:{at.lineno}, in {at.name})"
