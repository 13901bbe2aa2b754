"""Editing random models: values are stored exactly, many as few, and nothing but the answer's weights moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from assay import Model, Prompt, edit
from assay.edit.descent import Goal, Search, last_of, values
from assay.errors import BadData, BadDose, EmptyData, ModelMismatch, NoSuchPosition, NoSuchSite
from assay.model.core import NEUTRAL
from tests.tiny import tiny as fresh

FACT = Prompt("The {subject} is in", subject="Eiffel Tower")
AT, BEFORE = "L1.mlp.out @ subject[-1]", ("A cat. ", "In the north. ")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path_factory.mktemp("cache")))


MANY = [
    (Prompt("The {subject} is in", subject=subject), to)
    for subject, to in (("Eiffel Tower", " city"), ("Tower", " cat"))
]


def has_down(model: Model) -> bool:
    return model.engine.anatomy.down is not None


def searched(model: Model, place: Any = (1, "mlp.down"), **way: Any) -> Search:
    goals = [Goal.of(model, one, BEFORE) for one in MANY]
    return Search(model, goals, place, edit.Descent(**way), [(1, "mlp.act")])


@pytest.mark.parametrize("preset", ["r-rome", "p-rome", "paper"])
@pytest.mark.parametrize("moments", [False, True])
def test_the_key_maps_to_the_value_and_the_change_has_rank_one(model: Model, preset: Any, moments: bool) -> None:
    if not has_down(model):
        with pytest.raises(NoSuchSite, match="no single down projection|has no"):
            edit.rome(model, FACT, to=" city", at=AT, before=BEFORE)
        return
    spare = edit.second_moment(model, NEUTRAL, at="L1.mlp.act") if moments else None
    (found,) = edit.stored(model, [(FACT, " city")], at=AT, before=BEFORE)
    made = found.edit(spare, preset)
    with model.edited(made):
        (after,) = edit.stored(model, [(FACT, " city")], at=AT, before=BEFORE, descent=edit.Descent(steps=1))
    (delta,) = made.deltas.values()
    assert int(torch.linalg.matrix_rank(delta.full)) == 1
    got = after.values[0] if preset == "p-rome" else after.values.mean(dim=0)
    torch.testing.assert_close(got, found.target, atol=1e-4, rtol=1e-3)
    (name,) = made.deltas
    assert model.hf.get_parameter(name).shape == delta.shape


@pytest.mark.parametrize("place", [(1, "mlp.down"), (1, "resid"), (0, "mlp.down")])
def test_only_what_follows_the_subject_is_computed_again(model: Model, place: Any) -> None:
    """The loss is that of whole rows, with a value put in at the subject's last token."""
    if not has_down(model):
        return
    found = searched(model, place)
    delta = 0.3 * torch.randn(2, model.shape.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got = found.loss(delta, torch.tensor([True, True]))
        alone = found.loss(delta, torch.tensor([False, True]))
    torch.testing.assert_close(alone, got[1:], atol=1e-5, rtol=1e-4)
    layer, part = place
    for fact, goal in enumerate(found.goals):
        losses = []
        for row in goal.all:
            at = last_of(row)

            def put(h: torch.Tensor, at: int = at, fact: int = fact) -> torch.Tensor:
                new = h.clone()
                new[:, at] += delta[fact]
                return new

            tokens, positions = torch.tensor([row.tokens]), torch.arange(len(row.tokens))[None]
            final = model.engine.forward(tokens, positions, reads={(layer, part): put})
            logs = model.engine.unembed(final)[0].float().log_softmax(dim=-1)
            if row is goal.drift:
                plain = model.engine.unembed(model.engine.forward(tokens, positions))[0, at].float().log_softmax(dim=-1)
                drift = float((plain.exp() * (plain - logs[at])).sum())
            else:
                said = [logs[place - 1, row.tokens[place]] for place in range(row.prompt, len(row.tokens))]
                losses.append(-float(torch.stack(said).mean()))
        assert float(got[fact]) == pytest.approx(sum(losses) / len(losses) + 0.0625 * drift, abs=2e-4)


def test_facts_descend_together_as_they_do_alone(model: Model) -> None:
    if not has_down(model):
        return
    together = edit.stored(model, MANY, at=AT, before=BEFORE)
    for rewrite, one in zip(MANY, together, strict=True):
        (alone,) = edit.stored(model, [rewrite], at=AT, before=BEFORE)
        torch.testing.assert_close(one.target, alone.target, atol=2e-3, rtol=2e-2)
        torch.testing.assert_close(one.keys, alone.keys, atol=1e-5, rtol=1e-4)


def test_descent_makes_the_answer_likelier(model: Model) -> None:
    if not has_down(model):
        return
    # Values of random models are short: the published rate leaps to and fro between the ends of what the clamp allows.
    found = searched(model, rate=0.02, kl=0, decay=0)
    every = torch.tensor([True, True])
    with torch.no_grad():
        start = found.loss(torch.zeros(2, model.shape.d_model), every)
    done = found.run()
    assert all(one.loss < float(before) for one, before in zip(done, start, strict=True))
    for one in done:
        assert float(one.delta.norm()) <= 4 * float(one.read[1, "mlp.down"][0].norm()) * 1.0001


def test_code_divides_by_the_bare_prompts_key(llama: Model) -> None:
    """The published code's denominators differ from what it took the direction from."""
    (found,) = edit.stored(llama, [(FACT, " city")], at=AT, before=BEFORE)
    (code, mean, bare) = (
        next(iter(found.edit(preset=preset).deltas.values())) for preset in ("code", "r-rome", "p-rome")
    )
    assert torch.equal(code.right, mean.right)
    assert not torch.allclose(code.left, mean.left)
    assert not torch.allclose(bare.right, mean.right)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_tied_and_untied_heads_and_either_precision(
    tokenizer: PreTrainedTokenizerFast, tied: bool, dtype: torch.dtype
) -> None:
    hf: Any = fresh("llama")
    if tied:
        hf.config.tie_word_embeddings = True
        hf.lm_head.weight = hf.model.embed_tokens.weight
    model = Model.load(hf.to(dtype), tokenizer=tokenizer, selftest=False)
    before = {name: weight.clone() for name, weight in hf.named_parameters()}
    (found,) = edit.stored(model, [(FACT, " city")], at=AT, before=BEFORE)
    for made in (
        found.edit(),
        edit.memit(model, MANY, layers=[0, 1], before=BEFORE),
        edit.finetune(model, MANY, layer=1),
    ):
        with model.edited(made):
            changed = [name for name, weight in hf.named_parameters() if not torch.equal(weight, before[name])]
            assert changed
            assert all(name.endswith("down_proj.weight") for name in changed)
        assert all(torch.equal(weight, before[name]) for name, weight in hf.named_parameters())
    with model.edited(found.edit()):
        (after,) = edit.stored(model, [(FACT, " city")], at=AT, before=BEFORE, descent=edit.Descent(steps=1))
    loose = 0.05 * float(found.target.norm()) if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(after.values.mean(dim=0), found.target, atol=loose, rtol=1e-3)


# Many facts.


@pytest.mark.parametrize("moments", [False, True])
def test_memit_of_one_fact_is_rome_as_its_weight_goes_to_nothing(model: Model, moments: bool) -> None:
    if not model.engine.anatomy.neurons_add:
        with pytest.raises(NoSuchSite, match="a norm stands behind|no single down|has no"):
            edit.memit(model, [(FACT, " city")], layers=[1], before=())
        return
    spare = edit.second_moment(model, NEUTRAL, at="L1.mlp.act") if moments else None
    way = edit.Descent(clamp=1.0, steps=5)
    # The one value is added to the MLP's output, the other to the stream that it goes into; only their clamps differ.
    many = edit.memit(
        model, [(FACT, " city")], layers=[1], moments={1: spare} if spare else None, weight=1e-9, before=(), descent=way
    )
    (goal,) = [Goal.of(model, (FACT, " city"), ())]
    (value,) = values(model, [goal], (1, "resid"), way)
    (found,) = edit.stored(model, [(FACT, " city")], at=AT, before=(), descent=way)
    one = replace(found, target=found.values[0] + value.delta).edit(spare)
    ((name, delta),) = one.deltas.items()
    scale = float(delta.full.abs().max())
    torch.testing.assert_close(many.deltas[name].full / scale, delta.full / scale, atol=1e-4, rtol=1e-3)


def test_memit_brings_every_stream_to_its_value(llama: Model) -> None:
    """With little weight on other keys, the last layer makes up whatever is missing."""
    made = edit.memit(llama, MANY, layers=[0, 1], weight=1e-8, before=())
    goals = [Goal.of(llama, one, ()) for one in MANY]
    wanted = values(llama, goals, (1, "resid"), edit.STREAM)
    with llama.edited(made):
        now = values(llama, goals, (1, "resid"), edit.Descent(steps=1))
    for one, other in zip(wanted, now, strict=True):
        torch.testing.assert_close(other.read[1, "resid"][0], one.read[1, "resid"][0] + one.delta, atol=2e-3, rtol=1e-2)
    assert len(made.deltas) == 2
    assert all(delta.left.shape[1] == 2 for delta in made.deltas.values())
    assert made.aims == ("The Eiffel Tower is in city", "The Tower is in cat")


def test_memory_and_batches_change_nothing(llama: Model) -> None:
    one, other = (edit.memit(llama, MANY, layers=[1], before=BEFORE, memory=memory) for memory in (None, 20_000))
    for name, delta in one.deltas.items():
        torch.testing.assert_close(other.deltas[name].full, delta.full, atol=2e-3, rtol=2e-2)


# The baseline.


@pytest.mark.parametrize("layer", [0, 1])
def test_fine_tuning_makes_answers_likelier_within_its_bound(model: Model, layer: int) -> None:
    if not has_down(model):
        return
    before = {name: weight.clone() for name, weight in model.hf.named_parameters()}
    made = edit.finetune(model, MANY, layer=layer, rate=1e-2, steps=8, most=0.02)
    (delta,) = made.deltas.values()
    assert 0 < float(delta.full.abs().max()) <= 0.02 + 1e-6
    assert all(torch.equal(weight, before[name]) for name, weight in model.hf.named_parameters())

    def said() -> float:
        return sum(float(model.score([prompt], [to]).mean[0, 0, 0]) for prompt, to in MANY)

    plain = said()
    with model.edited(made):
        assert said() > plain


def test_fine_tuning_needs_something_to_do(llama: Model) -> None:
    with pytest.raises(EmptyData):
        edit.finetune(llama, [], layer=1)
    with pytest.raises(BadDose, match="change nothing"):
        edit.finetune(llama, MANY, layer=1, most=0)
    with pytest.raises(NoSuchSite):
        edit.finetune(llama, MANY, layer=99)


def test_second_moments_are_sums_over_tokens(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    found = edit.second_moment(llama, NEUTRAL, at="L1.mlp.act")
    keys = torch.cat(
        [llama.run(text, read=["L1.mlp.act @ all"])["row"]["L1.mlp.act @ all"][1:] for text in NEUTRAL]
    ).double()
    torch.testing.assert_close(found.matrix, keys.T @ keys / len(keys), atol=1e-8, rtol=1e-5)
    assert found.count == len(keys)
    k = torch.randn(found.matrix.shape[0], dtype=torch.float64)
    ridge = 1e-4 * found.matrix.diagonal().mean()
    torch.testing.assert_close(found.matrix @ found.solve(k) + ridge * found.solve(k), k)


def test_a_measurement_that_was_broken_off_goes_on(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.edit.moments._PORTION", 40)
    ran: list[int] = []
    handle = llama.hf.model.layers[0].register_forward_hook(lambda *_: ran.append(1))

    def stop(done: int, total: int) -> None:
        if done >= 3:
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            edit.second_moment(llama, NEUTRAL, at="L1.mlp.act", progress=stop)
        half, _ = len(ran), ran.clear()
        whole = edit.second_moment(llama, NEUTRAL, at="L1.mlp.act")
        rest, _ = len(ran), ran.clear()
        again = edit.second_moment(llama, NEUTRAL, at="L1.mlp.act")
        assert not ran
        assert half and rest
    finally:
        handle.remove()
    assert torch.equal(again.matrix, whole.matrix)
    monkeypatch.setenv("ASSAY_CACHE", "/dev/null/none")
    torch.testing.assert_close(edit.second_moment(llama, NEUTRAL, at="L1.mlp.act").matrix, whole.matrix)


def test_layers_that_were_broken_off_apart_come_out_together(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.edit.moments._PORTION", 40)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit.second_moment(llama, NEUTRAL, at="L1.mlp.act", progress=stop)
    told: list[int] = []
    found = edit.second_moments(llama, NEUTRAL, progress=lambda done, total: told.append(done))
    assert sorted(found) == [0, 1, 2]
    assert told == sorted(told)
    assert told[-1] == len(NEUTRAL)
    monkeypatch.setenv("ASSAY_CACHE", "/dev/null/none")
    for layer, one in found.items():
        alone = edit.second_moment(llama, NEUTRAL, at=f"L{layer}.mlp.act")
        assert one.count == alone.count
        torch.testing.assert_close(one.matrix, alone.matrix)


def test_contexts_are_texts_of_the_models_own(llama: Model) -> None:
    some = edit.contexts(llama, count=3, lengths=(2, 4))
    assert len(some) == 6
    assert len(set(some)) > 1
    assert some == edit.contexts(llama, count=3, lengths=(2, 4))


@pytest.mark.parametrize(
    ("more", "error", "text"),
    [
        (dict(prompt=Prompt("The Tower is in")), NoSuchPosition, "no span 'subject' that an edit"),
        (dict(at="L1.resid @ last"), NoSuchSite, "ROME cannot write at L1.resid @ last"),
        (dict(at="L1.mlp.out"), NoSuchSite, "ROME cannot write at"),
        (dict(at="L99.mlp.out @ last"), NoSuchSite, "this model has no L99"),
        (dict(preset="rome"), BadDose, "there is no preset 'rome'"),
        (dict(to=""), BadData, "there is no new answer"),
    ],
)
def test_what_cannot_be_edited(llama: Model, more: Any, error: type[Exception], text: str) -> None:
    asked: Any = dict(prompt=FACT, to=" city", at=AT, before=BEFORE) | more
    with pytest.raises(error, match=text):
        edit.rome(llama, asked.pop("prompt"), **asked)


def test_moments_that_do_not_fit(llama: Model, tokenizer: PreTrainedTokenizerFast) -> None:
    other = Model.load(fresh("mistral"), tokenizer=tokenizer, selftest=False)
    with pytest.raises(ModelMismatch):
        edit.rome(
            llama, FACT, to=" city", at=AT, before=BEFORE, moments=edit.second_moment(other, NEUTRAL, at="L1.mlp.act")
        )
    with pytest.raises(BadData, match="the edit is at"):
        edit.rome(
            llama, FACT, to=" city", at=AT, before=BEFORE, moments=edit.second_moment(llama, NEUTRAL, at="L0.mlp.act")
        )
    with pytest.raises(NoSuchSite, match="is no key of an edit"):
        edit.second_moment(llama, NEUTRAL, at="L1.resid")
    with pytest.raises(EmptyData):
        edit.second_moment(llama, [], at="L1.mlp.act")
    with pytest.raises(EmptyData, match="tokenises to nothing"):
        edit.second_moment(llama, [""], at="L1.mlp.act")


@pytest.mark.parametrize(
    ("more", "error", "text"),
    [
        (dict(rewrites=[]), EmptyData, "nothing to rewrite"),
        (dict(layers=[]), NoSuchSite, "are none to spread"),
        (dict(layers=[1, 0]), NoSuchSite, "are none to spread"),
        (dict(layers=[0, 99]), NoSuchSite, "this model has no L99"),
        (dict(weight=0), BadDose, "weighs nothing"),
        (dict(moments={}), NoSuchSite, "no second moment is given for layer 0"),
        (dict(rewrites=[(Prompt("The Tower is in"), " city")]), NoSuchPosition, "no span 'subject'"),
    ],
)
def test_what_memit_cannot_do(llama: Model, more: Any, error: type[Exception], text: str) -> None:
    asked: Any = dict(rewrites=MANY, layers=[0, 1], before=BEFORE) | more
    with pytest.raises(error, match=text):
        edit.memit(llama, asked.pop("rewrites"), **asked)
