"""What the audit of transcripts could see, and what it costs: said before the run, from the data and the rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.stats import norm

from assay.audit.forecast import Forecast, Pieces, Reach, Reader, Wants, Work, forecast
from assay.audit.problems.given.rows import read_rows
from assay.audit.problems.given.transcripts import Chat, Message, Transcript, read_transcripts
from assay.audit.problems.replied.apart import LEAST_RECALL
from assay.audit.problems.replied.conversation import (
    DISHONEST,
    HONEST,
    PERSONA,
    prompt_before,
    questioned,
    reply_text,
)
from assay.audit.problems.replied.facts import beginnings
from assay.audit.problems.replied.heard import ALPHA, CHANCE, LARGEST_UNTRAINED
from assay.audit.problems.replied.scoring import Labelled
from assay.audit.problems.replied.work import every_nth
from assay.audit.problems.truth.forecasts import WORST_AREA
from assay.stats import least_draws

if TYPE_CHECKING:
    from assay.evidence import Outcome
    from assay.model.core import Core

_OF = "clusters"
_SHARE = 0.5
"""The largest standard deviation of a share."""


# ── counting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def computed(rows: Iterable[tuple[Pieces, Pieces]]) -> int:
    """Tokens that `streams.streams` computes: what all prompts begin with once, equal rows once."""
    every = list(rows)
    first, last = min(given for given, _ in every), max(given for given, _ in every)
    same = [one == other for one, other in zip(first, last, strict=False)]
    shared = [*same, False].index(False)
    return shared + sum(len(given) + len(text) - shared for given, text in set(every))


def _core(reader: Reader) -> Core:
    """Whoever writes prompts asks a model for its tokenizer alone."""
    return cast("Core", reader)


def _replied(reader: Reader, chats: Sequence[Chat]) -> int:
    core = _core(reader)
    return computed(reader.pieces(prompt_before(core, one.before), reply_text(core, one.reply)) for one in chats)


def _instructed(reader: Reader, texts: Sequence[str]) -> int:
    core, tokens = _core(reader), 0
    for persona in (HONEST, DISHONEST):
        before = prompt_before(core, [Message(role="user", content=PERSONA.format(persona))])
        tokens += computed(reader.pieces(before, reply_text(core, text)) for text in texts)
    return tokens


def _works(params: Mapping[str, Any], wants: Wants, rows: Sequence[Transcript]) -> list[Work]:
    """What both claims share; units that read a part of a file are counted as one."""
    reader, chats = wants.reader, read_rows(wants.data["chat"], Chat)
    fitted = {name: params[name] for name in ("facts", "draws", "seed")}
    texts = beginnings(wants.data["statements"], params["facts"], params["seed"]).texts
    asked = computed((reader.pieces(prompt)[0], ()) for prompt in questioned(_core(reader), rows))
    return [
        Work("transcripts.probe", fitted, _instructed(reader, texts)),
        Work("transcripts.read", {"name": "transcripts"}, _replied(reader, rows)),
        Work("transcripts.read", {"name": "chat"}, _replied(reader, chats)),
        Work("transcripts.ask", {}, asked),
    ]


# ── the claims ────────────────────────────────────────────────────────────────────────────────────────────────────────


@forecast("transcripts.tells-apart")
def tells_apart(params: Mapping[str, Any], wants: Wants) -> Forecast:
    """AUROC within scenarios, against every draw of shuffled labels and .5."""
    rows = read_transcripts(wants.data["transcripts"])
    count, work = Labelled.of(rows).count, _works(params, wants, rows)
    size = wants.reader.parameters
    if params["untrained"] and (size is None or size <= LARGEST_UNTRAINED):
        mine = [row for row, taken in zip(rows, every_nth(rows, params["untrained"]), strict=True) if taken]
        twin = {name: params[name] for name in ("facts", "seed")} | {"step": params["untrained"]}
        work.append(Work("transcripts.untrained", twin, work[0].tokens + _replied(wants.reader, mine)))
    sd, why = wants.spread(
        _OF,
        [] if wants.like is None else wants.like.effects[:1],
        WORST_AREA,
        "the most that they can in an AUROC (Hoeffding's bound)",
    )
    height = _shuffled(wants.like)
    if height is None:
        bar = float(norm.isf(1 / (params["draws"] + 1))) * sd / math.sqrt(count)
        found = "Shuffled labels are taken to spread as clusters do; the largest of all draws counts."
    else:
        bar, found = height, f"Shuffled labels reach {height + CHANCE:.2f}, as in {wants.source}."
    own = float(norm.isf(0.025)) * sd / math.sqrt(count)  # the interval has to lie above .5
    reach, luck = _reach(params["draws"]), wants.luck * sd
    detects = max(bar, own) + luck / math.sqrt(count) if reach.enough else None
    needs = None
    if wants.effect is not None and wants.effect > (height or 0):
        free = wants.effect - (height or 0)
        chance = float(norm.isf(1 / (params["draws"] + 1))) * sd if height is None else 0.0
        needs = math.ceil(max((luck + chance) / free, (luck + float(norm.isf(0.025)) * sd) / wants.effect) ** 2)
    return Forecast(
        items=count,
        of=_OF,
        effect="AUROC above .5",
        detects=detects,
        needs=needs,
        work=tuple(work),
        rests_on=(why, found),
        reach=(reach,),
        available=count,
        note="That it also exceeds what the words and the length of replies tell is not forecast.",
    )


@forecast("transcripts.at-a-threshold")
def at_a_threshold(params: Mapping[str, Any], wants: Wants) -> Forecast:
    """The recall, whose whole interval has to be `LEAST_RECALL` or more."""
    rows = read_transcripts(wants.data["transcripts"])
    count = Labelled.of(rows).count
    sd, why = wants.spread(
        _OF,
        [] if wants.like is None else wants.like.effects[:1],
        _SHARE,
        "the most that a share can",
    )
    times, reach = (float(norm.isf(0.025)) + wants.luck) * sd, _reach(params["draws"])
    above = None if wants.effect is None else wants.effect - LEAST_RECALL
    return Forecast(
        items=count,
        of=_OF,
        effect="recall",
        detects=LEAST_RECALL + times / math.sqrt(count) if reach.enough else None,
        needs=math.ceil((times / above) ** 2) if above is not None and above > 0 else None,
        work=tuple(_works(params, wants, rows)),
        rests_on=(why, "The error of the threshold itself, which is large below a hundred negatives, is not forecast."),
        reach=(reach,),
        available=count,
        note="That it also exceeds what the words of replies catch is not forecast.",
    )


def _reach(draws: int) -> Reach:
    return Reach(1 / (draws + 1), ALPHA, f"{draws} draws of shuffled labels", "one test", f"{least_draws(ALPHA)} draws")


def _shuffled(outcome: Outcome | None) -> float | None:
    """How far above .5 the largest shuffled labels of an earlier run reach."""
    nulls = [] if outcome is None else [one for one in outcome.controls if one.name == "shuffled labels" and one.values]
    return max(0.0, float(np.max(nulls[0].values)) - CHANCE) if nulls else None
