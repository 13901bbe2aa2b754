"""AtP*: dropped layers and recomputed softmaxes do what they are said to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from assay import Model, patch, trace
from assay.errors import BadDose
from assay.model.attending import Attention
from assay.trace.attention import _attention
from assay.trace.contrast import contrasted
from assay.trace.gradients import dropped, gradients
from tests.test_trace import pairs_of

METRIC: Any = dict(metric=lambda logits: logits[..., 7] - logits[..., 9])


def test_dropping_a_layer_leaves_out_the_paths_through_what_it_adds(model: Model) -> None:
    """Without layers 0 and 1 only the path past both is left; what each adds is missed once."""
    clean, hurt = pairs_of(model)
    pair = contrasted(model, clean, hurt, "embed", METRIC["metric"], None, "denoise")
    layers = model.shape.layers
    places: Any = [(0, "resid"), (layers - 1, "attn.out"), (layers - 1, "resid")]
    plain = gradients(model, pair, places, 1, "left")
    each = list(dropped(model, pair, places))
    assert len(each) == layers
    for slopes in each:
        # Nothing is behind the last block, so nothing is left out of its stream's gradient.
        torch.testing.assert_close(slopes[places[2]], plain[places[2]])
    assert not each[-1][places[1]].any()
    torch.testing.assert_close(each[0][places[0]], plain[places[0]])  # layer 0's own addition lies before its stream
    assert not torch.allclose(each[-1][places[0]], plain[places[0]])


def test_sizes_are_averaged_over_dropped_layers(llama: Model) -> None:
    clean, hurt = pairs_of(llama)
    found = trace.attribution(llama, clean, hurt, at="L:.mlp.out", drop=True, **METRIC)
    assert (found.effect >= 0).all()
    assert found.effect.max() > 0
    plain = trace.attribution(llama, clean, hurt, at="L:.mlp.out", **METRIC)
    last = np.abs(plain.values - plain.base)[-1]
    # All but its own pass see the last MLP's whole effect: nothing is behind it.
    np.testing.assert_allclose((found.values - found.base)[-1], last, atol=1e-6)
    with pytest.raises(BadDose, match="dropped at the base alone"):
        trace.attribution(llama, clean, hurt, drop=True, steps=4, **METRIC)


def test_attention_is_kept_as_it_was_computed(model: Model) -> None:
    clean, hurt = pairs_of(model)
    pair = contrasted(model, clean, hurt, "embed", METRIC["metric"], None, "denoise")
    seen = _attention(model, pair.base)
    assert sorted(seen) == list(range(model.shape.layers))
    read = model.run(hurt[0], read=["L1.head[1].pattern"])["row"]["L1.head[1].pattern"]
    torch.testing.assert_close(seen[1].pattern(seen[1].query, seen[1].key)[0, 1], read)
    assert seen[1].query.shape[1] == model.shape.heads
    assert seen[1].key.shape[1] == model.shape.kv_heads


def test_queries_and_keys_are_patched_one_by_one(model: Model) -> None:
    """Against the definition: one row, or one column, of the pattern is made anew."""
    clean, hurt = pairs_of(model)
    found = trace.queries_and_keys(model, clean, hurt, **METRIC)
    pair = contrasted(model, clean, hurt, "embed", METRIC["metric"], None, "denoise")
    base, source = _attention(model, pair.base), _attention(model, pair.source)
    layer, head, at = 1, 1, 3
    share = model.shape.heads // model.shape.kv_heads
    slope = gradients(model, pair, [(layer, "head.pattern")], 1, "left")[layer, "head.pattern"].transpose(1, 2)
    plain = base[layer].pattern(base[layer].query, base[layer].key)

    def swapped(one: Attention, other: Attention, name: str, index: int) -> torch.Tensor:
        new = {"query": one.query.clone(), "key": one.key.clone()}
        new[name][:, index, at] = getattr(other, name)[:, index, at]
        return one.pattern(new["query"], new["key"])

    query = ((swapped(base[layer], source[layer], "query", head) - plain) * slope).sum(dim=(1, 2, 3)).mean()
    assert found.queries[layer, head, at] == pytest.approx(float(query), abs=1e-6)
    key = ((swapped(base[layer], source[layer], "key", head // share) - plain) * slope).sum(dim=(1, 2, 3)).mean()
    assert found.keys[layer, head // share, at] == pytest.approx(float(key), abs=1e-6)
    assert not found.queries[:, :, : pair.first].any()
    assert not found.keys[:, :, : pair.first].any()
    assert found.top("queries", 1)[0][3] == pytest.approx(float(found.queries.flat[np.abs(found.queries).argmax()]))


def test_the_fix_is_right_where_the_gradient_of_a_softmax_says_nothing(llama: Model) -> None:
    """A pattern patched whole is the sum of its rows' effects, to first order in what the pattern does."""
    clean, hurt = ([prompts[0]] for prompts in pairs_of(llama))
    found = trace.queries_and_keys(llama, clean, hurt, **METRIC)
    pair = contrasted(llama, clean, hurt, "embed", METRIC["metric"], None, "denoise")
    base, source = _attention(llama, pair.base), _attention(llama, pair.source)
    layer, at = llama.shape.layers - 1, len(pair.tokens) - 1
    made = base[layer].pattern(source[layer].query, base[layer].key)[0]
    plain = base[layer].pattern(base[layer].query, base[layer].key)[0]
    before = llama.run(hurt[0]).logits[-1]
    for head in range(llama.shape.heads):
        effects = []
        for part in (0.02, 0.01):
            mixed = torch.lerp(plain[head, at : at + 1], made[head, at : at + 1], part)
            under = patch(f"L{layer}.head[{head}].pattern @ {at}", source=mixed)
            after = llama.run(hurt[0], under=under).logits[-1]
            effects.append(float((after[7] - after[9]) - (before[7] - before[9])) / part)
        assert float(found.queries[layer, head, at]) == pytest.approx(2 * effects[1] - effects[0], rel=0.05, abs=2e-4)
