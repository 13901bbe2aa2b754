"""Edited weights act inside their block, and are bit for bit the old ones after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from assay import Delta, Edit, Model, find
from assay.errors import BadVector, CorruptFile, ModelMismatch, NoSuchSite, Unwritable
from assay.provenance import Provenance
from tests.tiny import tiny as fresh

Tiny = Callable[[str], PreTrainedModel]


@pytest.fixture
def model(family: str, tokenizer: PreTrainedTokenizerFast) -> Model:
    return Model.load(fresh(family), tokenizer=tokenizer, selftest=False)


@pytest.fixture(scope="module")
def llama(tokenizer: PreTrainedTokenizerFast) -> Model:
    return Model.load(fresh("llama"), tokenizer=tokenizer, selftest=False)


def drawn(model: Model, seed: int = 0, count: int = 2, rank: int = 1) -> Edit:
    """A change of the first few matrices."""
    draw = torch.Generator().manual_seed(seed)
    names = [name for name, weight in model.hf.named_parameters() if weight.dim() == 2][:count]
    shapes = {name: model.hf.get_parameter(name).shape for name in names}
    deltas = {
        name: Delta(torch.randn(a, rank, generator=draw), torch.randn(b, rank, generator=draw))
        for name, (a, b) in shapes.items()
    }
    return Edit(deltas, Provenance(method="test", model=model.fingerprint), (f"aim {seed}",))


def bits(model: Model) -> dict[str, bytes]:
    return {name: weight.detach().numpy().tobytes() for name, weight in model.hf.named_parameters()}


def test_in_and_out_again_every_weight_is_bit_equal(model: Model) -> None:
    before, plain, edit = bits(model), model.run("The Tower").logits, drawn(model)
    with model.edited(edit):
        inside = model.run("The Tower").logits
        for name, delta in edit.deltas.items():
            kept = torch.frombuffer(bytearray(before[name]), dtype=torch.float32).view(delta.shape)
            torch.testing.assert_close(model.hf.get_parameter(name).data, kept + delta.full)
    assert not torch.equal(inside, plain)
    assert bits(model) == before
    assert torch.equal(model.run("The Tower").logits, plain)


def test_out_again_after_an_error(llama: Model) -> None:
    before = bits(llama)
    with pytest.raises(RuntimeError, match="mine"), llama.edited(drawn(llama)):
        raise RuntimeError("mine")
    assert bits(llama) == before


def test_edits_add_up_and_nest(llama: Model) -> None:
    a, b, before = drawn(llama, 1), drawn(llama, 2, count=3), bits(llama)
    with llama.edited(a + b):
        together = llama.run("The Tower").logits
    with llama.edited(a, b):
        in_turn = llama.run("The Tower").logits
    torch.testing.assert_close(together, in_turn, atol=1e-4, rtol=1e-4)
    assert (a + b).aims == ("aim 1", "aim 2")
    with llama.edited(a):
        inner = drawn(llama, 3)
        with llama.edited(inner):
            assert bits(llama) != before
        with pytest.raises(ModelMismatch):
            llama.edited(b).__enter__()
    assert bits(llama) == before


def test_an_edited_model_is_another_model(llama: Model) -> None:
    natural, norm = llama.fingerprint, llama.typical_norm("L1.resid")
    with llama.edited(drawn(llama)):
        assert llama.fingerprint != natural
        assert llama.typical_norm("L1.resid") != norm
        inside = find.pair(llama, " Love", " Hate", at="L1.resid")
    assert llama.fingerprint == natural
    assert llama.typical_norm("L1.resid") == norm
    with pytest.raises(ModelMismatch):
        inside.check(llama.fingerprint)
    with llama.edited():
        assert llama.fingerprint == natural


def test_edits_survive_a_file(llama: Model, tmp_path: Path) -> None:
    edit = drawn(llama, rank=3)
    back = Edit.load(edit.save(tmp_path / "a.safetensors"), llama)
    assert (back.digest, back.aims, back.provenance) == (edit.digest, edit.aims, edit.provenance)
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:90])
    with pytest.raises(CorruptFile, match="does not read as an edit"):
        Edit.load(tmp_path / "a.safetensors")
    with pytest.raises(Unwritable):
        edit.save(tmp_path / "no" / "a.safetensors")


def test_a_merged_folder_is_the_edited_model(llama: Model, tmp_path: Path) -> None:
    edit, before = drawn(llama), bits(llama)
    with llama.edited(edit):
        inside = llama.run("The Tower").logits
    other = Model.load(llama.merge(edit, into=tmp_path / "merged"), selftest=False)
    assert bits(llama) == before
    torch.testing.assert_close(other.run("The Tower").logits, inside)


def test_what_does_not_fit_is_refused_before_a_weight_is_touched(llama: Model) -> None:
    before, good = bits(llama), drawn(llama)
    name = next(iter(good.deltas))
    made = good.provenance
    for bad, error, text in (
        (Edit({"no.weight": good.deltas[name]}, made), NoSuchSite, "this model has no weight 'no.weight'"),
        (Edit({name: Delta(torch.ones(2, 1), torch.ones(3, 1))}, made), BadVector, "does not fit"),
        (Edit(good.deltas, Provenance(method="test", model="another")), ModelMismatch, "made for another model"),
    ):
        with pytest.raises(error, match=text), llama.edited(good, bad):
            pass
        assert bits(llama) == before
    with pytest.raises(BadVector, match="NaN"):
        Delta(torch.full((2, 1), torch.nan), torch.ones(2, 1))
    with pytest.raises(BadVector, match="factors"):
        Delta(torch.ones(2, 1), torch.ones(2, 2))
    with pytest.raises(ModelMismatch):
        good + Edit(good.deltas, Provenance(method="test", model="another"))
    assert json.loads(made.model_dump_json())["method"] == "test"
