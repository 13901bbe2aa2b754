"""Hypotheses beside one another: nested ones on the same draws, random ones of the same size, other ways to draw."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from assay.errors import BadData, BadHypothesis
from assay.graph import Edges, Graph, Reader, graph_of
from assay.run.model import Model
from assay.scrub.data import Data, Items
from assay.scrub.hypothesis import ANYTHING, INPUT, Node, node
from assay.scrub.recovered import Bench, Recovered
from assay.scrub.tree import Bound, bind
from assay.stats import Interval, bootstrap_interval

Kind = Literal["sites", "features"]
_TRIES = 200


@dataclass(frozen=True, eq=False)
class Ladder:
    """Hypotheses in the order in which they claim more.

    Attributes:
        rungs: by name, what each recovers.
        steps: by name, the share of loss that a rung recovers less than the one before it, the first less than all.
    """

    rungs: Mapping[str, Recovered]
    steps: Mapping[str, Interval]

    def __str__(self) -> str:
        width = max(map(len, self.rungs))
        lines = [f"{'':{width}}  recovered                 lost by this step        accuracy      KL"]
        for name, one in self.rungs.items():
            share, step = one.share, self.steps[name]
            lines.append(
                f"{name:{width}}  {share.value:6.1%} ({share.low:6.1%} to {share.high:6.1%})   "
                f"{step.value:6.1%} ({step.low:6.1%} to {step.high:6.1%})   {one.accuracy:6.1%}  {one.kl.mean():7.4f}"
            )
        return "\n".join(lines)


def ladder(model: Model | Graph, rungs: Mapping[str, Node], *, on: Data, **how: Any) -> Ladder:
    """Scrub by each hypothesis on the same references and the same draws where their nodes agree. As `recovered`."""
    bench = Bench(model, on, **how)
    found = {name: bench.scrub(rung) for name, rung in rungs.items()}
    steps: dict[str, Interval] = {}
    before = bench.model
    for name, one in found.items():

        def lost(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
            sums = weights @ values
            return np.asarray((sums[:, 1] - sums[:, 0]) / (sums[:, 3] - sums[:, 2]))

        values = np.stack([before, one.scrubbed, bench.model, bench.random], axis=1)
        steps[name] = bootstrap_interval(values, lost, clusters=bench.references, seed=bench.seed, method="percentile")
        before = one.scrubbed
    return Ladder(found, steps)


@dataclass(frozen=True, eq=False)
class Null:
    """What random hypotheses of the same size recover.

    Attributes:
        kind: what was random: the ``sites``, or which input has which ``features``.
        observed: the share that the hypothesis itself recovers.
        values: the shares of the random ones.
        hypotheses: the random ones.
    """

    kind: Kind
    observed: float
    values: NDArray[np.float64]
    hypotheses: tuple[Node, ...]

    @property
    def p(self) -> float:
        """The share of all, the hypothesis among them, that recover as much."""
        return float((1 + (self.values >= self.observed).sum()) / (1 + len(self.values)))

    def __str__(self) -> str:
        low, middle, high = np.quantile(self.values, [0.025, 0.5, 0.975])
        return (
            f"random {self.kind}: {middle:.1%} ({low:.1%} to {high:.1%} of {len(self.values)}), "
            f"this hypothesis {self.observed:.1%}, p {self.p:.2g}"
        )


def null(
    model: Model | Graph,
    hypothesis: Node,
    *,
    on: Data,
    kind: Kind = "sites",
    draws: int = 19,
    seed: int = 0,
    **how: Any,
) -> Null:
    """Recover loss by random hypotheses: the same tree with other places of the same parts and positions (``sites``), or
    with features dealt to the wrong inputs (``features``). As `recovered`; raises `BadData` where there is no other.
    """
    bench = Bench(model, on, seed=seed, **how)
    bind(bench.graph, bench.items, hypothesis)
    random = np.random.default_rng([seed, 4])
    observed = bench.share(hypothesis, 0)
    values: list[float] = []
    tried: list[Node] = []
    for number in range(draws):
        if kind == "sites":
            other = _elsewhere(bench, hypothesis, random)
            values.append(bench.share(other, number + 1))
        else:
            other, dealt = hypothesis, _dealt(on, bench, random)
            values.append(Bench(bench.graph, dealt, seed=seed, **how).share(other, number + 1))
        tried.append(other)
    return Null(kind, observed, np.array(values), tuple(tried))


def _dealt(on: Data, bench: Bench, random: np.random.Generator) -> Data:
    """The data with all features of an input given to another."""
    order = random.permutation(len(bench.items))
    told = {name: column for name, column in bench.items.features.items() if name not in (INPUT, "answer")}
    return replace(on, features={name: [column[int(i)] for i in order] for name, column in told.items()})


def _elsewhere(bench: Bench, hypothesis: Node, random: np.random.Generator) -> Node:
    by_form: dict[str, list[str]] = {}
    for port in bench.graph.ports():
        by_form.setdefault(_form(port.name), []).append(port.name)
    for _ in range(_TRIES):
        moved: dict[str, str] = {}

        def place(one: Node, moved: dict[str, str] = moved) -> Node:
            if one.at is None:
                return one
            name, rest = re.match(r"([^@>]*?)(\s*(?:@|->).*)?$", one.at).groups()  # type: ignore[union-attr]
            known = by_form.get(_form(name), [name])
            moved.setdefault(name, known[int(random.integers(len(known)))])
            return replace(one, at=moved[name] + (rest or ""))

        other = hypothesis.mapped(place)
        if other == hypothesis:
            continue
        try:
            bind(bench.graph, bench.items, other)
        except BadHypothesis:
            continue
        return other
    raise BadData(
        "no other places of the same parts fit the hypothesis",
        found=str(hypothesis.label),
        hint='compare with kind="features"',
    )


def _form(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def independent(model: Model | Graph, hypothesis: Node, *, on: Data) -> Node:
    """The same hypothesis with what no part of a node claims drawn apart for each component that writes to it, rather than
    one input for all (Chan et al. 2022, appendix). Raises `BadHypothesis` where a part is a whole stream.
    """
    graph = graph_of(model)
    bound = bind(graph, Items(graph, on), hypothesis)
    changed = {one.path: _filled(graph, one) for one in bound.walk() if one.runs}

    def rebuilt(one: Node, path: tuple[int, ...]) -> Node:
        parts = tuple(rebuilt(part, (*path, index)) for index, part in enumerate(one.parts))
        return replace(one, parts=(*parts, *changed.get(path, ())))

    return rebuilt(hypothesis, ())


def _filled(graph: Graph, one: Bound) -> tuple[Node, ...]:
    reader = _reader(graph, one)
    claimed = {part.port.name for part in one.parts if part.port is not None}
    stream = [name for name in claimed if name.endswith(("resid", "mid"))]
    if stream:
        raise BadHypothesis(
            f"{stream[0]} is claimed, so nothing that writes to it is left to be drawn apart",
            hint="claim what writes to the stream: heads and MLPs",
        )
    writers = Edges(graph).writers.values()  # heads rather than whole attentions
    below = [port for port in writers if port.order < reader.order and port.name not in claimed]
    return tuple(node(ANYTHING, at=f"{port.name} -> {reader.name}") for port in below)


def _reader(graph: Graph, one: Bound) -> Reader:
    if one.port is None:
        return graph.reader("logits")
    if one.port.name.endswith("resid"):
        return graph.reader(one.port.name)
    return [reader for reader in graph.readers() if reader.head is None and reader.order < one.port.order][-1]
