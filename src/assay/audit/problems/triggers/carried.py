"""What carries the turn: the words at their own places, and from where on the last token.

Two runs hold the same tokens, the words in their order in the one and reversed in the other. What the first leaves in the
stream, at the words' places or at the last token, is put into the second layer by layer; the share of its answers that turn
says where the order is still, and where it has arrived. A random change of equal length at the words' places goes through
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from assay.act.intervention import patch
from assay.audit import Bench, Lab, LayerFigure, Outcome, TableData, measure, told, unit
from assay.audit.problems.given.rows import prompt_of
from assay.audit.problems.triggers.found import Found, spread
from assay.audit.problems.triggers.order import ALPHA, MATTERS, decided, searched
from assay.audit.problems.triggers.search import REVERSED
from assay.audit.problems.triggers.sentences import LEAST_ROWS, Sentence, sentences, vocabulary
from assay.audit.problems.truth.decode import layers_of
from assay.run.model import Model
from assay.stats import Interval, sign_flip_p

WHAT = ("the words' places", "the last token", "a random change at the words' places")
WORDS, LAST, RANDOM = range(len(WHAT))


@unit("backdoor.carry")
def carry(
    bench: Bench, *, cell: list[int], on: list[int], layers: list[int], rows: int, most: int, seed: int
) -> dict[str, Any]:
    """Whether the reversed run answers the target with each of `WHAT` put in, ``[sentence, layer, what]``; and the
    sentences, by number, in which the words reversed are as many tokens.
    """
    every, model = sentences(bench, rows, seed), bench.model
    words = vocabulary(bench, every, most)
    first, second, target = words[cell[0]], words[cell[1]], cell[2]
    turned, kept = [], []
    for place, number in enumerate(on):
        bench.progress("what carries the turn", place, len(on))
        odds = _patched(model, every[number], first, second, layers, seed)
        if odds is not None:
            turned.append(odds > 0 if target else odds < 0)
            kept.append(number)
    found = np.array(turned, dtype=bool).reshape(len(kept), len(layers), len(WHAT))
    return {"arrays": bench.arrays.put(turned=found), "kept": kept}


def _patched(
    model: Model, sentence: Sentence, first: str, second: str, layers: Sequence[int], seed: int
) -> np.ndarray | None:
    """Log-odds ``[layer, what]`` of one reversed run; None where its tokens are not as many."""
    prompts = [prompt_of(model, sentence.saying(sentence.pair(*some))) for some in ((first, second), (second, first))]
    there, back = (model.row(prompt).tokens for prompt in prompts)
    differ = [at for at, pair in enumerate(zip(there, back, strict=False)) if len(set(pair)) > 1]
    if len(there) != len(back) or not differ:
        return None
    start, end = differ[0], differ[-1] + 1
    tokens = [*range(start, end), len(there) - 1]
    asked = [f"L{layer}.resid @ {token}" for layer in layers for token in tokens]
    read = [
        torch.stack([value[0] for value in model.capture([prompt], asked).values.values()]).float()
        for prompt in prompts
    ]
    ours, theirs = (one.unflatten(0, (len(layers), len(tokens))) for one in read)
    drawn = torch.randn(ours.shape, generator=torch.Generator().manual_seed(seed + sentence.number))
    length = (ours - theirs).norm(dim=-1, keepdim=True)
    other = theirs + length * drawn / drawn.norm(dim=-1, keepdim=True)
    conditions = []
    for place, layer in enumerate(layers):
        at = f"L{layer}.resid @ {start}:{end}"
        conditions.append(patch(at, source=ours[place, :-1]))
        conditions.append(patch(f"L{layer}.resid @ {tokens[-1]}", source=ours[place, -1:]))
        conditions.append(patch(at, source=other[place, :-1]))
    grid = model.sweep([prompts[1]], conditions, score=[list(sentence.row.answers)])
    return np.asarray(grid.scores).reshape(len(layers), len(WHAT))


@measure("backdoor.carried")
def carried(
    lab: Lab,
    *,
    rows: int,
    pairs: int,
    screen: int,
    finalists: int,
    items: int,
    draws: int,
    traced: int,
    seed: int,
) -> Outcome:
    """Does the turn pass from the words' own places to the last token?"""
    found = searched(lab, rows, pairs, screen, finalists, items, draws, seed)
    if (reason := found.untestable()) or found.test is None:
        return Outcome(claim=lab.claim.digest, verdict="not testable", because=reason)
    if reasons := decided(found)[2]:
        because = f"No words were found whose order turns answers, so that nothing carries it: {' and '.join(reasons)}."
        return Outcome(claim=lab.claim.digest, verdict="not testable", because=because)
    layers, cell = layers_of(lab.model), found.test.cell
    on = caught(found)[:traced]
    few = "The order of the words found turns {} test answers, too few to see what carries it; it takes {}."
    if len(set(found.clusters(on))) < LEAST_ROWS:
        return Outcome(claim=lab.claim.digest, verdict="not testable", because=few.format(len(on), LEAST_ROWS))
    done = lab.unit(carry, cell=list(cell), on=on, layers=layers, rows=rows, most=pairs // 2, seed=seed)
    clusters, turned = found.clusters(done["kept"]), lab.arrays.get(done["arrays"])["turned"].astype(float)
    if len(set(clusters)) < LEAST_ROWS:
        return Outcome(claim=lab.claim.digest, verdict="not testable", because=few.format(len(clusters), LEAST_ROWS))
    shares = [[spread(turned[:, n, what], clusters, 0.0, 1.0) for n in range(len(layers))] for what in range(len(WHAT))]
    early = [shares[what][0] for what in range(len(WHAT))]
    beyond = turned[:, 0, WORDS] - turned[:, 0, RANDOM]
    gap, p = spread(beyond, clusters, -1.0, 1.0), sign_flip_p(beyond, clusters, tail="greater")
    reasons = [f"the interval does not lie above {MATTERS:g}"] if early[WORDS].low <= MATTERS else []
    reasons += ["a random change of equal length does as much"] if gap.low <= 0 or p > ALPHA else []
    reasons += ["the last token carries as much at once"] if early[LAST].value >= early[WORDS].value else []
    end = f"; but {' and '.join(reasons)}" if reasons else f", p {p:.2g}; the last token takes it over further up"
    return Outcome(
        claim=lab.claim.digest,
        verdict="not supported" if reasons else "supported",
        because=f"What the words leave at their own places, put into runs with the words reversed, turns "
        f"{told.between(early[WORDS])} of the answers right after they are read, a random change of equal length "
        f"{told.between(early[RANDOM])}, what is left where the answer begins {told.between(early[LAST])}{end}.",
        where=_where(layers, shares),
        effects=(
            told.effect("share turned by what is left at the words' places", early[WORDS], "share"),
            told.effect("the same, less a random change of equal length", gap, "share", 0.0),
            told.effect("share turned by what is left at the last token", early[LAST], "share"),
        ),
        p=p,
        alpha=ALPHA,
        controls=(told.control("random change of equal length", turned[:, 0, RANDOM], p, "1 where the answer turned"),),
        power=f"With {early[WORDS].n} clusters a share of {MATTERS + early[WORDS].value - early[WORDS].low:.2f} would "
        "have been needed.",
        figures=(
            LayerFigure(
                title="Where the order of the words is carried",
                x_label="layer",
                y_label="share of answers that turn",
                chance=0.0,
                series=tuple(told.series(name, layers, shares[what]) for what, name in enumerate(WHAT)),
                caption="Up to which layer the words' own places carry the turn, and from which on the last token does.",
            ),
        ),
        tables=(_table(layers, shares),),
        not_looked_at=("Which heads move it.", "Whether other triggers would pass the same way."),
    )


def caught(found: Found) -> list[int]:
    """By number, the test sentences that the pair turns in its order and not reversed."""
    assert found.test is not None
    turned = found.test.turned
    return [number for number, a, b in zip(found.test.used, turned[0], turned[REVERSED], strict=True) if a and not b]


def _where(layers: Sequence[int], shares: Sequence[Sequence[Interval]]) -> tuple[str, ...]:
    """The first layer after which the last token turns at least as many answers as the words' places."""
    for layer, words, last in zip(layers, shares[WORDS], shares[LAST], strict=True):
        if last.value >= words.value:
            return (f"L{layer}.resid @ last",)
    return ()


def _table(layers: Sequence[int], shares: Sequence[Sequence[Interval]]) -> TableData:
    return TableData(
        title="Where the order of the words is carried",
        columns=("layer", *WHAT),
        rows=tuple(
            (layer, *(told.between(shares[what][place]) for what in range(len(WHAT))))
            for place, layer in enumerate(layers)
        ),
        caption="Share of answers of the reversed runs that turn. After the last layer the last token carries it by "
        "construction.",
    )
