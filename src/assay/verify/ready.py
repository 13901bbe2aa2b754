"""What is settled before any compute is spent: everything that can be wrong is refused here."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from assay.act.intervention import add
from assay.act.rows import Row
from assay.direction import Direction
from assay.errors import BadData, BadDose, BadSite, EmptyData, NeverFired, NoSuchPosition, nearest
from assay.model.core import NEUTRAL
from assay.model.encode import continuation
from assay.pairs import Pair, Pairs, refuse_leak
from assay.prompt import Prompt
from assay.registry import fit_of, lookup
from assay.run.drift import halves
from assay.run.model import Model
from assay.site import Site
from assay.stats import least_draws
from assay.verify.controls import Formula, cluster_codes
from assay.verify.dose import mirrored
from assay.verify.rule import GATES
from assay.verify.search import Spot, spots
from assay.verify.verdict import Missing

CONTROLS = {"random": 59, "covariance": 59, "shuffled": 39, "orthogonal": 16}
"""Draws of each family unless others are given. One more is a multiple of 10, so that alpha = .05 is met exactly."""

NORMS = (-0.5, -0.25, 0.0, 0.25, 0.5)
"""Doses unless others are given. At twice the typical norm every vector moves every answer, and none stands out."""

SIGMAS = (-10.0, -5.0, 0.0, 5.0, 10.0)
"""Likewise where a dose is a standard deviation along the direction, as for `find.heads` (ITI's range of α)."""

LEAST_SHUFFLED = 6
"""Clusters whose sides can be swapped in enough ways (2⁵ up to sign) for the true labels to come up seldom."""

FEW_SHUFFLED = 8
"""Clusters below which the verdict says that few were swapped."""


@dataclass(frozen=True)
class Case:
    """A question that can be answered: the arguments of `verify.direction`, checked and completed.

    Attributes:
        rows: the questions as rows.
        spots: the places of the search, the direction's own at ``chosen``.
        doses, deciding: mirrored, without 0.
        formula: the finder's, or why there are no refits; ``gates`` says which controls decide.
        fit: the pairs that the controls are made from.
        neutral: texts for side effects, or why there are none.
        tokens: that one condition takes, by question.
    """

    model: Model
    direction: Direction
    questions: tuple[Prompt, ...]
    answers: tuple[tuple[str, str], ...]
    clusters: NDArray[np.intp]
    rows: tuple[Row, ...]
    spots: tuple[Spot, ...]
    chosen: int
    doses: tuple[float, ...]
    deciding: tuple[float, ...]
    counts: dict[str, int]
    gates: tuple[str, ...]
    formula: Formula | Missing
    fit: Pairs
    neutral: tuple[str | Prompt, ...] | Missing
    alpha: float
    tokens: tuple[int, ...]

    @property
    def site(self) -> Site:
        """Where the direction acts."""
        return self.spots[self.chosen].at


def ready(
    model: Model,
    direction: Direction,
    on: Pairs,
    fit: Pairs | None,
    doses: Sequence[float] | None,
    deciding: Sequence[float] | None,
    score: tuple[str, str] | None,
    controls: Mapping[str, int] | None,
    alpha: float,
    search: Sequence[Direction] | None,
    neutral: Sequence[str | Prompt] | None,
    budget: float | None,
) -> Case:
    """Check everything, in the order in which a user would want to hear of it."""
    _one_direction(model, direction)
    _unseen(direction, on, fit)
    questions, answers = _asked(on, score)
    usual = NORMS if direction.scale is None else SIGMAS
    acting = mirrored(usual if doses is None else doses)
    decide = acting if deciding is None else mirrored(deciding, "deciding")
    if not set(decide) <= set(acting):
        raise BadData(
            f"deciding={decide} is not among the doses", found=str(acting), hint="decide on doses that are run"
        )
    for one in search or ():
        _one_direction(model, one)
    counts = _counts(controls, alpha)
    clusters = cluster_codes(on)
    _enough_clusters(int(clusters.max()) + 1, alpha)
    formula, possible = _formula(direction, fit, counts)
    if not possible:
        counts["shuffled"] = 0
    places, chosen = spots(model, direction, search, refits=not isinstance(formula, Missing))
    rows, tokens = _rows(model, direction, questions, answers)
    return Case(
        model=model,
        direction=direction,
        questions=questions,
        answers=answers,
        clusters=clusters,
        rows=rows,
        spots=places,
        chosen=chosen,
        doses=acting,
        deciding=decide,
        counts=counts,
        gates=GATES if possible else GATES[:2],
        formula=formula,
        fit=on if fit is None else fit,
        neutral=_neutral(model, direction, neutral, budget),
        alpha=alpha,
        tokens=tokens,
    )


def _one_direction(model: Model, direction: Direction) -> None:
    if not isinstance(direction, Direction):
        raise BadData(
            f"verify.direction judges one Direction, not a {type(direction).__name__}",
            hint="choose one: found.best(on=pairs.tune), or found['L12.resid']; of heads, one of heads.directions",
        )
    direction.check(model.fingerprint)
    site = direction.site
    if not site.one or site.part in ("logits", "head.pattern"):
        raise BadSite(
            f"{direction.name!r} is at {site}, where no one direction can be judged",
            nearest="L12.resid @ last, L3.head[5].z @ last, embed",
            hint="give a direction at a single place that holds vectors",
        )
    model.shape.expand(site)
    _ = direction.unit  # raises for the zero vector


def _unseen(direction: Direction, on: Pairs, fit: Pairs | None) -> None:
    sides = [side for pair in on for side in (pair.positive, pair.negative, pair.question) if side is not None]
    refuse_leak(direction.provenance.used | (frozenset() if fit is None else fit.digests), sides, repr(direction.name))
    made = direction.provenance.data
    if fit is not None and made and fit.digest != made:
        raise BadData(
            f"fit= is not what {direction.name!r} was found on",
            found=f"{len(fit)} pairs {fit.digest[:12]}; it was found on {made[:12]}",
            hint="its controls are made from the same pairs: fit=pairs.fit",
        )


def _asked(on: Pairs, score: tuple[str, str] | None) -> tuple[tuple[Prompt, ...], tuple[tuple[str, str], ...]]:
    if score is not None and (isinstance(score, str) or len(score) != 2):
        raise BadData(
            f"score={score!r} is no pair of answers", hint='score=(" yes", " no"): the matching answer, then the other'
        )
    asked: list[tuple[Prompt, tuple[str, str]]] = []
    for pair in on:
        told = pair.answers if score is None else (score[0], score[1])
        if pair.question is None or told is None:
            raise _unanswerable(on, score)
        asked.append((pair.question, told))
    return tuple(question for question, _ in asked), tuple(answers for _, answers in asked)


def _unanswerable(on: Sequence[Pair], score: tuple[str, str] | None) -> BadData:
    asking = sum(pair.question is not None for pair in on)
    ready = sum(pair.question is not None and pair.answers is not None for pair in on)
    return BadData(
        f"{len(on) - (ready if score is None else asking)} of {len(on)} test pairs cannot be scored",
        found=f"{asking} have a question, {ready} a question with answers",
        hint="give every pair a question and answers, or the same answers for all with score=(matching, other)",
    )


def _counts(controls: Mapping[str, int] | None, alpha: float) -> dict[str, int]:
    given = dict(controls or {})
    for name, count in given.items():
        if name not in CONTROLS:
            raise BadData(
                f"{name!r} is no control", nearest=nearest(name, CONTROLS), hint=f"controls are {', '.join(CONTROLS)}"
            )
        least = least_draws(alpha, "mirrored") if name in GATES else 1
        if count != 0 and count < least:
            raise BadData(
                f"{count} {name} draws cannot reach alpha {alpha:g}",
                found=f"p is at least {1 / (2 * max(0, count) + 2):.3g}",
                hint=f"give {least} or more; 0 leaves the control out, and the verdict undecided at best",
            )
    return CONTROLS | given


def _enough_clusters(clusters: int, alpha: float) -> None:
    least = math.ceil(-math.log2(alpha))
    if clusters < least:
        raise EmptyData(
            f"{clusters} test cluster{'s' if clusters != 1 else ''} cannot reach alpha {alpha:g}",
            found=f"p is at least {2.0**-clusters:.3g}, however alike they are",
            hint=f"give pairs of {least} or more clusters; 20 are a good number",
        )


def _formula(direction: Direction, fit: Pairs | None, counts: Mapping[str, int]) -> tuple[Formula | Missing, bool]:
    """The finder's formula, or why there is none; and whether labels could be shuffled at all."""
    made = direction.provenance
    if made.method == "given" or direction.vector.dim() != 1:
        return Missing(reason=f"made by {made.method}: no labels to shuffle"), False
    if counts["shuffled"] == 0 and fit is None:
        return Missing(reason="left out"), True
    finder = lookup(made.method)
    if "pairs" not in inspect.signature(finder).parameters:
        return Missing(reason=f"made by {made.method}: no labels to shuffle"), False
    if fit is None:
        raise BadData(
            f"the pairs that {direction.name!r} was found on are needed to find it again on shuffled labels",
            found="fit=None",
            hint='fit=pairs.fit; or controls={"shuffled": 0}, which leaves the verdict undecided at best',
        )
    if counts["shuffled"] and len(fit.clusters) < LEAST_SHUFFLED:
        raise EmptyData(
            f"the labels of {len(fit.clusters)} fit clusters cannot be shuffled",
            found=f"{2 ** (len(fit.clusters) - 1)} ways up to sign, the true labels one of them",
            hint=f"find on {LEAST_SHUFFLED} or more clusters; or controls={{'shuffled': 0}}, undecided at best",
        )
    return fit_of(made), True


def _rows(
    model: Model, direction: Direction, questions: Sequence[Prompt], answers: Sequence[tuple[str, str]]
) -> tuple[tuple[Row, ...], tuple[int, ...]]:
    """The questions as rows, once every answer is known to tokenise and the direction to act; tokens by question."""
    rows = [model.row(question, str(index)) for index, question in enumerate(questions)]
    full = [
        replace(row, tokens=(*row.tokens, *continuation(model.tokenizer, question, row.tokens, answer)[:-1]), room=1)
        for row, question, both in zip(rows, questions, answers, strict=True)
        for answer in both
    ]
    model.program(full, [(add(direction, dose=1),)] * len(full))
    counts = dict.fromkeys((row.name for row in rows), 0)
    for name, tokens in {(row.name, row.tokens) for row in full}:  # two one-token answers are read off one row
        counts[name] += len(tokens)
    return tuple(rows), tuple(counts.values())


def _neutral(
    model: Model, direction: Direction, texts: Sequence[str | Prompt] | None, budget: float | None
) -> tuple[str | Prompt, ...] | Missing:
    chosen: tuple[str | Prompt, ...] = NEUTRAL if texts is None else tuple(texts)
    if len(chosen) < 2:
        raise EmptyData(f"{len(chosen)} neutral texts give no interval", hint="give two or more, or leave neutral out")
    rows, reason = halves(model, chosen), ""
    try:
        model.program(rows, [(add(direction, dose=1),)] * len(rows))
    except (NeverFired, NoSuchPosition):
        reason = f"neutral texts have no @ {direction.site.positions}"
    if budget is not None and (reason or not 0 < budget < math.inf):
        raise BadDose(
            f"budget={budget!r} cannot be met",
            found=reason,
            hint="give nats per token above 0, and texts where it acts",
        )
    return Missing(reason=reason) if reason else chosen
