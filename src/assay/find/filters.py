"""The refusal-direction criteria: which candidate, taken away, takes the behaviour with it and little else.

    choose  argmin over candidates of  score(ablate r everywhere)
    among   block < 0.8 L,  KL(model ‖ ablated) ≤ 0.1,  score(h + r) ≥ 0

Candidates are vectors found at several layers and positions, such as ``at=["L:.resid @ -1", "L:.resid @ -2"]`` for the
last two tokens of the template. A good one is necessary (without it the behaviour goes), sufficient (adding it once
brings the behaviour about) and harmless (elsewhere the next token stays as it was).

The score of a prompt is log P(first answer) − log P(second), or with one answer its log-odds, log p − log(1 − p), which
with the refusal's first token is the paper's refusal score. What is scored depends on the pairs:

==================  ==========================================  =====================================
                    pairs without questions, as in the paper    pairs with questions
==================  ==========================================  =====================================
behaviour removed   positives (harmful instructions)            questions
behaviour induced   negatives (harmless instructions)           questions
left as it was      negatives, KL at the last token             plain prose, KL at the last token
answers             ``score=``, the same for all                each pair's own, or ``score=``
==================  ==========================================  =====================================

Blocks are counted as in the paper, by the block whose input is changed: ``L23.resid`` is block 24. The paper sums the
probability of several refusal tokens; here one continuation stands for them. It filters prompts by the model's own
score first; that is left to whoever makes the pairs.

Misleads: an induced score of at least 0 asks that the behaviour become likelier than not, which many true directions do
not reach at their raw length; and the best of many candidates looks good by luck: verify it on other data.

Source: Arditi et al. 2024, Refusal in Language Models Is Mediated by a Single Direction, §2.3, and its
appendix on the selection of directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from assay.act.intervention import Condition, ablate, add, flat
from assay.direction import Direction
from assay.errors import BadData, BadSite, EmptyData
from assay.find.search import Asked, Cell, questions, told
from assay.model.core import NEUTRAL
from assay.pairs import Pairs
from assay.prompt import Prompt
from assay.run.model import Model
from assay.run.passes import passes
from assay.run.plan import entry_of
from assay.run.score import Answers
from assay.run.sweep import Progress

BY = "score under ablation"
DEEPEST, MOST_KL, LEAST_INDUCED = 0.8, 0.1, 0.0


def refusal(
    model: Model, directions: Sequence[Direction], on: Pairs, score: Answers | None, progress: Progress | None = None
) -> list[Cell]:
    """Every candidate with its three measurements, and why it was dropped if it was.

    Raises `BadSite` for directions that are not of the stream, `BadData` where there is nothing to score, and
    `EmptyData`, with the table, when no candidate is left.
    """
    kept, induce, calm = _prompts(on, score)
    blocks = model.shape.layers
    for direction in directions:
        if direction.width != model.shape.d_model:
            raise BadSite(
                f"{direction.site} is no place in the stream",
                found=f"width {direction.width}, not {model.shape.d_model}",
                hint="only a direction of the stream can be ablated everywhere: resid, mid, attn.out or mlp.out",
            )
    early = [one for one in directions if entry_of([one.site], blocks) < int(DEEPEST * blocks)]
    sites = {one.site for one in early}
    away = [ablate(direction, at="everywhere") for direction in early]
    toward = [add(direction, times=1, at=direction.site.at("all")) for direction in early]
    cells = []
    if early:
        measured = zip(
            _scores(model, kept, away, progress),
            _scores(model, induce, toward, progress),
            drift(model, calm, away).mean(axis=0).tolist(),
            strict=True,
        )
        cells = [
            Cell(one.site, left, notes={"induced": brought, "KL": kl}, dropped=_why_not(left, brought, kl))
            for one, (left, brought, kl) in zip(early, measured, strict=True)
        ]
    cells += [Cell(one.site, None, dropped=f"block ≥ {DEEPEST} L") for one in directions if one.site not in sites]
    if all(cell.dropped for cell in cells):
        raise EmptyData(
            f"the refusal filters leave none of {len(directions)} candidates",
            found=told(cells, BY),
            hint="search more layers or positions below 0.8 L, or choose without filters and say so",
        )
    return cells


def _why_not(ablated: float, induced: float, kl: float) -> str:
    if not np.isfinite([ablated, induced, kl]).all():
        return "not finite"
    reasons = {f"KL > {MOST_KL}": kl > MOST_KL, "not induced": induced < LEAST_INDUCED}
    return ", ".join(reason for reason, holds in reasons.items() if holds)


def _prompts(on: Pairs, score: Answers | None) -> tuple[Asked, Asked, Sequence[str | Prompt]]:
    """What is scored under ablation, what under addition, and what should stay as it was."""
    asked = questions(on, score)
    if asked is not None:
        return asked, asked, NEUTRAL
    if score is None:
        raise BadData(
            "the refusal filters have no answers to score",
            found="pairs without questions, and no score=",
            hint='score="I cannot" scores it after each side of the pairs, as the refusal score does',
        )
    positives, negatives = [pair.positive for pair in on], [pair.negative for pair in on]
    return (positives, score), (negatives, score), negatives


def _scores(model: Model, asked: Asked, conditions: Sequence[Condition], progress: Progress | None) -> list[float]:
    """The mean score under each condition."""
    grid = model.sweep(asked[0], conditions, score=asked[1], progress=progress)
    scores = grid.scores
    if "logprob_1" not in grid.table.column_names:
        scores = scores - np.log(-np.expm1(np.minimum(scores, -1e-12)))
    return [float(score) for score in scores.mean(axis=0)]


def drift(model: Model, prompts: Sequence[str | Prompt], conditions: Sequence[Condition]) -> np.ndarray:
    """KL(model ‖ under each condition) of the next token after each prompt, in nats, ``[prompt, condition]``."""
    plain = {prompt: p for prompt, _, p in _next_token(model, prompts, [()])}
    found = np.zeros((len(prompts), len(conditions)))
    for prompt, condition, q in _next_token(model, prompts, conditions):
        found[prompt, condition] = float((plain[prompt].exp() * (plain[prompt] - q)).sum())
    return found


def _next_token(
    model: Model, prompts: Sequence[str | Prompt], conditions: Sequence[Condition]
) -> Iterator[tuple[int, int, Tensor]]:
    """Log-probabilities ``[vocab]`` after each prompt under each condition, as they come."""
    for done in passes(model, model.rows(prompts), [flat(condition) for condition in conditions]):
        last = torch.tensor([len(done.base.rows[cell.base].tokens) - 1 - done.first for cell in done.cells])
        logits = model.engine.unembed(done.final[torch.arange(len(last)), last]).double()
        for cell, logp in zip(done.cells, torch.log_softmax(logits, dim=-1).cpu(), strict=True):
            yield int(done.base.rows[cell.base].name), cell.condition, logp
