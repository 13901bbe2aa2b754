"""Claims as an audit makes them: measures that test them, the checks before the first look, and what came of each.

`Threat` and `Claim` themselves are values of the record (`assay.evidence`): a third party reads them without this room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from assay.errors import BadData, nearest
from assay.evidence import Claim, Effect, Outcome, Threat
from assay.scale.unit import AnyFunction, Registry, check_arguments

ELSEWHERE = "go on with the same audit and the same arguments, or give a folder of its own: --into"

MEASURES = Registry("measure")


@dataclass(frozen=True)
class Audited:
    """What an audit's generator gets back for a claim.

    Attributes:
        claim: the claim.
        outcome: what came of it, or None.
        missing: why there is no outcome, else "".
    """

    claim: Claim
    outcome: Outcome | None
    missing: str = ""

    @property
    def verdict(self) -> str:
        """``supported``, ``not supported`` or ``not testable``; the last where there is no outcome."""
        return "not testable" if self.outcome is None else self.outcome.verdict

    @property
    def supported(self) -> bool:
        """Whether the outcome bears the claim out."""
        return self.verdict == "supported"

    @property
    def because(self) -> str:
        """Why, in one sentence."""
        return f"There is no outcome: {self.missing}" if self.outcome is None else self.outcome.because

    @property
    def effect(self) -> Effect | None:
        """The main effect, where one was measured."""
        return self.outcome.effects[0] if self.outcome is not None and self.outcome.effects else None


def measure(name: str) -> Callable[[AnyFunction], AnyFunction]:
    """Register ``fn(lab, **params) -> Outcome`` as the measure that a claim names. The function stays as it is.

    Raises:
        BadData: another function has the name.
    """
    return lambda function: MEASURES.register(name, function)


def checked(claims: object, threats: Sequence[Threat], before: Sequence[Claim] = ()) -> list[Claim]:
    """The claims that an audit yielded, if each can be tested.

    Raises:
        BadData: no claims, a threat model or measure that is not there, parameters that the measure does not take, or a
            key that is taken.
    """
    if not isinstance(claims, list | tuple) or not claims or not all(isinstance(claim, Claim) for claim in claims):
        raise BadData(
            "an audit yields lists of claims, with at least one in each",
            found=f"{claims!r:.80}",
            hint="yield [Claim(...), Claim(...)]",
        )
    keys = [threat.key for threat in threats]
    taken = {claim.key for claim in before}
    for claim in claims:
        if claim.threat not in keys:
            raise BadData(
                f"the claim {claim.key!r} is about no threat model of this audit",
                found=claim.threat,
                nearest=nearest(claim.threat, keys),
                hint="name it in @audit(threats=[Threat(key=...)])",
            )
        if claim.key in taken:
            raise BadData(f"two claims are called {claim.key!r}", hint="a claim's key is its own within an audit")
        what = f"the measure {claim.measure!r} of claim {claim.key!r}"
        check_arguments(MEASURES[claim.measure], claim.params, what)
        taken.add(claim.key)
    return list(claims)


def refuse_changed(recorded: Sequence[Claim], now: Sequence[Claim], folder: str) -> None:
    """Raise `BadData` where a run that goes on would claim something else than it did."""
    for was, claim in zip(recorded, now, strict=False):
        if was.digest != claim.digest:
            before, after = was.model_dump(mode="json"), claim.model_dump(mode="json")
            changed = [name for name in before if before[name] != after[name]]
            raise BadData(
                f"the run in {folder!r} claims something else",
                recorded=_told(before, changed),
                now=_told(after, changed),
                hint=ELSEWHERE,
            )


def _told(claim: dict[str, Any], names: Sequence[str]) -> str:
    return f"{claim['key']}: " + ", ".join(f"{name} {claim[name]!r:.100}" for name in names)
