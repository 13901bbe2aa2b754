"""The edges of a graph: one writer's part in what one reader reads. Any set of them is patched in one forward pass::

    input_v + Σ_u (a_u(source) − a_u(this pass))      over the patched edges u → v

so all edges together make the source run, and none leaves this one (Miller et al. 2024). To first order each is worth
``(a_u(source) − a_u) · ∂M/∂input_v`` (Syed et al. 2023), which one backward pass gives for all of them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from assay.errors import NoSuchSite, nearest
from assay.graph.ports import Graph, Key, Port, Reader
from assay.model.taps import Tap, keeper

End = TypeVar("End", Port, Reader)
Edge = tuple[str, str]
"""A writer and a reader: ``("L3.head[5].z", "L7.attn")``."""
Source = Mapping[Key, Tensor]
"""What writers give in the run that edges are patched from, by what is hooked."""


class Edges:
    """All edges of a graph, in the order of a forward pass.

    Without ``heads`` whole attentions write; without ``split`` they read, too.

    Attributes:
        writers: what adds to the stream: heads rather than whole attentions where they are known.
        readers: what reads it: each head's queries, keys and values where they read by themselves, else attentions.
        all: the pairs.
    """

    def __init__(self, graph: Graph, heads: bool = True, split: bool = True) -> None:
        self.graph = graph
        self.writers = _finest([port for port in graph.ports() if port.writes], ".attn.out", heads)
        self.readers = _finest(graph.readers(), ".attn", split)
        self.all: tuple[Edge, ...] = tuple(
            (u, v)
            for v, reader in self.readers.items()
            for u, port in self.writers.items()
            if port.order < reader.order
        )
        self._known = frozenset(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def check(self, edges: Iterable[Edge]) -> frozenset[Edge]:
        """The same edges, or `NoSuchSite` for one that the graph does not have."""
        chosen = frozenset(edges)
        for edge in chosen - self._known:
            ends: tuple[Collection[str], ...] = (self.writers, self.readers)
            for name, known in zip(edge, ends, strict=True):
                if name not in known:
                    raise NoSuchSite(
                        f"the edge {edge[0]} → {edge[1]} has no end {name!r}",
                        nearest=nearest(name, list(known)),
                        hint=f"writers are {', '.join(list(self.writers)[:3])}, …; readers {', '.join(list(self.readers)[:3])}, …",
                    )
            raise NoSuchSite(f"{edge[1]} does not read what {edge[0]} writes", hint="an edge goes up the model")
        return chosen

    def written(self, inputs: Any, ids: Sequence[int]) -> dict[Key, Tensor]:
        """What all writers give on a plain run of inputs."""
        seen: dict[Key, Tensor] = {}
        keys: Any = {port.key for port in self.writers.values()}
        taps: dict[Key, Tap] = {key: keeper(seen, key) for key in keys}  # type: ignore[arg-type]
        self.graph.forward(inputs, ids, taps)
        return seen

    def patched(self, inputs: Any, ids: Sequence[int], edges: Collection[Edge], source: Source) -> Tensor:
        """Scores ``[row, pos, outputs]`` of inputs with these edges patched from another run."""
        into: dict[Key, list[tuple[Reader, list[Port]]]] = defaultdict(list)
        by_reader: dict[str, list[Port]] = defaultdict(list)
        for u, v in edges:
            by_reader[v].append(self.writers[u])
        for v, ports in by_reader.items():
            into[self.readers[v].key].append((self.readers[v], ports))
        needed = {port.key for ports in by_reader.values() for port in ports}
        now: dict[Key, Tensor] = {}

        def tap(key: Key) -> Tap:
            def through(h: Tensor) -> Tensor | None:
                if key in needed:
                    now[key] = h
                for reader, ports in into.get(key, ()):
                    h = reader.plus(h, self._change(ports, source, now))
                return h if key in into else None

            return through

        scores = self.graph.forward(inputs, ids, {key: tap(key) for key in {*needed, *into}})
        assert scores is not None
        return scores

    def _change(self, ports: Sequence[Port], source: Source, now: Mapping[Key, Tensor]) -> Tensor:
        parts = [self.graph.written(port, port.of(source[port.key]) - port.of(now[port.key])) for port in ports]
        return torch.stack(parts).sum(0)

    def slopes(
        self,
        inputs: Any,
        ids: Sequence[int],
        measure: Callable[[Tensor], Tensor],
        embed: tuple[Key, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """∂(summed measure)/∂input of every reader, ``[row, pos, d_model]``, on a run whose ``embed`` may be replaced."""
        leaves: dict[Key, Tensor] = {}
        keys = {reader.key for reader in self.readers.values()}

        def tap(key: Key) -> Tap:
            def through(h: Tensor) -> Tensor | None:
                if embed is not None and key == embed[0]:
                    h = embed[1].to(h)
                if key not in keys:
                    return h
                leaves[key] = torch.zeros_like(h, requires_grad=True)
                return h + leaves[key]

            return through

        places = {*keys, *([embed[0]] if embed else [])}
        scores = self.graph.forward(inputs, ids, {key: tap(key) for key in places}, gradients=True)
        assert scores is not None
        found = torch.autograd.grad(measure(scores).sum(), list(leaves.values()), allow_unused=True)
        slopes = {
            key: torch.zeros_like(leaf) if one is None else one
            for (key, leaf), one in zip(leaves.items(), found, strict=True)
        }
        return {name: reader.of(slopes[reader.key]) for name, reader in self.readers.items()}


def _finest(ends: Sequence[End], whole: str, heads: bool) -> dict[str, End]:
    """Of each layer's attention either its heads or the whole of it."""
    layers = {re.sub(r"\..*", "", end.name) for end in ends if end.head is not None and heads}
    wholes = {f"{layer}{whole}" for layer in layers}
    return {end.name: end for end in ends if end.name not in wholes and (heads or end.head is None)}
