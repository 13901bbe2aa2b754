"""Power and cost before the run: what each claim could see, how many items a wanted effect takes, how many tokens it costs.

A forecast stands beside a measure and is made from what is at hand: the data, the claim's parameters, the rule by which
the claim is decided. Spreads are the worst case, or those of an earlier run; which one is said with every number. A
measure without a forecast is shown as not forecast. Needs no torch unless a model is given.

    smallest effect found   δ with P(t' > t_{n−1, 1−α}) = power, t' noncentral with δ √n / σ
    spread of a run before  σ = √n (high − low) / 2 / t_{n−1, (1+level)/2}
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from scipy import optimize, stats

from assay.audit.claim import checked
from assay.errors import AssayError, BadData, EmptyData, nearest
from assay.evidence import Claim, Effect, End, Ledger, Origin, Outcome, of_json
from assay.prompt import Prompt
from assay.scale.unit import AnyFunction, Registry

if TYPE_CHECKING:
    from assay.audit.claim import Audited
    from assay.audit.plan import Plan
    from assay.run.model import Model

FORECASTS = Registry("forecast")

POWER = 0.8
Pieces: TypeAlias = "tuple[int | str, ...]"
_CHARACTERS = 4
_FRAME = "<|user|>\n", "<|end|>\n<|assistant|>\n"
"""What a chat template puts around a message, where no tokenizer says what it is."""


# ── what a forecast says ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Work:
    """Tokens of one unit of work. Claims that name the same unit with the same parameters share it: it is done once.

    ``tokens`` are those of whole passes; one that goes through half of the blocks counts half.
    """

    unit: str
    params: Mapping[str, Any]
    tokens: int

    @property
    def address(self) -> str:
        """What makes it the same work."""
        return of_json([self.unit, dict(self.params)])


@dataclass(frozen=True)
class Reach:
    """A p-value that comes from draws: the least that it can be, and what it has to be.

    Attributes:
        least: with these draws.
        alpha: that it must not exceed, after the correction for several predictions.
        how: the draws: ``"100 draws of shuffled labels"``.
        correction: why alpha is what it is: ``"Holm over 2"``.
        fewest: with which alpha is in reach: ``"39 draws"``.
    """

    least: float
    alpha: float
    how: str
    correction: str
    fewest: str

    @property
    def enough(self) -> bool:
        """Whether the claim could be supported at all."""
        return self.least <= self.alpha


@dataclass(frozen=True)
class Forecast:
    """What a measure could see, and what it takes.

    Attributes:
        items: units of evidence, the ``of`` in the plural: ``"clusters"``.
        effect: what effects are measured in: ``"share of items"``.
        detects: the smallest effect that is found with the wanted power; None where nothing bounds the spread.
        needs: items for the wanted effect; None where none was asked for or no number does.
        work: what it computes.
        rests_on: every assumption with its source, in sentences.
        reach: of p-values from draws.
        available: the most items that the data have, where that is known.
        note: what the numbers leave out.
    """

    items: int
    of: str
    effect: str
    detects: float | None
    needs: int | None
    work: tuple[Work, ...]
    rests_on: tuple[str, ...]
    reach: tuple[Reach, ...] = ()
    available: int | None = None
    note: str = ""

    @property
    def tokens(self) -> int:
        """Of all its work, shared or not."""
        return sum(work.tokens for work in self.work)


# ── what it is made from ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Prior:
    """An earlier run, which says how far items differ.

    Attributes:
        name: its folder's.
        model: what was audited there.
        seconds: that it took; None where it did not come to its end.
        outcomes: by the claim's key and measure.
    """

    name: str
    model: str
    seconds: float | None
    outcomes: Mapping[tuple[str, str], Outcome]

    @classmethod
    def read(cls, run: str | Path) -> Prior:
        """A run's folder, or its ledger. Raises what `Ledger.read` raises, and `EmptyData` where it has no outcomes."""
        path = Path(run)
        with Ledger.read(path / "ledger" if path.is_dir() else path) as ledger:
            # No whole claim is read: an earlier version's may lack what claims say by now.
            claims = {entry.key: _named(entry.body) for entry in ledger.entries(Claim.kind)}
            found = [entry.read(Outcome) for entry in ledger.entries(Outcome.kind)]
            models = [entry.read(Origin).model for entry in ledger.entries(Origin.kind)]
            ends = [entry.read(End).seconds for entry in ledger.entries(End.kind)]
        named = {claims[one.claim]: one for one in found if one.claim in claims}
        if not named:
            raise EmptyData(f"the run {str(run)!r} has no outcomes", hint="give a run that measured something: --like")
        name = path.name if path.is_dir() else path.parent.name
        return cls(name, models[-1] if models else "", ends[-1] if ends else None, named)

    def outcome(self, claim: Claim) -> Outcome | None:
        """What came of the same measure there, best of a claim of the same key."""
        same = [one for (_, measure), one in self.outcomes.items() if measure == claim.measure]
        return self.outcomes.get((claim.key, claim.measure), same[0] if same else None)


def _named(body: Any) -> tuple[str, str]:
    return body["key"], body["measure"]


class Reader:
    """How many tokens a text is: counted with a model's tokenizer, or one for every four characters."""

    def __init__(self, model: Model | None = None) -> None:
        self.model = model

    @property
    def tokenizer(self) -> Any:
        """What the functions that write prompts look at: whether there is a chat template. Unless known, there is."""
        return self if self.model is None else self.model.tokenizer

    chat_template = _FRAME

    @cached_property
    def parameters(self) -> int | None:
        """Of the model."""
        return None if self.model is None else sum(weight.numel() for weight in self.model.hf.parameters())

    def pieces(self, prompt: Prompt | str, answer: str = "") -> tuple[Pieces, Pieces]:
        """The tokens of a prompt, and those of an answer after it."""
        prompt = Prompt.of(prompt)
        if self.model is not None:
            from assay.model.encode import continuation, encode  # needs torch, as the model does

            given = encode(self.model.tokenizer, prompt, "forecast").tokens
            return given, continuation(self.model.tokenizer, prompt, given, answer) if answer else ()
        before, after = ("", "") if prompt.turns is None else _FRAME
        said = "".join(text for _, text in prompt.turns or ())
        return _cut(f"{said}{before}{prompt.text}{after}{prompt.prefix}"), _cut(answer)

    def length(self, texts: Iterable[Prompt | str]) -> int:
        """Tokens of all texts."""
        return sum(len(self.pieces(text)[0]) for text in texts)

    @property
    def how(self) -> str:
        """How tokens were counted."""
        if self.model is None:
            return f"one for every {_CHARACTERS} characters, with {len(''.join(_FRAME))} around a chat turn; --model counts with its own"
        return f"counted with the tokenizer of {self.model.name}"


def _cut(text: str) -> Pieces:
    return tuple(text[start : start + _CHARACTERS] for start in range(0, len(text), _CHARACTERS))


@dataclass(frozen=True)
class Wants:
    """What a forecast is asked for, and what it may use.

    Attributes:
        data: the audit's files, by name.
        reader: counts tokens; has the model, where one was given.
        power: the chance with which an effect should be found.
        effect: the wanted one, in the claim's own unit.
        like: what came of the same measure in an earlier run.
        source: that run's name.
    """

    data: Mapping[str, Path] = field(default_factory=dict)
    reader: Reader = field(default_factory=Reader)
    power: float = POWER
    effect: float | None = None
    like: Outcome | None = None
    source: str = ""

    @property
    def luck(self) -> float:
        """How many standard errors a true effect has to lie beyond a bar to pass it with the wanted power."""
        return float(stats.norm.ppf(self.power))

    def spread(
        self, of: str, effects: Sequence[Effect], worst: float, why: str, what: str = "a spread"
    ) -> tuple[float, str]:
        """The largest spread that these effects of the earlier run show, else the worst case; and a sentence on it.

        A worst case that is infinite stands for one that nothing bounds; ``what`` the run would have to show.
        """
        seen = max((one for one in effects if spread_of(one) > 0), key=spread_of, default=None)
        missed = f" {self.source} does not show {what}." if self.source and seen is None else ""
        if seen is not None:
            worst, why = spread_of(seen), f"as {seen.n} {seen.n_is} do in “{seen.name}” of {self.source}"
        how = f"by a standard deviation of {worst:.2g}" if math.isfinite(worst) else "by an unknown standard deviation"
        return worst, f"{of.capitalize()} differ {how}: {why}.{missed}"


def forecast(name: str) -> Callable[[AnyFunction], AnyFunction]:
    """Register ``fn(params, wants) -> Forecast`` as the forecast of the measure ``name``. The function stays as it is.

    Raises:
        BadData: another function has the name.
    """
    return lambda function: FORECASTS.register(name, function)


# ── arithmetic ────────────────────────────────────────────────────────────────────────────────────────────────────────


def spread_of(effect: Effect) -> float:
    """The standard deviation of items behind a mean's interval: its half width over t, times √n. 0 where it has none."""
    if effect.n < 2:
        return 0.0
    return (effect.high - effect.low) / 2 / float(stats.t.isf((1 - effect.level) / 2, effect.n - 1)) * effect.n**0.5


def least_effect(sd: float, items: int, *, alpha: float, power: float = POWER) -> float | None:
    """The mean that a one-sided t test over ``items`` finds with chance ``power``: the inverse of `items_needed`, exact.

    None below two items.
    """
    if items < 2:
        return None
    cut, root = stats.t.isf(alpha, items - 1), math.sqrt(items)

    def short(sizes: float) -> float:
        return float(stats.nct.sf(cut, items - 1, sizes)) - power

    high = 8.0
    while short(high) < 0:
        high *= 2
    return float(optimize.brentq(short, 0, high)) * sd / root


# ── the whole plan ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Foreseen:
    """A claim and its forecast.

    Attributes:
        claim: as it will be recorded.
        forecast: None where its measure has none.
        wanted: the effect that it was asked about.
        adds: tokens that no claim before it has spent already.
        reason: why there is no forecast.
    """

    claim: Claim
    forecast: Forecast | None
    wanted: float | None = None
    adds: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Outlook:
    """What lies before an audit.

    Attributes:
        plan: the audit.
        claims: those that are recorded before the first look, in order.
        reader: with what tokens were counted.
        like: the earlier run, where one was given.
        pace: seconds for a token on this machine, where they were measured.
    """

    plan: Plan
    claims: tuple[Foreseen, ...]
    reader: Reader
    like: Prior | None = None
    pace: float | None = None

    @property
    def tokens(self) -> int:
        """Of all claims that are forecast, shared work once."""
        return sum(one.adds for one in self.claims)

    def flop(self, tokens: int) -> float | None:
        """Two operations for each parameter and token; None where the model is not known."""
        return None if self.reader.parameters is None else 2.0 * self.reader.parameters * tokens

    def seconds(self, tokens: int) -> float | None:
        """Of the model's passes on this machine; None where nothing was measured."""
        return None if self.pace is None else self.pace * tokens


def forecast_of(
    plan: Plan,
    *,
    effect: float | None = None,
    effects: Mapping[str, float] | None = None,
    power: float = POWER,
    like: str | Path | None = None,
    model: Model | None = None,
    measure: bool = False,
) -> Outlook:
    """What an audit could see and what it takes, from its claims, its data and its rules. Nothing is run or recorded.

    Args:
        plan: the audit, with its arguments.
        effect: the one that matters, for every claim in its own unit; ``effects`` by claim where they differ.
        effects: by the claim's key.
        power: the chance with which it should be found.
        like: an earlier run's folder or ledger, whose intervals give the spreads.
        model: counts with its tokenizer; unless given, a token is four characters.
        measure: time one small batch, for which the model is needed.

    Raises:
        BadData: an audit that makes no claims with these arguments, an effect of a claim that is not there, numbers that
            are no effect or no chance, or something to measure without a model.
        EmptyData, LedgerBroken, CorruptFile: of the earlier run.
    """
    if not 0 < power < 1:
        raise BadData(f"power={power!r} is no chance", hint="give a number between 0 and 1: --power .8")
    if measure and model is None:
        raise BadData("there is no model to measure", hint="give one: model=Model.load()")
    story = cast("Generator[object, list[Audited], None]", plan.story(**plan.bound))
    claims = checked(next(story, None), plan.threats)
    story.close()
    wanted = {claim.key: effect for claim in claims} | dict(effects or {})
    for key, size in wanted.items():
        if key not in {claim.key for claim in claims}:
            keys = [claim.key for claim in claims]
            raise BadData(f"there is no claim {key!r}", nearest=nearest(key, keys), hint=f"claims: {', '.join(keys)}")
        if size is not None and not 0 < size < math.inf:
            raise BadData(f"an effect of {size!r} cannot be planned for", hint="give a positive number: --effect .2")
    prior, reader = None if like is None else Prior.read(like), Reader(model)
    spent: set[str] = set()
    found = [_foreseen(claim, plan, reader, prior, power, wanted[claim.key], spent) for claim in claims]
    return Outlook(plan, tuple(found), reader, prior, pace(model) if measure and model is not None else None)


def _foreseen(
    claim: Claim,
    plan: Plan,
    reader: Reader,
    prior: Prior | None,
    power: float,
    effect: float | None,
    spent: set[str],
) -> Foreseen:
    if claim.measure not in FORECASTS:
        return Foreseen(claim, None, effect, reason=f"the measure {claim.measure} has no forecast")
    seen = None if prior is None else prior.outcome(claim)
    source = "" if prior is None else prior.name
    try:
        made = FORECASTS[claim.measure](claim.params, Wants(plan.data, reader, power, effect, seen, source))
    except AssayError as error:  # as the run would find, and record as the reason that there is no outcome
        return Foreseen(claim, None, effect, reason=f"it cannot be tested: {error.what}")
    new = [work for work in made.work if work.address not in spent]
    spent.update(work.address for work in new)
    return Foreseen(claim, made, effect, sum(work.tokens for work in new))


def pace(model: Model, least: float = 1.0) -> float:
    """Seconds for a token on this machine: batches of plain prose, for at least so many seconds, the fastest of them."""
    from assay.model.clock import right_padded  # needs torch, as the model does
    from assay.model.core import NEUTRAL

    rows = [model.row(text).tokens for text in NEUTRAL] * 4
    tokens, count, best, began = right_padded(rows), sum(map(len, rows)), math.inf, time.monotonic()
    while best == math.inf or time.monotonic() - began < least:
        start = time.monotonic()
        model.engine.forward(*tokens).sum().item()  # a number on the CPU: whatever the device does is done by then
        best = min(best, time.monotonic() - start)
    return best / count
