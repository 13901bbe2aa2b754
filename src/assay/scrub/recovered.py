"""Causal scrubbing (Chan et al. 2022): how much of what a model does is left when all that a hypothesis calls irrelevant
is replaced::

    recovered = (E_random − E_scrubbed) / (E_random − E_model)

E is the mean loss; E_random is the model's with its scores swapped between inputs, or another hypothesis's. Below 0 and
above 1 are possible. It says that a hypothesis is consistent with the loss, not that it is true: what it resamples may
cancel, two features may part the inputs alike, and a fine feature leaves little to resample. Look at the change for each
input, and at what random hypotheses of the same size recover (`null`).

Reference: Chan et al. 2022, *Causal Scrubbing*; Scheurer et al. 2023, *Practical Pitfalls of Causal Scrubbing*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from assay.errors import BadData, EmptyData
from assay.figure import save
from assay.graph import Graph, graph_of
from assay.run.model import Model
from assay.scrub.data import IGNORED, Data, Ids, Items
from assay.scrub.evaluate import ALL, Evaluation
from assay.scrub.hypothesis import ANYTHING, INPUT, Node
from assay.scrub.loss import Array, Loss, cross_entropy, divergence, recovered_share
from assay.scrub.plot import changes
from assay.scrub.tree import Bound, Draws, bind, draw
from assay.stats import Interval

if TYPE_CHECKING:
    from assay.scrub.compare import Null

CANCELS, COARSE = 0.1, 0.5


@dataclass(frozen=True, eq=False)
class Recovered:
    """What was measured, a value for each reference.

    Attributes:
        hypothesis: what was tested.
        references: the inputs, ``[reference]``; more than once where they were drawn so.
        scrubbed, model, random: losses, ``[reference]``.
        right, was_right: whether the scrubbed and the model's own best score is the target, mean over its positions.
        kl: KL(model ‖ scrubbed) in nats, ``[reference]``.
        sizes: by node, how many inputs the class of each reference's input has, as its median.
        kept: by node, the share of references whose input was drawn again, so that nothing changed.
        alike: nodes whose feature parts the inputs exactly as another feature of the data does.
        rows: rows that were run, whole or in part.
    """

    hypothesis: Node
    references: Ids
    scrubbed: Array
    model: Array
    random: Array
    right: Array
    was_right: Array
    kl: Array
    sizes: Mapping[str, float]
    kept: Mapping[str, float]
    alike: Mapping[str, Sequence[str]]
    rows: int
    seed: int = field(default=0, repr=False)

    @cached_property
    def share(self) -> Interval:
        """Loss recovered, as a share, with a bootstrap interval over inputs."""
        return recovered_share(self.scrubbed, self.model, self.random, self.references, self.seed)

    @property
    def accuracy(self) -> float:
        """Share of targets that the scrubbed model gets right."""
        return float(self.right.mean())

    @property
    def change(self) -> Array:
        """By input, mean over its references, the scrubbed loss less the model's, ``[input]``."""
        ids, index = np.unique(self.references, return_inverse=True)
        return np.bincount(index, self.scrubbed - self.model) / np.bincount(index) if len(ids) else np.zeros(0)

    @property
    def uncancelled(self) -> float:
        """The share that would be recovered if every input that gained had lost as much: 1 − mean|change| / range."""
        return float(1 - np.abs(self.change).mean() / (self.random.mean() - self.model.mean()))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the share say less than it seems to (Scheurer et al. 2023)."""
        found = []
        lost = self.share.value - self.uncancelled
        if min(lost, self.share.value) > CANCELS:
            found.append(
                f"cancellation: some inputs gain what others lose; {self.share.value:.0%} recovered by the mean, "
                f"{self.uncancelled:.0%} input by input"
            )
        found += [
            f"too fine to test: {name} keeps {share:.0%} of its inputs as they were"
            for name, share in self.kept.items()
            if share > COARSE
        ]
        found += [
            f"not told apart: on these inputs {name} is the same as {' and '.join(others)}"
            for name, others in self.alike.items()
        ]
        return tuple(found)

    def plot(self, path: str | Path, chance: Null | None = None) -> Path:
        """Draw the change for each input, and where the share lies among random hypotheses. Raises `Unwritable`."""
        return save(path, changes(self, chance))

    def __str__(self) -> str:
        share = self.share
        lines = [
            f"loss recovered   {share.value:7.1%}   ({share.low:.1%} to {share.high:.1%}, {share.n} inputs)",
            f"loss             {self.scrubbed.mean():7.4f}   model {self.model.mean():.4f}, random {self.random.mean():.4f}",
            f"accuracy         {self.accuracy:7.1%}   model {self.was_right.mean():.1%}",
            f"KL(model‖scrub.) {self.kl.mean():7.4f}   nats",
        ]
        return "\n".join([*lines, *(f"! {warning}" for warning in self.warnings)])


def recovered(
    model: Model | Graph,
    hypothesis: Node,
    *,
    on: Data,
    references: int | None = None,
    seed: int = 0,
    loss: Loss | None = None,
    baseline: Node | None = None,
    tokens: int = 8192,
) -> Recovered:
    """Scrub a model by a hypothesis, and measure what is left.

    Args:
        model: a `Model`, or any `Graph`.
        hypothesis: see `node`.
        on: the inputs.
        references: how many are drawn, with replacement; every input once unless given.
        seed: of all draws.
        loss: cross-entropy of the targets, mean over a row's positions, unless given.
        baseline: a hypothesis whose scrubbed loss is E_random; the model's scores swapped between inputs unless given.
        tokens: about how many a batch holds.

    Raises `BadHypothesis`, `BadData`, `EmptyData`, and what the graph raises for its inputs.
    """
    return Bench(model, on, references, seed, loss, baseline, tokens).scrub(hypothesis)


class Bench:
    """Data, references and the two ends of the scale, which all hypotheses on them share."""

    def __init__(
        self,
        model: Model | Graph,
        on: Data,
        references: int | None = None,
        seed: int = 0,
        loss: Loss | None = None,
        baseline: Node | None = None,
        tokens: int = 8192,
    ) -> None:
        self.graph = graph_of(model)
        self.items, self.seed, self.loss = Items(self.graph, on), seed, loss or cross_entropy
        if len(self.items) < 2:
            raise EmptyData(f"{len(self.items)} inputs cannot be resampled", hint="give two or more, better hundreds")
        if references is not None and references < 2:
            raise EmptyData(f"{references} references give no interval", hint="draw hundreds, or leave references out")
        random = np.random.default_rng([seed, 1])
        count = len(self.items)
        self.references: Ids = np.arange(count) if references is None else random.integers(count, size=references)
        self.batch = max(1, tokens // self._longest())
        self.model, self.was_right, self.random = self._ends(random.integers(count, size=len(self.references)))
        if baseline is not None:
            self.random = self._run(bind(self.graph, self.items, baseline), (seed, 2), compare=False)[0]
        if not self.random.mean() > self.model.mean():
            raise BadData(
                "the baseline loses no more than the model, so nothing can be recovered",
                found=f"mean losses of {self.random.mean():.4g} and {self.model.mean():.4g}",
                hint="give inputs that the model is right about, or another baseline",
            )

    def scrub(self, hypothesis: Node) -> Recovered:
        """Test one hypothesis."""
        bound = bind(self.graph, self.items, hypothesis)
        scrubbed, right, kl, draws, rows = self._run(bound, (self.seed, 0))
        return Recovered(
            hypothesis,
            self.references,
            scrubbed,
            self.model,
            self.random,
            right,
            self.was_right,
            kl,
            *self._looked_over(bound, draws),
            rows,
            self.seed,
        )

    def share(self, hypothesis: Node, seed: int) -> float:
        """Loss recovered by a hypothesis, without all else."""
        loss = self._run(bind(self.graph, self.items, hypothesis), (self.seed, 3, seed), compare=False)[0]
        return float((self.random - loss).mean() / (self.random - self.model).mean())

    def _longest(self) -> int:
        return max(stop - start for start, stop in self.graph.bounds(self.items.inputs, range(len(self.items)), ALL))

    def _ends(self, swapped: Ids) -> tuple[Array, Array, Array]:
        """The model's losses and hits on references, and the losses of its scores on other inputs."""
        model, right, random = (np.zeros(len(self.references)) for _ in range(3))
        needed = np.union1d(self.references, swapped)
        for start in range(0, len(needed), self.batch):
            ids = needed[start : start + self.batch]
            scores = self._scores(ids)
            own, other = (np.flatnonzero(np.isin(which, ids)) for which in (self.references, swapped))
            scored = scores[torch.as_tensor(np.searchsorted(ids, self.references[own]))]
            model[own], right[own] = self._measured(scored, self.references[own])
            scored = scores[torch.as_tensor(np.searchsorted(ids, swapped[other]))]
            random[other] = self._measured(scored, self.references[other])[0]
        return model, right, random

    def _scores(self, ids: Ids) -> Tensor:
        scores = self.graph.forward(self.items.inputs, ids.tolist(), {})
        assert scores is not None
        return scores

    def _measured(self, scores: Tensor, references: Ids) -> tuple[Array, Array]:
        targets = self.items.targets[torch.as_tensor(references)]
        counted = targets != IGNORED
        hits = ((scores.argmax(-1).cpu() == targets) & counted).sum(1) / counted.sum(1).clamp(min=1)
        return np.asarray(self.loss(scores, targets.to(scores.device)).double().cpu()), np.asarray(hits.double())

    def _run(self, bound: Bound, seed: tuple[int, ...], compare: bool = True) -> tuple[Array, Array, Array, Draws, int]:
        """Losses, hits and, to ``compare``, KL to the model, which costs a pass over the references."""
        draws = draw(bound, self.items, self.references, seed)
        loss, right, kl = (np.zeros(len(self.references)) for _ in range(3))
        evaluation = Evaluation(self.graph, self.items, draws, self.batch)

        def sink(rows: Ids, scores: Tensor) -> None:
            own = self.references[rows]
            loss[rows], right[rows] = self._measured(scores, own)
            if not compare:
                return
            ids, index = np.unique(own, return_inverse=True)
            kl[rows] = divergence(
                self._scores(ids)[torch.as_tensor(index)], scores, self.items.targets[torch.as_tensor(own)]
            )

        evaluation.scores(bound, sink)
        return loss, right, kl, draws, evaluation.rows

    def _looked_over(
        self, bound: Bound, draws: Draws
    ) -> tuple[dict[str, float], dict[str, float], dict[str, tuple[str, ...]]]:
        """Sizes of classes, inputs that were kept, and features that cannot be told apart, by node."""
        sizes: dict[str, float] = {}
        kept: dict[str, float] = {}
        alike: dict[str, tuple[str, ...]] = {}
        for one in bound.walk():
            feature = one.node.feature
            if feature in (INPUT, ANYTHING):
                continue
            classes = self.items.classes(feature)
            above = draws.given[one.path[:-1]] if one.path else self.references
            sizes[one.node.label] = float(np.median(classes.sizes[classes.codes[above]]))
            kept[one.node.label] = float((draws.given[one.path] == above).mean())
            twins = tuple(name for name in self._columns() if name != feature and self._same(name, feature))
            if twins:
                alike[one.node.label] = twins
        return sizes, kept, alike

    def _columns(self) -> list[str]:
        return [name for name, column in self.items.features.items() if np.ndim(column[0]) == 0]

    def _same(self, one: str, other: str) -> bool:
        a, b = self.items.classes(one), self.items.classes(other)
        return len(a.sizes) == len(b.sizes) == len({*zip(a.codes.tolist(), b.codes.tolist(), strict=True)})
