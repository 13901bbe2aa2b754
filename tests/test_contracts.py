"""The contracts of the core, each on every family: what an intervention does, and that nothing else happens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from assay import Direction, Intervention, Model, Prompt, Site, ablate, add, clamp, freeze, noise, patch
from assay.act.compile import compile_program
from assay.act.program import Program
from assay.act.receipt import Receipt
from assay.act.rows import Row
from assay.errors import NeverFired, NoSuchRow, NoSuchSite, SelfTestFailed
from assay.model.anatomy import ANATOMIES, Anatomy
from assay.model.selftest import self_test
from assay.provenance import Provenance
from assay.sites import Shape
from tests.tiny import tiny as fresh

FACT = "The Eiffel Tower is in the city of"
OTHER = "I love Paris because not a"
ROUTED = ("mixtral", "qwen2_moe")  # an expert's tokens are summed together, so neighbours differ by rounding


def places(model: Model, layer: int = 1) -> list[Site]:
    """One place of every part that takes a vector, in the order of the forward pass."""
    parts = ["embed", "head.z", "attn.out", "mid", "mlp.act", "mlp.out", "resid"]
    return [
        Site(part, None if part == "embed" else layer, 2 if part == "head.z" else None)
        for part in parts
        if part not in model.shape.lacks
    ]


def vector(model: Model, site: Site | str, seed: int = 0) -> Tensor:
    width = model.shape.width(Site.parse(site).part)
    assert width is not None
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def bits(tensor: Tensor) -> bytes:
    """Equal for equal bits: −0.0 is not 0.0, and a NaN is itself."""
    return tensor.detach().contiguous().numpy().tobytes()


@torch.no_grad()
def raw(model: Model, text: str = FACT) -> Tensor:
    logits: Tensor = model.hf(torch.tensor([model.row(text).tokens])).logits
    return logits[0]


def near(a: Tensor, b: Tensor, most: float = 1e-4) -> bool:
    return float((a - b).abs().max()) <= most * max(1.0, float(a.abs().max()))


# Numerics are the library's.


def test_the_names_are_proved_on_every_family(family: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = Model.load(fresh(family), tokenizer=tokenizer, selftest=False)
    found = self_test(model, remember=False)
    assert len(found.checks) == 13
    assert all(check.holds for check in found.checks)


def test_without_interventions_every_bit_is_the_librarys(model: Model) -> None:
    plain = raw(model)
    assert bits(model.run(FACT).logits) == bits(plain)
    with model.under():
        assert bits(raw(model)) == bits(plain)
        assert bits(model.run(FACT).logits) == bits(plain)
    reads = [str(site) for site in places(model)]
    assert bits(model.run(FACT, read=reads).logits) == bits(plain)
    batch = torch.tensor([model.row(FACT).tokens] * 2)
    with torch.no_grad():
        together = model.hf(batch).logits
    run = model.run(a=FACT, b=FACT)
    assert bits(run["a"].logits) == bits(together[0])
    assert bits(run["b"].logits) == bits(together[1])


def test_dose_zero_changes_no_bit(model: Model) -> None:
    plain, ids = raw(model), torch.tensor([model.row(FACT).tokens])
    idle = [add(vector(model, site), dose=0, at=site) for site in places(model)]
    idle += [add(vector(model, site), times=0, at=site) for site in places(model)]
    idle += [noise(site, dose=0) for site in places(model)]
    assert bits(model.run(FACT, under=idle).logits) == bits(plain)
    with model.under(*idle), torch.no_grad():
        assert bits(model.hf(ids).logits[0]) == bits(plain)
    grid = model.sweep([FACT], [(), *idle], score=[" Paris", " Rome"])
    assert len(set(grid.scores.ravel().tolist())) == 1
    made = model.sweep([FACT], [(), idle], generate=5)
    assert made.generated[0][0] == made.generated[0][1]


SHAPE = Shape(layers=3, heads=2, kv_heads=2, d_model=4, d_head=2, d_mlp=4, vocab=9)


@given(st.data())
def test_what_is_not_touched_keeps_every_bit(data: st.DataObject) -> None:
    """Infinities, signed zeros and the payloads of NaNs included; and the activation itself is never written to."""
    word = st.sampled_from(
        [0x7FC00001, 0xFFC12345, 0x80000000, 0x00000000, 0x00000001, 0x7F800000, 0x3F800000, 0xC2280000]
    )
    words = data.draw(st.lists(word, min_size=3 * 5 * 4, max_size=3 * 5 * 4))
    h = (
        torch.tensor([w - (1 << 32) if w >> 31 else w for w in words], dtype=torch.int32)
        .view(torch.float32)
        .reshape(3, 5, 4)
    )
    touched = data.draw(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 4))))
    rows = [Row(str(index), (1, 2, 3, 4, 5), 5) for index in range(3)]
    acts = {
        "add": lambda site: add(torch.ones(4), times=1, at=site),
        "ablate": lambda site: ablate(torch.ones(4), at=site),
        "clamp": lambda site: clamp(torch.ones(4), 2.0, at=site),
        "set": lambda site: patch(site, source=torch.ones(1, 4)),
        "noise": lambda site: noise(site, dose=1),
    }
    op = data.draw(st.sampled_from(sorted(acts)))
    conditions = [[acts[op](f"L1.resid @ {pos}") for row, pos in sorted(touched) if row == index] for index in range(3)]
    program = compile_program(rows, conditions, SHAPE, lambda site, kind: 1.0)
    before = bits(h)
    positions = torch.arange(5).expand(3, 5)
    new = program.apply((1, "resid"), h, positions) if touched else h
    assert bits(h) == before
    for row in range(3):
        for pos in range(5):
            if (row, pos) not in touched:
                assert bits(new[row, pos]) == bits(h[row, pos])
    if op == "set":
        assert all(new[row, pos].tolist() == [1, 1, 1, 1] for row, pos in touched)


# What each operation does, at every place.


def test_add_adds_and_its_inverse_takes_it_away(model: Model) -> None:
    plain = model.run(FACT, read=places(model))
    for site in places(model):
        v = vector(model, site)
        run = model.run(FACT, under=add(v, times=2, at=site), read=[site])
        assert near(run["row"][site] - plain["row"][site], (2 * v).expand_as(plain["row"][site]))
        assert not near(run.logits, plain.logits, 1e-3)
        both = model.run(FACT, under=[add(v, dose=3, at=site), add(v, dose=-3, at=site)], read=[site])
        assert near(both["row"][site], plain["row"][site], 1e-5)
        assert near(both.logits, plain.logits, 1e-3)


def test_ablation_leaves_nothing_and_twice_is_once(model: Model) -> None:
    for site in places(model):
        v = vector(model, site)
        once = model.run(FACT, under=ablate(v, at=site), read=[site])
        twice = model.run(FACT, under=[ablate(v, at=site), ablate(v, at=site)], read=[site])
        h = once["row"][site]
        assert float((h @ (v / v.norm())).abs().max()) <= 1e-5 * float(h.norm(dim=-1).max())
        assert near(twice["row"][site], h, 1e-6)
        assert near(twice.logits, once.logits, 1e-3)


def test_a_subspace_goes_whole_and_nothing_else(model: Model) -> None:
    site = Site("resid", 1)
    a, b, c = (vector(model, site, seed) for seed in range(3))
    plain = model.run(FACT, read=[site])["row"][site]
    for basis in ([a, b], [a, b, a + b], [a, 2 * a, b]):
        h = model.run(FACT, under=ablate(*basis, at=site), read=[site])["row"][site]
        assert float((h @ torch.stack([a, b]).T).abs().max()) < 1e-3
        span = torch.linalg.qr(torch.stack([a, b]).T)[0]
        assert near(h, plain - plain @ span @ span.T, 1e-5)
    orthogonal = c - torch.linalg.qr(torch.stack([a, b]).T)[0] @ (torch.linalg.qr(torch.stack([a, b]).T)[0].T @ c)
    assert near(h @ orthogonal, plain @ orthogonal, 1e-4)


def test_the_refusal_direction_form_is_at_every_input_and_output(model: Model) -> None:
    v = vector(model, "embed")
    sites = ["embed", "L:.attn.out", "L:.mlp.out", "L:.resid"]
    run = model.run(FACT, under=ablate(v, at="everywhere"), read=sites)
    layers = model.shape.layers
    assert len(run.receipts) == 1 + 2 * layers + layers - 1
    for h in run["row"].sites.values():  # the last block's stream is the sum of what is ablated
        assert float((h @ (v / v.norm())).abs().max()) <= 1e-5 * float(h.norm(dim=-1).max())


def test_clamp_sets_the_coordinate_and_no_other(model: Model) -> None:
    for site in places(model):
        v = vector(model, site)
        unit, plain = v / v.norm(), model.run(FACT, read=[site])["row"][site]
        for value in (0.0, -3.5):
            h = model.run(FACT, under=clamp(v, value, at=site), read=[site])["row"][site]
            assert near(h @ unit, torch.full((len(h),), value), 1e-4)
            assert near(h - (h @ unit)[:, None] * unit, plain - (plain @ unit)[:, None] * unit, 1e-5)


def test_values_can_be_patched_in(model: Model) -> None:
    for site in places(model):
        values = torch.stack([vector(model, site, seed) for seed in range(2)])
        h = model.run(FACT, under=patch(site.at("2:4"), source=values), read=[site])["row"][site]
        assert h[2:4].tolist() == values.tolist()
        one = model.run(FACT, under=patch(site.at("last"), source=values[0]), read=[site])["row"][site]
        assert one[-1].tolist() == values[0].tolist()


def test_positional_vectors_go_onto_one_token_after_another(model: Model) -> None:
    for site in places(model):
        v = torch.stack([vector(model, site, seed) for seed in range(3)])
        plain = model.run(FACT, read=[site])["row"][site]
        run = model.run(FACT, under=add(v, times=1, at=site.at("1:")), read=[site])
        delta = run["row"][site] - plain
        assert near(delta[1:4], v)
        assert delta[[0, *range(4, len(delta))]].count_nonzero() == 0
        assert [receipt.touched for receipt in run.receipts] == [3]


# Order, nesting, and the way out.


def test_at_one_site_left_to_right(model: Model) -> None:
    for site in places(model):
        v = vector(model, site)
        unit = v / v.norm()
        last = model.run(FACT, under=[add(v, times=1, at=site), ablate(v, at=site)], read=[site])["row"][site]
        first = model.run(FACT, under=[ablate(v, at=site), add(v, times=1, at=site)], read=[site])["row"][site]
        assert float((last @ unit).abs().max()) < 1e-4
        assert near(first @ unit, v.norm().expand(len(first)), 1e-4)


def test_a_block_of_two_is_two_blocks(model: Model) -> None:
    """At one place, at different places, and at places that share a module (``attn.out`` and ``mid``, ``embed`` and ``mid``)."""
    sites = places(model, 0)
    pairs = [*zip(sites, sites[1:], strict=False), (sites[0], Site("mid", 0)), (sites[-1], sites[-1])]
    for a, b in [pair for a, b in pairs for pair in ((a, b), (b, a)) if {a, b} <= set(sites)]:
        first, second = ablate(vector(model, a, 1), at=a), add(vector(model, b, 2), times=2, at=b)
        with model.under(first, second):
            joint, joint_run = raw(model), model.run(FACT)
        with model.under(first), model.under(second):
            nested, nested_run = raw(model), model.run(FACT)
            given_run = raw(model)
        with model.under(first):
            mixed = model.run(FACT, under=second)
        assert bits(nested) == bits(joint) == bits(given_run), (a, b)
        assert bits(nested_run.logits) == bits(joint_run.logits) == bits(mixed.logits) == bits(joint), (a, b)


def test_places_keep_the_order_of_the_forward_pass_however_they_are_given(model: Model) -> None:
    sites = places(model, 0)
    acts = [ablate(vector(model, site, 1), at=site) for site in sites]
    acts[::2] = [add(vector(model, site, 2), times=2, at=site) for site in sites[::2]]
    forwards, backwards = model.run(FACT, under=acts), model.run(FACT, under=acts[::-1])
    assert bits(forwards.logits) == bits(backwards.logits)


def _state(model: Model) -> list[Any]:
    found: list[Any] = []
    for name, module in model.hf.named_modules():
        hooks = [dict(getattr(module, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
        found.append((name, sorted(vars(module)), hooks, vars(module).get("forward"), vars(module).get("_attn")))
    found += [
        model.hf.config._attn_implementation,
        sorted(ALL_ATTENTION_FUNCTIONS),
        ALL_ATTENTION_FUNCTIONS.get("eager"),
    ]
    return [*found, list(model.active), model.hf.training]


def test_on_any_way_out_the_model_is_as_it_was(model: Model) -> None:
    before, plain = _state(model), raw(model)
    site = Site("resid", 1)
    acts = [add(vector(model, place), times=1, at=place) for place in places(model)]
    acts.append(patch("L0.head[0].pattern", source=torch.eye(11)))

    with model.under(*acts):
        assert not near(raw(model), plain, 1e-3)
    assert _state(model) == before

    with pytest.raises(ZeroDivisionError), model.under(*acts), model.under(ablate(vector(model, site), at=site)):
        raw(model)
        raise ZeroDivisionError
    assert _state(model) == before

    broken = [*acts[:2], add(torch.ones(3), times=1, at="L99.resid")]
    with pytest.raises(NoSuchSite), model.under(*broken):
        pytest.fail("the block was entered")
    with model.under(*acts), pytest.raises(NoSuchSite):
        with model.under(*broken):
            pytest.fail("the block was entered")
        assert not near(raw(model), plain, 1e-3)
    assert _state(model) == before

    for call in (
        lambda: model.run(FACT, under=acts[:-1], read=["L0.head[0].pattern"]),
        lambda: model.sweep([FACT], acts[:-1], score=" Rome"),
        lambda: model.sweep([FACT], acts[:-1], generate=3),
        lambda: model.capture([FACT], "L1.resid @ last"),
    ):
        call()
        assert _state(model) == before
        with pytest.raises(NoSuchSite):
            model.run(FACT, under=broken)
        assert _state(model) == before

    def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    handle = model.engine.hooks.blocks[-1].register_forward_hook(fails)
    try:
        for call in (
            lambda: model.run(FACT, under=acts),
            lambda: model.sweep([FACT], [acts[-2]], score=" Rome"),
            lambda: model.generate(FACT, under=acts[-2]),
        ):
            with pytest.raises(ZeroDivisionError):
                call()
    finally:
        handle.remove()
    assert _state(model) == before
    assert bits(raw(model)) == bits(plain)


def test_what_others_put_on_a_module_stays(llama: Model) -> None:
    """Tools such as accelerate replace ``forward`` on the module itself."""
    block = llama.engine.hooks.blocks[0]
    natural, calls = block.forward, []
    block.forward = lambda *args, **kwargs: (calls.append(1), natural(*args, **kwargs))[1]
    mine = vars(block)["forward"]
    try:
        llama.sweep([FACT], [add(vector(llama, "L1.resid"), times=1, at="L1.resid")], score=" Rome")
        assert vars(block)["forward"] is mine
        assert calls
    finally:
        del block.forward
    mine = ALL_ATTENTION_FUNCTIONS["sdpa"]
    ALL_ATTENTION_FUNCTIONS["eager"] = mine
    try:
        llama.run(FACT, read=["L1.head[0].z"])
        assert ALL_ATTENTION_FUNCTIONS["eager"] is mine
    finally:
        del ALL_ATTENTION_FUNCTIONS["eager"]


# Receipts.


def test_receipts_are_what_one_computes_by_hand(model: Model) -> None:
    for site in places(model):
        v = vector(model, site)
        unit = v / v.norm()
        plain = model.run(FACT, read=[site])["row"][site]
        for act, delta in [
            (add(v, times=-2, at=site.at("1:4")), (-2 * v).expand(3, -1)),
            (ablate(v, at=site.at("1:4")), -(plain[1:4] @ unit)[:, None] * unit),
            (clamp(v, 5.0, at=site.at("1:4")), (5.0 - plain[1:4] @ unit)[:, None] * unit),
        ]:
            (told,) = model.run(FACT, under=act).receipts
            assert (told.row, told.site, told.touched, told.expected) == ("row", f"{site} @ 1:4", 3, 3)
            assert told.what == str(act)
            assert told.length == pytest.approx(float(delta.norm(dim=-1).mean()), rel=1e-3, abs=1e-5)
            relative = (delta.norm(dim=-1) / plain[1:4].norm(dim=-1)).mean()
            assert told.relative == pytest.approx(float(relative), rel=1e-3, abs=1e-5)
            assert told.before == pytest.approx(float((plain[1:4] @ unit).mean()), rel=1e-3, abs=1e-5)
            assert told.after == pytest.approx(float(((plain[1:4] + delta) @ unit).mean()), rel=1e-3, abs=1e-4)


def test_a_dose_is_so_many_typical_norms_or_deviations(model: Model) -> None:
    for site in places(model):
        (told,) = model.run(FACT, under=add(vector(model, site), dose=-1.5, at=site)).receipts
        assert told.length == pytest.approx(1.5 * model.typical_norm(site), rel=1e-4)
        with_scale = Direction(vector(model, site), site, scale=0.25)
        (told,) = model.run(FACT, under=add(with_scale, dose=2)).receipts
        assert told.length == pytest.approx(0.5, rel=1e-4)
        (told,) = model.run(" ".join([FACT] * 12), under=noise(site, dose=2)).receipts
        width = model.shape.width(site.part)
        assert width is not None and told.length is not None
        assert told.length / (model.scale(site, "std") * math.sqrt(width)) == pytest.approx(2, rel=0.15)


def test_a_typical_norm_is_the_median_over_plain_prose(model: Model) -> None:
    from assay.model.core import NEUTRAL  # what it is measured on

    site = Site("resid", 1)
    lengths = torch.cat([model.run(text, read=[site])["row"][site][1:].norm(dim=-1) for text in NEUTRAL])
    assert model.typical_norm(site) == pytest.approx(float(lengths.median()), rel=1e-4)
    numbers = torch.cat([model.run(text, read=["embed"])["row"]["embed"][1:].flatten() for text in NEUTRAL])
    assert model.scale(Site("embed"), "std") == pytest.approx(float(numbers.std(correction=0)), rel=1e-4)


def test_a_sabotaged_hook_is_noticed(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    act = add(vector(model, "L1.resid"), times=1, at="L1.resid @ 2:4")
    block = model.engine.hooks.blocks[1]
    with pytest.raises(NeverFired, match=r"touched no activations of 2\n\n  rows      0 \(0 of 2\)"), model.under(act):
        block._forward_hooks.clear()
        raw(model)
    with monkeypatch.context() as patched:
        patched.setattr(Program, "apply", lambda _, __, h, ___: h)
        for call in (
            lambda: model.run(FACT, under=act),
            lambda: model.score(FACT, " Rome", under=act),
            lambda: model.generate(FACT, under=act, tokens=3),
            lambda: model.capture([FACT], "embed @ last", under=act),
        ):
            with pytest.raises(NeverFired, match="touched no activations of 2"):
                call()
    model.run(FACT, under=act)


def test_a_hook_that_sees_half_of_the_tokens_is_noticed(model: Model) -> None:
    act = add(vector(model, "L1.resid"), times=1, at="L1.resid")
    ids = torch.tensor([model.row(FACT).tokens])
    with pytest.raises(NeverFired) as caught, model.under(act) as block, torch.no_grad():
        half = model.hf(ids[:, :6], use_cache=True)
        hooks = dict(model.engine.hooks.blocks[1]._forward_hooks)
        model.engine.hooks.blocks[1]._forward_hooks.clear()
        model.hf(ids[:, 6:], past_key_values=half.past_key_values)
        model.engine.hooks.blocks[1]._forward_hooks.update(hooks)
    assert [(receipt.touched, receipt.expected) for receipt in block.receipts] == [(6, 11)]
    assert str(caught.value) == (
        "add(tensor, times=1) at L1.resid touched 6 activations of 11\n\n"
        "  rows      0 (6 of 11)\n"
        "  site      L1.resid\n\n"
        "  hint: the module behind this site did not run, or ran on other tokens; check with `assay sites MODEL`\n"
        "  see:  docs/errors/never-fired.md"
    )


# Rows: worlds beside each other.


def test_rows_do_not_see_each_other(model: Model, family: str) -> None:
    plain = model.run(a=FACT, b=OTHER, c=FACT)
    acts = [add(vector(model, site), times=3, at=site, into="b") for site in places(model)]
    run = model.run(a=FACT, b=OTHER, c=FACT, under=acts)
    assert not near(run["b"].logits, plain["b"].logits, 1e-3)
    for name in ("a", "c"):
        if family in ROUTED:
            assert near(run[name].logits, plain[name].logits, 1e-4)
        else:
            assert bits(run[name].logits) == bits(plain[name].logits)
    assert {receipt.row for receipt in run.receipts} == {"b"}


def test_a_batch_is_its_rows(model: Model) -> None:
    alone = {text: model.run(text).logits for text in (FACT, OTHER, "The")}
    run = model.run(a="The", b=FACT, c=OTHER)
    for name, text in [("a", "The"), ("b", FACT), ("c", OTHER)]:
        assert run[name].logits.shape == alone[text].shape
        assert near(run[name].logits, alone[text], 1e-4)


def test_rows_may_differ_in_everything(model: Model) -> None:
    """Vectors, operations, layers, heads, positions, lengths: one batch is what each row is alone."""
    at = places(model)
    each: dict[str, tuple[str, list[Callable[[Any], Intervention]]]] = {
        "a": (FACT, [lambda into: add(vector(model, at[-1], 1), dose=2, at=at[-1].on(0).at("2:5"), into=into)]),
        "b": (OTHER, [lambda into: ablate(vector(model, at[-1], 2), vector(model, at[-1], 3), at=at[-1], into=into)]),
        "c": ("The", [lambda into: add(vector(model, "L0.head[1].z"), times=1, at="L0.head[1].z @ last", into=into)]),
        "d": (FACT, [lambda into: add(vector(model, "L0.head[1].z", 4), times=-3, at="L0.head[:].z @ 0", into=into)]),
        "e": (
            OTHER + FACT,
            [
                lambda into: noise("embed @ 1:4", dose=1, into=into),
                lambda into: clamp(vector(model, at[-1]), 1.0, at=at[-1].at("-3"), into=into),
                lambda into: add(torch.stack([vector(model, at[-1], seed) for seed in range(4)]), times=2, at=at[-1].at("1:"), into=into),
            ],
        ),
        "f": (FACT, []),
    }  # fmt: skip
    acts = [make(name) for name, (_, makes) in each.items() for make in makes]
    together = model.run(**{name: text for name, (text, _) in each.items()}, under=acts)
    for name, (text, makes) in each.items():
        alone = model.run(text, under=[make(None) for make in makes])
        assert near(together[name].logits, alone.logits, 1e-4), name
        told = [(receipt.site, receipt.touched) for receipt in together.receipts if receipt.row == name]
        assert sorted(told) == sorted((receipt.site, receipt.touched) for receipt in alone.receipts)


def test_a_whole_stream_patched_from_clean_makes_the_row_clean(model: Model) -> None:
    """The stream to the bit; after it the processor's own kernels round the last row of a batch otherwise than the first."""
    for site in [Site("embed"), *(Site("resid", layer) for layer in range(model.shape.layers))]:
        hurt = [noise("embed", dose=3, into="hurt"), patch(site, source="clean", into="hurt")]
        run = model.run(hurt=FACT, clean=FACT, under=hurt, read=[site])
        assert bits(run["hurt"][site]) == bits(run["clean"][site])
        assert near(run["hurt"].logits, run["clean"].logits, 1e-6)
        assert not near(model.run(hurt=FACT, clean=FACT, under=hurt[:1])["hurt"].logits, run["clean"].logits, 1e-3)


@pytest.mark.parametrize(
    "names", [("clean", "hurt", "mended"), ("mended", "hurt", "clean"), ("hurt", "mended", "clean")]
)
def test_a_copy_is_of_what_was_written_before_it_whatever_the_order_of_rows(
    llama: Model, names: tuple[str, ...]
) -> None:
    def embed(*acts: Intervention) -> dict[str, Tensor]:
        run = llama.run(**dict.fromkeys(names, FACT), under=acts, read=["embed"])
        return {name: run[name]["embed"] for name in names}

    hurt, mend = noise("embed", dose=3, into="hurt"), patch("embed", source="hurt", into="mended")
    after, before = embed(hurt, mend), embed(mend, hurt)
    assert bits(after["mended"]) == bits(after["hurt"])
    assert bits(before["mended"]) == bits(before["clean"]) != bits(before["hurt"])
    chain = embed(hurt, patch("embed @ 2", source="hurt", into="mended"), patch("embed", source="mended", into="clean"))
    assert bits(chain["clean"]) == bits(chain["mended"]) != bits(chain["hurt"])
    assert bits(chain["clean"][2]) == bits(chain["hurt"][2])


def test_a_patch_between_spans_of_different_places(model: Model) -> None:
    here = Prompt("A {subject} is in", subject="Tower")
    there = Prompt("I love the {subject} city", subject="Berlin")
    rows = dict(a=here, b=there)
    assert [model.row(prompt).spans["subject"] for prompt in rows.values()] == [(2, 3), (4, 5)]
    run = model.run(
        **rows, under=patch("L1.resid @ subject", source="b", into="a"), read=["L1.resid @ subject", "L1.resid"]
    )
    assert bits(run["a"]["L1.resid @ subject"]) == bits(run["b"]["L1.resid @ subject"])
    natural = model.run(**rows, read=["L1.resid"])
    assert bits(run["b"]["L1.resid"]) == bits(natural["b"]["L1.resid"])


# Paired noise.


def test_noise_is_paired_by_prompt_and_nothing_else(model: Model) -> None:
    for site in places(model):

        def drawn(text: str, act: Intervention, answer: str = "", site: Site = site) -> Tensor:
            from assay.run.forward import forward  # a row with an answer that is given

            row = model.row(text, answer=answer)
            return (forward(model, [row], act, [site])["row"][site] - forward(model, [row], None, [site])["row"][site])[
                : row.prompt
            ]

        act = noise(site, dose=1, seed=4)
        alone = drawn(FACT, act)
        assert near(alone, drawn(FACT, act, " Rome is not a city"), 1e-4)
        rows = dict(a=OTHER + FACT, b=FACT, c=FACT)
        run, plain = model.run(**rows, under=act, read=[site]), model.run(**rows, read=[site])
        for name in ("b", "c"):
            assert near(run[name][site] - plain[name][site], alone, 1e-3)
        length = min(len(alone), len(model.row(OTHER).tokens))
        assert not near(drawn(OTHER, act)[:length], alone[:length], 0.1)
        assert not near(drawn(FACT, noise(site, dose=1, seed=5)), alone, 0.1)
        part = drawn(FACT, noise(site.at("3:5"), dose=1, seed=4))
        assert near(part[3:5], alone[3:5], 1e-4)
        assert near(drawn(FACT, noise(site, dose=-2, seed=4)), -2 * alone, 1e-4)


# Patterns, the stream in the middle of a block, and severed paths.


def test_patterns_are_read_as_the_library_gives_them(family: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = Model.load(fresh(family), tokenizer=tokenizer, selftest=False)
    heads = range(model.shape.heads)
    run = model.run(a=FACT, b="The", read=["L:.head[:].pattern"])
    chosen = model.hf.config._attn_implementation
    for name, text in [("a", FACT), ("b", "The")]:
        model.hf.config._attn_implementation = "eager"
        with torch.no_grad():
            attentions = model.hf(torch.tensor([model.row(text).tokens]), output_attentions=True).attentions
        model.hf.config._attn_implementation = chosen
        for layer in range(model.shape.layers):
            found = torch.stack([run[name][f"L{layer}.head[{head}].pattern"] for head in heads])
            assert near(found, attentions[layer][0], 1e-5)
    assert near(found.sum(dim=-1), torch.ones(found.shape[:2]), 1e-5)


def test_a_pattern_that_is_written_mixes_the_values(model: Model, family: str) -> None:
    """Looking only at the first token gives that token's value everywhere; looking as before changes nothing."""
    natural = model.run(FACT, read=["L1.head[:].pattern", "L1.head[:].z"])
    first = torch.zeros(11, 11)
    first[:, 0] = 1
    run = model.run(FACT, under=patch("L1.head[2].pattern", source=first), read=["L1.head[:].z", "L1.head[2].pattern"])
    z = run["row"]["L1.head[2].z"]
    assert run["row"]["L1.head[2].pattern"].tolist() == first.tolist()
    assert near(z, natural["row"]["L1.head[2].z"][0].expand_as(z), 1e-5)
    assert near(run["row"]["L1.head[1].z"], natural["row"]["L1.head[1].z"], 1e-5)
    assert run.receipts[0].touched == 11
    same = patch("L1.head[2].pattern", source=natural["row"]["L1.head[2].pattern"])
    assert near(model.run(FACT, under=same).logits, natural.logits, 1e-4)
    with model.under(same):
        assert near(raw(model), natural.logits, 1e-4)
    worlds = model.run(a=FACT, b=OTHER + " " + OTHER, c=FACT, under=[same, noise("embed", dose=2, into="a")][1:])
    mended = [noise("embed", dose=2, into="a"), patch("L:.head[:].pattern", source="c", into="a")]
    patched = model.run(a=FACT, b=OTHER + " " + OTHER, c=FACT, under=mended, read=["L:.head[:].pattern"])
    for site, pattern in patched["a"].sites.items():
        assert bits(pattern) == bits(patched["c"].sites[site])
    assert near(patched["b"].logits, worlds["b"].logits, 1e-4)
    if family not in ROUTED:
        assert bits(patched["c"].logits) == bits(
            model.run(a=FACT, b=OTHER + " " + OTHER, c=FACT, read=["L0.head[0].pattern"])["c"].logits
        )


def test_patterns_in_nested_blocks_and_in_runs_inside_blocks(model: Model) -> None:
    """Eager attention is a setting of the whole library; every block has to give it back as it was."""
    eye = torch.eye(11)
    a, b = patch("L0.head[0].pattern", source=eye), patch("L1.head[1].pattern", source=eye)
    with model.under(a, b):
        joint = raw(model)
    with model.under(a):
        alone = raw(model)
        with model.under(b):
            assert bits(raw(model)) == bits(joint)
            assert near(model.run(FACT).logits, joint, 1e-5)
        assert bits(raw(model)) == bits(alone)
        model.run(FACT, read=["L1.head[0].pattern"])
        assert bits(raw(model)) == bits(alone)


def test_attention_that_cannot_be_seen_says_so(tokenizer: PreTrainedTokenizerFast) -> None:
    """GPT-2 can be told to compute its weights in a method of its own."""
    model = Model.load(fresh("gpt2", reorder_and_upcast_attn=True), tokenizer=tokenizer, selftest=False)
    with pytest.raises(
        NeverFired,
        match=r"L0\.head\[0\]\.pattern was not reached\n\n  found     the module behind this site did not run",
    ):
        model.run(FACT, read=["L0.head[0].pattern"])
    with pytest.raises(NeverFired, match="touched no activations of 11"):
        model.run(FACT, under=patch("L0.head[0].pattern", source=torch.eye(11)))


def test_the_stream_in_the_middle_of_a_block(model: Model) -> None:
    if "mid" in model.shape.lacks:
        with pytest.raises(
            NoSuchSite,
            match=r"this model has no L1\.mid\n\n  found     attention and MLP read the same stream in parallel",
        ):
            model.run(FACT, read=["L1.mid"])
        return
    v = vector(model, "L1.mid")
    run = model.run(FACT, read=["L0.resid", "L1.attn.out", "L1.mid", "L1.mlp.out", "L1.resid"])["row"]
    assert near(run["L1.mid"], run["L0.resid"] + run["L1.attn.out"], 1e-6)
    assert near(run["L1.resid"], run["L1.mid"] + run["L1.mlp.out"], 1e-6)
    at_mid = model.run(FACT, under=add(v, times=2, at="L1.mid"))
    assert near(at_mid.logits, model.run(FACT, under=add(v, times=2, at="L1.attn.out")).logits, 1e-4)
    values = torch.stack([vector(model, "L1.mid", seed) for seed in range(11)])
    both = model.run(
        FACT, under=[add(v, times=1, at="L1.attn.out"), patch("L1.mid", source=values)], read=["L1.mid", "L1.attn.out"]
    )
    assert near(both["row"]["L1.mid"], values, 1e-5)
    assert near(both["row"]["L1.attn.out"], run["L1.attn.out"] + v, 1e-5)


def test_freezing_a_stream_hides_what_was_done_before_it(model: Model) -> None:
    plain = model.run(FACT, read=["L0.resid", "L2.resid", "L1:.attn.out", "L1:.mlp.out"])
    edit = add(vector(model, "L0.resid"), times=3, at="L0.resid @ 2:5")
    hidden = model.run(FACT, under=[edit, freeze("L1.resid")])
    assert near(hidden.logits, plain.logits, 1e-6)
    assert not near(model.run(FACT, under=edit).logits, plain.logits, 1e-3)
    assert [receipt.row for receipt in hidden.receipts] == ["row", "row"]
    # With all that reads the stream held, only the stream itself carries the edit on.
    direct = model.run(FACT, under=[edit, freeze(["L1:.attn.out", "L1:.mlp.out"])], read=["L0.resid", "L2.resid"])[
        "row"
    ]
    carried = direct["L0.resid"] - plain["row"]["L0.resid"]
    assert near(direct["L2.resid"], plain["row"]["L2.resid"] + carried, 1e-4)
    with model.under(edit):
        inside = model.run(FACT, under=freeze("L1.resid"))
    assert bits(inside.logits) == bits(hidden.logits)


# The same for calls of the library's own, with and without gradients.


def test_raw_calls_inside_a_block_are_runs(model: Model) -> None:
    acts = [add(vector(model, site), times=1, at=site.at("2:")) for site in places(model)]
    run, ids = model.run(FACT, under=acts), torch.tensor([model.row(FACT).tokens])
    with model.under(*acts) as block:
        steered = model.hf(ids).logits  # with gradients, as a plain call has them
        assert near(steered[0].detach(), run.logits, 1e-5)
        assert steered.requires_grad
        body = model.hf.get_decoder()(ids).last_hidden_state  # without the head
        with torch.no_grad():
            assert near(model.engine.unembed(body)[0], run.logits, 1e-5)
    told = {(receipt.site, receipt.touched) for receipt in block.receipts}
    assert told == {(receipt.site, receipt.touched) for receipt in run.receipts}
    assert len(block.receipts) == 2 * len(run.receipts)


def test_gradients_pass_through_interventions(llama: Model) -> None:
    """d logits / d embedding under ``add`` is that of the function that adds; ablation kills it along its direction."""
    ids = torch.tensor([llama.row(FACT).tokens])
    embedded = llama.hf.get_input_embeddings()(ids).detach().requires_grad_()
    v = vector(llama, "embed")
    unit = v / v.norm()
    with llama.under(ablate(v, at="embed")):
        llama.hf(inputs_embeds=embedded).logits[0, -1].logsumexp(dim=-1).backward()
    assert embedded.grad is not None
    assert float(embedded.grad.norm()) > 0
    assert float((embedded.grad @ unit).abs().max()) < 1e-5 * float(embedded.grad.norm())


# Frozen values survive JSON.

texts = st.sampled_from(["L1.resid", "L0:2.mlp.out @ last", "embed @ subject[-1]", "L1.head[:].z @ response"])
strengths = st.floats(-9, 9, allow_nan=False)
names = st.none() | st.sampled_from(["clean", ["a", "b"]])
directions = st.builds(
    lambda numbers, name: Direction(
        torch.tensor(numbers), Site.parse("L1.resid"), Provenance(method="t", seed=0), name
    ),
    st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=4),
    st.sampled_from(["d", "é"]),
)
sources = st.sampled_from(["clean", torch.ones(2, 3), torch.tensor([[-0.0, 1e-40]])])
interventions = st.one_of(
    st.builds(lambda d, x, at, into: add(d, dose=x, at=at, into=into), directions, strengths, texts, names),
    st.builds(lambda d, x, into: add(d, times=x, into=into), directions, strengths, names),
    st.builds(lambda d, at: ablate(d, d, at=at), directions, texts | st.just("everywhere")),
    st.builds(lambda d, x, at: clamp(d, x, at=at), directions, strengths, texts),
    st.builds(
        lambda at, source, into: patch(at, source=source, into=into), st.lists(texts, min_size=1), sources, names
    ),
    st.builds(lambda at, x, seed: noise(at, dose=x, seed=seed), texts, strengths, st.integers(0, 9)),
    st.builds(lambda at: freeze(at), texts),
)


@given(interventions)
def test_interventions_survive_json(act: Intervention) -> None:
    back = Intervention.from_json(json.loads(json.dumps(act.to_json())))
    assert back == act
    assert hash(back) == hash(act)
    assert str(back) == str(act)
    assert back.to_json() == act.to_json()
    if isinstance(act.source, Tensor):
        assert isinstance(back.source, Tensor)
        assert bits(back.source) == bits(act.source)


@given(st.builds(Receipt, st.text(), st.text(), st.text(), st.integers(), st.integers(), st.none() | st.floats(0, 9)))
def test_receipts_survive_json(receipt: Receipt) -> None:
    assert Receipt.from_json(json.loads(json.dumps(receipt.to_json()))) == receipt


@given(interventions, interventions)
def test_equal_interventions_print_alike(a: Intervention, b: Intervention) -> None:
    assert a != b or str(a) == str(b)


def test_an_intervention_does_not_change_with_the_tensor_it_was_made_from() -> None:
    buffer = torch.ones(2, 3)
    for act in (
        patch("L1.resid", source=buffer),
        add(buffer, times=1, at="L1.resid"),
        clamp(buffer[0], 1, at="L1.resid"),
    ):
        before = act.digest
        buffer += 1
        assert act.digest == before


# The self-test refuses a model whose modules are not what their names say.


@pytest.mark.parametrize(
    ("wrong", "promise"),
    [
        (dict(attn_out="input_layernorm"), "attention and MLP add up to the stream"),
        (dict(mlp_out="mlp.gate_proj"), "the sites of 'LlamaForCausalLM' do not fit together"),
        (dict(mlp_out="post_attention_layernorm"), "attention and MLP add up to the stream"),
        (dict(o_proj="self_attn.q_proj"), "heads sum to attention's output"),
        (dict(softcap="num_hidden_layers"), "head on the final stream = logits"),
    ],
)
def test_a_wrong_anatomy_is_found_out(tokenizer: PreTrainedTokenizerFast, wrong: dict[str, Any], promise: str) -> None:
    with pytest.raises(SelfTestFailed) as caught:
        Model.load(fresh("llama"), tokenizer=tokenizer, anatomy=Anatomy(**wrong))
    assert promise in str(caught.value)
    assert "sites" in caught.value.what


def test_another_familys_anatomy_is_found_out(tokenizer: PreTrainedTokenizerFast) -> None:
    """Gemma's post-norms are where its sites are; Llama's anatomy on it is refused."""
    with pytest.raises(SelfTestFailed, match="attention and MLP add up to the stream"):
        Model.load(fresh("gemma2"), tokenizer=tokenizer, anatomy=ANATOMIES["llama"])


# Rows that do not exist.


@pytest.mark.parametrize("act", [
    add(torch.ones(32), times=1, at="L1.resid", into="hurd"),
    patch("L1.resid", source="cleen", into="hurt"),
])  # fmt: skip
def test_rows_that_do_not_exist(llama: Model, act: Intervention) -> None:
    with pytest.raises(NoSuchRow) as caught:
        llama.run(clean=FACT, hurt=FACT, under=act)
    wrong = "hurd" if act.into == ("hurd",) else "cleen"
    assert str(caught.value) == (
        f"{act} names the row {wrong!r}\n\n"
        "  found     clean, hurt\n"
        f"  nearest   {dict(hurd='hurt', cleen='clean')[wrong]}\n\n"
        "  hint: name the rows in the call: model.run(clean=prompt, hurt=prompt)\n"
        "  see:  docs/errors/no-such-row.md"
    )


def test_nothing_is_dropped_by_a_repeated_intervention(llama: Model) -> None:
    """The same object twice acts twice: ``add(x)`` two times is ``add(2x)``."""
    act = add(vector(llama, "L1.resid"), times=1, at="L1.resid")
    twice: Sequence[Intervention] = [act, act]
    both = llama.run(FACT, under=twice, read=["L1.resid"])["row"]["L1.resid"]
    double = llama.run(FACT, under=add(vector(llama, "L1.resid"), times=2, at="L1.resid"), read=["L1.resid"])["row"][
        "L1.resid"
    ]
    assert near(both, double, 1e-5)
