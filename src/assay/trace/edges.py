"""Edges between components: who writes what another reads (Syed et al. 2023; Hanna et al. 2024; Miller et al. 2024).

Attention heads and MLPs write to the stream, later ones and the logits read it; an edge is one writer's part in one
reader's input. `paths` patches any set of edges in a single forward pass: each reader is given::

    input_v + Σ_u (a_u(other run) − a_u(this pass))      over the edges u → v that are patched

so all edges together make the other run, and none leaves this one. `edges` estimates every edge at once, to first order
(edge attribution patching)::

    score(u → v) = (a_u(source) − a_u(base)) · ∂M/∂input_v

summed over tokens, mean over pairs; ``steps`` above 1 averages the gradient between the two inputs (EAP-IG), on a grid
that is named. Queries, keys and values of all heads are one reader, ``L7.attn``, or
each its own, ``L7.head[2].k``. Where a family puts a norm behind its attention
(Gemma, OLMo 2) a head's part is not additive, so whole attentions write. Ends are named as places are: ``L3.head[5].z`` writes,
``L7.attn`` reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from assay.act.program import Place
from assay.graph import CausalGraph, Edge, Edges
from assay.graph.edges import Source
from assay.prompt import Prompt
from assay.run.model import Model
from assay.trace.contrast import Contrast, Metric, Mode, Prompts, contrasted
from assay.trace.gradients import Grid, gradients, refuse_grid


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
    split: bool = False,
    steps: int = 1,
    grid: Grid = "left",
) -> EdgeScores:
    """Estimate what patching each edge would do to the metric; with ``split`` each head's queries, keys and values read by
    themselves, else whole attentions. Arguments and errors as for `attribution`.
    """
    refuse_grid(steps, grid)
    known = Edges(CausalGraph(model), heads, split)
    pair = _contrast(model, known, clean, corrupted, metric, answers, mode)
    keys = {name: cast(Place, reader.key) for name, reader in known.readers.items()}
    slopes = gradients(model, pair, list(dict.fromkeys(keys.values())), steps, grid)
    source, base = pair.source.values, pair.base.values
    change = {
        name: known.graph.written(
            port, port.of(source[cast(Place, port.key)]) - port.of(base[cast(Place, port.key)])
        ).float()
        for name, port in known.writers.items()
    }
    rows, columns = ({name: at for at, name in enumerate(ends)} for ends in (known.writers, known.readers))
    scores = np.full((len(rows), len(columns)), np.nan, dtype=np.float32)
    for u, v in known.all:
        scores[rows[u], columns[v]] = float((change[u] * slopes[keys[v]]).sum()) / len(change[u])
    return EdgeScores(tuple(rows), tuple(columns), scores)


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
    heads, split = not any(u.endswith(".attn.out") for u, _ in chosen), any("head[" in v for _, v in chosen)
    known = Edges(CausalGraph(model), heads, split)
    known.check(chosen)
    pair = _contrast(model, known, clean, corrupted, metric, answers, mode)
    into = clean if mode == "noise" else corrupted
    inputs = known.graph.inputs([into] if isinstance(into, str | Prompt) else into)
    scores = known.patched(inputs, range(len(inputs)), chosen, cast(Source, pair.source.values))
    return np.asarray(pair.measure(scores[:, -1].float()).float().cpu().numpy())


def _contrast(
    model: Model,
    known: Edges,
    clean: Prompts,
    corrupted: Prompts,
    metric: Metric | None,
    answers: tuple[str, str] | None,
    mode: Mode,
) -> Contrast:
    return contrasted(model, clean, corrupted, list(known.writers), metric, answers, mode)
