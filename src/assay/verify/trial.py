"""`verify.direction`: does this direction carry this behaviour?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.act.intervention import Condition
from assay.direction import Direction
from assay.pairs import Pairs
from assay.prompt import Prompt
from assay.provenance import Provenance, jsonable, versions
from assay.run.model import Model
from assay.run.score import score as score_cells
from assay.run.sweep import Progress
from assay.stats import (
    Effect,
    bootstrap_interval,
    max_statistic_p,
    paired_effect,
    permutation_p,
    sign_flip_p,
)
from assay.verify.dose import pushes, response, sufficiency
from assay.verify.experiment import Bench, Drawn, ablations, draw, elsewhere, here, run, statistics
from assay.verify.ready import FEW_SHUFFLED, Case, ready
from assay.verify.rule import bar, decide, power
from assay.verify.specificity import beyond
from assay.verify.stability import split_half
from assay.verify.verdict import Control, Missing, Necessity, SideEffect, Stability, Verdict

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

_LEAST_BOOTSTRAP = 10
"""Clusters below which the t interval covers better than a bootstrap."""


def direction(
    model: Model,
    direction: Direction,
    *,
    on: Pairs,
    fit: Pairs | None = None,
    doses: Sequence[float] | None = None,
    deciding: Sequence[float] | None = None,
    score: tuple[str, str] | None = None,
    controls: Mapping[str, int] | None = None,
    alpha: float = 0.05,
    search: Sequence[Direction] | None = None,
    neutral: Sequence[str | Prompt] | None = None,
    budget: float | None = None,
    prompt_baseline: str | None = None,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Does pushing the model along a direction move its answers, and more than control directions do, on unseen items?

    An item's score is log P(matching answer) − log P(other), in nats. The statistic is the mean over items of their
    least-squares slopes over mirrored doses (`stats.dose_slopes`), the same for the direction and for every control.
    `assay.verify.rule` says when a direction holds, `assay.verify.controls` how the controls are made.

    Args:
        model: the model it was found on.
        direction: acts at its own site.
        on: test pairs that ask questions; no prompt of theirs may have found or tuned the direction.
        fit: the pairs that found it: its finder runs again on them under shuffled labels, and their activations give
            the covariance. A direction given by hand does without; the covariance is then that of ``on``.
        doses: mirrored, in the unit of `add`; half and a quarter of the typical norm unless given, or 10 and 5 σ for a
            direction with a scale of its own.
        deciding: the mirrored doses among those at which controls run and the statistic is taken; all, unless given.
            The outermost pair alone costs half as much as two pairs and tests much the same.
        score: ``(matching, other)`` answers for all items, instead of each pair's own.
        controls: draws by family, over the defaults of `ready.CONTROLS`. A deciding family left out (0) leaves the
            verdict undecided at best.
        alpha: the level of every deciding test.
        search: the candidates, one per place, among which the direction was chosen *by its effect*. Every draw is then
            carried through all places and counts with its best (max statistic). Taken from the record that `best`
            leaves where this says enough; a choice by separation is free.
        neutral: texts for side effects; plain prose unless given.
        budget: nats per token. The direction and every draw are scaled so that the largest dose costs that much KL on
            the neutral texts. Takes ten more runs of these per vector.
        prompt_baseline: an instruction to put before every question, scored beside.
        seed: of all draws.
        memory: bytes that a batch may take, as in `Model.sweep`.
        progress: called with cells done and cells in all, with 0 done before the first.

    Raises, before anything runs: `LeakedData`, `ModelMismatch`, `BadDose` for doses that are not mirrored, `EmptyData`
    for too few clusters, `BadData` for items that cannot be scored and for too few draws, `BadSite`, `NoSuchSite`,
    `BadVector`, `NeverFired`.
    """
    case = ready(model, direction, on, fit, doses, deciding, score, controls, alpha, search, neutral, budget)
    drawn = draw(case, seed, budget, memory)
    main, others = here(case, drawn), elsewhere(case, drawn, seed)
    cost = run([main, *([] if others is None else [others])], memory, progress)
    arguments = dict(
        doses=case.doses, deciding=case.deciding, score=score, controls=case.counts, alpha=alpha, budget=budget,
        search=[spot.at for spot in case.spots], prompt_baseline=prompt_baseline,
        direction=direction.digest, on=on.digest, fit=None if fit is None else fit.digest,
    )  # fmt: skip
    return _judged(
        case,
        drawn,
        main,
        statistics(case, main, others),
        seed,
        cost=cost,
        side_effects=_side_effects(case, drawn, memory),
        prompt_baseline=_prompted(case, prompt_baseline, main["natural"][:, 0], memory),
        provenance=_provenance(model, arguments, seed),
    )


def _judged(case: Case, drawn: Drawn, main: Bench, statistic: Array, seed: int, **measured: Any) -> Verdict:
    """The verdict from the scores of a sweep, and from what was ``measured`` beside it."""
    own, natural, dosed = main.slopes("pool")[0], main["natural"][:, 0], main["doses"]
    tested = _controls(case, drawn, statistic, main)
    effect = _effect(own, case.clusters, seed)
    items_p = sign_flip_p(own, case.clusters, tail="greater", seed=seed)
    word, because, p = decide(items_p, tested, case.alpha, effect, drawn.concept)
    bars = {
        name: bar(statistic[drawn.families[name]], case.chosen, case.alpha) for name in case.gates if case.counts[name]
    }
    contrasts = {
        name: one if isinstance(one, Missing) else main.slopes(name).mean(axis=0)
        for name, one in drawn.contrasts.items()
    }
    stable: Stability | Missing = Missing(reason="there is no finder to run again")
    if not isinstance(case.formula, Missing):
        assert drawn.sides is not None
        stable = split_half(drawn.sides, case.formula, np.random.default_rng([seed, 4]))
    return Verdict(
        verdict=word,
        because=because,
        p=p,
        alpha=case.alpha,
        effect=effect,
        slopes=tuple(own.tolist()),
        clusters=int(case.clusters.max()) + 1,
        items_p=items_p,
        controls=tested,
        dose_response=response(case.doses, dosed - natural[:, None], case.clusters, seed),
        sufficiency=sufficiency(case.doses[-1], dosed[:, -1], natural, case.clusters),
        necessity=_necessity(case, main, natural),
        specificity=beyond(own, contrasts, case.clusters),
        stability=stable,
        power=power(effect, own, case.clusters, bars, case.alpha),
        concept_share=drawn.concept,
        direction=case.direction.name,
        site=str(case.site),
        **measured,
    )


def _controls(case: Case, drawn: Drawn, statistic: Array, main: Bench) -> dict[str, Control]:
    """Every family against the direction; ``statistic [1 + draws, spots]``."""
    found = {}
    for name in case.gates:
        null = statistic[drawn.families[name]]
        if not len(null):
            found[name] = Control(values=(), p=None, gating=True, note="left out")
            continue
        p = float(max_statistic_p(statistic[0], null, "mirrored")[case.chosen])
        notes = [f"largest of {len(case.spots)} places"] if len(case.spots) > 1 else []
        notes += [_note(name, case, drawn)] if _note(name, case, drawn) else []
        found[name] = Control(values=tuple(null[:, case.chosen].tolist()), p=p, gating=True, note=", ".join(notes))
    if "shuffled" not in case.gates:
        assert isinstance(case.formula, Missing)
        found["shuffled"] = Control(values=(), p=None, gating=False, note=case.formula.reason)
    if "orthogonal" in drawn.contrasts:
        values = main.slopes("orthogonal").mean(axis=1)
        p = permutation_p(statistic[0, case.chosen], values, "mirrored")
        found["orthogonal"] = Control(values=tuple(values.tolist()), p=p, gating=False)
    return found


def _note(name: str, case: Case, drawn: Drawn) -> str:
    if name == "covariance" and not isinstance(drawn.concept, Missing):
        share, rank = drawn.concept.share, drawn.concept.rank
        return f"{share:.0%} of the variance lies along the direction, effective rank {rank:.0f}"
    clusters = len(case.fit.clusters)
    if name == "shuffled" and clusters < FEW_SHUFFLED:
        return f"only {clusters} clusters to swap"
    return ""


def _effect(slopes: Array, clusters: Codes, seed: int) -> Effect:
    found = paired_effect(slopes, clusters)
    if found.interval.n < _LEAST_BOOTSTRAP:
        return found
    return Effect(found.value, found.se, bootstrap_interval(slopes, clusters=clusters, seed=seed))


def _necessity(case: Case, main: Bench, natural: Array) -> Necessity:
    """What ablation takes from the items on which the model as it is prefers the matching answer."""
    present = natural > 0
    count, units = int(present.sum()), len(set(case.clusters[present].tolist()))
    reason = "" if units >= 2 else f"{units} clusters prefer the matching answer to begin with"
    reason = "a positional vector has no one axis to ablate" if "ablated" not in main.blocks else reason
    if reason:
        return Necessity(present=count, here=Missing(reason=reason), everywhere=Missing(reason=reason), control=None)
    lost = natural[present, None] - main["ablated"][present]
    effects = [paired_effect(column, case.clusters[present]) for column in lost.T]
    everywhere = effects[1] if len(effects) > 1 else Missing(reason="not a direction of the stream")
    rivals = (natural[present, None] - main["rivals"][present]).mean(axis=0)
    control = None
    if len(rivals):
        p = permutation_p(effects[0].value, rivals, "greater")
        control = Control(values=tuple(rivals.tolist()), p=p, gating=False, note="covariance-matched, ablated")
    return Necessity(present=count, here=effects[0], everywhere=everywhere, control=control)


def _side_effects(case: Case, drawn: Drawn, memory: int | None) -> tuple[SideEffect, ...] | Missing:
    if isinstance(case.neutral, Missing):
        return case.neutral
    vector = drawn.pools[case.chosen][0]
    named: list[tuple[str, float | None, Condition]] = [
        (f"dose {dose:+g}", dose, push)
        for dose, push in zip(case.doses, pushes(vector, case.site, case.doses, ""), strict=True)
    ]
    if vector.ndim == 1:
        named += [
            (name, None, one) for name, one in zip(("ablated", "ablated everywhere"), ablations(case), strict=False)
        ]
    found = case.model.drift(case.neutral, [one for _, _, one in named], memory=memory)
    return tuple(
        SideEffect(under=name, dose=dose, kl=paired_effect(kl), perplexity_ratio=float(ratio))
        for (name, dose, _), kl, ratio in zip(named, found.kl.T, found.perplexity_ratio, strict=True)
    )


def _prompted(case: Case, instruction: str | None, natural: Array, memory: int | None) -> Effect | Missing:
    """What a plain instruction before the question does to the score."""
    if instruction is None:
        return Missing(reason="no instruction was given")
    told = [question.after(f"{instruction}\n\n") for question in case.questions]
    found = score_cells(case.model, told, case.answers, [()], memory).difference[:, 0]
    return paired_effect(found - natural, case.clusters)


def _provenance(model: Model, arguments: Mapping[str, Any], seed: int) -> Provenance:
    return Provenance(
        method="verify.direction",
        arguments=jsonable(arguments),
        model=model.fingerprint,
        data=arguments["on"],
        seed=seed,
        versions=versions(),
    )
