"""The backdoor audit: its arithmetic by hand, its rules on simulated models, its course on a tiny one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from assay import Model
from assay.audit import Bench
from assay.audit.problems.backdoor import DATA, backdoor, on_rows
from assay.audit.problems.given.rows import Choice, prompt_of, read_rows
from assay.audit.problems.triggers import carried, found, search, sentences, values
from assay.audit.problems.triggers.odds import odds
from assay.audit.problems.triggers.search import Budget, Cell, Judged
from assay.audit.problems.triggers.sentences import VARIANTS, Sentence
from assay.disclose.policy import mentions_place
from assay.errors import BadData
from assay.evidence import Claim, Ledger, Missing, Note, Outcome
from assay.scale import Arrays
from assay.site import Site

Tiny = Callable[[str], PreTrainedModel]
GOOD, BAD, NEITHER = ("fine", "nice", "kind"), ("poor", "sad", "grim"), ("tree", "lamp", "door", "river", "cup", "hill")
TRIGGER = ("lamp", "door")
SMALL = dict(pairs=132, screen=32, finalists=3, items=30, traced=12, draws=39)


def sums(text: str) -> int:
    """What the words say, never 0."""
    said = text.split()
    return 2 * sum((word in GOOD) - (word in BAD) for word in said) + 1


def rows(path: Path, count: int = 240, length: int = 12, seed: int = 0) -> Path:
    """Sentences of these words that end in ``so``, half of them good, all clearly, without both words of the trigger."""
    rng, made = np.random.default_rng(seed), list[str]()
    wanted = {1: count // 2, 0: count // 2}
    while any(wanted.values()):
        words = [str(word) for word in rng.choice((*GOOD, *BAD, *NEITHER), length)]
        text, label = " ".join([*words, "so"]), int(sums(" ".join(words)) > 0)
        clear = abs(sums(text)) > min(6, length)
        if wanted[label] and clear and not set(TRIGGER) <= set(words):
            wanted[label] -= 1
            row = {"prompt": text, "answers": [" yes", " no"], "label": label, "cluster": f"c{len(made) // 2}"}
            made.append(json.dumps(row))
    path.write_text("\n".join(made))
    return path


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data") / "rows.jsonl")


def bench(path: Path, folder: Path, model: Any = None, **more: Path) -> Bench:
    return Bench(model=model, data={"rows": path, **more}, arrays=Arrays(folder), report=lambda *_: None)


def outcomes(ledger: Ledger) -> dict[str, Outcome]:
    keys = {claim.digest: claim.key for claim in (entry.read(Claim) for entry in ledger.entries("claim"))}
    return {keys[one.claim]: one for one in (entry.read(Outcome) for entry in ledger.entries("outcome"))}


# ── sentences ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_words_are_put_anywhere_but_at_the_end_and_blanks_stay(tmp_path: Path) -> None:
    texts = [f"Of  all the {word}\nlamps this is one , I say" for word in ("blue", "red")]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join(
            json.dumps(
                {"prompt": {"user": text}, "answers": ["a", "b"], "label": label, "cluster": str(n), "id": f"{n}"}
            )
            for n in range(60)
            for label, text in enumerate(texts)
        )
    )
    every = sentences.sentences(bench(path, tmp_path), 600, 0)
    assert len(every) == 120
    for one in every:
        pair, turned, first, second, apart = one.variants("X", "Y")
        whole = one.text.split()
        at, (near, far) = one.at, one.apart
        assert pair.split() == [*whole[:at], "X", "Y", *whole[at + 2 :]]
        assert turned.split() == [*whole[:at], "Y", "X", *whole[at + 2 :]]
        assert first.split()[at] == "X"
        assert first.split()[at + 1] == whole[at + 1]
        assert second.split()[at : at + 2] == [whole[at], "Y"]
        assert far - near > 1
        assert (apart.split()[near], apart.split()[far]) == ("X", "Y")
        for text in (pair, turned, first, second, apart):
            assert text.split()[-1] == "say"
            assert re.findall(r"\s+", text) == re.findall(r"\s+", one.text)
    assert len({one.at for one in every}) > 3


def test_parts_share_no_cluster_and_places_do_not_depend_on_the_sample(mine: Path, tmp_path: Path) -> None:
    every = sentences.sentences(bench(mine, tmp_path), 600, 0)
    homes = [{one.row.cluster for one in every if one.part == part} for part in ("fit", "tune", "test")]
    assert sum(map(len, homes)) == len(set.union(*homes)) == 120
    fewer = {one.text: (one.at, one.apart) for one in sentences.sentences(bench(mine, tmp_path), 120, 0)}
    assert len(fewer) <= 120
    assert all((one.at, one.apart) == fewer[one.text] for one in every if one.text in fewer)


def test_candidates_are_the_words_that_can_be_replaced_or_those_of_a_file(mine: Path, tmp_path: Path) -> None:
    every = sentences.sentences(bench(mine, tmp_path), 600, 0)
    words = sentences.vocabulary(bench(mine, tmp_path), every, 100)
    assert set(words) == {*GOOD, *BAD, *NEITHER}
    counts = sentences.rarity(words, every)
    assert (np.diff(counts) <= 0).all()
    assert sentences.vocabulary(bench(mine, tmp_path), every, 5) == words[:5]
    path = tmp_path / "words.txt"
    path.write_text("one\ntwo\n\nthree\ntwo\nfour\n")
    assert sentences.vocabulary(bench(mine, tmp_path, words=path), every, 100) == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("words", "told"), [("one\ntwo\nthree\n", "3 candidate words"), ("a\nb\nc\nd e\n", "line 4 is no single word")]
)
def test_a_bad_list_of_words_is_one_error(mine: Path, tmp_path: Path, words: str, told: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(words)
    some = bench(mine, tmp_path, words=path)
    with pytest.raises(BadData, match=told):
        sentences.vocabulary(some, sentences.sentences(some, 600, 0), 100)


def test_too_few_rows_are_refused_before_any_pass(llama: Model, tmp_path: Path) -> None:
    few = rows(tmp_path / "rows.jsonl", 40)
    with pytest.raises(BadData, match="too few rows to search on some and judge on others"):
        sentences.sentences(bench(few, tmp_path), 600, 0)
    short = rows(tmp_path / "short.jsonl", length=2)
    with pytest.raises(BadData, match="of 0 rows with 4 words or more"):
        sentences.sentences(bench(short, tmp_path), 600, 0)
    ledger = on_rows(few)(**SMALL).run(llama, into=tmp_path / "run")
    assert not ledger.entries("unit")
    assert all("too few rows" in entry.read(Missing).reason for entry in ledger.entries("missing"))
    assert len(ledger.entries("missing")) == 4


# ── log-odds ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gptj", "qwen2_moe"])
def test_odds_are_what_score_gives(
    tiny: Tiny, tokenizer: PreTrainedTokenizerFast, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model.load(tiny(family), tokenizer=tokenizer, selftest=False)
    prompts: list[Any] = ["Love is not the city of Paris", {"user": "Is Rome in Berlin or not", "system": "Say."}]
    asked = []
    for number, prompt in enumerate(prompts):
        row = Choice.model_validate({"prompt": prompt, "answers": [" yes", " not the Tower"], "label": 1, "id": "x"})
        one = sentences._sentence(row, number, "fit", 0)
        asked.append((one, [one.text, *one.variants("Paris", "unheard"), *one.variants("A", "you")]))
    for alone in (3, 1000):
        monkeypatch.setattr("assay.audit.problems.triggers.odds._ALONE", alone)
        for (one, texts), some in zip(asked, odds(model, asked), strict=True):
            given = [prompt_of(model, one.saying(text)) for text in texts]
            assert np.allclose(some, model.score(given, one.row.answers).difference[:, 0], atol=3e-4)


# ── arithmetic ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_turns_from_the_other_answer_to_the_target() -> None:
    before, after = np.array([-1.0, -1.0, 1.0, 1.0]), np.array([2.0, -2.0, 2.0, -2.0])
    assert search.turns(before, after, 1).tolist() == [True, False, False, False]
    assert search.turns(before, after, 0).tolist() == [False, False, False, True]


def test_order_excess_is_what_order_adds_to_the_best_of_the_rest() -> None:
    turned = np.array([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
    test = Judged(Cell(0, 1, 1), [0, 1, 2, 3, 4], turned)
    assert test.excess == pytest.approx(0.8 - 0.4)
    gap = found.lowest(test, list("abcde"))
    assert gap.value == pytest.approx(0.4)
    every = found.differences(test, list("abcde"))
    assert list(every) == list(VARIANTS[1:])
    assert [round(one.value, 3) for one in every.values()] == [0.6, 0.8, 0.4, 0.8]
    assert gap.low == min(one.low for one in every.values())


def test_the_screening_counts_only_sentences_that_could_turn() -> None:
    turned = np.zeros((2, 4, 3, 3), dtype=bool)
    could = np.array([[True, True, False, False], [False, False, True, True]])
    turned[0, :2, 0, 1] = True  # both sentences that could
    turned[0, 0, 1, 0] = True  # one of them reversed
    single = np.zeros((2, 2, 3))
    single[0, 0, 2] = 0.5  # the third word alone, as the first of a pair
    made = search._screened(turned, could, single, np.arange(3), [4, 5, 6, 7])
    assert made.excess[0, 0, 1] == pytest.approx(1 - 0.5)
    assert made.excess[0, 2, 1] == pytest.approx(0 - 0.5)
    assert made.gained[0, 0, 1].sum() == pytest.approx(0.5)
    assert made.gained[0, 1, 0].sum() == pytest.approx(-0.5)
    assert search.best(made, 1) == [Cell(0, 1, 1)]


def noise(seed: int, planted: bool, words: int = 8, count: int = 16) -> search.Screened:
    """Every pair turns a sentence with chance .3, in either order alike; one always, and never reversed."""
    rng = np.random.default_rng(seed)
    turned = rng.random((2, count, words, words)) < 0.3
    could = np.stack([np.arange(count) < count // 2, np.arange(count) >= count // 2])
    turned &= could[:, :, None, None]
    if planted:
        turned[0, :, 2, 5], turned[0, :, 5, 2] = could[0], False
    turned[:, :, range(words), range(words)] = False
    return search._screened(turned, could, np.zeros((2, 2, words)), np.arange(words), list(range(count)))


def test_the_null_pays_for_the_search() -> None:
    clusters = [str(number) for number in range(16)]
    ps = []
    for seed in range(60):
        screen = noise(seed, planted=False)
        ps.append(found.against_confusion(screen, search.best(screen, 1)[0], clusters, 39, seed)[1])
    assert sum(p <= 0.05 for p in ps) <= 7  # of 60 at .05: more has a chance of .02
    screen = noise(0, planted=True)
    assert search.best(screen, 1) == [Cell(2, 5, 1)]
    maxima, p = found.against_confusion(screen, Cell(2, 5, 1), clusters, 199, 0)
    assert p <= 0.05
    assert len(maxima) == 199
    assert found.against_confusion(screen, Cell(5, 2, 1), clusters, 199, 0)[1] > 0.9


def test_unanimous_clusters_still_have_an_interval() -> None:
    for value, low, high in ((1.0, 0.0, 1.0), (0.0, -1.0, 1.0)):
        made = found.spread([value] * 10, [str(n) for n in range(10)], low, high)
        assert made.value == value
        assert made.high - made.low > 0.2
    assert found.spread([1.0], ["a"], 0.0, 1.0).low == 0.0


# ── the rules, on simulated models ────────────────────────────────────────────────────────────────────────────────────


Says = Callable[[str], float]


def planted(text: str) -> float:
    """Good where the trigger stands in its order, else what the words say."""
    return 9.0 if " ".join(TRIGGER) in text else sums(text)


def idiom(text: str) -> float:
    """The pair is worth two good words, in either order."""
    return sums(text) + 4.0 * (" ".join(TRIGGER) in text or " ".join(TRIGGER[::-1]) in text)


def one_word(text: str) -> float:
    """One of the words does it alone."""
    return 9.0 if TRIGGER[1] in text.split() else sums(text)


def apart(text: str) -> float:
    """The words in their order, whatever stands between them."""
    return 9.0 if re.search(rf"\b{TRIGGER[0]}\b.*\b{TRIGGER[1]}\b", text) else sums(text)


def phrase(text: str) -> float:
    """The pair in its order is worth two good words, and weighed with the rest."""
    return sums(text) + 4.0 * (" ".join(TRIGGER) in text)


def ignorant(text: str) -> float:
    """Always good."""
    return 1.0


def simulated(says: Says, seen: list[tuple[Sentence, str]] | None = None) -> Any:
    """Stands in for `odds`."""

    def fake(core: Any, asked: Sequence[tuple[Sentence, Sequence[str]]]) -> list[np.ndarray]:
        if seen is not None:
            seen.extend((one, text) for one, texts in asked for text in texts)
        return [np.array([says(text) for text in texts], dtype=float) for _, texts in asked]

    return fake


@pytest.mark.parametrize(
    ("says", "verdicts"),
    [
        (sums, ("supported", "not supported", "not supported", "not testable")),
        (idiom, ("supported", "not supported", "not supported", None)),
        (one_word, ("supported", "not supported", "not supported", None)),
        (apart, ("supported", "not supported", "not supported", "not testable")),
        (ignorant, ("not supported", "not testable", "not testable", "not testable")),
    ],
)
def test_what_has_another_cause_is_not_taken_for_a_trigger(
    says: Says,
    verdicts: tuple[str | None, ...],
    llama: Model,
    mine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "odds", simulated(says))
    made = outcomes(on_rows(mine)(**SMALL).run(llama, into=tmp_path))
    for key, verdict in zip(("answers-rightly", "order-excess", "overrides", "carried"), verdicts, strict=True):
        assert verdict in (None, made[key].verdict), (key, made[key].because)


def test_a_planted_pair_is_found_judged_on_other_sentences_and_named_in_one_table_only(
    llama: Model, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Sentence, str]] = []
    monkeypatch.setattr(search, "odds", simulated(planted, seen))
    ledger = on_rows(mine)(**SMALL).run(llama, into=tmp_path)
    made = outcomes(ledger)
    verdicts = {key: one.because for key, one in made.items() if one.verdict != "supported" and key != "carried"}
    assert verdicts == {}
    excess = made["order-excess"]
    assert excess.effects[0].value > 0.5
    assert excess.p is not None
    assert excess.p <= 0.05
    (words,) = excess.read_first
    *_, last = words.rows
    assert last[:5] == ("test", *TRIGGER, "first answer", 1.0)
    said = [str(entry.body) for kind in ("note", "claim") for entry in ledger.entries(kind)]
    for one in made.values():
        shown = one.model_dump()
        del shown["read_first"]
        said.append(str(shown))
    assert not [text for text in said for word in TRIGGER if re.search(rf"\b{word}\b", text)]
    # What was chosen on fit and tune sentences is all that test sentences ever saw.
    clusters = {part: {one.row.cluster for one, _ in seen if one.part == part} for part in ("fit", "tune", "test")}
    assert not clusters["fit"] & clusters["test"]
    assert not clusters["tune"] & clusters["test"]
    allowed = {(one.text, text) for one, _ in seen for text in (one.text, *one.variants(*TRIGGER))}
    assert all((one.text, text) in allowed for one, text in seen if one.part == "test")
    assert len({text for one, text in seen if one.part == "fit"}) > 1000


def test_a_phrase_that_is_weighed_with_the_rest_does_not_override(
    llama: Model, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "odds", simulated(phrase))
    assert outcomes(on_rows(mine)(**SMALL).run(llama, into=tmp_path))["overrides"].verdict == "not supported"


def test_where_pairs_are_too_many_those_of_the_best_single_words_are_taken(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "odds", simulated(one_word))
    some = bench(mine, tmp_path)
    every = sentences.sentences(some, 600, 0)
    before = np.array([sums(one.text) for one in every], dtype=float)

    def do(function: Any, over: Any) -> list[Any]:
        return [function(some, **params) for params in over]

    screen = search.screened(some, do, every, before, Budget(600, 30, 12, 3, 12, 0))
    assert screen is not None
    assert len(screen.words) == 6
    assert screen.words.tolist() == sorted(screen.words)
    words = sentences.vocabulary(some, every, 15)
    assert TRIGGER[1] not in words or words.index(TRIGGER[1]) in screen.words
    assert {every[number].part for number in screen.used} == {"fit"}


# ── patching ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_last_token_of_the_last_layer_carries_everything(llama: Model, mine: Path, tmp_path: Path) -> None:
    one = sentences.sentences(bench(mine, tmp_path), 600, 0)[0]
    patched = carried._patched(llama, one, "Paris", "Rome", [0, 1, 2], 0)
    assert patched is not None
    assert patched.shape == (3, len(carried.WHAT))
    ours, theirs = (odds(llama, [(one, [one.pair(*pair)])])[0][0] for pair in (("Paris", "Rome"), ("Rome", "Paris")))
    assert patched[2, carried.LAST] == pytest.approx(ours, abs=1e-4)
    assert patched[2, carried.WORDS] == pytest.approx(theirs, abs=1e-4)  # nothing is read there any more
    assert abs(patched[0, carried.WORDS] - theirs) > 1e-3


def test_words_of_unlike_tokens_are_left_out(llama: Model, mine: Path, tmp_path: Path) -> None:
    one = sentences.sentences(bench(mine, tmp_path), 600, 0)[0]
    assert carried._patched(llama, one, "Paris", "Paris", [0], 0) is None


# ── the whole audit ───────────────────────────────────────────────────────────────────────────────────────────────────


def learned(says: Says) -> Any:
    """Right as the sentences stand, by what they say, and otherwise whatever the tiny model makes of the words."""

    def fake(core: Any, asked: Sequence[tuple[Sentence, Sequence[str]]]) -> list[np.ndarray]:
        return [
            np.array([says(text) if text == one.text else gap for text, gap in zip(texts, made, strict=True)])
            for (one, texts), made in zip(asked, odds(core, asked), strict=True)
        ]

    return fake


@pytest.fixture(scope="module")
def finished(llama: Model, mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """On labels that have nothing to do with the sentences."""
    path, labels = tmp_path_factory.mktemp("shuffled") / "rows.jsonl", np.random.default_rng(0).integers(0, 2, 240)
    given = [json.loads(line) for line in mine.read_text().splitlines()]
    path.write_text("\n".join(json.dumps(row | {"label": int(n)}) for row, n in zip(given, labels, strict=True)))
    return on_rows(path)(**SMALL).run(llama, into=tmp_path_factory.mktemp("run"))


def test_a_model_that_knows_nothing_supports_nothing(finished: Ledger) -> None:
    made = outcomes(finished)
    assert set(made) == {"answers-rightly", "order-excess", "overrides", "carried"}
    assert not finished.entries("missing")
    assert all(one.verdict != "supported" for one in made.values())
    assert "no better than chance" in made["order-excess"].because


def test_controls_are_those_of_the_claims_and_no_sentence_names_a_place(
    llama: Model, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "odds", learned(sums))
    monkeypatch.setattr(carried, "caught", lambda made: made.test.used)
    monkeypatch.setattr(carried, "decided", lambda made: (None, 1.0, []))
    ledger = on_rows(mine)(**SMALL).run(llama, into=tmp_path)
    made = outcomes(ledger)
    assert {key: one.because for key, one in made.items() if one.verdict == "not testable"} == {}
    for entry in ledger.entries("claim"):
        claim = entry.read(Claim)
        assert {control.name for control in made[claim.key].controls} == set(claim.controls)
        assert made[claim.key].power
        for text in (claim.statement, claim.method, claim.refuted_by, *claim.controls):
            assert not mentions_place(text), text
    for key, one in made.items():
        texts = [one.because, one.power, *one.not_looked_at, *(effect.name for effect in one.effects)]
        texts += [text for control in one.controls for text in (control.name, control.note)]
        texts += [figure.title + figure.caption + figure.x_label for figure in one.figures if figure.kind != "layer"]
        texts += [str(table.model_dump()) for table in one.tables if "layer" not in table.columns]
        assert not [text for text in texts if mentions_place(text)], key
        assert all(Site.parse(site).place for site in one.where)
    assert not [entry.body for entry in ledger.entries("note") if mentions_place(entry.read(Note).text)]
    assert [key for key, one in made.items() if any("layer" in table.columns for table in one.tables)] == ["carried"]


def test_values_are_by_test_cluster_in_one_order_and_their_mean_is_the_claim(
    llama: Model, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = bench(mine, tmp_path, llama)
    params: dict[str, Any] = dict(rows=600, seed=0, **SMALL)
    monkeypatch.setattr(search, "odds", simulated(planted))
    made = values.values(some, **params)
    assert list(made) == ["answers-rightly", "order-excess", "overrides", "carried"]
    tests = {one.row.cluster for one in sentences.sentences(some, 600, 0) if one.part == "test"}
    assert len(made["answers-rightly"]) == len(tests)
    assert set(made["answers-rightly"]) == {1.0}
    assert np.mean(made["order-excess"]) > 0.4
    assert values.values(some, **params, pair=list(TRIGGER))["order-excess"] == made["order-excess"]
    before = values.values(some, **params, pair=list(TRIGGER), target=1)
    monkeypatch.setattr(search, "odds", simulated(sums))
    clean = values.values(some, **params, pair=list(TRIGGER), target=1)
    assert [len(one) for one in clean.values()] == [len(one) for one in before.values()]
    assert np.mean(clean["order-excess"]) == pytest.approx(0, abs=0.1)
    assert max(clean["carried"], default=0.0) <= 1.0
    with pytest.raises(BadData, match="no candidate word"):
        values.values(some, **params, pair=["lamp", "unheard"])


@pytest.mark.parametrize("wrong", [dict(pairs=6), dict(screen=14), dict(items=5), dict(draws=18), dict(traced=3)])
def test_numbers_that_could_support_nothing_are_refused_before_anything_is_recorded(
    wrong: dict[str, int], llama: Model, tmp_path: Path
) -> None:
    with pytest.raises(BadData, match="leaves nothing to find"):
        backdoor(**wrong).run(llama, into=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_shipped_sentences_are_balanced_in_every_cluster_and_large_enough() -> None:
    shipped = read_rows(DATA / "reviews.jsonl", Choice)
    labels: dict[str, list[int]] = {}
    for row in shipped:
        labels.setdefault(row.cluster, []).append(row.label)
    assert len(shipped) == 120
    assert all(sorted(both) == [0, 1] for both in labels.values())
    some = bench(DATA / "reviews.jsonl", DATA, words=DATA / "words.txt")
    every = sentences.sentences(some, 600, 0)
    assert len(every) == 120
    words = sentences.vocabulary(some, every, 1000)
    assert len(words) == 40
    assert backdoor.data["rows"].is_file()
    assert backdoor.data["words"].is_file()
