"""Circuits: sums are exact, factors are the maps that the model computes, scores are 1 where a head does what they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from assay import Model, Prompt, ablate, circuits, patch
from assay.circuits.composition import _random
from assay.circuits.norms import Norm, attention_norm, behind_attention, final_norm, unembedding
from assay.circuits.tokens import leading, pool, sequences
from assay.circuits.weights import layer_weights
from assay.cli.app import app
from assay.errors import BadData, EmptyData, NoSuchPosition, NoSuchSite, UnknownArchitecture, Unwritable
from assay.model.anatomy import matrix, module_at
from assay.site import Site
from tests.tiny import tiny as fresh

TEXT, OTHER = "The Eiffel Tower is in the city of", "Rome is not"
IDS = Prompt.tokenized([5, 7, 9, 11, 13, 15, 8, 6])


def token(model: Model, text: str) -> int:
    (found,) = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return int(found)


def standard(model: Model, layer: int, prompt: Prompt) -> tuple[Tensor, dict[str, Tensor]]:
    """What a layer's attention sees, without gain: ``x̂ [pos, d_model]``; and what was read on the way."""
    below = "embed" if layer == 0 else f"L{layer - 1}.resid"
    heads = [f"L{layer}.head[{head}].{part}" for head in range(model.shape.heads) for part in ("z", "pattern")]
    read = dict(model.run(prompt, read=[below, *heads, f"L{layer}.attn.out"])["row"].sites)
    norm, x = attention_norm(model, layer), read[below]
    if norm.absent:
        return x.double(), read
    module = module_at(model.engine.hooks.blocks[layer], model.engine.anatomy.attn_in)
    with torch.no_grad():
        return norm.centre(x.double()) * norm.inverse_size(x, module(x))[:, None], read


# Logit lens.


def test_the_last_layer_of_the_lens_is_the_model(model: Model) -> None:
    found = circuits.lens(model, TEXT, at="all", answer=" Paris", top=model.shape.vocab)
    p = model.run(TEXT).logits.softmax(dim=-1)
    np.testing.assert_allclose(found.likely[-1], p.sort(descending=True).values, atol=1e-6)
    assert found.probability is not None and found.rank is not None
    np.testing.assert_allclose(found.probability[-1], p[:, token(model, " Paris")], atol=1e-6)
    assert found.rank[-1].tolist() == (p > p[:, [token(model, " Paris")]]).sum(-1).tolist()
    assert found.likely.shape == (model.shape.layers + 1, len(found.tokens), model.shape.vocab)
    assert len(set(found.rank[:, -1].tolist())) > 1


def test_the_lens_reads_under_interventions(llama: Model) -> None:
    act = patch("L1.resid @ last", source=torch.full((1, 32), 0.5))
    found = circuits.lens(llama, TEXT, under=act, answer=" Paris")
    wanted = llama.run(TEXT, under=act).logits[-1].softmax(-1)[token(llama, " Paris")]
    assert found.probability is not None
    assert found.probability[-1, 0] == pytest.approx(float(wanted), abs=1e-6)
    assert "' Paris'" in str(found) and found.layers[0] == "embed"


# Norms.


def test_norms_are_found_by_looking(model: Model) -> None:
    """Gain, bias and centring, against the module's own formula on other vectors."""
    for layer in range(model.shape.layers):
        for norm, path in (
            (attention_norm(model, layer), model.engine.anatomy.attn_in),
            (behind_attention(model, layer), model.engine.anatomy.attn_out),
        ):
            if not norm.absent:
                module = module_at(model.engine.hooks.blocks[layer], path)
                x = 3 + torch.randn(5, model.shape.d_model, generator=torch.Generator().manual_seed(layer))
                with torch.no_grad():
                    y = module(x)
                size = norm.inverse_size(x, y)
                assert (size > 0).all()
                again = norm.gain * norm.centre(x.double()) * size[:, None] + norm.bias
                torch.testing.assert_close(again, y.double(), atol=1e-5, rtol=1e-5)


def test_what_is_no_norm_is_refused() -> None:
    with pytest.raises(UnknownArchitecture, match="neither a LayerNorm nor an RMSNorm"):
        Norm.of(lambda x: x[:, :4], 8, torch.float32, torch.device("cpu"))
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0))).Q
    mixed = Norm.of(lambda x: x @ turn, 8, torch.float32, torch.device("cpu"))
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    with pytest.raises(UnknownArchitecture, match="neither"):
        mixed.inverse_size(x, x @ turn)


# Direct logit attribution.


def test_parts_sum_to_the_logit(model: Model) -> None:
    found = circuits.direct(model, [TEXT, OTHER], " Paris")
    np.testing.assert_allclose(found.parts.sum(axis=0), found.logits, rtol=1e-4)
    for index, text in enumerate((TEXT, OTHER)):
        logit = found.logits[index]
        seen = logit if found.cap is None else found.cap * np.tanh(logit / found.cap)
        assert seen == pytest.approx(float(model.run(text).logits[-1, token(model, " Paris")]), rel=1e-4)
    assert (found.cap is not None) == (
        model.engine.anatomy.softcap is not None and model.hf.config.model_type == "gemma2"
    )


def test_parts_of_a_difference_are_differences_of_parts(model: Model) -> None:
    both = circuits.direct(model, [TEXT, OTHER], [" Paris", " Rome"], [" Rome", " yes"])
    yes, no = (circuits.direct(model, [TEXT, OTHER], answers) for answers in ([" Paris", " Rome"], [" Rome", " yes"]))
    assert both.components == yes.components
    np.testing.assert_allclose(both.parts, yes.parts - no.parts, atol=1e-6)
    assert np.abs(both.parts.sum(axis=0) - both.logits).max() <= 1e-4 * np.abs(both.logits).max()


def test_a_head_s_part_is_what_taking_it_away_changes_while_the_norm_is_held(model: Model) -> None:
    """Against the last stream with the head's own contribution left out, read through the held norm."""
    found = circuits.direct(model, TEXT, " Paris")
    layer, head, top = 1, 2, model.shape.layers - 1
    names = [f"L{layer}.head[{h}].z @ last" for h in range(model.shape.heads)]
    read = model.run(TEXT, read=[*names, f"L{layer}.attn.out @ last", f"L{top}.resid @ last"])["row"].sites
    block, anatomy = model.engine.hooks.blocks[layer], model.engine.anatomy
    z = torch.cat([read[name] for name in names], dim=-1)
    width = model.shape.d_head
    without = z.clone()
    without[:, head * width : (head + 1) * width] = 0
    project, norm = module_at(block, anatomy.o_proj), final_norm(model)
    with torch.no_grad():
        change = (project(z) - project(without)).double()
        if not anatomy.heads_add:
            behind = behind_attention(model, layer)
            change = behind.gain * change * behind.inverse_size(project(z), read[f"L{layer}.attn.out @ last"])[:, None]
    last = read[f"L{top}.resid @ last"]
    out = model.engine.forward(*_row(model, TEXT))[:, -1]
    part = (norm.centre(change) * norm.gain * norm.inverse_size(last, out)[:, None]) @ unembedding(model)[0][
        token(model, " Paris")
    ].double()
    assert found.of(f"L{layer}.head[{head}]")[0] == pytest.approx(float(part), rel=1e-3, abs=1e-6)


def _row(model: Model, text: str) -> tuple[Tensor, Tensor]:
    tokens = torch.tensor([model.row(text).tokens])
    return tokens, torch.arange(tokens.shape[1])[None]


def test_direct_effects_are_told(llama: Model) -> None:
    texts = [f"{first} is the city of" for first in ("Paris", "Rome", "Berlin", "The Tower")]
    found = circuits.direct(llama, texts, " Paris", " Rome")
    (name, value), *_ = found.top(3)
    assert value == pytest.approx(float(found.of(name).mean())) and abs(value) == np.abs(found.mean).max()
    ends = found.interval(name)
    assert ends.low <= value <= ends.high
    assert "4 prompts" in str(found)
    act = ablate(torch.randn(32, generator=torch.Generator().manual_seed(0)), at="L1.resid")
    under = circuits.direct(llama, texts[0], " Paris", under=act)
    assert under.logits[0] == pytest.approx(
        float(llama.run(texts[0], under=act).logits[-1, token(llama, " Paris")]), rel=1e-4
    )
    with pytest.raises(NoSuchSite, match=r"no component 'L9.mlp'"):
        found.of("L9.mlp")


def test_parts_sum_in_half_precision_too(tokenizer: Any) -> None:
    half = Model.load(fresh("gpt2").to(torch.bfloat16), tokenizer=tokenizer, selftest=False)
    found = circuits.direct(half, TEXT, " Paris")
    assert abs(found.parts.sum() - found.logits[0]) < 0.02 * np.abs(found.parts).sum()


# Weights.


def test_ov_is_what_a_head_adds(model: Model) -> None:
    """Σ_k A(q, k) (OV x̂_k + W_O b_V) is what the head writes, with the head of keys and values that its group shares."""
    for layer in range(model.shape.layers):
        x, read = standard(model, layer, IDS)
        gain = behind_attention(model, layer).gain
        project = matrix(module_at(model.engine.hooks.blocks[layer], model.engine.anatomy.o_proj)).double()
        for head, mine in enumerate(layer_weights(model, layer)):
            looked = read[f"L{layer}.head[{head}].pattern"].double() @ x
            added = looked @ mine.ov.dense.double().T + (mine.W_O @ mine.bias_v).double()
            z = read[f"L{layer}.head[{head}].z"].double()
            W_O = project[:, head * model.shape.d_head : (head + 1) * model.shape.d_head]
            torch.testing.assert_close(added, gain * (z @ W_O.T), atol=1e-4, rtol=1e-4)
            assert mine.kv_head == head * model.shape.kv_heads // model.shape.heads


def test_qk_is_the_score_before_the_softmax(model: Model) -> None:
    """At every offset, biases included: up to a constant for each query, scores are the logarithm of the pattern."""
    layer, length = 1, 8
    x, read = standard(model, layer, IDS)
    ready = layer_weights(model, layer, range(length))
    queries, keys = (_normed(model, ready, kind, x) for kind in ("q", "k"))
    cap = getattr(model.hf.config, "attn_logit_softcapping", None)
    for head, mine in enumerate(ready):
        scores = torch.zeros(length, length, dtype=torch.float64)
        for q in range(length):
            for k in range(q + 1):
                scores[q, k] = queries[head][q] @ mine.turns[q - k].double() @ keys[head][k]
                if not mine.qk_norms and not mine.bias_q.any() and not mine.bias_k.any():
                    dense = mine.qk(q - k).dense.double()
                    assert float(x[q] @ dense @ x[k]) == pytest.approx(float(scores[q, k]), abs=1e-4)
        scores = scores if cap is None else cap * torch.tanh(scores / cap)
        logs = read[f"L{layer}.head[{head}].pattern"].double().log()
        seen = logs - logs.diagonal()[:, None]
        mask = torch.ones(length, length).tril().bool()
        torch.testing.assert_close((scores - scores.diagonal()[:, None])[mask], seen[mask], atol=2e-3, rtol=2e-3)


def _normed(model: Model, ready: list[circuits.HeadWeights], kind: str, x: Tensor) -> list[Tensor]:
    """Queries or keys of every head before positions; behind their norm, in families that have one."""
    made = [x @ getattr(one, f"W_{kind.upper()}").double().T + getattr(one, f"bias_{kind}").double() for one in ready]
    paths = model.engine.anatomy.qk_norms
    if not paths:
        return made
    module = module_at(model.engine.hooks.blocks[1], paths["qk".index(kind)])
    gain = Norm.of(module.forward, sum(w.numel() for w in module.parameters()), torch.float32, torch.device("cpu")).gain
    gains = (
        gain.expand(len(made) if kind == "q" else model.shape.kv_heads, -1)
        if len(gain) == model.shape.d_head
        else gain.view(-1, model.shape.d_head)
    )
    bare = [
        one / gains[mine.kv_head if kind == "k" else index]
        for index, (one, mine) in enumerate(zip(made, ready, strict=True))
    ]
    if len(gain) == model.shape.d_head:
        return [one / (raw.square().mean(-1, keepdim=True) + 1e-6).sqrt() for one, raw in zip(made, bare, strict=True)]
    # One norm over all heads together, each key head once.
    once = {
        (mine.kv_head if kind == "k" else index): raw for index, (mine, raw) in enumerate(zip(ready, bare, strict=True))
    }
    size = (torch.cat(list(once.values()), dim=-1).square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return [one / size for one in made]


def test_rotary_positions_turn_qk_and_learned_ones_do_not(model: Model) -> None:
    mine = circuits.weights(model, "L1.head[0].z", offsets=(0, 1, 5))
    at = [mine.turns[offset] / mine.turns[0].norm() for offset in (0, 1, 5)]
    rotary = model.hf.config.model_type not in ("gpt2", "opt")
    assert bool((at[0] - at[1]).norm() > 1e-3) == rotary
    # Turning changes no length, and no offset does more than turn.
    for one in at:
        torch.testing.assert_close(one @ one.T * len(one), torch.eye(len(one)), atol=1e-4, rtol=1e-4)


def test_factors_stand_for_their_product() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = (torch.randn(*size, generator=generator) for size in ((9, 3), (3, 7), (7, 2), (2, 9)))
    one, other = circuits.Factored(a, b), circuits.Factored(c, d)
    torch.testing.assert_close((one @ other).dense, one.dense @ other.dense, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.transposed.dense, one.dense.T)
    assert one.norm == pytest.approx(float(one.dense.norm()), rel=1e-5)
    torch.testing.assert_close(one.singular_values, torch.linalg.svdvals(one.dense)[:3], atol=1e-4, rtol=1e-4)
    whole = torch.linalg.eigvals((one @ other).dense)
    thin = (one @ other).eigenvalues
    assert sorted(thin.abs().tolist())[-2:] == pytest.approx(sorted(whole.abs().tolist())[-2:], rel=1e-3)


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_composition_is_the_published_formula(model: Model, kind: Any) -> None:
    found = circuits.composition(model, kind, offset=1, draws=3)
    ready = [layer_weights(model, layer, [1]) for layer in range(model.shape.layers)]
    for u, writer in enumerate(found.writers):
        for v, reader in enumerate(found.readers):
            if reader.order[0] <= writer.order[0]:
                assert np.isnan(found.scores[u, v])
                continue
            first, then = ready[writer.order[0]][writer.index], ready[reader.order[0]][reader.index]
            ov, qk = first.ov.dense, then.qk(1).dense
            way = {"Q": qk.T, "K": qk, "V": then.ov.dense}[kind]
            wanted = float((way @ ov).norm() / (way.norm() * ov.norm()))
            assert found.scores[u, v] == pytest.approx(wanted, rel=1e-4)
    writer, reader, excess = found.top(1)[0]
    assert excess == pytest.approx(np.nanmax(found.scores) - found.random.mean())
    assert writer.order[0] < reader.order[0]


def test_random_matrices_compose_by_one_over_the_root_of_the_width() -> None:
    drawn = _random(64, 4, 400, seed=0)
    assert np.mean(drawn**2) == pytest.approx(1 / 64, rel=0.05)
    assert drawn.tolist() == _random(64, 4, 400, seed=0).tolist() != _random(64, 4, 400, seed=1).tolist()


def test_composition_finds_a_planted_pair(tokenizer: Any) -> None:
    """Head 1 of layer 2 reads with its keys exactly where head 2 of layer 0 writes."""
    hf: Any = fresh("llama", num_key_value_heads=4)
    first, then = hf.model.layers[0].self_attn, hf.model.layers[2]
    with torch.no_grad():
        written = first.o_proj.weight[:, 16:24] / then.input_layernorm.weight[:, None]
        then.self_attn.k_proj.weight[8:16] = written.T
    planted = Model.load(hf, tokenizer=tokenizer, selftest=False)
    (writer, reader, excess), (_, _, second) = circuits.composition(planted, "K").top(2)
    assert (str(writer), str(reader)) == ("L0.head[2].z", "L2.head[1].z")
    assert excess > 2 * second


def test_copying_is_that_of_the_whole_table_of_tokens(model: Model) -> None:
    found = circuits.copying(model)
    W_U = final_norm(model).folded(unembedding(model)[0])
    W_U -= W_U.mean(dim=0)
    W_E = model.hf.get_input_embeddings().weight.detach().double()
    ov = circuits.weights(model, "L1.head[3].z").ov.dense.double()
    values = torch.linalg.eigvals(W_U @ ov @ W_E.T)
    assert found.of("L1.head[3].z") == pytest.approx(float(values.real.sum() / values.abs().sum()), abs=1e-3)
    assert np.abs(found.values).max() <= 1 + 1e-9
    assert found.interval("L1.head[3].z") is None


def test_a_head_that_hands_tokens_on_copies(tokenizer: Any) -> None:
    hf: Any = fresh("llama", num_key_value_heads=4)
    with torch.no_grad():
        block = hf.model.layers[1]
        block.input_layernorm.weight.fill_(1)
        hf.model.norm.weight.fill_(1)
        hf.lm_head.weight.copy_(hf.model.embed_tokens.weight)
        block.self_attn.o_proj.weight[:, :8] = block.self_attn.v_proj.weight[:8].T
        block.self_attn.o_proj.weight[:, 8:16] = -block.self_attn.v_proj.weight[8:16].T
    found = circuits.copying(Model.load(hf, tokenizer=tokenizer, selftest=False))
    assert found.of("L1.head[0].z") == pytest.approx(1, abs=1e-3)
    assert found.of("L1.head[1].z") == pytest.approx(-1, abs=1e-3)


# What heads do.


def test_random_sequences(llama: Model) -> None:
    tokens, first = sequences(llama, 3, 6, 4, seed=0, bos=None)
    bos = llama.tokenizer.bos_token_id
    assert first == 1 and (tokens[:, 0] == bos).all() and tokens.shape == (3, 25)
    body = tokens[:, 1:].view(3, 4, 6)
    assert (body == body[:, :1]).all()
    assert all(len(set(row.tolist())) == 6 for row in body[:, 0])
    known = set(pool(llama))
    assert set(body.flatten().tolist()) <= known
    assert not known & {*llama.tokenizer.all_special_ids}
    assert leading(llama, False) == [] and leading(llama, True) == [bos]
    assert not torch.equal(tokens, sequences(llama, 3, 6, 4, seed=1, bos=None)[0])
    whole = llama.shape.vocab - len({*llama.tokenizer.all_special_ids, *llama.tokenizer.get_added_vocab().values()})
    assert whole - len(known) == 2 * int(0.04 * whole)


@pytest.mark.parametrize("score", ["induction", "previous", "duplicate"])
def test_scores_are_the_published_sums(model: Model, score: Any) -> None:
    """Against loops over the patterns of single runs."""
    found = circuits.heads(model, score, count=2, length=4, repeats=3, seed=5, memory=1)
    tokens, first = sequences(model, 2, 4, 3, 5, None)
    for row in range(2):
        ids = tokens[row].tolist()
        run = model.run(Prompt.tokenized(ids), read=["L1.head[2].pattern"])["row"]["L1.head[2].pattern"]
        paid = []
        for q in range(first + 1, len(ids)):
            earlier = [k for k in range(first, q) if ids[k] == ids[q]]
            if score == "previous":
                paid.append(float(run[q, q - 1]))
            elif earlier:
                paid.append(sum(float(run[q, k + (score == "induction")]) for k in earlier))
        assert found.values[row, 1, 2] == pytest.approx(np.mean(paid), abs=1e-5)


def forced(score: str, first: int, length: int, repeats: int) -> Tensor:
    """The pattern of a head that does nothing else."""
    size = first + length * repeats
    pattern = torch.zeros(size, size)
    for q in range(size):
        back = {"previous": 1, "duplicate": length, "induction": length - 1}[score]
        at = q - back if q - back >= first and not (score != "previous" and q < first + length) else 0
        pattern[q, at] = 1
    return pattern


@pytest.mark.parametrize("score", ["induction", "previous", "duplicate"])
def test_a_head_that_does_nothing_else_scores_one(model: Model, score: Any) -> None:
    act = patch("L2.head[1].pattern", source=forced(score, 1, 5, 3))
    found = circuits.heads(model, score, count=2, length=5, repeats=3, under=act)
    assert found.of("L2.head[1].z") == pytest.approx(1)
    assert found.top(1)[0][0] == Site.parse("L2.head[1].z")
    for other in {"induction", "previous", "duplicate"} - {score}:
        rest = circuits.heads(model, other, count=2, length=5, repeats=3, under=act)  # type: ignore[arg-type]
        assert rest.of("L2.head[1].z") == pytest.approx(0, abs=1e-6)


def test_copying_is_the_published_ratio(model: Model) -> None:
    """Against loops over what single runs give: the head's own part in the last stream, read by the scores."""
    found = circuits.heads(model, "copying", count=2, length=6, seed=3)
    tokens, first = sequences(model, 2, 6, 1, 3, None)
    project = matrix(module_at(model.engine.hooks.blocks[1], model.engine.anatomy.o_proj)).double()
    gain, last, width = behind_attention(model, 1).gain, final_norm(model), model.shape.d_head
    for row in range(2):
        ids = tokens[row].tolist()
        read = model.run(Prompt.tokenized(ids), read=["L1.head[3].z", "L1.head[3].pattern"])["row"]
        added = gain * (read["L1.head[3].z"].double() @ project[:, 3 * width : 4 * width].T)
        logits = (last.gain * last.centre(added)) @ unembedding(model)[0].double().T
        shares = []
        for q in range(first, len(ids)):
            mine = [float(logits[q, token]) for token in ids[first:]]
            raised = [max(0.0, one - float(np.mean(mine))) for one in mine]
            looked = int(read["L1.head[3].pattern"][q, first : q + 1].argmax())
            shares.append(2 * raised[looked] / sum(raised) - 1)
        assert found.values[row, 1, 3] == pytest.approx(np.mean(shares), abs=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_head_that_says_what_it_looks_at_copies(model: Model, sign: int) -> None:
    """The head looks one back, and writes what raises (or lowers) that token and no other of five."""
    length = 5
    tokens, _ = sequences(model, 1, length, 1, 0, None)
    readers = final_norm(model).folded(unembedding(model)[0][tokens[0, 1:]])
    W_O = matrix(module_at(model.engine.hooks.blocks[1], model.engine.anatomy.o_proj)).double()
    mine = (behind_attention(model, 1).folded(readers) @ W_O).unflatten(-1, (model.shape.heads, -1))[:, 2]
    looked = [0, 0, *range(1, length)]  # the second token looks at BOS, of the others it looks at itself then
    wanted = torch.zeros(length + 1, length, dtype=torch.float64)
    for q in range(1, length + 1):
        wanted[q, max(looked[q], 1) - 1] = sign
    z = torch.linalg.lstsq(mine, wanted.T).solution.T.float()
    pattern = torch.zeros(length + 1, length + 1)
    for q in range(length + 1):
        pattern[q, looked[q]] = 1
    acts = [patch("L1.head[2].pattern", source=pattern), patch("L1.head[2].z", source=z)]
    found = circuits.heads(model, "copying", count=1, length=length, under=acts)
    assert found.of("L1.head[2].z") == pytest.approx(sign, abs=1e-3)


def test_scores_are_told(llama: Model, tmp_path: Path) -> None:
    found = circuits.heads(llama, "previous", count=6, length=5, seed=3)
    best = found.top(2)
    assert best[0][1] >= best[1][1] == found.of(best[1][0])
    ends = found.interval(best[0][0])
    assert ends is not None and ends.n == 6 and ends.low <= best[0][1] <= ends.high
    back = circuits.HeadScores.from_json(json.loads(json.dumps(found.to_json())))
    assert str(back) == str(found) and "previous: 6 sequences" in str(found)
    drawn = found.plot(tmp_path / "heads.svg").read_text()
    assert drawn == back._repr_svg_() and "<script" not in drawn and "L" + str(best[0][0].layer) in drawn
    assert "<svg" in circuits.copying(llama).plot(tmp_path / "copying.svg").read_text()
    with pytest.raises(Unwritable):
        found.plot(tmp_path / "no" / "heads.svg")


def test_the_budget_changes_no_score(llama: Model) -> None:
    done: list[tuple[int, int]] = []
    small, whole = (
        circuits.heads(llama, "copying", count=5, length=6, memory=memory, progress=lambda *at: done.append(at))
        for memory in (1, None)
    )
    np.testing.assert_allclose(small.values, whole.values, atol=1e-5)
    assert done == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5), (5, 5)]


def test_patterns_of_one_prompt(model: Model) -> None:
    found = circuits.attention(model, TEXT, at=["L1.head[0].z", "L2.head[:].pattern"])
    assert [str(site) for site in found.sites] == ["L1.head[0].z", *(f"L2.head[{head}].z" for head in range(4))]
    np.testing.assert_allclose(found.pattern.sum(axis=-1), 1, atol=1e-5)
    wanted = model.run(TEXT, read=["L2.head[3].pattern"])["row"]["L2.head[3].pattern"]
    np.testing.assert_array_equal(found.pattern[4], wanted)
    query, key, share = found.top(1, head=4)[0]
    assert query in found.tokens and key in found.tokens and 0 < share <= 1


def test_patterns_and_layers_draw_themselves(llama: Model, tmp_path: Path) -> None:
    for text in (TEXT, TEXT * 5):
        found = circuits.attention(llama, text, at=["L1.head[0].z", "L2.head[0].z"])
        drawn = found.plot(tmp_path / "pattern.svg").read_text()
        assert drawn == found._repr_svg_() and "<script" not in drawn and "L2.head[0]" in drawn
    assert "<svg" in circuits.lens(llama, TEXT, at="all").plot(tmp_path / "lens.svg").read_text()


# Without heads.


def test_ablation_is_the_naive_loop(model: Model) -> None:
    chosen = ["L1.head[2].z", "L2.head[0].z"]
    found = circuits.ablation(model, chosen, count=3, length=5, draws=4, seed=7)
    tokens, first = sequences(model, 3, 5, 2, 7, None)
    prompts = [Prompt.tokenized(row) for row in tokens.tolist()]
    z = {
        site: torch.cat([model.run(one, read=[f"{site} @ 1:"])["row"][f"{site} @ 1:"] for one in prompts])
        for site in chosen
    }
    acts = [patch(f"{site} @ 1:", source=z[site].mean(dim=0).expand(tokens.shape[1] - 1, -1)) for site in chosen]
    for index, one in enumerate(prompts):
        for under, seen in (((), found.natural), (acts, found.without)):
            logp = model.run(one, under=under).logits.log_softmax(dim=-1)
            start = first + 5
            nll = [-float(logp[at - 1, tokens[index, at]]) for at in range(start, tokens.shape[1])]
            assert seen[index] == pytest.approx(np.mean(nll), abs=1e-4)
    assert found.effect.value == pytest.approx(float((found.without - found.natural).mean()))
    assert found.p == (1 + int((found.chance >= found.effect.value).sum())) / 5
    assert found.random.shape == (4, 3)


def test_random_heads_are_others(llama: Model, tmp_path: Path) -> None:
    chosen = ["L0.head[0].z", "L0.head[1].z", "L2.head[3].z"]
    found = circuits.ablation(llama, chosen, count=3, length=5, draws=3, among="layers", seed=2)
    again = circuits.ablation(llama, chosen, count=3, length=5, draws=3, among="layers", seed=2)
    assert found.random.tolist() == again.random.tolist()
    assert "same layers" in str(found) and "L2.head[3]" in str(found)
    assert "<svg" in found.plot(tmp_path / "ablation.svg").read_text()
    rng = np.random.default_rng(0)
    from assay.circuits.ablation import _drawn

    sites = list(llama.sites(*chosen))
    for _ in range(20):
        drawn = _drawn(llama, sites, "layers", rng)
        assert sorted(site.order[0] for site in drawn) == [0, 0, 2] and not set(drawn) & set(sites)
        anywhere = _drawn(llama, sites, "model", rng)
        assert len(set(anywhere)) == 3 and not set(anywhere) & set(sites)


def test_what_repetition_is_worth(llama: Model) -> None:
    found = circuits.ablation(llama, ["L0.head[0].z"], count=3, length=5, draws=2)
    if found.fresh > found.natural.mean():
        assert found.share == pytest.approx(found.effect.value / (found.fresh - found.natural.mean()))
    else:
        with pytest.raises(BadData, match="worth nothing"):
            _ = found.share


def test_the_command_lists_heads_and_takes_them_away(llama: Model, tokenizer: Any, tmp_path: Path) -> None:
    llama.hf.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    figure = tmp_path / "heads.svg"
    given = ["heads", "--score", "previous", "--top", "3", "--count", "2", "--ablate", "2", "--draws", "2"]
    done = CliRunner().invoke(app, [*given, "--plot", str(figure), "--model", str(tmp_path)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("previous, 2 sequences: up to +0.")
    assert [line.split()[:2] for line in lines[1:5]] == [["head", str(head)] for head in range(4)]
    best = [str(site).removesuffix(".z") for site, _ in circuits.heads(llama, "previous", count=2).top(3)]
    assert [line.split()[0] for line in lines[8:11]] == best
    assert f"without {best[0]}, {best[1]}" in done.output or f"without {best[1]}, {best[0]}" in done.output
    assert "without 2 random heads of the model, 2 draws" in done.output
    assert "<svg" in figure.read_text()
    assert CliRunner().invoke(app, ["heads", "--score", "inductive"]).exit_code == 2


# Bad input.


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m: circuits.lens(m, TEXT, top=0), BadData, "top=0"),
        (lambda m: circuits.lens(m, TEXT, at="subject"), NoSuchPosition, "no span"),
        (lambda m: circuits.lens(m, TEXT, answer=" the city of"), BadData, "tokens; one is read"),
        (lambda m: circuits.direct(m, [], " Paris"), EmptyData, "no prompts"),
        (lambda m: circuits.direct(m, [TEXT], [" Paris", " Rome"]), BadData, "do not match"),
        (lambda m: circuits.direct(m, TEXT, " Paris", at="all"), BadData, "many positions"),
        (lambda m: circuits.weights(m, "L1.mlp.out"), NoSuchSite, "is no head"),
        (lambda m: circuits.weights(m, "L1.head[9].z"), NoSuchSite, r"no L1.head\[9\].z"),
        (lambda m: circuits.weights(m, "L1.head[:].z"), NoSuchSite, "expected 1"),
        (lambda m: circuits.weights(m, "L1.head[0].z", offsets=[-1]), BadData, r"offsets=\[-1\]"),
        (lambda m: circuits.weights(m, "L1.head[0].z").qk(3), BadData, "at offset 3 was not read"),
        (lambda m: circuits.composition(m, "X"), BadData, "kind='X'"),
        (lambda m: circuits.composition(m, "K", writers="L1.resid"), BadData, "are no heads"),
        (lambda m: circuits.composition(m, "K", writers="L2.head[:].z"), EmptyData, "no reader is above"),
        (lambda m: circuits.heads(m, "inductive"), BadData, "nearest   induction"),
        (lambda m: circuits.heads(m, repeats=1), BadData, "repeats=1"),
        (lambda m: circuits.heads(m, count=0), BadData, "0 sequences"),
        (lambda m: circuits.heads(m, length=10**6), BadData, "tokens to draw from"),
        (lambda m: circuits.heads(m, count=2, length=5).top(0), BadData, "top 0 of 12"),
        (lambda m: circuits.heads(m, count=2, length=5).of("L7.head[0].z"), NoSuchSite, "no head of this model"),
        (lambda m: circuits.attention(m, TEXT, at="L1.resid"), NoSuchSite, "is no head"),
        (lambda m: circuits.ablation(m, []), EmptyData, "no heads"),
        (lambda m: circuits.ablation(m, ["L1.mlp.out"]), BadData, "cannot ablate"),
        (lambda m: circuits.ablation(m, ["L1.head[0].z"], draws=0), BadData, "0 draws"),
        (lambda m: circuits.ablation(m, ["L1.head[0].z"], count=1), BadData, "1 sequences"),
        (lambda m: circuits.ablation(m, ["L1.head[:].z"], among="layers"), BadData, "too few other heads"),
    ],
)
def test_what_cannot_be_asked(llama: Model, call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(llama)


def test_a_vocabulary_without_bos(llama: Model) -> None:
    class Bare:
        bos_token_id = None

    with pytest.raises(BadData, match="has no BOS"):
        leading(type("Other", (), {"tokenizer": Bare()})(), True)  # type: ignore[arg-type]


def test_an_anatomy_that_does_not_say_where_queries_come_from(tokenizer: Any) -> None:
    from dataclasses import replace

    from assay.model.anatomy import ANATOMIES

    declared = replace(ANATOMIES["gpt2"], qkv=("attn.q", "attn.k", "attn.v"))
    model = Model.load(fresh("gpt2"), tokenizer=tokenizer, anatomy=declared, selftest=False)
    with pytest.raises(UnknownArchitecture, match="the anatomy names 'attn.q'"):
        circuits.weights(model, "L0.head[0].z")


def test_the_model_is_left_as_it_was(model: Model) -> None:
    before = model.run(TEXT).logits
    circuits.weights(model, "L1.head[1].z", offsets=range(3))
    circuits.heads(model, "copying", count=2, length=5)
    circuits.direct(model, TEXT, " Paris")
    assert torch.equal(model.run(TEXT).logits, before)
