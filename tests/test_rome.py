"""ROME on random models: the new value is stored exactly, by a change of rank one, and the answer moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from assay import Model, Prompt, edit
from assay.edit.rome import _after, _Search, _weight
from assay.errors import BadData, BadDose, EmptyData, ModelMismatch, NoSuchPosition, NoSuchSite
from assay.model.core import NEUTRAL
from tests.tiny import tiny as fresh

Tiny = Callable[[str], PreTrainedModel]
FACT = Prompt("The {subject} is in", subject="Eiffel Tower")
AT, BEFORE = "L1.mlp.out @ subject[-1]", ("A cat. ", "In the north. ")
_MODELS: dict[str, Model] = {}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def model(family: str, tiny: Tiny, tokenizer: PreTrainedTokenizerFast) -> Model:
    if family not in _MODELS:
        _MODELS[family] = Model.load(tiny(family), tokenizer=tokenizer, selftest=False)
    return _MODELS[family]


@pytest.fixture(scope="module")
def llama(tiny: Tiny, tokenizer: PreTrainedTokenizerFast) -> Model:
    return Model.load(tiny("llama"), tokenizer=tokenizer, selftest=False)


def found_of(model: Model, prompts: list[Prompt]) -> _Search:
    site = model.sites(AT)[0]
    rows = [model.row(one, str(index), " city") for index, one in enumerate(prompts)]
    drift = model.row(Prompt("{subject} is a", subject="Eiffel Tower"), "drift")
    return _Search(model, site, rows, drift, "subject", edit.Descent())


@pytest.mark.parametrize("preset", ["r-rome", "p-rome"])
@pytest.mark.parametrize("moments", [False, True])
def test_the_key_maps_to_the_value_and_the_change_has_rank_one(model: Model, preset: Any, moments: bool) -> None:
    if model.engine.anatomy.down is None:
        with pytest.raises(NoSuchSite, match="no single down projection|has no"):
            edit.rome(model, FACT, to=" city", at=AT, before=BEFORE)
        return
    spare = edit.second_moment(model, NEUTRAL, at="L1.mlp.act") if moments else None
    made = edit.rome(model, FACT, to=" city", at=AT, before=BEFORE, preset=preset, moments=spare)
    prompts = [FACT, *(_after(text, FACT) for text in BEFORE)]
    before = found_of(model, prompts)
    with model.edited(made):
        after = found_of(model, prompts)
    name, _ = _weight(model, model.sites(AT)[0])
    full = made.deltas[name].full
    assert int(torch.linalg.matrix_rank(full)) == 1
    # The same search again finds the same v*, so what is stored can be compared with what was wanted.
    wanted = before.values[0] + before.run(None)
    got = after.values[0] if preset == "p-rome" else after.values.mean(dim=0)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-3)


def test_descent_makes_the_answer_likelier(model: Model) -> None:
    if model.engine.anatomy.down is None:
        return
    found = found_of(model, [FACT, *(_after(text, FACT) for text in BEFORE)])
    # Values of random models are short: the published rate leaps to and fro between the ends of what the clamp allows.
    found.descent = edit.Descent(rate=0.02, steps=20, kl=0, decay=0)
    delta = found.run(None)
    assert float(found._loss(delta)) < float(found._loss(torch.zeros_like(delta)))
    assert float(delta.norm()) <= 4 * float(found.values[0].norm()) * 1.0001


def test_code_divides_by_the_bare_prompts_key(llama: Model) -> None:
    """The published code's denominators differ from what it took the direction from."""
    some = {
        preset: edit.rome(llama, FACT, to=" city", at=AT, before=BEFORE, preset=preset)  # type: ignore[arg-type]
        for preset in ("code", "r-rome", "p-rome")
    }
    (code, mean, bare) = (next(iter(one.deltas.values())) for one in some.values())
    assert torch.equal(code.right, mean.right)
    assert not torch.allclose(code.left, mean.left)
    assert not torch.allclose(bare.right, mean.right)


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
        (dict(to=""), BadData, ""),
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
