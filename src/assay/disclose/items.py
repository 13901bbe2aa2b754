"""Findings cut into the items that are released one by one, and findings put together again from some of them.

An item is the least that can be shown or withheld: the statement of a claim, its effects, its controls, one figure. What
belongs to one claim shares a random name, never the claim's digest: a digest over withheld settings could be guessed
at. An item whose text names a place inside the model counts as one about places too, so a stray ``L13`` in a sentence is
withheld with it and not released by mistake.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field, JsonValue, TypeAdapter

from assay.disclose.policy import mentions_place, shows
from assay.errors import BadData
from assay.evidence import (
    Audit,
    Claim,
    Control,
    Correction,
    Effect,
    End,
    Example,
    Finding,
    Findings,
    Note,
    Origin,
    Outcome,
    Policy,
    SideEffect,
    TableData,
    Threat,
    ThreatFinding,
    Unit,
    Word,
)
from assay.evidence.entry import About, Grade, Part
from assay.evidence.ledger import Standing
from assay.evidence.measured import Figure, Value

ITEMS = "2"
"""The way in which findings are cut, with what counts as naming a place: another one gives other items of one ledger."""

_SETUP = ("versions", "machine", "selftest")
_MODEL = ("model", "revision", "fingerprint", "model_files", "prompt_format")
_CLAIM = ("key", "threat", "statement", "method", "controls", "refuted_by", "measure", "problem")
_OUTCOME = ("p", "alpha", "power", "not_looked_at")
_WHEN_WITHHELD = "What came out is withheld."
_FIGURE: TypeAdapter[Figure] = TypeAdapter(Figure)
_WORD: TypeAdapter[Word] = TypeAdapter(Word)
_TEXTS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])


class Item(Value):
    """One disclosure: ``value`` is the part's content. ``of``, ``about`` and ``grade`` are those of its claim, if any.

    ``places`` says that it names a place inside the model.
    """

    part: Part
    of: str = Field(default="", pattern="^[0-9a-f]{16}$|^$")
    about: About | None = None
    grade: Grade | None = None
    problem: str
    places: bool = False
    place: int = 0
    value: JsonValue

    def shown_by(self, policy: Policy) -> bool:
        """Whether a policy shows it: its part, its claim's statement, and places where it names one."""
        parts: set[Part] = {self.part}
        if self.of:
            parts |= {"claim"} if self.part in ("claim", "parameters") else {"claim", "outcome"}
        if self.places:
            parts.add("places")
        return shows(policy, parts, about=self.about, problem=self.problem, grade=self.grade)


def cut(findings: Findings) -> list[Item]:
    """Everything that there is to disclose, item by item."""
    names = {finding.claim.key: secrets.token_hex(8) for finding in findings.claims}
    problem = findings.audit.problem
    made = [
        Item(part=part, problem=problem, place=place, value=value, places=_names_place(value))
        for part, value, place in _of_the_audit(findings, names)
    ]
    for finding in findings.claims:
        claim = finding.claim
        shared = dict(of=names[claim.key], about=claim.about, grade=claim.grade, problem=claim.problem)
        parts = list(_of_a_claim(finding))
        named = False  # what comes after a statement or an outcome that names a place does not stand without it
        for place, (part, value) in enumerate(parts):
            places = named or _names_place(value)
            named = places if part in ("claim", "outcome") else named
            made.append(Item(part=part, place=place, value=value, places=places, **shared))
    return made


def assemble(items: Sequence[Item], *, head: str) -> Findings:
    """Findings made of the items at hand. What was withheld is empty, and is not counted or named.

    Raises:
        BadData: items that contradict one another or do not read as their part.
    """
    whole = [item for item in sorted(items, key=lambda item: item.place) if not item.of]
    question = _dict(_one(whole, "question") or {})
    asked = _TEXTS.validate_python(
        {"question": "The question is withheld."}
        | {name: question.get(name, "") for name in ("name", "auditor", "access", "day")}
        | {name: question[name] for name in ("question",) if name in question}
    )
    threats = [Threat.model_validate(item.value) for item in whole if item.part == "threat"]
    problem = items[0].problem if items else ""
    origin: dict[str, Any] = {}
    for part in ("model", "data", "setup", "parameters"):
        origin |= _dict(_one(whole, part) or {})
    by_name = {own[0].of: _finding(own) for own in _by_claim(items)}
    claims = sorted(by_name.values(), key=lambda finding: (finding.standing, finding.claim.key))
    verdicts = {found["threat"]: found for item in whole if item.part == "verdict" if (found := _dict(item.value))}
    keys = {threat.key for threat in threats}
    return Findings(
        audit=Audit.model_construct(
            name=asked["name"],
            problem=problem,
            question=asked["question"],
            threats=tuple(threats),
            auditor=asked["auditor"],
            access=asked["access"],
        ),
        origin=Origin.model_validate({"model": "withheld", "fingerprint": "", **origin}) if origin else None,
        threats=tuple(_threat(threat, claims, verdicts.get(threat.key), by_name) for threat in threats),
        strays=tuple(finding for finding in claims if finding.claim.threat not in keys),
        notes=tuple(Note.model_validate(item.value) for item in whole if item.part == "note"),
        end=End.model_validate(question["end"]) if question.get("end") else None,
        day=asked["day"],
        head=head,
        units=tuple(Unit.model_validate(item.value) for item in whole if item.part == "results"),
    )


# ── cutting ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_the_audit(findings: Findings, names: Mapping[str, str]) -> Iterator[tuple[Part, Any, int]]:
    audit, origin = findings.audit, findings.origin
    said = audit.model_dump(mode="json", include={"name", "question", "auditor", "access"})
    end = None if findings.end is None else findings.end.model_dump(mode="json")
    yield "question", {**said, "day": findings.day, "end": end}, 0
    for place, found in enumerate(findings.threats):
        yield "threat", found.threat.model_dump(mode="json"), place
        by = None if found.deciding is None else names[found.deciding.claim.key]
        yield "verdict", {"threat": found.threat.key, "verdict": found.verdict, "by": by}, place
    if origin is not None:
        told = origin.model_dump(mode="json")
        yield "model", {name: told[name] for name in _MODEL}, 0
        yield "data", {"data": told["data"]}, 0
        yield "setup", {name: told[name] for name in _SETUP}, 0
        yield "parameters", {name: told[name] for name in ("seeds", "more")}, 0
    for place, note in enumerate(findings.notes):
        yield "note", note.model_dump(mode="json"), place
    for place, unit in enumerate(findings.units):
        yield "results", unit.model_dump(mode="json"), place


def _of_a_claim(finding: Finding) -> Iterator[tuple[Part, Any]]:
    claim = finding.claim.model_dump(mode="json")
    yield "claim", {**{name: claim[name] for name in _CLAIM}, "standing": finding.standing}
    yield "parameters", claim["params"]
    outcome = finding.outcome
    told = {} if outcome is None else outcome.model_dump(mode="json")
    yield (
        "outcome",
        {
            "verdict": finding.verdict,
            "because": finding.because,
            "measured": outcome is not None,
            **{name: told[name] for name in _OUTCOME if told},
        },
    )
    if finding.correction is not None:
        first = finding.first_said
        yield (
            "correction",
            {
                "author": finding.correction.author,
                "reason": finding.correction.reason,
                "first": None if first is None else {"verdict": first.verdict, "because": first.because},
            },
        )
    for part, name in (
        ("places", "where"),
        ("effects", "effects"),
        ("controls", "controls"),
        ("side effects", "side_effects"),
        ("examples", "examples"),
    ):
        if told.get(name):
            yield part, told[name]  # type: ignore[misc]
    yield from (("figure", figure) for figure in told.get("figures", ()))
    yield from (("table", table) for table in told.get("tables", ()))
    yield from (("examples", table) for table in told.get("read_first", ()))


def _names_place(value: Any) -> bool:
    """Whether it is about layers, or any text in it names a place."""
    match value:
        case {"kind": "layer"}:
            return True
        case {"columns": [*columns]} if any(
            str(name).lower() in ("layer", "layers", "head", "site", "place") for name in columns
        ):
            return True
        case dict():
            return any(_names_place(item) for pair in value.items() for item in pair)
        case list():
            return any(map(_names_place, value))
    return isinstance(value, str) and mentions_place(value)


# ── putting together ────────────────────────────────────────────────────────────────────────────────────────────


def _by_claim(items: Iterable[Item]) -> list[list[Item]]:
    grouped: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: item.place):
        if item.of:
            grouped.setdefault(item.of, []).append(item)
    return list(grouped.values())


def _finding(items: Sequence[Item]) -> Finding:
    said = _dict(_one(items, "claim"))
    standing: Standing = "confirmatory" if said.pop("standing") == "confirmatory" else "exploratory"
    claim = Claim.model_validate(
        {**said, "about": items[0].about, "grade": items[0].grade, "params": _one(items, "parameters") or {}}
    )
    told = _dict(_one(items, "outcome") or {"verdict": "withheld", "because": _WHEN_WITHHELD, "measured": False})
    measured, first = told.pop("measured"), None
    correction = None
    if (corrected := _one(items, "correction")) is not None:
        change = _dict(corrected)
        correction = Correction(corrects=claim.digest, author=change["author"], reason=change["reason"])
        if change["first"] is not None:
            first = _outcome(claim, change["first"])
    verdict = _WORD.validate_python(told["verdict"])
    because = _TEXTS.validate_python({"because": told["because"]})["because"]
    outcome = None
    if measured:
        outcome = _outcome(
            claim,
            told,
            where=tuple(_list(items, "places")),
            effects=tuple(map(Effect.model_validate, _list(items, "effects"))),
            controls=tuple(map(Control.model_validate, _list(items, "controls"))),
            side_effects=tuple(map(SideEffect.model_validate, _list(items, "side effects"))),
            examples=tuple(map(Example.model_validate, _list(_steered(items), "examples"))),
            figures=tuple(_FIGURE.validate_python(item.value) for item in items if item.part == "figure"),
            tables=tuple(TableData.model_validate(item.value) for item in items if item.part == "table"),
            read_first=tuple(
                TableData.model_validate(item.value)
                for item in items
                if item.part == "examples" and not isinstance(item.value, list)
            ),
        )
    return Finding(claim, standing, verdict, because, outcome, first, correction)


def _outcome(claim: Claim, told: dict[str, Any], **shown: Any) -> Outcome:
    """Every field as an outcome has it; but one whose effects are withheld may still be supported."""
    whole = {**told, **shown, "claim": claim.digest}
    checked = Outcome.model_validate({**whole, "verdict": "not testable"})
    return checked.model_copy(update={"verdict": _WORD.validate_python(told["verdict"])})


def _threat(
    threat: Threat, claims: Sequence[Finding], stated: dict[str, Any] | None, by_name: Mapping[str, Finding]
) -> ThreatFinding:
    """A threat model with the verdict that was stated, which a claim that is withheld may have decided."""
    own = tuple(finding for finding in claims if finding.claim.threat == threat.key)
    if stated is None:
        return ThreatFinding(threat, own, "withheld", "Its verdict is withheld.", None)
    deciding = by_name.get(stated["by"] or "")
    because = "No claim about it was recorded before the first result."
    if stated["by"] is not None:
        because = deciding.because if deciding is not None else "The claim that decides it is withheld."
    return ThreatFinding(threat, own, _WORD.validate_python(stated["verdict"]), because, deciding)


def _one(items: Sequence[Item], part: Part) -> Any:
    found = [item.value for item in items if item.part == part]
    if len(found) > 1 or (not found and part == "claim"):
        raise BadData(
            f"{len(found)} items of the part {part!r} where there should be one", hint="ask whoever signed it"
        )
    return found[0] if found else None


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadData("an item does not read as its part", found=f"{value!r:.80}", hint="ask whoever signed it")
    return dict(value)


def _steered(items: Sequence[Item]) -> list[Item]:
    """Without tables of examples, of which there may be several."""
    return [item for item in items if item.part != "examples" or isinstance(item.value, list)]


def _list(items: Sequence[Item], part: Part) -> list[Any]:
    found = _one(items, part)
    return found if isinstance(found, list) else []
