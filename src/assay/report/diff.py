"""Two runs of one audit side by side: two checkpoints, or two models, with intervals on what differs.

All that is known of an effect here is its interval. The interval of a difference is built from two of them by the
method of variance estimates recovery (Zou & Donner 2008, *Construction of confidence intervals about effect measures*,
Statistics in Medicine 27:1693, after Newcombe 1998): distances from value to end add up as the legs of a right angle,
each end with its own, so that lopsided intervals stay lopsided. For symmetric ones it is the root of the sum of squared
standard errors.

It takes the two estimates to be independent. Runs on the same items are not: where their effects go together, the
interval is wider than it needs to be, which errs on the side of seeing nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from assay.errors import BadData
from assay.evidence import Effect, Finding, Findings, Origin, ThreatFinding
from assay.report.words import cell, number, short, visible

SAYS = (
    "Each difference is the second minus the first. Its interval is made of the two intervals alone and takes the runs to "
    "be independent; where both used the same items and their effects go together, it is wider than it needs to be.",
    "A verdict that changed is no difference by itself: one run may have passed its test by a little and the other have "
    "missed it by a little. What bears on that is the interval of the difference.",
    "Each interval speaks for itself. Where nothing differs at all, about one 95 % interval in twenty still leaves out 0.",
)
"""What holds of every comparison."""


@dataclass(frozen=True)
class Difference:
    """Second minus first, with its interval at ``level``."""

    value: float
    low: float
    high: float
    level: float
    unit: str

    @property
    def excludes_zero(self) -> bool:
        """Whether the two differ, as far as this interval can tell."""
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class EffectPair:
    """One effect in both runs. ``difference`` is None where they cannot be subtracted; ``why_not`` says why."""

    one: Effect
    other: Effect
    difference: Difference | None
    why_not: str = ""


@dataclass(frozen=True)
class ClaimPair:
    """One claim in both runs. ``settings`` says where its settings differ; ``alone`` which effects only one run has."""

    one: Finding
    other: Finding
    effects: tuple[EffectPair, ...]
    settings: tuple[str, ...]
    alone: tuple[str, ...]


@dataclass(frozen=True)
class Diff:
    """Two runs of one audit.

    Attributes:
        threats: the threat models of both, pair by pair.
        claims: the claims of both.
        only_one, only_other: claims of one run.
        circumstances: what else is not the same, in words: data, settings, versions.
    """

    one: Findings
    other: Findings
    threats: tuple[tuple[ThreatFinding, ThreatFinding], ...]
    claims: tuple[ClaimPair, ...]
    only_one: tuple[Finding, ...]
    only_other: tuple[Finding, ...]
    circumstances: tuple[str, ...]

    def about(self, threat: ThreatFinding) -> tuple[ClaimPair, ...]:
        """The claims that speak to a threat model."""
        return tuple(pair for pair in self.claims if pair.one.claim.threat == threat.threat.key)

    @property
    def strays(self) -> tuple[ClaimPair, ...]:
        """The claims that speak to no threat model of both."""
        keys = {one.threat.key for one, _ in self.threats}
        return tuple(pair for pair in self.claims if pair.one.claim.threat not in keys)


def compare(one: Findings, other: Findings) -> Diff:
    """Two runs side by side. Claims are matched by key, and are the same if statement and measure are.

    Raises:
        BadData: runs of different audits, or of different problem classes.
    """
    for what in ("problem", "name"):
        first, second = getattr(one.audit, what), getattr(other.audit, what)
        if first != second:
            raise BadData(
                "these are runs of different audits",
                found=f"{'problem class' if what == 'problem' else 'audit'} {first!r} and {second!r}",
                hint="compare two runs of the same audit: the same question, asked of two models",
            )
    seconds = {_name(finding): finding for finding in other.claims}
    threats = {(view.threat.key, view.threat.statement): view for view in other.threats}
    pairs = [(finding, seconds[_name(finding)]) for finding in one.claims if _name(finding) in seconds]
    both = {_name(finding) for finding, _ in pairs}
    return Diff(
        one=one,
        other=other,
        threats=tuple(
            (view, threats[key]) for view in one.threats if (key := (view.threat.key, view.threat.statement)) in threats
        ),
        claims=tuple(_claims(*pair) for pair in pairs),
        only_one=tuple(finding for finding in one.claims if _name(finding) not in both),
        only_other=tuple(finding for finding in other.claims if _name(finding) not in both),
        circumstances=tuple(_circumstances(one.origin, other.origin)),
    )


def subtract(one: Effect, other: Effect) -> EffectPair:
    """The difference of two effects, if they are of one unit and their intervals of one level."""
    if one.unit != other.unit:
        return EffectPair(one, other, None, f"they are in different units: {one.unit!r} and {other.unit!r}")
    if not math.isclose(one.level, other.level):
        return EffectPair(
            one, other, None, f"their intervals are at {number(100 * one.level)} % and at {number(100 * other.level)} %"
        )
    value = other.value - one.value
    down = math.hypot(_below(other), _above(one))
    up = math.hypot(_above(other), _below(one))
    return EffectPair(one, other, Difference(value, value - down, value + up, one.level, one.unit))


def _below(effect: Effect) -> float:
    return max(0.0, effect.value - effect.low)


def _above(effect: Effect) -> float:
    return max(0.0, effect.high - effect.value)


# ── what belongs together ───────────────────────────────────────────────────────────────────────────────────────


def _name(finding: Finding) -> tuple[str, str, str]:
    return finding.claim.key, finding.claim.statement, finding.claim.measure


def _claims(one: Finding, other: Finding) -> ClaimPair:
    first, second = ((() if view.outcome is None else view.outcome.effects) for view in (one, other))
    paired = _effects(first, second)
    names = {effect.name for pair in paired for effect in pair}
    return ClaimPair(
        one=one,
        other=other,
        effects=tuple(subtract(*pair) for pair in paired),
        settings=tuple(_unequal(one.claim.params, other.claim.params)),
        alone=tuple(
            f"{effect.name} (only in the {which})"
            for which, effects in (("first", first), ("second", second))
            for effect in effects
            if effect.name not in names
        ),
    )


def _effects(first: Sequence[Effect], second: Sequence[Effect]) -> list[tuple[Effect, Effect]]:
    """Effects of one name; and the main effects, which a measure may name after what it happened to leave out."""
    named = {effect.name: effect for effect in reversed(second)}
    mine = {effect.name: effect for effect in reversed(first)}
    pairs = [(effect, named[name]) for name, effect in reversed(mine.items()) if name in named]
    if first and second and first[0].name not in named and second[0].name not in mine:
        pairs.insert(0, (first[0], second[0]))
    return pairs


# ── what else is not the same ───────────────────────────────────────────────────────────────────────────────────


def _circumstances(one: Origin | None, other: Origin | None) -> Iterator[str]:
    if one is None or other is None:
        yield "Provenance is missing, so nothing is known of data, settings and versions."
        return
    if one.fingerprint and one.fingerprint == other.fingerprint:
        yield "Both are runs on one and the same model: their fingerprints are equal."
    first, second = dict(one.more), dict(other.more)
    settings = [_arguments(more) for more in (first, second)]
    groups: dict[str, tuple[Mapping[str, object], Mapping[str, object]]] = {
        "data": (one.data, other.data),
        "settings": (settings[0], settings[1]),
        "seeds": (one.seeds, other.seeds),
        "prompt format": (one.prompt_format, other.prompt_format),
        "versions": (one.versions, other.versions),
        "machine": (one.machine, other.machine),
        "more": (first, second),
    }
    for name, (mine, others) in groups.items():
        unequal = list(_unequal(mine, others))
        if unequal:
            yield f"{name}: {'; '.join(unequal)}"


def _arguments(more: dict[str, JsonValue]) -> Mapping[str, object]:
    found = more.pop("arguments", None)
    return found if isinstance(found, dict) else {}


def _unequal(one: Mapping[str, object], other: Mapping[str, object]) -> Iterator[str]:
    """``seed 0 and 1`` for each name whose value is not the same in both."""
    for name in {**one, **other}:
        if name not in one or name not in other:
            yield f"{name} only in the {'first' if name in one else 'second'}"
        elif one[name] != other[name]:
            yield f"{name} {_brief(one[name])} and {_brief(other[name])}"


def _brief(value: object) -> str:
    told = value if isinstance(value, str) else cell(value)
    if len(told) >= 40 and set(told) <= set("0123456789abcdef"):
        return f"{short(told)}…"
    return visible(told) if len(told) < 60 else f"{visible(told[:57])}…"
