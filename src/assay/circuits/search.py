"""Automatic circuit search: which edges carry a behaviour? An edge is one component's part in what another one reads.

`acdc` removes edges one by one, from the scores down, as long as the measure moves by less than a threshold::

    remove u → v  if  M(kept − {u → v}) − M(kept) < τ

`estimate` gives every edge its first-order effect from gradients (EAP; with ``steps`` above 1 EAP-IG)::

    score(u → v) = (a_u(source) − a_u) · mean_k ∂M/∂input_v at z_source + (k / m)(z − z_source),  k = 0 … m − 1

What is removed is patched from the source: another input (``resample``), the mean over inputs, or zero. The circuit that is
found belongs to that choice: what does not differ between inputs is no edge under resampling and may be one under zero. M is
KL(model ‖ circuit) unless given; its slope at the model's own run is 0, so `estimate` needs steps, or another measure.

References: Conmy et al. 2023 (ACDC); Syed et al. 2023 (EAP); Hanna et al. 2024 (EAP-IG); Miller et al. 2024 (patching of edges).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import BadData, BadDose
from assay.graph import Edge, Edges, Graph, Inputs, graph_of
from assay.graph.ports import Key
from assay.run.model import Model

Ablation = Literal["resample", "mean", "zero"]
Measure = Callable[[Tensor], Tensor]
"""From scores ``[row, pos, outputs]`` to a number a row; the less, the nearer to the model for `acdc`."""
THRESHOLDS = tuple(base * 10.0**power for power in range(-5, -1) for base in (1, 3, 5, 7, 9))
"""As published."""


class Task:
    """A behaviour on paired inputs: what a circuit is searched for, and measured on.

    Attributes:
        edges: all that there are.
        whole: the model's own scores ``[row, pos, outputs]``.
        measure: KL(model ‖ circuit) of the scores, mean over tokens, or their squared distance where there is one only.
        flat: whether that measure has no slope at the model's own run.
    """

    def __init__(
        self,
        model: Model | Graph,
        clean: Any,
        source: Any = None,
        *,
        ablation: Ablation = "resample",
        measure: Measure | None = None,
    ) -> None:
        """``clean`` and ``source`` are inputs that correspond row by row and token by token; ``source`` is left out unless
        edges are resampled. Raises `BadData`.
        """
        self.graph = graph_of(model)
        self.inputs: Inputs = self.graph.inputs(clean)
        self.ids = range(len(self.inputs))
        self.edges, self.ablation = Edges(self.graph), ablation
        if (source is None) == (ablation == "resample"):
            raise BadData(
                f"ablation {ablation!r} {'needs inputs to resample from' if source is None else 'takes no source'}",
                hint='give source= for "resample", and for nothing else',
            )
        self.written = self.edges.written(self.inputs, self.ids)
        self.source = self._source(source)
        scores = self.graph.forward(self.inputs, self.ids, {})
        assert scores is not None
        self.whole, self.flat = scores, measure is None
        self.measure: Measure = measure or (self._divergence if scores.shape[-1] > 1 else self._distance)

    def _source(self, given: Any) -> dict[Key, Tensor]:
        if self.ablation == "zero":
            return {key: torch.zeros_like(h) for key, h in self.written.items()}
        if self.ablation == "mean":
            return {key: h.mean(0, keepdim=True).expand_as(h) for key, h in self.written.items()}
        other = self.graph.inputs(given)
        if len(other) != len(self.inputs):
            raise BadData(f"{len(other)} sources for {len(self.inputs)} inputs", hint="give a source to every input")
        found = self.edges.written(other, range(len(other)))
        if any(found[key].shape != h.shape for key, h in self.written.items()):
            raise BadData("the inputs and their sources have other lengths", hint="they correspond token by token")
        return found

    def _divergence(self, scores: Tensor) -> Tensor:
        p, q = self.whole.float().log_softmax(-1), scores.float().log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1).mean(-1)

    def _distance(self, scores: Tensor) -> Tensor:
        return (scores - self.whole).square().mean((-1, -2))

    def value(self, kept: Iterable[Edge]) -> float:
        """The measure with every other edge ablated, mean over inputs."""
        patched = set(self.edges.all) - set(kept)
        return float(self.measure(self.edges.patched(self.inputs, self.ids, patched, self.source)).mean())


@dataclass(frozen=True, eq=False)
class Ranking:
    """Edges with scores.

    Attributes:
        edges: all edges of the graph.
        scores: of each, the more the likelier it is in the circuit, ``[edge]``.
        method: how they were made.
    """

    edges: tuple[Edge, ...]
    scores: NDArray[np.float64]
    method: str

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Indices of edges, the highest score first."""
        return np.argsort(-self.scores, kind="stable")

    def circuit(self, count: int, prune: bool = True) -> frozenset[Edge]:
        """The ``count`` edges with the highest scores; with ``prune`` without those that lead nowhere."""
        chosen = frozenset(self.edges[int(index)] for index in self.order[:count])
        return pruned(chosen) if prune else chosen

    def top(self, count: int) -> list[tuple[Edge, float]]:
        """The first ``count`` edges with their scores."""
        return [(self.edges[int(index)], float(self.scores[index])) for index in self.order[:count]]


def acdc(task: Task, thresholds: Sequence[float] = THRESHOLDS) -> Ranking:
    """Search at every threshold; an edge's score is the largest threshold at which it was kept, 0 where it never was.

    Costs a forward pass for each edge and threshold, less those below components that are no longer read. Raises `BadDose`.
    """
    if not thresholds or min(thresholds) <= 0:
        raise BadDose(
            f"thresholds are positive numbers, not {list(thresholds)[:4]}", hint="leave them out for the published ones"
        )
    scores = dict.fromkeys(task.edges.all, 0.0)
    for threshold in sorted(thresholds):
        for edge in searched(task, threshold):
            scores[edge] = threshold
    return Ranking(task.edges.all, np.array([scores[edge] for edge in task.edges.all]), "ACDC")


def searched(task: Task, threshold: float) -> frozenset[Edge]:
    """The circuit that ACDC finds at one threshold."""
    kept = dict.fromkeys(task.edges.all)
    now = task.value(kept)
    for reader in reversed(task.edges.readers):
        unread = reader != "logits" and not any(feeds(reader, u) for u, _ in kept)
        for edge in [edge for edge in reversed(task.edges.all) if edge[1] == reader]:
            del kept[edge]
            if unread:
                continue
            then = task.value(kept)
            if abs(then - now) < threshold:
                now = then
            else:
                kept[edge] = None
    return frozenset(kept)


def estimate(task: Task, steps: int = 1) -> Ranking:
    """Score every edge by its first-order effect, in absolute value. Raises `BadDose`, `BadData`."""
    if steps < 1:
        raise BadDose(f"a gradient is averaged over {steps} points", hint="give 1 for EAP, 5 or more for EAP-IG")
    if steps == 1 and task.flat:
        raise BadData(
            "KL to the model has no slope at the model's own run", hint="give steps=5 or more, or a measure to the task"
        )
    embed = task.edges.writers.get("embed")
    if embed is None and steps > 1:
        raise BadData("the graph has no embed to move along", hint="declare it, or take steps=1")
    slopes: dict[str, Tensor] = {}
    for step in range(steps):
        at = None
        if steps > 1:
            assert embed is not None
            far, near = task.source[embed.key], task.written[embed.key]
            at = (embed.key, far + (step / steps) * (near - far))
        for reader, slope in task.edges.slopes(task.inputs, task.ids, task.measure, at).items():
            slopes[reader] = slopes.get(reader, 0) + slope / steps
    graph, writers = task.graph, task.edges.writers
    change = {
        u: graph.written(port, port.of(task.source[port.key]) - port.of(task.written[port.key]))
        for u, port in writers.items()
    }
    found = [float((change[u] * slopes[v]).sum().abs()) / len(task.inputs) for u, v in task.edges.all]
    return Ranking(task.edges.all, np.array(found), "EAP" if steps == 1 else f"EAP-IG, {steps} steps")


def pruned(circuit: Iterable[Edge]) -> frozenset[Edge]:
    """Without edges from components that nothing reaches, or that lead to no score."""
    kept = set(circuit)
    while True:
        loose = {(u, v) for u, v in kept if not (u == "embed" or any(feeds(w, u) for _, w in kept))}
        loose |= {(u, v) for u, v in kept if not (v == "logits" or any(feeds(v, w) for w, _ in kept))}
        if not loose:
            return frozenset(kept)
        kept -= loose


def feeds(reader: str, writer: str) -> bool:
    """Whether what a reader reads goes into what a writer writes: ``L3.head[5].q`` into ``L3.head[5].out``."""
    if reader.endswith(".attn"):
        return writer.startswith((f"{reader}.", reader[: -len("attn")] + "head["))
    return re.sub(r"\.(q|k|v)$", "", reader) == re.sub(r"\.(out|z)$", "", writer)
