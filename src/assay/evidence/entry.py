"""What a ledger holds: one class per kind of entry, from the question that is asked to the end of the audit."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from assay.evidence.digest import of_json, plain
from assay.evidence.measured import Control, Effect, Example, Figure, SideEffect, TableData, Value, require

Json = Annotated[JsonValue, BeforeValidator(plain)]
Params = Annotated[dict[str, JsonValue], BeforeValidator(plain)]
Verdict = Literal["supported", "not supported", "not testable"]
Grade = Literal["low", "moderate", "high"]
About = Literal["behaviour", "representation", "knowledge", "circuit", "feature", "optimiser"]
Part = Literal[
    "question", "threat", "verdict", "claim", "outcome", "effects", "controls", "side effects", "figure", "table",
    "examples", "correction", "note", "model", "data", "setup", "parameters", "places", "results",
]  # fmt: skip
"""What a ledger is cut into before a part of it is released."""


class Prediction(Value):
    """What would be seen if a threat model were true, said before it is looked for.

    Attributes:
        claim: the key of the claim that tests it.
        effect: the name of the effect that is predicted.
        direction: where to it goes.
        matters: the smallest effect of interest, in the effect's own unit, as a distance from where nothing is.
        against: what would count against the threat model.
        denied_by: the benign explanations under which it would not be seen.
        risky: whether the best benign alternative denies it. A threat model has one such prediction or more.
    """

    claim: str
    effect: str
    direction: Literal["rises", "falls"]
    matters: float = Field(ge=0)
    against: str
    denied_by: tuple[str, ...] = ()
    risky: bool = False

    @model_validator(mode="after")
    def _denied(self) -> Self:
        return require(self, bool(self.denied_by) or not self.risky, "risky, but denied by nothing")


class Threat(Value):
    """One way in which the problem could be real.

    Attributes:
        key: a short name, unique in its audit.
        statement: what would be true of the model, in one sentence.
        scope: for which model, inputs and circumstances this is asked.
        benign: the best benign alternative explanation of the same observations.
        predictions: what would be seen if it were true; where any are given, one of them is risky.
    """

    key: str
    statement: str
    scope: str
    benign: str
    predictions: tuple[Prediction, ...] = ()

    @model_validator(mode="after")
    def _risks(self) -> Self:
        risks = any(one.risky for one in self.predictions)
        return require(self, risks or not self.predictions, "predictions, but none that the benign alternative denies")


class Body(Value):
    """The content of one entry. ``kind`` and ``entry_key`` say where the ledger files it."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def entry_key(self) -> str: ...


class Audit(Body):
    """What is asked, said first. ``auditor`` and ``access`` say by whom, and with what access to the model."""

    kind: ClassVar[str] = "audit"

    name: str
    problem: str
    question: str
    threats: tuple[Threat, ...] = Field(min_length=1)
    auditor: str = ""
    access: str = ""

    @property
    def entry_key(self) -> str:
        return self.name


class Origin(Body):
    """What was audited and with what: each field but the first three is a table of the report.

    Attributes:
        model: the model's id.
        revision: the revision that was loaded, where it has one.
        fingerprint: SHA-256 of the model as loaded.
        model_files: the manifest of its files (``evidence.of_folder``).
        prompt_format: digests of the tokenizer and of the rendered chat template, BOS handling and the like.
        data: SHA-256 per data set.
        versions: versions of what computed.
        seeds: each seed by its use.
        machine: the class of machine (never its name).
        selftest: what rounding adds, as measured when the model was loaded.
        more: anything else that bears on a repetition.
    """

    kind: ClassVar[str] = "provenance"

    model: str
    revision: str | None = None
    fingerprint: str
    model_files: dict[str, str] = Field(default_factory=dict)
    prompt_format: Params = Field(default_factory=dict)
    data: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    seeds: dict[str, int] = Field(default_factory=dict)
    machine: Params = Field(default_factory=dict)
    selftest: Params = Field(default_factory=dict)
    more: Params = Field(default_factory=dict)

    @property
    def entry_key(self) -> str:
        return self.model


class Claim(Body):
    """What is to be tested, complete before the first look.

    Attributes:
        key: a short name, unique in its audit.
        threat: the key of the threat model that it speaks to.
        statement: what is claimed, in one sentence.
        method: how it is tested.
        controls: the names of its controls, as the outcome will name them.
        refuted_by: what would count against it.
        measure: the registered unit of work that tests it.
        params: that measure's arguments.
        problem: the problem class.
        about: what its outcome would teach: what the model does, what it represents, what it knows, or of what circuits,
            features or optimiser it is made.
        grade: dual-use grade of what its outcome would teach.
    """

    kind: ClassVar[str] = "claim"

    key: str
    threat: str
    statement: str
    method: str
    controls: tuple[str, ...]
    refuted_by: str
    measure: str
    params: Params = Field(default_factory=dict)
    problem: str
    about: About
    grade: Grade

    @property
    def digest(self) -> str:
        """SHA-256 of the claim's canonical JSON: its name in the ledger."""
        return of_json(self.model_dump(mode="json"))

    @property
    def entry_key(self) -> str:
        return self.digest


class Unit(Body):
    """The result of one unit of work, found again by ``address``: the digest of everything that it depends on."""

    kind: ClassVar[str] = "unit"

    address: str
    measure: str
    params: Params = Field(default_factory=dict)
    result: Json
    artefacts: dict[str, str] = Field(default_factory=dict)
    seconds: float | None = None

    @property
    def entry_key(self) -> str:
        return self.address


class Outcome(Body):
    """What came of a claim.

    Attributes:
        claim: the claim's digest.
        verdict: ``supported``, ``not supported`` or ``not testable``.
        because: why, in one sentence, which names no place inside the model: a release may have to leave places out.
        where: the places that it is about, as sites: ``("L13.resid @ last:",)``.
        effects: the main effect first.
        p, alpha: of the test that decides; a supported outcome with p above alpha is refused.
        controls: each with its whole null distribution.
        side_effects: what else changed at the same dose.
        power: one sentence with the smallest effect that could have been seen.
        not_looked_at: what this outcome does not speak to.
        examples: prompts with the model's natural and steered text.
        read_first: tables of prompts, transcripts or trigger words, for a person to read: shown to whom examples are.
    """

    kind: ClassVar[str] = "outcome"

    claim: str
    verdict: Verdict
    because: str
    where: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    p: float | None = Field(default=None, ge=0, le=1)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    controls: tuple[Control, ...] = ()
    side_effects: tuple[SideEffect, ...] = ()
    power: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[TableData, ...] = ()
    not_looked_at: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    read_first: tuple[TableData, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require(self, bool(self.effects) or self.verdict == "not testable", f"{self.verdict}, but no effect is given")
        above = self.verdict == "supported" and self.p is not None and self.p > self.alpha
        return require(self, not above, f"supported, but p {self.p} is above alpha {self.alpha}")

    @property
    def entry_key(self) -> str:
        return self.claim


class Missing(Body):
    """A claim that has no outcome, and why."""

    kind: ClassVar[str] = "missing"

    claim: str
    reason: str

    @property
    def entry_key(self) -> str:
        return self.claim


class Grant(Value):
    """Parts that a policy shows, for claims about some things, of some problem classes, up to a dual-use grade.

    ``about`` and ``problems`` None stand for all. What belongs to the whole audit (its question, its model) has no
    subject and no grade, and is shown by any grant that names its part.
    """

    parts: tuple[Part, ...] = Field(min_length=1)
    about: tuple[About, ...] | None = None
    problems: tuple[str, ...] | None = None
    up_to: Grade = "high"


class Policy(Body):
    """Who may see what: decided before there is anything to see. What no grant shows is withheld.

    Attributes:
        name: of the policy, and of the audience that a release is made out to.
        says: for whom it is, in one sentence.
        show: the grants. Adding one never hides anything.
        why: in plain words, why a part, or what claims are about, is withheld from this audience.
    """

    kind: ClassVar[str] = "policy"

    name: str = Field(pattern="^[a-z][a-z0-9-]*$")
    says: str
    show: tuple[Grant, ...]
    why: dict[Part | About, str] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the policy's canonical JSON."""
        return of_json(self.model_dump(mode="json"))

    @property
    def entry_key(self) -> str:
        return self.name


class Note(Body):
    """Words for the report's sections on method, data or limits."""

    kind: ClassVar[str] = "note"

    about: Literal["method", "data", "limits"]
    text: str

    @property
    def entry_key(self) -> str:
        return self.about


class Correction(Body):
    """An earlier entry said again by ``author`` for ``reason``, or withdrawn (``body`` None). What was said stays."""

    kind: ClassVar[str] = "correction"

    corrects: str
    author: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    body: Json = None

    @property
    def entry_key(self) -> str:
        return self.corrects


class End(Body):
    """The audit ran to its end, in ``seconds`` over all of its sessions, with ``units`` units of work."""

    kind: ClassVar[str] = "end"

    seconds: float
    units: int

    @property
    def entry_key(self) -> str:
        return "end"


KINDS: dict[str, type[Body]] = {
    kind.kind: kind for kind in (Audit, Policy, Origin, Claim, Unit, Outcome, Missing, Note, Correction, End)
}

AnyBody = TypeVar("AnyBody", bound=Body)


class Entry(Value):
    """One line of the ledger: ``digest`` covers all the rest, and ``prev`` is the digest of the line before."""

    seq: int
    kind: str
    key: str
    at: str
    body: Json
    prev: str
    digest: str

    def read(self, kind: type[AnyBody]) -> AnyBody:
        """The body as the value that it was written from. Raises ``BadData`` if it is another kind's."""
        return kind.model_validate(self.body)
