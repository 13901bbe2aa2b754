"""Edges between components: who writes what another reads (Syed et al. 2023; Hanna et al. 2024; Miller et al. 2024).

Attention heads and MLPs write to the stream, later ones and the logits read it; an edge is one writer's part in one
reader's input. `paths` patches any set of edges in a single forward pass: each reader is given::

    input_v + Σ_u (a_u(other run) − a_u(this pass))      over the edges u → v that are patched

so all edges together make the other run, and none leaves this one. `edges` estimates every edge at once, to first order
(edge attribution patching)::

    score(u → v) = (a_u(source) − a_u(base)) · ∂M/∂input_v

summed over tokens, mean over pairs; ``steps`` above 1 averages the gradient between the two inputs (EAP-IG), on a grid
that is named. Queries, keys and values of a head are one reader here. Where a family puts a norm behind its attention
(Gemma, OLMo 2) a head's part is not additive, so whole attentions write.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.act.program import Place
from assay.errors import NoSuchSite, nearest
from assay.model.anatomy import matrix, module_at
from assay.run.model import Model
from assay.trace.contrast import Contrast, Metric, Mode, Prompts, contrasted
from assay.trace.gradients import Grid, gradients, refuse_grid

Edge = tuple[str, str]
"""A writer and a reader: ``("L3.head[5]", "L7.attn")``."""
_EMBED: Place = (None, "embed")


@dataclass(frozen=True)
class Ports:
    """A model's writers and readers, in the order of the forward pass.

    Attributes:
        writers: by name (``embed``, ``L3.head[5]`` or ``L3.attn``, ``L3.mlp``), where it writes, and its head if any.
        readers: by name (``L3.attn``, ``L3.mlp``, ``logits``), where it reads.
    """

    writers: Mapping[str, tuple[Place, int | None]]
    readers: Mapping[str, Place]

    @classmethod
    def of(cls, model: Model, heads: bool = True) -> Ports:
        """Of a model; without ``heads``, whole attentions write."""
        anatomy, shape = model.engine.anatomy, model.shape
        writers: dict[str, tuple[Place, int | None]] = {"embed": (_EMBED, None)}
        readers: dict[str, Place] = {}
        for layer in range(shape.layers):
            readers[f"L{layer}.attn"] = (layer, "attn.in")
            if heads and anatomy.heads_add:
                for head in range(shape.heads):
                    writers[f"L{layer}.head[{head}]"] = ((layer, "head.z"), head)
            else:
                writers[f"L{layer}.attn"] = ((layer, "attn.out"), None)
            if anatomy.mlp_in is not None:
                readers[f"L{layer}.mlp"] = (layer, "mlp.in")
            writers[f"L{layer}.mlp"] = ((layer, "mlp.out"), None)
        readers["logits"] = (shape.layers - 1, "resid")
        return cls(writers, readers)

    def after(self, writer: str, parallel: bool) -> list[str]:
        """The readers that a writer can reach."""
        (layer, part), _ = self.writers[writer]
        return [name for name, place in self.readers.items() if _reaches(layer, part, place, parallel)]

    def place(self, edge: Edge, parallel: bool) -> tuple[tuple[Place, int | None], Place]:
        """Where an edge's writer writes and its reader reads. Raises `NoSuchSite`."""
        for name, known in zip(edge, (self.writers, self.readers), strict=True):
            if name not in known:
                raise NoSuchSite(
                    f"the edge {edge[0]} → {edge[1]} has no end {name!r}",
                    nearest=nearest(name, list(known)),
                    hint="writers are embed, L3.head[5] (or L3.attn) and L3.mlp; readers are L3.attn, L3.mlp and logits",
                )
        if edge[1] not in self.after(edge[0], parallel):
            raise NoSuchSite(f"{edge[1]} does not read what {edge[0]} writes", hint="an edge goes up the model")
        return self.writers[edge[0]], self.readers[edge[1]]


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """An estimate for every edge.

    Attributes:
        writers, readers: the names along the axes.
        scores: ``[writer, reader]``, in the metric's units, mean over pairs; NaN where there is no edge.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    scores: NDArray[np.float32]

    def top(self, count: int) -> list[tuple[Edge, float]]:
        """The edges of largest size, with their scores."""
        sizes = np.nan_to_num(np.abs(self.scores), nan=-1)
        cells = [np.unravel_index(int(i), sizes.shape) for i in np.argsort(-sizes, axis=None)[:count]]
        return [((self.writers[u], self.readers[v]), float(self.scores[u, v])) for u, v in cells if sizes[u, v] >= 0]


def edges(
    model: Model,
    clean: Prompts,
    corrupted: Prompts,
    *,
    metric: Metric | None = None,
    answers: tuple[str, str] | None = None,
    mode: Mode = "denoise",
    heads: bool = True,
    steps: int = 1,
    grid: Grid = "left",
) -> EdgeScores:
    """Estimate what patching each edge would do to the metric. Arguments and errors as for `attribution`."""
    refuse_grid(steps, grid)
    ports = Ports.of(model, heads)
    pair = _contrast(model, ports, clean, corrupted, metric, answers, mode)
    slopes = gradients(model, pair, list(ports.readers.values()), steps, grid)
    parallel = model.engine.anatomy.parallel
    scores = np.full((len(ports.writers), len(ports.readers)), np.nan, dtype=np.float32)
    column = {name: index for index, name in enumerate(ports.readers)}
    for row, (name, (place, head)) in enumerate(ports.writers.items()):
        written = _written(model, place, head, pair.source.values[place] - pair.base.values[place]).float()
        for reader in ports.after(name, parallel):
            scores[row, column[reader]] = float((written * slopes[ports.readers[reader]]).sum()) / len(written)
    return EdgeScores(tuple(ports.writers), tuple(ports.readers), scores)


def paths(
    model: Model,
    clean: Prompts,
    corrupted: Prompts,
    patched: Iterable[Edge],
    *,
    metric: Metric | None = None,
    answers: tuple[str, str] | None = None,
    mode: Mode = "denoise",
) -> NDArray[np.float32]:
    """The metric ``[pair]`` with a set of edges patched, in one forward pass; heads write, or whole attentions, not both.

    Raises as `patching` does, and `NoSuchSite` for an edge that there is not.
    """
    chosen = list(dict.fromkeys(patched))
    parallel = model.engine.anatomy.parallel
    ports = Ports.of(model, heads=not any(writer.endswith(".attn") for writer, _ in chosen))
    into: dict[Place, list[tuple[Place, int | None]]] = defaultdict(list)
    for edge in chosen:
        writer, reader = ports.place(edge, parallel)
        into[reader].append(writer)
    pair = _contrast(model, ports, clean, corrupted, metric, answers, mode)
    now: dict[Place, Tensor] = {}

    def tap(place: Place) -> Callable[[Tensor], Tensor | None]:
        def through(h: Tensor) -> Tensor | None:
            if place not in into:
                now[place] = h
                return None
            new = h
            for written, heads in _by_place(into[place]).items():
                change = pair.source.values[written] - now[written]
                new = new + _written(model, written, heads, change)
            return new

        return through

    places = dict.fromkeys([*(writer for writers in into.values() for writer, _ in writers), *into])
    final = model.engine.forward(pair.base.tokens, pair.base.positions, reads={place: tap(place) for place in places})
    return pair.scored(model, final[:, -1])


def _contrast(
    model: Model,
    ports: Ports,
    clean: Prompts,
    corrupted: Prompts,
    metric: Metric | None,
    answers: tuple[str, str] | None,
    mode: Mode,
) -> Contrast:
    places = dict.fromkeys(place for place, _ in ports.writers.values())
    sites = [
        "embed" if layer is None else f"L{layer}.{'head[:].z' if part == 'head.z' else part}" for layer, part in places
    ]
    return contrasted(model, clean, corrupted, sites, metric, answers, mode)


def _reaches(layer: int | None, part: str, reader: Place, parallel: bool) -> bool:
    at, port = reader
    if layer is None or port == "resid":
        return True
    assert at is not None
    return at > layer or (at == layer and port == "mlp.in" and part in ("head.z", "attn.out") and not parallel)


def _by_place(writers: Sequence[tuple[Place, int | None]]) -> dict[Place, list[int] | None]:
    found: dict[Place, list[int] | None] = {}
    for place, head in writers:
        if head is None:
            found[place] = None
        else:
            found[place] = [*(found.get(place) or ()), head]
    return found


def _written(model: Model, place: Place, heads: int | Sequence[int] | None, change: Tensor) -> Tensor:
    """What a change of a writer's activation adds to the stream, ``[pair, pos, d_model]``."""
    if heads is None:
        return change
    kept = torch.zeros_like(change)
    chosen = [heads] if isinstance(heads, int) else list(heads)
    kept[:, :, chosen] = change[:, :, chosen]
    assert place[0] is not None
    project = module_at(model.engine.hooks.blocks[place[0]], model.engine.anatomy.o_proj)
    # Not by calling it, which its hooks would see.
    return kept.flatten(2) @ matrix(project).T
