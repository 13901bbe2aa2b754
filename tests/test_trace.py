"""Tracing and patching: the planned grid gives the numbers of the naive loop, and the identities hold."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from assay import Model, Prompt, patch, trace
from assay.errors import BadData, BadDose, EmptyData, NoSuchPosition, NoSuchSite, Unwritable
from assay.run.branch import Branch, grown, trunks
from assay.trace.causal import PARTS, _drawn, _spread, _window
from assay.trace.traced import BUCKETS
from tests.tiny import tiny as fresh

FACT = Prompt("The {subject} is in", subject="Eiffel Tower")
ONE, OTHER = Prompt.tokenized([5, 7]), Prompt.tokenized([5, 9])


def parts(model: Model) -> list[str]:
    return [part for part in PARTS if part not in model.shape.lacks]


def pairs_of(model: Model) -> tuple[list[Prompt], list[Prompt]]:
    """Token ids, so that lengths are equal whatever the tokenizer."""
    clean = [Prompt.tokenized(ids) for ids in ([5, 7, 9, 11, 13, 15], [5, 8, 9, 30, 13, 2])]
    hurt = [Prompt.tokenized(ids) for ids in ([5, 7, 21, 11, 13, 15], [5, 8, 9, 12, 14, 2])]
    return clean, hurt


# The planned grid is the naive loop.


def _token(model: Model, one: trace.CausalTrace) -> int:
    return int(model.run(FACT).logits[-1].argmax())


@pytest.mark.parametrize("severed", [None, "mlp.out"])
def test_every_cell_is_that_of_the_naive_loop(model: Model, severed: Any) -> None:
    layers, seed = model.shape.layers, 3
    restore = ["resid"] if severed else parts(model)
    one = trace.causal(model, FACT, restore=restore, samples=2, window=2, seed=seed, severed=severed, memory=40_000)  # type: ignore[arg-type]
    sites = [f"L{layer}.{part}" for layer in range(layers) for part in {*restore, *([severed] if severed else [])}]
    run = model.run(FACT, read=[f"{site} @ all" for site in sites])
    embed_of: dict[int, Any] = {}
    for sample in range(2):
        row = model.row(FACT)
        embed = trunks(model, torch.tensor([row.tokens]), []).below(0)[0].clone()
        noise = one.deviation * _drawn(row, seed, (2, one.subject[1] - one.subject[0], model.shape.d_model))
        embed[slice(*one.subject)] += noise[sample]
        hurt = patch("embed @ all", source=embed)
        embed_of[sample] = model.run(FACT, under=hurt, read=[f"{site} @ all" for site in sites])
        assert one.corrupted[sample] == pytest.approx(
            float(embed_of[sample].logits[-1].softmax(-1)[_token(model, one)]), abs=1e-5
        )
        for part in restore:
            for at in range(len(one.tokens)):
                for layer in range(layers):
                    near = range(layer, layer + 1) if part == "resid" else range(*_window(layer, layers, 2, "code"))
                    acts = [hurt]
                    acts += [
                        patch(f"L{i}.{part} @ {at}", source=run["row"][f"L{i}.{part} @ all"][at : at + 1]) for i in near
                    ]
                    if severed:
                        acts += [
                            patch(
                                f"L{i}.{severed} @ {at}",
                                source=embed_of[sample]["row"][f"L{i}.{severed} @ all"][at : at + 1],
                            )
                            for i in range(layer + 1, layers)
                        ]
                    wanted = float(model.run(FACT, under=acts).logits[-1].softmax(-1)[_token(model, one)])
                    assert one.restored[part][at, layer, sample] == pytest.approx(wanted, abs=1e-5), (part, at, layer)


@pytest.mark.parametrize("mode", ["denoise", "noise"])
@pytest.mark.parametrize("whole", [False, True])
def test_patching_is_the_naive_loop(model: Model, mode: Any, whole: bool) -> None:
    clean, hurt = pairs_of(model)
    known = ["L:.resid", "L:.attn.out", "L1.head[:].z", "embed"]
    known += [f"L:.{part}" for part in ("mid", "mlp.out", "mlp.act") if part not in model.shape.lacks]
    found = trace.patching(
        model,
        clean,
        hurt,
        at=known,
        metric=lambda logits: logits[..., 7] - logits[..., 9],
        mode=mode,
        whole_rows=whole,
        memory=60_000,
    )
    into, other = (hurt, clean) if mode == "denoise" else (clean, hurt)
    for index, (a, b) in enumerate(zip(into, other, strict=True)):
        source = model.run(b, read=[str(site) for site in found.sites])
        for number, site in enumerate(found.sites):
            values = source["row"][site]
            for at in [0] if whole else range(6):
                act = patch(
                    f"{str(site).split(' @')[0]} @ {'all' if whole else at}",
                    source=values if whole else values[at : at + 1],
                )
                logits = model.run(a, under=act).logits[-1]
                assert found.values[number, at, index] == pytest.approx(float(logits[7] - logits[9]), abs=2e-5), (
                    site,
                    at,
                )


def test_the_budget_changes_no_number(llama: Model) -> None:
    some = [trace.causal(llama, FACT, samples=3, window=2, memory=memory) for memory in (1, 50_000, None)]
    for a, b in pairwise(some):
        for part in PARTS:
            np.testing.assert_allclose(a.restored[part], b.restored[part], atol=1e-6)


def test_branches_need_not_form_a_grid(llama: Model) -> None:
    base = trunks(llama, torch.tensor([[5, 7, 9, 11]]), [])
    branches = [Branch(1, 2), Branch(3, 0), Branch(1, 2), Branch(0, 3), Branch(2, 1), Branch(llama.shape.layers, 3)]
    seen: list[int] = []
    for indices, final in grown(llama, base, branches, 8):
        seen += indices
        for one in final:
            torch.testing.assert_close(one, base.final, atol=1e-5, rtol=1e-5)
    assert sorted(seen) == list(range(len(branches)))


# Identities.


def test_nothing_comes_back_before_the_subject_and_all_of_it_at_the_end(model: Model) -> None:
    one = trace.causal(model, FACT, restore="resid", samples=2)
    start, _ = one.subject
    assert start > 0
    assert not one.effect()[:start].any()
    assert not one.effect()[:-1, -1].any()
    np.testing.assert_allclose(one.restored["resid"][-1, -1], one.clean, atol=1e-6)
    assert one.effect()[-1, -1] == pytest.approx(one.total, abs=1e-6)


def test_restoring_a_whole_stream_restores_the_run(model: Model) -> None:
    clean, hurt = pairs_of(model)
    found = trace.patching(
        model, clean, hurt, at=["embed", "L:.resid"], metric=lambda logits: logits[..., 7], whole_rows=True
    )
    np.testing.assert_allclose(found.values[:, 0], np.tile(found.target, (len(found.sites), 1)), atol=2e-5)
    np.testing.assert_allclose(found.share, 1, atol=1e-3)


def test_before_the_first_difference_nothing_changes(llama: Model) -> None:
    clean, hurt = pairs_of(llama)
    found = trace.patching(llama, clean, hurt, at="L:.resid", metric=lambda logits: logits[..., 7])
    assert not found.effect[:, :2].any()
    assert found.effect[:, 2:].any()


def linear_model(tokenizer: PreTrainedTokenizerFast) -> Model:
    """Uniform attention, no MLP, no norms: logits are linear in the embeddings."""
    hf: Any = fresh("llama")
    with torch.no_grad():
        for block in hf.model.layers:
            block.input_layernorm, block.post_attention_layernorm = nn.Identity(), nn.Identity()
            block.self_attn.q_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    hf.model.norm = nn.Identity()
    return Model.load(hf, tokenizer=tokenizer, selftest=False)


@pytest.mark.parametrize("mode", ["denoise", "noise"])
def test_attribution_is_patching_where_the_model_is_linear(tokenizer: PreTrainedTokenizerFast, mode: Any) -> None:
    linear = linear_model(tokenizer)
    clean, hurt = pairs_of(linear)
    asked: Any = dict(
        at=["embed", "L:.resid", "L:.head[:].z", "L:.attn.out"],
        metric=lambda logits: logits[..., 7] - logits[..., 9],
        mode=mode,
    )
    exact, estimate = trace.patching(linear, clean, hurt, **asked), trace.attribution(linear, clean, hurt, **asked)
    assert np.abs(exact.effect).max() > 1e-3
    np.testing.assert_allclose(estimate.values, exact.values, atol=2e-5)


def test_integrated_gradients_are_complete_as_steps_grow(model: Model) -> None:
    clean, hurt = pairs_of(model)
    off = []
    for steps in (1, 8, 64):
        found = trace.attribution(
            model, clean, hurt, at="embed", metric=lambda logits: logits[..., 7], steps=steps, grid="middle"
        )
        off.append(float(np.abs(found.effect.sum() - (found.target - found.base).mean())))
    # Where tokens are routed to experts the metric jumps, and a gradient sees no jump.
    close = 0.5 if model.engine.anatomy.down is None else 0.02
    assert off[2] < off[0] or off[2] < 1e-4
    assert off[2] < close * float(np.abs(found.target - found.base).mean()) + 1e-4


def test_attribution_is_the_slope_of_patching(model: Model) -> None:
    """Along the line from base to source the metric starts with the slope that attribution reads off."""
    clean, hurt = ([prompts[0]] for prompts in pairs_of(model))
    site, at, step = "L1.resid @ 4", 4, 1e-2
    found = trace.attribution(model, clean, hurt, at=site, metric=lambda logits: logits[..., 7])
    a, b = (model.run(one[0], read=["L1.resid @ all"])["row"]["L1.resid @ all"][at] for one in (hurt, clean))
    moved = [
        float(
            model.run(hurt[0], under=patch(f"L1.resid @ {at}", source=(a + sign * step * (b - a))[None])).logits[-1][7]
        )
        for sign in (1, -1)
    ]
    assert float(found.effect[0, at]) == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=0.05, abs=2e-3)


# What is drawn, and from what.


def test_noise_is_paired_over_cells_and_differs_between_prompts(llama: Model) -> None:
    size = 3, 4, 32
    row, other = llama.row(FACT), llama.row(Prompt("A {subject} is in", subject="Eiffel Tower"))
    assert torch.equal(_drawn(row, 0, size), _drawn(row, 0, size))
    assert not torch.equal(_drawn(row, 0, size), _drawn(row, 1, size))
    assert not torch.equal(_drawn(row, 0, size), _drawn(other, 0, size))


def test_the_unit_of_noise(model: Model) -> None:
    """The deviation over all scalars of the subjects' token embeddings, without positions."""
    row = model.row(FACT)
    clean = trunks(model, torch.tensor([row.tokens]), [])
    ids = [i for text in ("Tower", "city") for i in model.tokenizer(text, add_special_tokens=False)["input_ids"]]
    plain = model.hf.get_input_embeddings()(torch.tensor(ids)).std().item()
    assert _spread(model, clean, ["Tower", "city"], "code") == pytest.approx(plain, rel=1e-3)
    assert trace.causal(
        model, FACT, restore="resid", samples=1, subjects=["Tower", "city"], noise=2
    ).deviation == pytest.approx(2 * plain, rel=1e-3)


@pytest.mark.parametrize(
    ("layer", "preset", "wanted"),
    [
        (15, "code", (10, 20)),
        (15, "paper", (11, 21)),
        (2, "code", (0, 7)),
        (28, "code", (23, 30)),
        (28, "paper", (24, 30)),
    ],
)
def test_windows(layer: int, preset: Any, wanted: tuple[int, int]) -> None:
    assert _window(layer, 30, 10, preset) == wanted
    assert _window(layer, 30, 1, preset) == (layer, layer + 1)


# Results.


def test_buckets() -> None:
    effect = np.arange(8, dtype=np.float32)[:, None].repeat(2, axis=1)
    one = made(effect, (2, 5))
    assert one.buckets()[:, 0].tolist() == [2, 3, 4, 5, 6, 7]
    assert len(BUCKETS) == 6
    short = made(effect[:4], (1, 2))
    assert [None if np.isnan(x) else x for x in short.buckets()[:, 0]] == [1, None, 1, 2, None, 3]


def made(effect: np.ndarray, subject: tuple[int, int], model: str = "m") -> trace.CausalTrace:
    return trace.CausalTrace(
        tuple("abcdefgh"[: len(effect)]),
        subject,
        "x",
        0.9,
        np.zeros(1, np.float32),
        {"resid": effect[..., None]},
        1.0,
        10,
        None,
        "code",
        0,
        model,
    )


def test_averages_cover_the_mean_of_prompts() -> None:
    rng = np.random.default_rng(0)
    some = [made(rng.normal(1, 1, (8, 3)).astype(np.float32), (2, 5)) for _ in range(200)]
    whole = trace.average(some)
    mean, low, high = whole.effects["resid"][..., 0], whole.effects["resid"][..., 1], whole.effects["resid"][..., 2]
    assert (low < mean).all() and (mean < high).all()
    assert np.abs(mean - 1).max() < 0.3
    width = (high - low)[[0, 2, 3, 5]]
    np.testing.assert_allclose(width, 2 * 1.96 / 200**0.5, rtol=0.25)
    assert "200 prompts" in str(whole)
    with pytest.raises(EmptyData):
        trace.average([])
    with pytest.raises(BadData, match="not made alike"):
        trace.average([some[0], made(np.zeros((4, 3), np.float32), (1, 2), "another")])


def test_a_trace_survives_json_and_draws_itself(llama: Model, tmp_path: Path) -> None:
    one = trace.causal(llama, FACT, samples=2)
    back = trace.CausalTrace.from_json(json.loads(json.dumps(one.to_json())))
    assert str(back) == str(one)
    for part in PARTS:
        np.testing.assert_array_equal(back.restored[part], one.restored[part])
    drawn = one.plot(tmp_path / "heat.svg").read_text()
    assert drawn == back._repr_svg_()
    assert "<script" not in drawn
    assert "<svg" in trace.average([one]).plot(tmp_path / "average.svg").read_text()
    with pytest.raises(Unwritable):
        one.plot(tmp_path / "no" / "heat.svg")


# Bad input.


@pytest.mark.parametrize(
    ("prompt", "more", "error", "text"),
    [
        (Prompt("The Tower"), {}, NoSuchPosition, "the prompt has no span 'subject' to corrupt"),
        (FACT, dict(subject="place"), NoSuchPosition, "no span 'place'"),
        (FACT, dict(restore="mid"), NoSuchSite, "tracing restores no 'mid'"),
        (FACT, dict(samples=0), BadDose, "samples=0"),
        (FACT, dict(noise=float("nan")), BadDose, "noise=nan"),
        (FACT, dict(answer="the city of Paris"), BadData, "tokens; one is read"),
    ],
)
def test_what_cannot_be_traced(llama: Model, prompt: Prompt, more: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        trace.causal(llama, prompt, **more)


def test_an_answer_that_the_model_does_not_give(llama: Model) -> None:
    best = llama.decode([int(llama.run(FACT).logits[-1].argmax())])
    other = next(text for text in ("a", "e", "t") if text != best)
    with pytest.raises(BadData, match=f"the model does not answer '{other}'"):
        trace.causal(llama, FACT, answer=other)
    assert trace.causal(llama, FACT, answer=other, insist=True, samples=1, restore="resid").answer == other


@pytest.mark.parametrize(
    ("clean", "hurt", "more", "error", "text"),
    [
        ("The Tower", "The Tower", {}, EmptyData, "are the same"),
        ("The Tower", "The Tower is", {}, BadData, "do not pair up"),
        (["The Tower"], ["The city", "a"], {}, BadData, "do not pair up"),
        (ONE, OTHER, dict(answers=("a", "b"), metric=lambda x: x[..., 0]), BadData, "one measure"),
        (ONE, OTHER, dict(answers=("a", "the city of")), BadData, "has 5 tokens; one is read"),
        (ONE, OTHER, dict(at="logits"), NoSuchSite, "cannot be patched in a grid"),
        (ONE, OTHER, dict(mode="both"), BadData, "there is no mode 'both'"),
        (ONE, OTHER, dict(at="L99.resid"), NoSuchSite, "this model has no L99.resid"),
    ],
)
def test_what_cannot_be_patched(
    llama: Model, clean: Any, hurt: Any, more: Any, error: type[Exception], text: str
) -> None:
    if "answers" not in more and "metric" not in more:
        more = {**more, "metric": lambda logits: logits[..., 0]}
    for call in (trace.patching, trace.attribution):
        with pytest.raises(error, match=text):
            call(llama, clean, hurt, **more)
