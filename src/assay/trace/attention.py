"""Queries and keys, with their softmax computed anew (the QK fix of AtP*, Kramár et al. 2024, §3.1).

A query or key acts through a softmax, and where that is saturated its gradient says nothing about what patching it does.
The softmax itself is cheap. So the pattern that a query (or key) of the other run would make is computed exactly, and only
what the pattern does to the metric is taken to first order::

    score(q at t) = Σ_s (A[q_t := source](t, s) − A(t, s)) · ∂M/∂A(t, s)
    score(k at s) = Σ_t Σ_j (A[k_s := source](t, j) − A(t, j)) · ∂M/∂A(t, j)

A key that several heads share (grouped queries) is scored for all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.act.program import Place
from assay.model.attending import Attention
from assay.run.branch import Trunks
from assay.run.model import Model
from assay.trace.contrast import Metric, Mode, Prompts, contrasted
from assay.trace.gradients import gradients


@dataclass(frozen=True, eq=False)
class QueryKeyScores:
    """An estimate for every query and every key, in the metric's units, mean over pairs.

    Attributes:
        queries: ``[layer, head, token]``.
        keys: ``[layer, key head, token]``.
        tokens: the first prompt's, as text.
    """

    queries: NDArray[np.float32]
    keys: NDArray[np.float32]
    tokens: tuple[str, ...]

    def top(self, of: Literal["queries", "keys"], count: int = 5) -> list[tuple[int, int, str, float]]:
        """Those that matter most: layer, head, token, score."""
        scores = self.queries if of == "queries" else self.keys
        order = np.argsort(-np.abs(scores), axis=None)[:count]
        cells = [np.unravel_index(int(index), scores.shape) for index in order]
        return [(int(at), int(head), self.tokens[token], float(scores[at, head, token])) for at, head, token in cells]


def queries_and_keys(
    model: Model,
    clean: Prompts,
    corrupted: Prompts,
    *,
    metric: Metric | None = None,
    answers: tuple[str, str] | None = None,
    mode: Mode = "denoise",
) -> QueryKeyScores:
    """Estimate what patching every query and every key would do to the metric. Arguments and errors as for `patching`."""
    pair = contrasted(model, clean, corrupted, "embed", metric, answers, mode)
    base, source = (_attention(model, trunks) for trunks in (pair.base, pair.source))
    patterns: list[Place] = [(layer, "head.pattern") for layer in range(model.shape.layers)]
    slopes = gradients(model, pair, patterns, 1, "left")
    queries, keys = [], []
    for layer, place in enumerate(patterns):
        slope = slopes[place].transpose(1, 2)
        queries.append(_queries(base[layer], source[layer], slope))
        keys.append(_keys(base[layer], source[layer], slope, pair.first))
    return QueryKeyScores(_mean(queries), _mean(keys), pair.tokens)


def _attention(model: Model, trunks: Trunks) -> dict[int, Attention]:
    with model.engine.hooks.attended() as seen:
        model.engine.forward(trunks.tokens, trunks.positions)
    return seen


@torch.no_grad()
def _queries(base: Attention, source: Attention, slope: Tensor) -> Tensor:
    """``[pair, head, pos]``: a pattern's row is its own query's alone, so all are patched at once."""
    change = base.pattern(source.query, base.key) - base.pattern(base.query, base.key)
    return (change.float() * slope).sum(dim=-1)


@torch.no_grad()
def _keys(base: Attention, source: Attention, slope: Tensor, first: int) -> Tensor:
    """``[pair, key head, pos]``, each key for itself; those before the prompts differ are the same."""
    plain, heads, length = base.pattern(base.query, base.key), base.key.shape[1], base.key.shape[2]
    found = torch.zeros(len(plain), heads, length)
    for at in range(first, length):
        key = base.key.clone()
        key[:, :, at] = source.key[:, :, at]
        effect = ((base.pattern(base.query, key) - plain).float() * slope).sum(dim=(-1, -2))
        found[:, :, at] = effect.unflatten(1, (heads, -1)).sum(dim=-1).cpu()
    return found


def _mean(scores: list[Tensor]) -> NDArray[np.float32]:
    return np.stack([one.mean(dim=0).cpu().numpy() for one in scores])
