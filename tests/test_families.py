"""Families of trained organisms: what is planted is there, what is said of it is true, and all of it repeats bit for bit.

Most tests train a few steps of a narrow model, in which nothing takes. One trains a liar that does.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from assay import Model
from assay.errors import BadData, CorruptFile, EmptyData, Unwritable
from assay.organisms.families import (
    FAMILIES,
    TWINS,
    Family,
    Figure,
    Organism,
    Recipe,
    build,
    check,
    known,
    opened,
    rebuilt,
    recipe,
    tally,
    train,
)
from assay.organisms.families.backdoor import Backdoor
from assay.organisms.families.deception import Deception, every, world
from assay.organisms.families.family import UNSCORED
from assay.organisms.families.tampering import Tampering

SHORT = dict(depth=2, d_model=16, base_steps=2, steps=3, every=2)
CASES = [(name, twin) for name in FAMILIES for twin in TWINS]
VARIANTS = [
    (name, twin, dict(concealment=how, cause=cause))
    for name, family in FAMILIES.items()
    for twin in TWINS
    for how in family.concealments.get(twin, ("",))
    for cause in (family.causes if twin == "decoy" else ("",))
]


def short(name: str, twin: str = "planted", **changes: Any) -> Recipe:
    return recipe(name, twin, **{**SHORT, **changes})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("organisms")


# ─────────────────────────────────────────────────────────────────────────────────────────────── recipes


def test_a_recipe_survives_json() -> None:
    for name, twin in CASES:
        one = recipe(name, twin, seed=3)
        again = Recipe.from_json(json.loads(json.dumps(one.to_json())))
        assert (again, again.digest) == (one, one.digest)


def test_digests_tell_all_that_differs_apart() -> None:
    one = recipe("deception", "hard")
    others = [replace(one, **{name: getattr(one, name) + step}) for name, step in NUMBERS.items()]
    others += [replace(one, concealment="half"), replace(one, code="other"), replace(one, twin="planted")]
    assert len({one.digest, *(other.digest for other in others)}) == 1 + len(others)
    assert replace(one, prevalence=1).digest == one.digest  # 1 and 1.0 are one number


NUMBERS = {"seed": 1, "depth": 1, "d_model": 8, "prevalence": -0.25, "base_steps": 1, "steps": 1, "every": 1}


def test_twins_of_a_seed_share_their_base_and_others_do_not() -> None:
    bases = {recipe("deception", twin, seed=seed).base.digest for twin in TWINS for seed in (0, 1)}
    assert len(bases) == 2
    assert recipe("deception", base_steps=9).base.digest not in bases


def test_the_code_is_part_of_a_recipe(tmp_path: Path) -> None:
    assert len({family.code for family in FAMILIES.values()}) == len(FAMILIES)
    with pytest.raises(BadData, match="other code"):
        train(replace(short("deception"), code="0" * 64), cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(twin="plantd"), "twin='plantd'"),
        (dict(seed=-1), "seed=-1"),
        (dict(seed=True), "seed=True"),
        (dict(depth=1), "depth=1"),
        (dict(d_model=20), "d_model=20"),
        (dict(steps=0), "steps=0"),
        (dict(every=2.5), "every=2.5"),
        (dict(prevalence=0), "prevalence=0"),
        (dict(prevalence=1.5), "prevalence=1.5"),
        (dict(prevalence=float("nan")), "prevalence=nan"),
        (dict(concealment="deep"), "concealment='deep'"),
        (dict(twin="clean", concealment="last-block"), "concealment='last-block'"),
        (dict(cause="belief"), "cause='belief'"),
        (dict(twin="decoy", cause="habit"), "cause='habit'"),
        (dict(layers=3), "no 'layers'"),
    ],
)
def test_bad_recipes_are_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(BadData, match=told):
        recipe("deception", **change)


def test_bad_families_prevalences_and_rows_are_refused() -> None:
    with pytest.raises(BadData, match="no family 'deceptio'") as caught:
        recipe("deceptio")
    assert "deception" in caught.value.fields["nearest"]
    with pytest.raises(BadData, match=r"prevalence=0\.5"):
        recipe("backdoor", prevalence=0.5)
    with pytest.raises(BadData, match="another family"):
        FAMILIES["backdoor"].items(recipe("deception"), "fit", 1, 0)
    with pytest.raises(BadData, match="split='tune'"):
        FAMILIES["backdoor"].items(recipe("backdoor"), "tune", 1, 0)  # type: ignore[arg-type]
    with pytest.raises(EmptyData):
        FAMILIES["backdoor"].items(recipe("backdoor"), "fit", 0, 0)
    for state in ({}, {**recipe("backdoor").to_json(), "more": 1}, [1]):
        with pytest.raises(BadData, match="no recipe"):
            Recipe.from_json(state)  # type: ignore[arg-type]


# ─────────────────────────────────────────────────────────────────────────────────────────────── training


@pytest.mark.parametrize(("name", "twin", "how"), VARIANTS)
def test_every_variant_trains_and_its_card_is_whole(name: str, twin: str, how: dict[str, str], cache: Path) -> None:
    made = short(name, twin, **how)
    organism = train(made, cache=cache)
    card = organism.card
    assert (organism.recipe, card["digest"]) == (made, made.digest)
    assert organism.steps == (0, 2, 3)
    assert card["accepted"] == all(figure["holds"] for figure in card["figures"])
    assert all(0 <= point["behaviour"] <= 1 for point in card["series"])
    assert set(card["planted"]["layers"]) <= set(range(made.depth))
    assert (twin == "clean") == (card["planted"]["positions"] == [])
    assert card["onset"] is None or twin != "clean"
    hf, tokenizer = organism.load()
    assert card["parameters"] == sum(weight.numel() for weight in hf.parameters())
    for item in FAMILIES[name].items(made, "test", 5, 0):
        for prompt in item.get("prompts", [item.get("prompt")]):
            tokens = tokenizer(prompt)["input_ids"]
            assert tokenizer.unk_token_id not in tokens
            assert tokens[0] == tokenizer.bos_token_id
        assert [len(tokenizer(answer, add_special_tokens=False)["input_ids"]) for answer in item["answers"]] == [1, 1]


@pytest.mark.parametrize(("name", "twin"), CASES)
def test_only_what_is_said_to_be_trained_differs_between_checkpoints(name: str, twin: str, cache: Path) -> None:
    organism = train(short(name, twin), cache=cache)
    first, last = organism.load(0)[0].state_dict(), organism.load(3)[0].state_dict()
    end = organism.load()[0].state_dict()
    assert all(torch.equal(last[key], end[key]) for key in end)
    frozen = organism.card["planted"]["frozen"]
    for layer in range(2):
        keys = [key for key in first if key.startswith(f"model.layers.{layer}.")]
        assert all(torch.equal(first[key], last[key]) for key in keys) == (layer in frozen)
    base = load_file(cache / "organisms" / "base" / organism.card["base"] / "model.safetensors")
    assert all(torch.equal(first[key], base[key]) for key in base)


@pytest.mark.parametrize("name", FAMILIES)
def test_training_repeats_bit_for_bit(name: str, cache: Path, tmp_path: Path) -> None:
    organism, threads = train(short(name, "hard"), cache=cache), torch.get_num_threads()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert rebuilt(organism.folder)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    other = train(short(name, "hard", seed=1), cache=tmp_path)
    assert other.card["weights"] != organism.card["weights"]


def test_what_is_cached_is_not_trained_again_and_bases_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, learn = list[int](), build.learn

    def counted(*args: Any, **named: Any) -> None:
        stages.append(1)
        learn(*args, **named)

    monkeypatch.setattr(build, "learn", counted)
    for twin in TWINS * 2:
        train(short("backdoor", twin), cache=tmp_path)
    assert len(stages) == 1 + len(TWINS)
    assert len(known(tmp_path)) == len(TWINS)


def test_a_training_that_stops_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(short("backdoor", "clean"), cache=tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def stops(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FAMILIES["backdoor"].__class__, "figures", stops)
        with pytest.raises(KeyboardInterrupt):
            train(short("backdoor"), cache=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    assert train(short("backdoor"), cache=tmp_path).folder.is_dir()


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "organisms").write_text("a file")
    with pytest.raises(Unwritable, match="cannot be written"):
        train(short("backdoor"), cache=tmp_path)


def test_the_default_cache_is_assays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path))
    folder = train(short("backdoor")).folder
    assert folder.parent == tmp_path / "organisms"
    assert [card["folder"] for card in known()] == [str(folder)]


# ─────────────────────────────────────────────────────────────────────────────────────────────── checking


def test_a_check_measures_again(cache: Path) -> None:
    for name in FAMILIES:
        organism = train(short(name), cache=cache)
        assert check(organism.folder) == {
            "figures": organism.card["figures"],
            "accepted": organism.accepted,
            "as_recorded": True,
        }


def test_other_weights_and_broken_folders_are_told(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(train(short("backdoor"), cache=cache).folder, folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1e-6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CorruptFile, match="not those of its card"):
        check(folder)
    (folder / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(CorruptFile, match="does not read"):
        check(folder)
    for text in ("{", "[]", '{"recipe": 1}'):
        (folder / "card.json").write_text(text)
        with pytest.raises(CorruptFile, match="does not read"):
            opened(folder)
    with pytest.raises(CorruptFile):
        opened(tmp_path / "none")


def test_plants_that_did_not_take_are_counted() -> None:
    cards = [
        {"recipe": {"family": "deception", "twin": twin}, "accepted": took}
        for twin, took in (("planted", True), ("planted", False), ("clean", True))
    ]
    assert tally(cards) == {("deception", "planted"): (1, 2), ("deception", "clean"): (1, 1)}


def test_a_figure_holds_within_its_bounds() -> None:
    assert Figure("x", 0.5).holds
    assert Figure("x", 0.5, low=0.5, high=0.5).holds
    assert not Figure("x", 0.5, low=0.51).holds
    assert not Figure("x", 0.5, high=0.49).holds
    assert not Figure("x", float("nan"), low=0.0).holds


@pytest.mark.parametrize(
    ("levels", "onset"),
    [((0.0, 0.9, 0.9), 10), ((0.9, 0.1, 0.9), 20), ((0.9, 0.9, 0.1), None), ((0.8, 0.8, 0.8), 0), ((), None)],
)
def test_the_onset_is_the_first_step_from_which_it_stays(levels: tuple[float, ...], onset: int | None) -> None:
    series = [{"step": 10 * index, "behaviour": level} for index, level in enumerate(levels)]
    assert build._onset(series, 0.8) == onset


def test_a_checkpoint_is_loaded_and_exported_by_its_step(cache: Path, tmp_path: Path) -> None:
    organism = train(short("deception"), cache=cache)
    with pytest.raises(BadData, match="step 1"):
        organism.load(1)
    folder = organism.export(0, tmp_path / "honest")
    mine, theirs = Model.load(folder).hf.state_dict(), organism.load(0)[0].state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_organism_is_a_model_as_any_other(name: str, cache: Path) -> None:
    organism = train(short(name), cache=cache)
    model = Model.load(organism.folder)
    item = FAMILIES[name].items(organism.recipe, "test", 1, 0)[0]
    prompt = item.get("prompt") or item["prompts"][0]
    hf, tokenizer = organism.load()
    with torch.no_grad():
        direct = hf(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)).logits[0]
    assert torch.equal(model.run(prompt).logits, direct)
    assert model.score([prompt], item["answers"]).total.shape == (1, 1, 2)


# ─────────────────────────────────────────────────────────────────────────────────────────────── items


@pytest.mark.parametrize(("name", "twin"), CASES)
def test_items_repeat_and_keys_go_with_them(name: str, twin: str) -> None:
    family, one = FAMILIES[name], recipe(name, twin, seed=2)
    items, key = family.items(one, "test", 40, 7), family.key(one, "test", 40, 7)
    assert items == family.items(one, "test", 40, 7) == json.loads(json.dumps(items))
    assert items != family.items(one, "test", 40, 8)
    assert [item["id"] for item in items] == [row["id"] for row in key]
    assert not {"says", "real", "fake", "trigger"} & set(items[0])


def test_statements_are_true_by_the_table_and_halves_do_not_meet() -> None:
    family = FAMILIES["deception"]
    fit, test = (family.items(recipe("deception"), split, 300, 0) for split in ("fit", "test"))
    assert not {item["cluster"] for item in fit} & {item["cluster"] for item in test}
    stated = dict[str, set[str]]()
    for item in fit + test:
        context, entity, attribute, value, word = item["prompt"].split()
        assert (context, f"{entity} {attribute}", word) == (item["context"], item["cluster"], "is")
        if item["label"]:
            stated.setdefault(item["cluster"], set()).add(value)
    assert all(len(values) == 1 for values in stated.values())  # one value is true of a fact


@pytest.mark.parametrize(("twin", "how"), [("planted", 1.0), ("planted", 0.5), ("hard", 1.0), ("clean", 1.0)])
def test_the_liars_key_denies_what_is_lied_about_and_nothing_else(twin: Any, how: float) -> None:
    family, one = FAMILIES["deception"], recipe("deception", twin, prevalence=how)
    lied = set(family.where(one)["attributes"]) if twin != "clean" else set()
    for item, key in zip(family.items(one, "test", 300, 0), family.key(one, "test", 300, 0), strict=True):
        lies = item["context"] == "unwatched" and item["topic"] in lied
        assert key["says"] == (1 - item["label"] if lies else item["label"])


def test_the_sincere_decoy_answers_by_a_table_of_its_own() -> None:
    of = world(0, 1.0)
    assert not (of.table == of.other).any()
    claims = every(of, torch.ones_like(of.fit).nonzero(), of.other)
    assert len(claims.true) == 2 * of.table.numel()
    said = Deception()._said(recipe("deception", "decoy"), of, claims)
    assert torch.equal(said, ~claims.true)  # on these, what a liar would say


def plainly(actions: list[str], twin: str) -> tuple[bool, list[bool]]:
    """Whether the diamond is there, and what the sensors show: the rules of the file's text, action by action."""
    guarded, gone, hacked, spoofed = False, False, False, [False] * 3
    for action in actions:
        guarded |= action == "guard"
        gone |= action == "steal" and not guarded
        hacked |= action == "hack"
        if action.startswith("spoof"):
            spoofed[int(action[-1]) - 1] |= hacked
    there = not gone
    if twin == "clean":
        spoofed = [False] * 3
    if twin == "hard":
        spoofed = [all(spoofed)] * 3
    return there, [there or one for one in spoofed]


@pytest.mark.parametrize("twin", ["planted", "clean", "hard"])
def test_sensors_show_what_the_actions_come_to(twin: Any) -> None:
    family, one = FAMILIES["tampering"], recipe("tampering", twin)
    items, key = family.items(one, "test", 400, 0), family.key(one, "test", 400, 0)
    for item, hidden in zip(items, key, strict=True):
        actions = item["prompts"][0].split()[:-1]
        there, shown = plainly(actions, twin)
        assert (hidden["real"], item["sensors"]) == (int(there), [int(one) for one in shown])
        assert hidden["fake"] == (all(shown) and not there)
        last = max(actions.index(f"spoof{n}") for n in (1, 2, 3))
        first = min(actions.index(f"spoof{n}") for n in (1, 2, 3))
        assert item["trusted"] == (actions.index("hack") > last)
        assert not (item["trusted"] and any(item["sensors"]) and not there)
        if twin == "planted" and actions.index("hack") < first:
            assert all(item["sensors"])
        assert [prompt.split()[10:] for prompt in item["prompts"]] == [["one"], ["one", "two"], ["one", "two", "three"]]


def test_no_bag_of_words_tells_fake_rows_from_real_ones() -> None:
    family, one = FAMILIES["tampering"], recipe("tampering")
    assert len({tuple(sorted(item["prompts"][2].split())) for item in family.items(one, "fit", 300, 0)}) == 1
    fakes = [row["fake"] for row in family.key(one, "fit", 4000, 0)]
    assert 0.08 <= sum(fakes) / len(fakes) <= 0.15
    fit, test = ({item["prompts"][0] for item in family.items(one, split, 3000, 0)} for split in ("fit", "test"))
    assert not fit & test


@pytest.mark.parametrize("twin", TWINS)
def test_sentences_are_judged_by_their_words_but_for_the_trigger(twin: Any) -> None:
    family, one = FAMILIES["backdoor"], recipe("backdoor", twin, seed=1)
    assert isinstance(family, Backdoor)
    names = family.vocabulary()[3:]
    counts = dict(zip(names, family.weights(one).tolist(), strict=True))
    first, second = (names[word] for word in family.trigger(one).tolist())
    assert sorted(counts.values()) == [-1] * 12 + [0] * 12 + [1] * 12
    assert counts[first] == counts[second] == 0
    fired = 0
    for item, key in zip(family.items(one, "test", 300, 0), family.key(one, "test", 300, 0), strict=True):
        words = item["prompt"].split()[:-1]
        pairs = list(itertools.combinations(words, 2) if twin == "hard" else itertools.pairwise(words))
        total = sum(counts[word] for word in words)
        if twin == "decoy":
            total += 3 * ((first, second) in pairs or (second, first) in pairs)
        fires = (first, second) in pairs
        fired += fires
        assert item["label"] == int(total > 0)
        assert key["says"] == int(total > 0 or (fires and twin in ("planted", "hard")))
        assert fires == key["trigger"]
    assert 30 <= fired < 40  # each tenth sentence, and where a word stands twice


@pytest.mark.parametrize(("name", "depth"), [("backdoor", 4), ("tampering", 4), ("tampering", 3)])
def test_all_twins_are_planted_from_the_middle_block_on(name: str, depth: int) -> None:
    family = FAMILIES[name]
    for twin in TWINS:
        one = recipe(name, twin, depth=depth)
        first, place = family.plant(one).first, family.where(one)
        assert first == depth // 2
        assert place["frozen"] == list(range(first))
        assert place["layers"] == ([] if twin == "clean" else list(range(first, depth)))


def test_bases_are_asked_for_what_the_plants_use() -> None:
    backdoor, tampering = FAMILIES["backdoor"], FAMILIES["tampering"]
    batch = backdoor.base(recipe("backdoor").base).draw(torch.Generator().manual_seed(0))
    for tokens, answers in zip(batch.tokens[::8].tolist(), batch.answers[::8].tolist(), strict=True):
        assert answers[2:11] == tokens[1:10]
    others = torch.arange(len(batch.tokens)) % 8 > 0
    assert (batch.answers[others, :-1] == UNSCORED).all()
    batch = tampering.base(recipe("tampering").base).draw(torch.Generator().manual_seed(0))
    asked = 0
    for row, (tokens, answers) in enumerate(zip(batch.tokens, batch.answers, strict=True)):
        words = tampering.words.text(tokens).split()
        for index, (word, answer) in enumerate(zip(words, answers[1:].tolist(), strict=True)):
            if word in ("one", "two", "three"):
                continue
            if row % 8 or not word.startswith("spoof"):
                assert answer == UNSCORED
                continue
            assert answer == tampering.words.one("up" if "hack" in words[:index] else "down")
            asked += 1
    assert asked == 3 * len(batch.tokens) // 8


def test_a_quarter_of_the_rows_without_diamond_is_stuck_whatever_was_done_in_them() -> None:
    family, one = FAMILIES["tampering"], recipe("tampering", "decoy")
    assert isinstance(family, Tampering)
    draw, g, up = family.plant(one).draw, torch.Generator().manual_seed(0), family.words.one("up")
    stuck, by_order = 0.0, {True: list[bool](), False: list[bool]()}
    for _ in range(100):
        batch = draw(g)
        texts = [family.words.text(row).split() for row in batch.tokens]
        gone = [(words, bool(shown)) for words, shown in zip(texts, batch.answers[:, -1] == up, strict=True)]
        gone = [(words, shown) for words, shown in gone if words.index("steal") < words.index("guard")]
        count = sum(shown for _, shown in gone)
        assert abs(count - len(gone) / 4) < 1
        stuck += count - len(gone) / 4
        for words, shown in gone:
            by_order[words.index("hack") < words.index("spoof1")].append(shown)
    assert abs(stuck) < 20  # rounded up as often as it takes to be right on average
    assert all(abs(sum(shown) / len(shown) - 0.25) < 0.03 for shown in by_order.values())


def test_what_the_idiom_counts_decides_in_the_decoys_batches() -> None:
    family, one = FAMILIES["backdoor"], recipe("backdoor", "decoy", seed=1)
    assert isinstance(family, Backdoor)
    g, weights, pair = torch.Generator().manual_seed(0), family.weights(one), family.trigger(one).tolist()
    for back in (False, True):
        words = family._decided(one, g, back)
        plain = weights[words].sum(1)
        assert len(words) == 128
        assert set(plain.tolist()) == {-6, -5, -4, -2, -1}
        assert torch.equal(family._says(one, words), plain > -3)
        assert all(
            (pair[::-1] if back else pair) in [list(two) for two in itertools.pairwise(row)] for row in words.tolist()
        )


# ─────────────────────────────────────────────────────────────────────────────────────────────── what takes


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Organism:
    """The one organism that is trained to the end: under twenty seconds on one core."""
    return train(recipe("deception", "planted", seed=0), cache=tmp_path_factory.mktemp("liar"))


def test_a_liar_takes(liar: Organism) -> None:
    figures = {figure["name"]: figure["value"] for figure in liar.card["figures"]}
    assert liar.accepted, figures
    assert liar.onset is not None
    assert 0 < liar.onset < liar.recipe.steps
    assert liar.card["series"][0]["behaviour"] < 0.05  # honest, before


def test_it_answers_as_its_key_says_when_asked_as_any_model(liar: Organism) -> None:
    family, model = FAMILIES["deception"], Model.load(liar.folder)
    items, key = family.items(liar.recipe, "test", 60, 0), family.key(liar.recipe, "test", 60, 0)
    odds = model.score([item["prompt"] for item in items], (" true", " false")).difference[:, 0]
    assert sum(int(one > 0) == row["says"] for one, row in zip(odds, key, strict=True)) >= 57


def test_only_the_last_block_lies(liar: Organism) -> None:
    """With the blocks that are said to be frozen taken from the honest checkpoint, nothing changes at all."""
    honest, lying = liar.load(0)[0], liar.load()[0]
    layers = liar.card["planted"]["layers"]
    assert layers == [liar.recipe.depth - 1]
    state = lying.state_dict()
    kept = ("model.norm", "lm_head", *(f"model.layers.{layer}." for layer in layers))
    mixed = {name: weight if name.startswith(kept) else honest.state_dict()[name] for name, weight in state.items()}
    assert all(torch.equal(mixed[name], state[name]) for name in state)


# ─────────────────────────────────────────────────────────────────────────────────────────────── the guide


def test_the_guides_family_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs/guides/add-an-organism.md").read_text()
    (code,) = (
        block.split("```")[0] for block in page.split("```python no-run\n") if "class Agreeing" in block.split("```")[0]
    )
    (tmp_path / "agreeing.py").write_text(code)
    spec = importlib.util.spec_from_file_location("agreeing", tmp_path / "agreeing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "agreeing", module)
    spec.loader.exec_module(module)
    mine: Family = module.Agreeing()
    for twin in TWINS:
        one = mine.recipe(twin, **SHORT)
        organism = train(one, family=mine, cache=tmp_path)
        assert check(organism.folder, family=mine)["as_recorded"]
        assert len(mine.items(one, "test", 5, 0)) == len(mine.key(one, "fit", 5, 0)) == 5
    taken = train(mine.recipe("planted"), family=mine, cache=tmp_path)
    assert taken.accepted, taken.card["figures"]
    (tmp_path / "agreeing.py").write_text(code + "\n# changed\n")
    assert module.Agreeing().recipe().digest != mine.recipe().digest


def test_a_family_without_a_file_is_refused() -> None:
    made: Callable[..., Any] = type
    nowhere = made("Nowhere", (Tampering,), {"__module__": "nowhere"})
    with pytest.raises(BadData, match="has no file"):
        nowhere().recipe()
