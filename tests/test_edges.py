"""Edges: all of them make the other run, none changes a bit, and the estimate is exact where the model is linear."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from assay import Model, trace
from assay.errors import BadDose, NoSuchSite
from assay.trace.edges import Ports
from tests.test_trace import linear_model, pairs_of

METRIC: Any = dict(metric=lambda logits: logits[..., 7] - logits[..., 9])


def every(model: Model, heads: bool = True) -> list[tuple[str, str]]:
    ports = Ports.of(model, heads)
    return [(u, v) for u in ports.writers for v in ports.after(u, model.engine.anatomy.parallel)]


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("mode", ["denoise", "noise"])
def test_all_edges_together_make_the_other_run(model: Model, mode: Any, heads: bool) -> None:
    clean, hurt = pairs_of(model)
    found = trace.patching(model, clean, hurt, at="L0.resid", mode=mode, **METRIC)
    np.testing.assert_allclose(
        trace.paths(model, clean, hurt, every(model, heads), mode=mode, **METRIC), found.target, atol=2e-5
    )
    np.testing.assert_allclose(
        trace.paths(model, clean, hurt, [], mode=mode, **METRIC), plain(model, clean, hurt, mode), atol=1e-5
    )


def plain(model: Model, clean: Any, hurt: Any, mode: str) -> np.ndarray:
    rows = [model.run(prompt).logits[-1] for prompt in (hurt if mode == "denoise" else clean)]
    return np.array([float(row[7] - row[9]) for row in rows], dtype=np.float32)


def test_all_edges_of_one_writer_are_that_writer_patched(model: Model) -> None:
    clean, hurt = pairs_of(model)
    ports = Ports.of(model)
    for name in [one for one in ports.writers if one.startswith(("embed", "L1"))]:
        (layer, part), head = ports.writers[name]
        site = "embed" if layer is None else f"L{layer}.{part}" if head is None else f"L{layer}.head[{head}].z"
        node = trace.patching(model, clean, hurt, at=site, whole_rows=True, **METRIC)
        edges = [(name, reader) for reader in ports.after(name, model.engine.anatomy.parallel)]
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
        ([("L1.head[9]", "logits")], NoSuchSite, "has no end 'L1.head\\[9\\]'"),
        ([("embed", "L1.head[0]")], NoSuchSite, "has no end 'L1.head\\[0\\]'"),
        ([("L1.mlp", "L1.attn")], NoSuchSite, "L1.attn does not read what L1.mlp writes"),
        ([("L0.attn", "logits"), ("L0.head[0]", "logits")], NoSuchSite, "has no end 'L0.head\\[0\\]'"),
    ],
)
def test_edges_that_there_are_not(llama: Model, edges: Any, error: type[Exception], text: str) -> None:
    clean, hurt = pairs_of(llama)
    with pytest.raises(error, match=text):
        trace.paths(llama, clean, hurt, edges, **METRIC)
    with pytest.raises(BadDose, match="steps=0"):
        trace.edges(llama, clean, hurt, steps=0, **METRIC)
