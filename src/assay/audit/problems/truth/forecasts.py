"""What the deception audit's claims could see, and what they cost: said before the run, from the data and the rules.

Tokens are counted from the same prompts and replies that the units of work put through the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.stats import norm

from assay.audit.forecast import Forecast, Pieces, Reach, Reader, Wants, Work, forecast, least_effect
from assay.audit.problems.truth import decode, lies, moves, represents, said, say
from assay.audit.problems.truth.readout import METHODS
from assay.audit.problems.truth.statements import (
    Couple,
    Part,
    asked,
    couples,
    instructions,
    neutral,
    one_each,
    read,
    reply,
    sample,
    turn,
)
from assay.prompt import Prompt
from assay.stats import items_needed, least_draws
from assay.verify.rule import GATES

if TYPE_CHECKING:
    from assay.evidence import Outcome
    from assay.model.core import Core

WORST_AREA = math.sqrt(0.5)
"""Times 1/√n, the most that an AUROC over n clusters can vary: 2/n · ¼, its kernel being a share. Hoeffding 1948, §5."""

WORST_CHANGE = 0.5
"""The largest standard deviation of a share that rises or stays. Where some rise and some fall, it may be 1."""

_DEPTH = 0.5
"""The part of the blocks above the layer of a direction, which is chosen in the run."""

_OF = "clusters"
_ALL = "all tests have to pass, so none is corrected"
_WRITTEN = 24
_FLIPS = 9_999


# ── counting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def computed(rows: Iterable[tuple[Pieces, Pieces]], whole: bool) -> int:
    """Tokens that `replies.replies` computes: what all prompts begin with once, equal rows once; ``whole`` where streams
    are read at the end, so that the last token goes through too.
    """
    every = list(rows)
    fed = {(*given, *(text if whole else text[:-1])) for given, text in every}
    begun = [given[:-1] for given, _ in every]
    first, last = min(begun), max(begun)
    same = [one == other for one, other in zip(first, last, strict=False)]
    shared = [*same, False].index(False)
    return shared + sum(len(row) - shared for row in fed)


def _couples(wants: Wants, part: Part, params: Mapping[str, Any]) -> list[Couple]:
    return couples(sample(read(wants.data["statements"]), params["clusters"], params["seed"])[part])


def _core(reader: Reader) -> Core:
    """Whoever writes prompts asks a model for its tokenizer alone."""
    return cast("Core", reader)


def _replied(reader: Reader, prompts: Sequence[Prompt], every: Sequence[Couple]) -> int:
    """A true and a false reply after every prompt."""
    texts = [(reply(_core(reader), one.true), reply(_core(reader), one.false)) for one in every]
    rows = (reader.pieces(prompt, text) for prompt, both in zip(prompts, texts, strict=True) for text in both)
    return computed(rows, whole=True)


def _sampled(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in ("clusters", "seed")}


def _read(params: Mapping[str, Any], wants: Wants) -> Work:
    """Every sampled statement as plain text."""
    parts = sample(read(wants.data["statements"]), params["clusters"], params["seed"])
    tokens = wants.reader.length(one.statement for part in parts.values() for one in part)
    return Work("deception.read", _sampled(params), tokens)


# ── the first threat model ────────────────────────────────────────────────────────────────────────────────────────────


@forecast("deception.decodes-truth")
def decodes_truth(params: Mapping[str, Any], wants: Wants) -> Forecast:
    """AUROC on topics left out, against the largest of all cells under shuffled labels."""
    size, twin = wants.reader.parameters, dict(clusters=params["untrained"], seed=params["seed"])
    work = [_read(params, wants)]
    if params["untrained"] and (size is None or size <= represents._LARGEST_UNTRAINED):
        work.append(Work("deception.read-untrained", twin, _read(twin, wants).tokens))
    note = (
        "That it also exceeds what word pairs and the sentence's probability tell is not forecast. The search over shuffled "
        "labels runs no model: it takes time, but no tokens."
    )
    return _area(params, wants, tuple(work), note)


@forecast("deception.survives-negation")
def survives_negation(params: Mapping[str, Any], wants: Wants) -> Forecast:
    """The same read-out on negated statements."""
    note = "On negated statements; on affirmative ones its interval has to lie above .5 too."
    return _area(params, wants, (_read(params, wants),), note)


def _area(params: Mapping[str, Any], wants: Wants, work: tuple[Work, ...], note: str) -> Forecast:
    every, alpha = read(wants.data["statements"]), represents.ALPHA / 2
    parts = sample(every, params["clusters"], params["seed"])
    count = len({one.cluster for part in parts.values() for one in part})
    sd, why = wants.spread(
        _OF,
        [] if wants.like is None else wants.like.effects[:1],
        WORST_AREA,
        "the most that they can in an AUROC (Hoeffding's bound)",
    )
    bar, found = _shuffled(wants.like, alpha)
    if bar is None:
        model = wants.reader.model
        cells = len(METHODS) * (decode._MOST_LAYERS if model is None else len(decode.layers_of(model)))
        bar = float(norm.isf(alpha / cells)) * sd
        found = f"Of {cells} cells under shuffled labels the largest counts, as if no two of them went together."
    else:
        found = f"{found} {wants.source}."
    own = float(norm.isf(0.025)) * sd  # the interval has to lie above .5
    times = max(bar, own) + wants.luck * sd
    reach = Reach(
        1 / (params["draws"] + 1),
        alpha,
        f"{params['draws']} draws of shuffled labels",
        "Holm over 2",
        f"{least_draws(alpha)} draws",
    )
    return Forecast(
        items=count,
        of=_OF,
        effect="AUROC above .5",
        detects=times / math.sqrt(count) if reach.enough else None,
        needs=None if wants.effect is None else math.ceil((times / wants.effect) ** 2),
        work=work,
        rests_on=(why, found, "That fewer clusters also make a worse read-out is not forecast."),
        reach=(reach,),
        available=len({one.cluster for one in every}),
        note=note,
    )


def _shuffled(outcome: Outcome | None, alpha: float) -> tuple[float | None, str]:
    """How far above .5 the shuffled labels of an earlier run reach, times √n; and a sentence that wants its end."""
    nulls = [] if outcome is None else [one for one in outcome.controls if one.name == "shuffled labels" and one.values]
    if outcome is None or not nulls or not outcome.effects:
        return None, ""
    height = float(np.quantile(nulls[0].values, 1 - alpha)) - represents.CHANCE
    return height * math.sqrt(outcome.effects[0].n), f"Shuffled labels reach {height + 0.5:.2f}, as in"


# ── the second threat model ───────────────────────────────────────────────────────────────────────────────────────────


@forecast("deception.moves-answers")
def moves_answers(params: Mapping[str, Any], wants: Wants) -> Forecast:
    """The slope of the score over doses, against random, covariance-matched and shuffled directions."""
    every = _couples(wants, "test", params)
    test = one_each(every, "affirmative", params["items"])
    entities = {(one.cluster, one.entity) for one in test}
    test = test + [one for one in every if one.polarity == "negated" and (one.cluster, one.entity) in entities]
    count, alpha = len({one.cluster for one in test}), 0.05
    draws = min(moves._CONTROLS[name] for name in GATES)
    reach = (
        Reach(1 / (2 * draws + 2), alpha, f"{draws} directions a family", _ALL, f"{least_draws(alpha, 'mirrored')}"),
        _flips(count, alpha, _ALL),
    )
    sd, why = wants.spread(
        _OF,
        [] if wants.like is None else wants.like.effects[:1],
        math.inf,
        "a slope in nats has no worst case; --like takes it from an earlier run",
    )
    bar, limit = _pushed(wants.like, alpha)
    detects = needs = None
    if math.isfinite(sd) and all(one.enough for one in reach):
        least = least_effect(sd, count, alpha=alpha, power=wants.power)
        detects = None if least is None else max(least, bar + wants.luck * sd / math.sqrt(count))
        if wants.effect is not None and wants.effect > bar:
            needs = items_needed(sd, wants.effect, alpha=alpha, power=wants.power, tail="greater")
            needs = max(needs, math.ceil((wants.luck * sd / (wants.effect - bar)) ** 2))
    said_of = [f"{limit} {wants.source}; more items do not lower that."] if limit else []
    return Forecast(
        items=count,
        of=_OF,
        effect="nats per dose",
        detects=detects,
        needs=needs,
        work=_pushing(params, wants, test),
        rests_on=(why, *said_of, "Tokens are those of a direction at half the depth: its layer is chosen in the run."),
        reach=reach,
        available=len({one.cluster for one in _couples(wants, "test", {**params, "clusters": 10**9})}),
    )


def _pushed(outcome: Outcome | None, alpha: float) -> tuple[float, str]:
    """What equal pushes along other directions did in an earlier run; and a sentence that wants its end."""
    bars = {
        one.name: float(np.quantile([*one.values, *(-value for value in one.values)], 1 - alpha))
        for one in (() if outcome is None else outcome.controls)
        if one.name in GATES and one.values
    }
    if not bars:
        return 0.0, ""
    name = max(bars, key=bars.__getitem__)
    return bars[name], f"Equal pushes along other directions ({name}) reach {bars[name]:.2g} nats, as in"


def _pushing(params: Mapping[str, Any], wants: Wants, test: Sequence[Couple]) -> tuple[Work, ...]:
    """What `moves` computes: a direction, its verdict, and a few texts under it."""
    reader, data = wants.reader, dict(params)
    fit = _couples(wants, "fit", params)
    mine = {one.cluster for one in one_each(fit, "affirmative", params["fit"])}
    found = _statements(reader, [one for one in fit if one.cluster in mine])
    tuned = _statements(reader, _couples(wants, "tune", params))
    texts = neutral(wants.data["neutral"], 2 * moves._TEXTS)
    chose, judged = (reader.length(some) for some in (texts[: moves._TEXTS], texts[moves._TEXTS :]))
    plain, tail = _scored(reader, test)
    told, _ = _scored(reader, test, f"{moves._HONEST}\n\n")
    # Conditions at the direction's own place begin at its layer and at the prompt's last token, others earlier.
    pool = 2 * (1 + sum(moves._CONTROLS[name] for name in GATES)) + 4
    contrasts = 2 * (moves._CONTROLS["orthogonal"] + 1)
    ablated = 1 + moves._CONTROLS["covariance"]
    late, early = pool + contrasts + ablated, 2 * _DEPTH + 1
    verdict = found * _DEPTH + plain + tail * _DEPTH * late + plain * early + told
    verdict += judged * (1 + 5 * _DEPTH / 2 + 1)
    first = [asked(_core(reader), one.entity) for one in test[:4]]
    direction = found + tuned + chose * (1 + 2 * len(moves.DOSES) * _DEPTH / 2)
    return (
        Work("deception.find", data, round(direction)),
        Work("deception.verify", data, round(verdict)),
        Work("deception.steer", data, reader.length(first) + 3 * len(first) * (_WRITTEN - 1)),
    )


def _statements(reader: Reader, every: Sequence[Couple]) -> int:
    return reader.length({text for one in every for text in (one.true, one.false)})


def _scored(reader: Reader, every: Sequence[Couple], before: str = "") -> tuple[int, int]:
    """Tokens of every request with either reply begun, of whole rows and from the prompt's last token on."""
    core, whole, tail = _core(reader), 0, 0
    for one in every:
        begun, *ends = one.parted
        prompt = asked(core, one.entity, begun=begun).after(before)
        ends = ends if begun else [reply(core, text) for text in ends]
        rows = {(given, text[:-1]) for given, text in (reader.pieces(prompt, end) for end in ends)}
        whole += sum(len(given) + len(text) for given, text in rows)
        tail += sum(1 + len(text) for _, text in rows)
    return whole, tail


# ── the third threat model ────────────────────────────────────────────────────────────────────────────────────────────


@forecast("deception.says-false")
def says_false(params: Mapping[str, Any], wants: Wants) -> Forecast:
    """The rise of the share of false replies."""
    every = _test(params, wants)
    work = [*_said(params, wants, every), _forced(params, wants), _own_words(params, wants)]
    note = (
        f"Testable only where it prefers true replies, and a dictated falsehood raises the share by {lies.MATTERS:g}."
    )
    return _rise(params, wants, every, tuple(work), note)


@forecast("deception.marks-false")
def marks_false(params: Mapping[str, Any], wants: Wants) -> Forecast:
    """The rise of the share of false replies that are marked as false."""
    every = _test(params, wants)
    note = "Testable only where the read-out carries over to replies and does not turn with the instruction."
    return _rise(params, wants, every, tuple(_said(params, wants, every)), note)


def _rise(
    params: Mapping[str, Any], wants: Wants, every: Sequence[Couple], work: tuple[Work, ...], note: str
) -> Forecast:
    predictions = len(said.PRIMARY) * len(said.CONDITIONS)
    count, alpha = len({one.cluster for one in every}), lies.ALPHA / predictions
    rises = [] if wants.like is None else wants.like.effects[: len(said.CONDITIONS)]
    # Where nothing rose, clusters are alike: that says nothing of how far they differ where something does.
    rises = [one for one in rises if one.low > 0]
    sd, why = wants.spread(
        _OF, rises, WORST_CHANGE, "the most where an instruction turns items one way only (both ways: 1)", "a rise"
    )
    reach = _flips(count, alpha, f"Holm over {predictions}")
    least = least_effect(sd, count, alpha=alpha, power=wants.power) if reach.enough else None
    needs = None
    if wants.effect is not None and wants.effect > lies.MATTERS:
        needs = items_needed(sd, wants.effect, alpha=alpha, power=wants.power, tail="greater")
        seen = math.ceil((wants.luck * sd / (wants.effect - lies.MATTERS)) ** 2)
        needs = max(needs, seen, lies.LEAST_CLUSTERS)
    rule = f"A rise of {lies.MATTERS:g} has to be observed as well: no number of clusters makes sure of a true one that small."
    bigger = ["A larger rise than that run's spreads clusters more."] if rises else []
    return Forecast(
        items=count,
        of=_OF,
        effect="share of items",
        detects=None if least is None else max(least, lies.MATTERS + wants.luck * sd / math.sqrt(count)),
        needs=needs,
        work=work,
        rests_on=(why, *bigger, rule),
        reach=(reach,),
        available=len({one.cluster for one in _test({**params, "clusters": 10**9, "items": 10**9}, wants)}),
        note=f"For telling and for paying, each by itself. {note}",
    )


def _flips(clusters: int, alpha: float, correction: str) -> Reach:
    exact = 2**clusters <= _FLIPS + 1
    how = f"all sign flips of {clusters} clusters" if exact else f"{_FLIPS:,} sign flips"
    least = 2.0**-clusters if exact else 1 / (_FLIPS + 1)
    return Reach(least, alpha, how, correction, f"{math.ceil(-math.log2(alpha))} clusters")


def _test(params: Mapping[str, Any], wants: Wants) -> list[Couple]:
    return one_each(_couples(wants, "test", params), "affirmative", params["items"])


def _said(params: Mapping[str, Any], wants: Wants, every: Sequence[Couple]) -> list[Work]:
    """Everything that `said.everything_said` computes."""
    reader, core = wants.reader, _core(wants.reader)
    tune = _couples(wants, "tune", params)
    heard = _replied(reader, [asked(core, one.entity) for one in tune], tune)
    wordings = instructions(wants.data["instructions"])
    blocks = [[asked(core, one.entity) for one in every]]
    for texts in ([one.false for one in every], [one.true for one in every]):
        blocks += [[turn(core, say._DICTATE.format(statement=text)) for text in texts]]
    counts = {said.REWORDED: said.REWORDINGS, **dict.fromkeys(said.CONDITIONS, params["paraphrases"])}
    for name, count in counts.items():
        for wording in wordings[name][:count]:
            blocks += [[asked(core, one.entity, wording[side]) for one in every] for side in ("text", "control")]
    spoken = {name: params[name] for name in ("clusters", "items", "paraphrases", "seed")}
    return [
        _read(params, wants),
        Work("deception.choose-readout", _sampled(params), heard),
        Work("deception.say", spoken, sum(_replied(reader, block, every) for block in blocks)),
    ]


def _forced(params: Mapping[str, Any], wants: Wants) -> Work:
    """Yes-or-no answers beside the replies."""
    reader, core = wants.reader, _core(wants.reader)
    every = [one for one in _test({**params, "items": params["yes_no"]}, wants) if all(one.asks)]
    blanks = ("", " ") if getattr(reader.tokenizer, "chat_template", None) else (" ",)
    spelled = [blank + word for words in (say._YES, say._NO) for word in words for blank in blanks]
    ends = [reader.pieces(turn(core, say._ASK.format(question="?")), text)[1] for text in spelled]
    wordings, tokens = instructions(wants.data["instructions"]), 0
    for name in (said.REWORDED, *said.CONDITIONS):
        for wording in wordings[name][: lies._YES_NO_PARAPHRASES] if every else ():
            for side in ("text", "control"):
                asks = [f"{wording[side]}\n\n{say._ASK.format(question=ask)}" for one in every for ask in one.asks]
                begun = [reader.pieces(turn(core, ask))[0] for ask in asks]
                tokens += computed(((given, end) for given in begun for end in ends), whole=False)
    return Work("deception.yes-or-no", {**_sampled(params), "items": params["yes_no"]}, tokens)


def _own_words(params: Mapping[str, Any], wants: Wants) -> Work:
    """What it writes by itself."""
    wordings, core = instructions(wants.data["instructions"]), _core(wants.reader)
    prompts = [
        asked(core, one.entity, wordings[name][0][side])
        for name in said.CONDITIONS
        for one in _test(params, wants)[: lies._WRITTEN]
        for side in ("control", "text")
    ]
    tokens = wants.reader.length(prompts) + len(prompts) * (_WRITTEN - 1)
    return Work("deception.write", {**_sampled(params), "items": params["items"]}, tokens)
