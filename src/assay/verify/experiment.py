"""What is run for a verdict: every vector, every condition, in one sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from assay.act.intervention import Condition, Intervention, ablate, flat
from assay.run.score import score
from assay.run.sweep import Progress
from assay.site import Site
from assay.stats import dose_slopes
from assay.verify import controls as make
from assay.verify.controls import Sides
from assay.verify.dose import directed, equal_kl, pushes
from assay.verify.ready import Case
from assay.verify.rule import GATES
from assay.verify.search import Spot
from assay.verify.specificity import wrong_layer, wrong_position
from assay.verify.verdict import ConceptShare, Cost, Missing

Array = NDArray[np.float64]

_RIVALS = 19
"""Covariance-matched directions that are ablated beside the tested one."""

_SCOUTED = 4
"""Items of which places of the search other than the chosen one are asked."""


@dataclass(frozen=True)
class Drawn:
    """Every vector, each as long as one dose.

    Attributes:
        pools: at each spot ``[1 + draws, …]``: the candidate, then the deciding families, in one order everywhere.
        families: where each deciding family stands in a pool.
        contrasts: what the direction is compared with beside the verdict: vectors and the site they act at.
        sides: activations of the fit pairs where the direction was read, if any were needed.
        concept: see `ConceptShare`.
    """

    pools: tuple[Array, ...]
    families: dict[str, slice]
    contrasts: dict[str, tuple[Array, Site] | Missing]
    sides: Sides | None
    concept: ConceptShare | Missing


def draw(case: Case, seed: int, budget: float | None, memory: int | None) -> Drawn:
    """Read the fit pairs once, find again what is to be found again, and draw. With a budget, scale to equal KL."""
    needed = case.counts["covariance"] or not isinstance(case.formula, Missing)
    sides = make.read(case.model, case.fit, [spot.read for spot in case.spots]) if needed else {}
    swaps = make.flips(len(case.fit.clusters), case.counts["shuffled"], np.random.default_rng([seed, 0]))
    pools = [_pool(case, number, spot, sides.get(spot.read), swaps, seed) for number, spot in enumerate(case.spots)]
    counts = [case.counts[name] for name in GATES]
    ends = np.cumsum([1, *counts])
    families = {name: slice(end - count, end) for name, count, end in zip(GATES, counts, ends[1:], strict=True)}
    own, home = pools[case.chosen][0], sides.get(case.spots[case.chosen].read)
    concept: ConceptShare | Missing = Missing(reason="no activations to compare with")
    if home is not None and own.ndim == 1 and home.residuals.any():
        concept = make.concept_share(own, home.residuals)
    contrasts = _contrasts(case, own, seed)
    if budget is not None:
        pools, contrasts = _within(case, pools, families, contrasts, budget, memory)
    return Drawn(tuple(pools), families, contrasts, home, concept)


def _pool(case: Case, number: int, spot: Spot, sides: Sides | None, swaps: NDArray[np.bool_], seed: int) -> Array:
    own, counts = _candidate(case, spot, sides), case.counts
    parts = [own[None], make.random(own, counts["random"], np.random.default_rng([seed, 1, number]))]
    if counts["covariance"]:
        assert sides is not None
        parts.append(
            make.covariance(own, sides.residuals, counts["covariance"], np.random.default_rng([seed, 2, number]))
        )
    if counts["shuffled"]:
        assert sides is not None and not isinstance(case.formula, Missing)
        parts.append(make.shuffled(own, sides, case.formula, swaps))
    return np.concatenate(parts)


def _candidate(case: Case, spot: Spot, sides: Sides | None) -> Array:
    """The candidate of a spot, as long as one dose there."""
    model, direction = case.model, case.direction if spot.direction is None else spot.direction
    if spot.direction is None:
        assert sides is not None and not isinstance(case.formula, Missing)
        vector = sides.raw(case.formula)
    else:
        vector = direction.vector.double().numpy()
    size = np.linalg.norm(vector, axis=-1).max()
    one = model.typical_norm(spot.at)
    if direction.scale is not None:
        one *= direction.scale / model.typical_norm(direction.site)
    return np.asarray(vector * (one / size if size > 0 else 0.0))


def _contrasts(case: Case, own: Array, seed: int) -> dict[str, tuple[Array, Site] | Missing]:
    model, site = case.model, case.site
    found: dict[str, tuple[Array, Site] | Missing] = {}
    if count := case.counts["orthogonal"]:
        found["orthogonal"] = make.orthogonal(own, count, np.random.default_rng([seed, 3])), site
    for name, other in (("wrong layer", wrong_layer(model, site)), ("wrong position", wrong_position(site, case.rows))):
        if isinstance(other, Missing):
            found[name] = other
        else:
            found[name] = own[None] * (model.typical_norm(other) / model.typical_norm(site)), other
    return found


def _within(
    case: Case,
    pools: list[Array],
    families: dict[str, slice],
    contrasts: dict[str, tuple[Array, Site] | Missing],
    budget: float,
    memory: int | None,
) -> tuple[list[Array], dict[str, tuple[Array, Site] | Missing]]:
    """Everything scaled to equal KL at the largest dose; shuffled refits by the direction's factor, since their length
    is what tells them from it.
    """
    assert not isinstance(case.neutral, Missing)
    texts = case.neutral

    def scaled(vectors: Array, site: Site, refits: slice = slice(0, 0)) -> Array:
        measured = np.ones(len(vectors), dtype=np.bool_)
        measured[refits] = False
        factors = np.ones(len(vectors))
        factors[measured] = equal_kl(case.model, texts, vectors[measured], site, case.doses[-1], budget, memory)
        factors[refits] = factors[0]
        return vectors * factors.reshape(-1, *[1] * (vectors.ndim - 1))

    pools = [scaled(pool, spot.at, families["shuffled"]) for pool, spot in zip(pools, case.spots, strict=True)]
    others = {name: one if isinstance(one, Missing) else (scaled(*one), one[1]) for name, one in contrasts.items()}
    return pools, others


@dataclass
class Bench:
    """Named blocks of conditions that are scored together.

    Attributes:
        case: the question.
        items: indices of the items that are asked.
        doses: mirrored; slopes are taken over them.
        conditions, blocks: of all blocks, and where each stands.
        scores: ``[items, conditions]``, once `run`.
    """

    case: Case
    items: NDArray[np.intp]
    doses: tuple[float, ...]
    conditions: list[tuple[Intervention, ...]] = field(default_factory=list)
    blocks: dict[str, slice] = field(default_factory=dict)
    scores: Array = field(default_factory=lambda: np.empty((0, 0)))

    def ask(self, name: str, conditions: Sequence[Condition]) -> None:
        """Add a block."""
        start = len(self.conditions)
        self.conditions += [flat(condition) for condition in conditions]
        self.blocks[name] = slice(start, len(self.conditions))

    def push(self, name: str, vectors: Array, site: Site, doses: Sequence[float] = ()) -> None:
        """Add a block of every vector at every dose, those of the slope unless others are given."""
        self.ask(name, [one for vector in vectors for one in pushes(vector, site, doses or self.doses, name)])

    @property
    def cost(self) -> Cost:
        """What `run` takes."""
        count = len(self.conditions)
        return Cost(cells=len(self.items) * count, tokens=sum(self.case.tokens[item] for item in self.items) * count)

    def run(self, memory: int | None, progress: Progress | None) -> None:
        """One sweep over all blocks."""
        case = self.case
        prompts = [case.questions[item] for item in self.items]
        answers = [case.answers[item] for item in self.items]
        self.scores = score(case.model, prompts, answers, self.conditions, memory, progress).difference

    def __getitem__(self, name: str) -> Array:
        """The scores of a block, ``[items, conditions of the block]``."""
        return self.scores[:, self.blocks[name]]

    def slopes(self, name: str) -> Array:
        """The slope of every item under every vector of a block, ``[vectors, items]``."""
        scores = self[name].reshape(len(self.scores), -1, len(self.doses))
        return dose_slopes(self.doses, scores.transpose(1, 0, 2))


def here(case: Case, drawn: Drawn) -> Bench:
    """Everything that is asked at the direction's own place, of every item."""
    made, own = Bench(case, np.arange(len(case.questions)), case.deciding), drawn.pools[case.chosen]
    made.ask("natural", [()])
    made.push("pool", own, case.site)
    made.push("doses", own[:1], case.site, case.doses)
    for name, contrast in drawn.contrasts.items():
        if not isinstance(contrast, Missing):
            made.push(name, *contrast)
    if case.direction.vector.dim() == 1:
        rivals = own[drawn.families["covariance"]][:_RIVALS]
        made.ask("ablated", ablations(case))
        made.ask("rivals", [ablate(directed(rival, case.site, "covariance")) for rival in rivals])
    return made


def elsewhere(case: Case, drawn: Drawn, seed: int) -> Bench | None:
    """The candidates and draws of the other places of the search, on a few items at the outermost doses.

    They only say how large the largest of many places comes out by chance, each place in units of its own spread. A few
    items do for that: what fewer items add to a statistic is noise that places do not share, which makes the largest of
    them larger, and the test more careful (Slepian's inequality, for slopes that are linear in the vector).
    """
    if len(case.spots) == 1:
        return None
    rng = np.random.default_rng([seed, 5])
    firsts = np.unique(case.clusters, return_index=True)[1]
    items = np.sort(rng.permutation(firsts)[:_SCOUTED])
    made = Bench(case, items, (case.deciding[0], case.deciding[-1]))
    for number, (spot, pool) in enumerate(zip(case.spots, drawn.pools, strict=True)):
        if number != case.chosen:
            made.push(f"place {number}", pool, spot.at)
    return made


def run(benches: Sequence[Bench], memory: int | None, progress: Progress | None) -> Cost:
    """Run all of them; what that took."""
    costs = [one.cost for one in benches]
    total, done = sum(cost.cells for cost in costs), 0
    for one, cost in zip(benches, costs, strict=True):
        one.run(memory, None if progress is None else _from(progress, done, cost.cells, total))
        done += cost.cells
    return Cost(cells=total, tokens=sum(cost.tokens for cost in costs))


def statistics(case: Case, main: Bench, others: Bench | None) -> Array:
    """The statistic of the candidates and of every draw, ``[1 + draws, places]``: comparable within a place."""
    columns = []
    for number in range(len(case.spots)):
        at = main if number == case.chosen else others
        assert at is not None
        columns.append(at.slopes("pool" if at is main else f"place {number}").mean(axis=1))
    return np.stack(columns, axis=1)


def _from(progress: Progress, done: int, cells: int, total: int) -> Progress:
    """Counts on from ``done``; a cell whose answers need several rows is counted once."""
    return lambda rows, whole: progress(done + rows * cells // whole, total)


def ablations(case: Case) -> list[Intervention]:
    """The direction removed at its site, and where it is a direction of the stream, everywhere."""
    in_stream = case.site.part in ("embed", "attn.out", "mid", "mlp.out", "resid")
    everywhere = [ablate(case.direction, at="everywhere")] if in_stream else []
    return [ablate(case.direction), *everywhere]
