"""Edges: all of them make the other run, none changes a bit, and the estimate is exact where the model is linear."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from assay import Model, trace
from assay.errors import BadDose, NoSuchSite
from assay.graph import CausalGraph, Edges
from tests.test_trace import linear_model, pairs_of

METRIC: Any = dict(metric=lambda logits: logits[..., 7] - logits[..., 9])


def every(model: Model, heads: bool = True, split: bool = False) -> list[tuple[str, str]]:
    return list(Edges(CausalGraph(model), heads, split).all)


@pytest.mark.parametrize(("heads", "split"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("mode", ["denoise", "noise"])
def test_all_edges_together_make_the_other_run(model: Model, mode: Any, heads: bool, split: bool) -> None:
    clean, hurt = pairs_of(model)
    found = trace.patching(model, clean, hurt, at="L0.resid", mode=mode, **METRIC)
    np.testing.assert_allclose(
        trace.paths(model, clean, hurt, every(model, heads, split), mode=mode, **METRIC), found.target, atol=2e-5
    )
    np.testing.assert_allclose(
        trace.paths(model, clean, hurt, [], mode=mode, **METRIC), plain(model, clean, hurt, mode), atol=1e-5
    )


def plain(model: Model, clean: Any, hurt: Any, mode: str) -> np.ndarray:
    rows = [model.run(prompt).logits[-1] for prompt in (hurt if mode == "denoise" else clean)]
    return np.array([float(row[7] - row[9]) for row in rows], dtype=np.float32)


def test_all_edges_of_one_writer_are_that_writer_patched(model: Model) -> None:
    clean, hurt = pairs_of(model)
    known = Edges(CausalGraph(model))
    for name in [one for one in known.writers if one.startswith(("embed", "L1"))]:
        node = trace.patching(model, clean, hurt, at=name, whole_rows=True, **METRIC)
        edges = [(u, v) for u, v in known.all if u == name]
        np.testing.assert_allclose(trace.paths(model, clean, hurt, edges, **METRIC), node.values[0, 0], atol=2e-5)


def test_the_estimate_is_exact_where_the_model_is_linear(tokenizer: PreTrainedTokenizerFast) -> None:
    linear = linear_model(tokenizer)
    clean, hurt = pairs_of(linear)
    found = trace.edges(linear, clean, hurt, **METRIC)
    base = plain(linear, clean, hurt, "denoise")
    for edge in every(linear):
        exact = float((trace.paths(linear, clean, hurt, [edge], **METRIC) - base).mean())
        score = found.scores[found.writers.index(edge[0]), found.readers.index(edge[1])]
        assert score == pytest.approx(exact, abs=2e-5), edge
    assert np.nanmax(np.abs(found.scores)) > 1e-3


def test_queries_keys_and_values_read_apart(model: Model) -> None:
    """A writer's edges to all that a layer's heads read are its edge to the attention; one alone is less."""
    clean, hurt = pairs_of(model)
    split = {v for _, v in every(model, split=True)}
    own = sorted(v for v in split if v.startswith("L1.head"))
    if model.engine.anatomy.mlp_in is None:
        assert own == []
        return
    assert len(own) == 3 * model.shape.heads
    whole = trace.paths(model, clean, hurt, [("L0.mlp.out", "L1.attn")], **METRIC)
    np.testing.assert_allclose(
        trace.paths(model, clean, hurt, [("L0.mlp.out", v) for v in own], **METRIC), whole, atol=2e-5
    )
    base = plain(model, clean, hurt, "denoise")
    assert np.abs(trace.paths(model, clean, hurt, [("L0.mlp.out", "L1.head[0].v")], **METRIC) - base).max() > 1e-5
    found = trace.edges(model, clean, hurt, split=True, **METRIC)
    merged = trace.edges(model, clean, hurt, **METRIC)
    row = found.writers.index("L0.mlp.out")
    parts = sum(found.scores[row, found.readers.index(v)] for v in own)
    assert parts == pytest.approx(
        merged.scores[merged.writers.index("L0.mlp.out"), merged.readers.index("L1.attn")], abs=1e-5
    )


def test_edges_that_there_are(model: Model) -> None:
    clean, hurt = pairs_of(model)
    found = trace.edges(model, clean, hurt, steps=2, grid="right", **METRIC)
    there = {(found.writers[u], found.readers[v]) for u, v in np.argwhere(~np.isnan(found.scores))}
    assert there == set(every(model))
    best = found.top(3)
    assert len(best) == 3
    assert abs(best[0][1]) >= abs(best[1][1]) >= abs(best[2][1]) > 0
    assert len(found.top(10**6)) == len(there)


def test_finer_grids_agree(model: Model) -> None:
    """Left, middle and right sums have one limit."""
    clean, hurt = pairs_of(model)
    some = [
        trace.edges(model, clean, hurt, steps=48, grid=grid, **METRIC).scores for grid in ("left", "middle", "right")
    ]  # type: ignore[arg-type]
    size = float(np.nanmax(np.abs(some[1])))
    coarse = np.nanmax(np.abs(trace.edges(model, clean, hurt, **METRIC).scores - some[1]))
    for one in some:
        assert np.nanmax(np.abs(one - some[1])) < max(0.05 * size, 0.2 * coarse)


@pytest.mark.parametrize(
    ("edges", "error", "text"),
    [
        ([("L1.head[9].z", "logits")], NoSuchSite, "has no end 'L1.head\\[9\\].z'"),
        ([("embed", "L1.head[0]")], NoSuchSite, "has no end 'L1.head\\[0\\]'"),
        ([("L1.mlp.out", "L1.attn")], NoSuchSite, "L1.attn does not read what L1.mlp.out writes"),
        ([("L0.attn.out", "logits"), ("L0.head[0].z", "logits")], NoSuchSite, "has no end 'L0.head\\[0\\].z'"),
    ],
)
def test_edges_that_there_are_not(llama: Model, edges: Any, error: type[Exception], text: str) -> None:
    clean, hurt = pairs_of(llama)
    with pytest.raises(error, match=text):
        trace.paths(llama, clean, hurt, edges, **METRIC)
    with pytest.raises(BadDose, match="steps=0"):
        trace.edges(llama, clean, hurt, steps=0, **METRIC)
