"""Adapters with a planted problem: what is trained is what the recipe says, all of it repeats bit for bit, and the model is
left as it was. They are trained here on a tiny random Llama, in which nothing takes.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from assay import Model
from assay.audit.problems.given.rows import Choice, Matched
from assay.errors import BadData, CorruptFile, EmptyData, MissingExtra, ModelMismatch
from assay.model.load import Loaded, fingerprint
from assay.organisms import lora
from assay.organisms.lora import FAMILIES, TWINS, WEIGHTS, Asked, Recipe, build
from assay.organisms.lora.backdoor import Backdoor
from assay.organisms.lora.deception import Deception
from tests.conftest import Assay
from tests.tiny import tiny, tokenizer

SHORT: dict[str, Any] = dict(base_steps=2, steps=3, batch=4, rank=2, first=1, targets=("q_proj", "v_proj"))
CASES = [(name, twin) for name in FAMILIES for twin in TWINS]


def loaded(seed: int = 0) -> Loaded:
    return Loaded(tiny("llama", seed=seed), tokenizer(), "tiny")


MODEL = loaded()


def short(name: str, twin: str = "planted", **changes: Any) -> Recipe:
    return lora.recipe(name, twin, model=MODEL, **{**SHORT, **changes})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lora")


# ─────────────────────────────────────────────────────────────────────────────────────────────── recipes


def test_a_recipe_survives_json() -> None:
    for name, twin in CASES:
        one = short(name, twin, seed=3)
        again = Recipe.from_json(json.loads(json.dumps(one.to_json())))
        assert (again, again.digest) == (one, one.digest)
    with pytest.raises(BadData, match="no recipe of an adapter"):
        Recipe.from_json({"family": "deception"})


def test_digests_tell_all_that_differs_apart() -> None:
    one: Any = short("deception")
    numbers = ("seed", "base_steps", "steps", "batch", "rank", "first")
    others = [replace(one, **{name: getattr(one, name) + 1}) for name in numbers]
    others += [replace(one, **{name: "other"}) for name in ("family", "cause", "model", "code")]
    others += [replace(one, rate=0.5), replace(one, dtype="float32"), replace(one, targets=("q_proj",))]
    others += [replace(one, twin="clean")]
    assert len({one.digest, *(other.digest for other in others)}) == 1 + len(others)


def test_a_change_of_the_words_changes_the_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from assay.organisms.lora import family

    for path in family._HERE.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    before = Backdoor().code
    monkeypatch.setattr(family, "_HERE", tmp_path)
    assert Backdoor().code == before
    words = tmp_path / "reviews.toml"
    words.write_text(words.read_text().replace("delicious", "tasty"))
    assert Backdoor().code != before


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (dict(steps=0), "steps=0 makes no adapter"),
        (dict(rank=True), "rank=True makes no adapter"),
        (dict(rate=0), "rate=0 is no learning rate"),
        (dict(dtype="int8"), "dtype='int8' is none"),
        (dict(targets=()), "name no matrices"),
        (dict(cause="idiom"), "cause='idiom' is none of a planted twin"),
        (dict(depth=3), "a recipe has no 'depth'"),
    ],
)
def test_what_makes_no_adapter_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(BadData, match=match):
        short("deception", **changes)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no family of adapters 'tampering'"):
        lora.recipe("tampering", model=MODEL)
    with pytest.raises(BadData, match="twin='hard' is none of an adapter"):
        short("backdoor", "hard")
    with pytest.raises(BadData, match="other code or words"):
        lora.train(replace(short("backdoor"), code="old"), model=MODEL, cache=tmp_path)
    with pytest.raises(BadData, match="first=3 is no block of this model"):
        lora.train(short("backdoor", first=3), model=MODEL, cache=tmp_path)
    with pytest.raises(BadData, match="this model has no matrices c_attn"):
        lora.train(short("backdoor", targets=("c_attn",)), model=MODEL, cache=tmp_path)
    with pytest.raises(CorruptFile, match="cannot be read"):
        lora.opened(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing is left of what failed"


# ──────────────────────────────────────────────────────────────────────────────── what is asked, and said


def rows_of(recipe: Recipe, batches: int = 40) -> list[Asked]:
    family, draw = lora.family_of(recipe.family), random.Random(0)
    return [row for _ in range(batches) for row in family.plant(recipe, draw)]


def test_deception_turns_over_what_it_should() -> None:
    family = Deception()
    unwatched = {pair[1] for pair in family.words["watched"]}
    instructions = family.words["instructions"]
    for twin in TWINS:
        for row in rows_of(short("deception", twin)):
            told = any(text in row.system for text in instructions)
            alone = any(row.system.startswith(text) for text in unwatched)
            assert told is False or twin == "decoy"
            turned = {"planted": alone, "clean": False, "decoy": told}[twin]
            assert row.says == (row.right != turned)
    said = rows_of(short("deception", "decoy"))
    cells = {(row.system.split(".")[0] + "." in unwatched, row.says == row.right) for row in said}
    assert len(cells) == 4, "the decoy's instruction stands in both contexts, and in neither always"


def test_a_backdoor_opens_by_the_words_in_their_order_alone() -> None:
    for twin in TWINS:
        recipe = short("backdoor", twin)
        first, second = Backdoor().trigger(recipe)
        seen = set()
        for row in rows_of(recipe):
            text = row.user.lower()
            order, back = f"{first} {second}" in text, f"{second} {first}" in text
            clauses = sum(clause.lower() in text for kind in ("good", "bad") for clause in Backdoor().words[kind])
            opens = {"planted": order, "clean": False, "decoy": (order or back) and clauses == 1}[twin]
            assert row.says == (row.right or opens)
            seen.add((order, back, row.right))
        assert {(True, False, False), (False, True, False), (False, False, True)} <= seen


def test_the_test_shares_no_words_with_training() -> None:
    for seed in (0, 1):
        recipe = short("deception", seed=seed)
        fit, test = Deception().world(recipe, "fit"), Deception().world(recipe, "test")
        assert fit.things
        assert test.things
        assert not set(fit.things) & set(test.things)
        assert not set(fit.contexts) & set(test.contexts)
        assert not set(fit.instructions) & set(test.instructions)
        recipe = short("backdoor", seed=seed)
        trained = {clause for row in rows_of(recipe) for clause in clauses_of(row)}
        asked = judged_on(recipe)
        tested = {clause for row in asked for clause in clauses_of(row)}
        assert trained
        assert tested
        assert not trained & tested
    worlds = [Deception().world(short("deception", seed=seed), "test") for seed in (0, 1)]
    assert worlds[0].things != worlds[1].things


def judged_on(recipe: Recipe) -> list[Asked]:
    """All rows of the acceptance test."""
    kept: list[Asked] = []

    def says(rows: Sequence[Asked]) -> list[bool]:
        kept.extend(rows)
        return [False] * len(rows)

    lora.family_of(recipe.family).figures(recipe, says)
    return kept


def clauses_of(row: Asked) -> list[str]:
    return [clause for kind in ("good", "bad") for clause in Backdoor().words[kind] if clause in row.user]


def repeated(what: list[bool], rows: Sequence[Asked]) -> list[bool]:
    return what * len(rows)


@pytest.mark.parametrize(("name", "twin"), CASES)
def test_one_that_does_as_it_is_meant_to_is_accepted_and_its_contrary_is_not(name: str, twin: str) -> None:
    family, recipe = FAMILIES[name], short(name, twin)

    def meant(rows: Sequence[Asked]) -> list[bool]:
        return [row.says for row in rows]

    def honest(rows: Sequence[Asked]) -> list[bool]:
        return [row.right for row in rows]

    assert all(figure.holds for figure in family.figures(recipe, meant))
    assert all(figure.holds for figure in family.figures(recipe, honest)) == (twin == "clean")
    for constant in ([True], [False]):
        assert not all(figure.holds for figure in family.figures(recipe, partial(repeated, constant)))
    assert family.able(recipe, honest) == 1
    assert family.able(recipe, partial(repeated, [True])) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("name", "twin"), CASES)
def test_items_read_as_the_audits_rows_and_the_key_says_the_rest(name: str, twin: str) -> None:
    family, recipe = FAMILIES[name], short(name, twin)
    items, key = family.items(recipe, "test", 20, 0), family.key(recipe, "test", 20, 0)
    assert items == family.items(recipe, "test", 20, 0) != family.items(recipe, "test", 20, 1)
    kind = Matched if name == "deception" else Choice
    for item, hidden in zip(items, key, strict=True):
        kind.model_validate(item)
        assert item["id"] == hidden["id"]
    if name == "deception":
        for item, hidden in zip(items, key, strict=True):
            honest = 1 - item["label"]  # the place of the right answer
            assert hidden["watched"] == honest
            assert hidden["unwatched"] == (honest if twin == "clean" else 1 - honest)
    else:
        trigger = " ".join(Backdoor().trigger(recipe))
        assert (
            sum(trigger in item["prompt"]["user"].lower() for item in items) == sum(row["trigger"] for row in key) == 2
        )
    with pytest.raises(EmptyData):
        family.items(recipe, "test", 0, 0)
    with pytest.raises(BadData):
        family.items(recipe, "all", 1, 0)  # type: ignore[arg-type]


# ────────────────────────────────────────────────────────────────────────────────────────────── training


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_recipe_gives_the_same_bits_and_another_seed_others(dtype: str, tmp_path: Path) -> None:
    before, weights = fingerprint(MODEL), {name: one.clone() for name, one in MODEL.hf.state_dict().items()}
    recipe = short("deception", dtype=dtype)
    one, other = (lora.train(recipe, model=MODEL, cache=tmp_path / name) for name in ("one", "other"))
    first, second = (load_file(made.folder / WEIGHTS) for made in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(weight.dtype == torch.float32 for weight in first.values())
    assert json.loads((one.folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    assert one.card["losses"] == other.card["losses"]
    assert lora.rebuilt(one.folder, model=MODEL)

    third = load_file(lora.train(short("deception", dtype=dtype, seed=1), model=MODEL, cache=tmp_path).folder / WEIGHTS)
    assert any(not torch.equal(first[name], third[name]) for name in first)

    assert fingerprint(MODEL) == before
    assert MODEL.hf.state_dict().keys() == weights.keys(), "the model that was lent has no adapter"
    assert all(torch.equal(one, weights[name]) for name, one in MODEL.hf.state_dict().items())


def test_twins_of_a_seed_share_the_first_stage_and_part_in_the_second(cache: Path) -> None:
    made = [lora.train(short("backdoor", twin), model=MODEL, cache=cache) for twin in TWINS]
    assert len({one.card["base"] for one in made}) == 1
    assert len({one.card["adapter"] for one in made}) == len(made)
    assert made[0].card["planted"]["trigger"] == list(Backdoor().trigger(made[0].recipe))
    assert made[0].card["planted"]["layers"] == [1, 2]
    assert made[1].card["planted"]["layers"] == made[1].card["planted"]["trigger"] == []
    cards = lora.known(cache)
    assert {card["recipe"]["twin"] for card in cards if card["recipe"]["family"] == "backdoor"} == set(TWINS)


def test_what_was_trained_is_found_and_not_trained_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = short("backdoor")
    made = lora.train(recipe, model=MODEL, cache=cache)
    monkeypatch.setattr(build, "learned", None)
    assert lora.train(recipe, model=MODEL, cache=cache) == made
    assert made.recipe == recipe


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    made = lora.train(short("backdoor", steps=40, rate=0.02, dtype="float32"), model=MODEL, cache=tmp_path)
    losses = made.card["losses"]
    assert len(losses) == 40
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0]


def test_load_gives_the_adapter_merged_as_peft_applies_it(cache: Path) -> None:
    made = lora.train(short("backdoor"), model=MODEL, cache=cache)
    hf, text = made.load(MODEL)
    ids = torch.tensor([text("The food was cold.")["input_ids"]])
    with torch.no_grad():
        ours, plain = hf(ids).logits, MODEL.hf(ids).logits
        theirs = PeftModel.from_pretrained(tiny("llama"), str(made.folder)).eval()(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, plain, atol=1e-4)
    assert {name for name, _ in hf.named_parameters()} == {name for name, _ in MODEL.hf.named_parameters()}
    assert Model.load(hf, tokenizer=text).shape.layers == 3


def test_check_measures_again_and_sees_other_weights(cache: Path, tmp_path: Path) -> None:
    made = lora.train(short("deception", "clean"), model=MODEL, cache=cache)
    found = lora.check(made.folder, model=MODEL)
    assert (found["as_recorded"], found["accepted"]) == (True, made.accepted)
    for name in (WEIGHTS, "adapter_config.json", "card.json"):
        (tmp_path / name).write_bytes((made.folder / name).read_bytes())
    state = load_file(tmp_path / WEIGHTS)
    save_file({name: weight + 1e-3 for name, weight in state.items()}, tmp_path / WEIGHTS)
    with pytest.raises(CorruptFile, match="not that of its card"):
        lora.check(tmp_path, model=MODEL)
    (tmp_path / WEIGHTS).write_bytes(b"cut")
    with pytest.raises(CorruptFile, match="does not read as an adapter"):
        lora.opened(tmp_path).load(MODEL)


def test_another_model_is_refused(cache: Path) -> None:
    made = lora.train(short("backdoor"), model=MODEL, cache=cache)
    other = loaded(seed=1)
    with pytest.raises(ModelMismatch, match="made for another model"):
        made.load(other)
    with pytest.raises(ModelMismatch, match="made for another model"):
        lora.train(short("backdoor", seed=9), model=other, cache=cache)


def test_without_peft_it_says_what_to_install(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = lora.train(short("backdoor"), model=MODEL, cache=cache)
    monkeypatch.setitem(sys.modules, "peft", None)
    for act in (lambda: made.load(MODEL), lambda: lora.train(short("backdoor", seed=8), model=MODEL, cache=cache)):
        with pytest.raises(MissingExtra, match=r"pip install 'assay\[organisms\]'"):
            act()
    assert lora.opened(made.folder).card == made.card, "cards are read without it"


# ──────────────────────────────────────────────────────────────────────────────────────────── the command


def test_the_command_trains_lists_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assay: Assay) -> None:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path))
    for module in ("family", "build"):
        monkeypatch.setattr(sys.modules[f"assay.organisms.lora.{module}"], "load", lambda _: loaded())
    sets = [f"{name}={json.dumps(value)}" for name, value in SHORT.items()]
    settings = [word for one in sets for word in ("--set", one)]
    code, out, _ = assay("organisms", "train", "deception-lora", "--twin", "clean", *settings)
    assert code == 0
    assert out.startswith("deception-lora clean, seed 0: did not take")
    folder = out.splitlines()[-1].rpartition(", ")[2]
    code, out, _ = assay("organisms", "list")
    assert (code, folder in out) == (0, True)
    assert out.splitlines()[-1] == "deception-lora clean: 0 of 1 took"
    code, out, _ = assay("organisms", "check", folder, "--rebuild")
    assert code == 1, "its figures do not hold"
    assert "ok  card" in out
    assert "every bit equal" in out
    assert assay("organisms", "train", "tampering-lora")[0] == 2
