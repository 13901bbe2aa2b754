"""Prompts, their spans and their tokens; pairs whose splits cannot leak."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from assay import Pair, Pairs, Prompt
from assay.errors import BadData, EmptyData, LeakedData, NoSuchPosition
from assay.model.encode import continuation, encode
from assay.pairs import refuse_leak
from tests.tiny import tokenizer as make_tokenizer


def _texts(tokenizer: PreTrainedTokenizerFast, prompt: str | Prompt, answer: str = "") -> list[str]:
    return tokenizer.convert_ids_to_tokens(encode(tokenizer, Prompt.of(prompt), "row", answer).tokens)


# Spans.


def test_a_span_is_where_its_text_is() -> None:
    prompt = Prompt("The {subject} is in the {place} of", subject="Eiffel Tower", place="city")
    assert prompt.text == "The Eiffel Tower is in the city of"
    assert {name: prompt.text[a:b] for name, a, b in prompt.spans} == {"subject": "Eiffel Tower", "place": "city"}


def test_braces() -> None:
    assert Prompt('{"a": 1}').text == '{"a": 1}'  # a plain text is never a template
    assert Prompt("{{x}} {s}", s="is").text == "{x} is"


letters = st.text("abeio TRé", min_size=1, max_size=9)


@given(letters, letters, letters, st.booleans())
def test_a_span_is_the_tokens_that_touch_its_characters(before: str, inside: str, after: str, chat: bool) -> None:
    tokenizer = make_tokenizer()
    row = encode(tokenizer, (Prompt.chat if chat else Prompt)(before + "{s}" + after, s=inside), "row")
    first = len(("<bos><|user|>" if chat else "<bos>") + before.encode().decode("latin-1"))
    last, at, touched = first + len(inside.encode()), 0, []
    for index, token in enumerate(tokenizer.convert_ids_to_tokens(row.tokens)):
        if at < last and at + len(token) > first:  # a letter of a token is a byte of the text
            touched.append(index)
        at += len(token)
    assert row.spans["s"] == (touched[0], touched[-1] + 1)


@given(letters, letters, st.lists(st.integers(0, 9), min_size=1), st.none() | st.tuples(letters, letters))
def test_prompts_and_pairs_survive_json(
    text: str, inside: str, ids: list[int], answers: tuple[str, str] | None
) -> None:
    prompts = [
        Prompt(text),
        Prompt("{s} " + text.replace("{", "").replace("}", ""), s=inside),
        Prompt.chat("{s}", system=text, before=[("user", text), ("assistant", inside)], prefix=inside, s=text),
        Prompt.tokenized(ids),
    ]
    pairs = Pairs(tuple(Pair(one, prompts[0], prompts[1], answers, inside, text) for one in prompts))
    back = Pairs.from_json(json.loads(json.dumps(pairs.to_json())))
    assert back == pairs
    assert back.digest == pairs.digest


@pytest.mark.parametrize("message", ["is", "a", "user", "assistant", "end", "<|end|>", "bos"])
def test_a_span_in_a_chat_is_in_the_message_even_where_the_template_says_the_same(
    tokenizer: PreTrainedTokenizerFast, message: str
) -> None:
    """The last "is" of the rendered chat stands in "<|assistant|>"."""
    row = encode(tokenizer, Prompt.chat("{s}", s=message), "row")
    assert tokenizer.decode(row.tokens[slice(*row.spans["s"])]) == message
    assert row.tokens[: row.spans["s"][0]] == tuple(tokenizer.convert_tokens_to_ids(["<bos>", "<|user|>"]))


def test_a_template_that_alters_the_message(tokenizer: PreTrainedTokenizerFast) -> None:
    trims = make_tokenizer.__wrapped__()
    trims.chat_template = tokenizer.chat_template.replace("m['content']", "m['content'].strip()")
    assert encode(trims, Prompt.chat(" no "), "row").tokens == encode(trims, Prompt.chat("no"), "row").tokens
    with pytest.raises(NoSuchPosition, match="the chat template altered the message, so its spans cannot be found"):
        encode(trims, Prompt.chat(" {s} ", s="no"), "row")


@pytest.mark.parametrize(
    ("template", "spans", "what"),
    [
        ("The {x} is", dict(s="a"), "the prompt 'The {x} is' uses {x}, which is not given"),
        ("The {s} {} is", dict(s="a"), "uses {}, which is not given"),
        ("The {s!r} is", dict(s="a"), "uses {s}, which is not given"),
        ("The is", dict(s="a"), "the prompt 'The is' has no place for s"),
        ("The {s", dict(s="a"), "the prompt 'The {s' does not read"),
        ("The {s} }", dict(s="a"), "does not read"),
        ("The {s} and {s}", dict(s="a"), "cannot have a span 's'"),
        ("The {last} is", dict(last="a"), "cannot have a span 'last'"),
        ("The {all} is", dict(all="a"), "cannot have a span 'all'"),
        ("The {response} is", dict(response="a"), "cannot have a span 'response'"),
        ("The {é} is", dict(é="a"), "cannot have a span 'é'"),
    ],
)
def test_spans_that_could_not_be_found_again(template: str, spans: dict[str, str], what: str) -> None:
    for make in (Prompt, Prompt.chat):
        with pytest.raises(BadData) as caught:
            make(template, **spans)
        assert what in caught.value.what


def test_the_text_of_a_reserved_span() -> None:
    with pytest.raises(BadData) as caught:
        Prompt("The {last} is", last="Tower")
    assert str(caught.value) == (
        "the prompt 'The {last} is' cannot have a span 'last'\n\n"
        "  found     positions do not read that word as the name of a span\n\n"
        "  hint: give each span a plain name of its own, other than all, last and response\n"
        "  see:  docs/errors/bad-data.md"
    )


# Tokens: BOS and template exactly once, answers as they would be tokenised in place.


def test_bos_once(tokenizer: PreTrainedTokenizerFast) -> None:
    assert _texts(tokenizer, "The Tower")[:2] == ["<bos>", "T"]
    assert _texts(tokenizer, "<bos>The Tower").count("<bos>") == 1
    chat = ["<bos>", "<|system|>", "A", "<|end|>", "<|user|>", "B", "<|end|>", "<|assistant|>", "n", "o"]
    assert _texts(tokenizer, Prompt.chat("B", system="A", prefix="no")) == chat


def test_earlier_turns(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = Prompt.chat("B", before=[("user", "A"), ("assistant", "no")])
    assert (
        "".join(_texts(tokenizer, prompt)) == "<bos><|user|>A<|end|><|assistant|>no<|end|><|user|>B<|end|><|assistant|>"
    )


def test_a_tokenizer_that_closes_a_text(tokenizer: PreTrainedTokenizerFast) -> None:
    closes = make_tokenizer.__wrapped__()
    closes.add_eos_token = True
    closes.backend_tokenizer.post_processor = type(closes.backend_tokenizer.post_processor)(
        single="<bos> $A <eos>",
        pair="<bos> $A $B <eos>",
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<bos>", "<eos>")],
    )
    assert closes("The")["input_ids"][-1] == closes.eos_token_id
    assert _texts(closes, "The") == _texts(tokenizer, "The")
    assert _texts(closes, "The<eos>")[-1] == "<eos>"  # what the user writes stays
    assert _texts(closes, "The", " Paris")[-1] == "ĠParis"


def test_answers(tokenizer: PreTrainedTokenizerFast) -> None:
    row = encode(tokenizer, Prompt("in"), "row", " Paris and")
    assert row.tokens[row.prompt :] == tuple(tokenizer(" Paris and", add_special_tokens=False)["input_ids"])
    for answer in ("aris", ""):
        with pytest.raises(BadData, match=f"the answer {answer!r} does not begin at a token of its own"):
            continuation(tokenizer, Prompt("in P"), encode(tokenizer, Prompt("in P"), "row").tokens, answer or "")
    with pytest.raises(BadData) as caught:
        encode(tokenizer, Prompt("in "), "row", "Paris")
    assert str(caught.value) == (
        "the answer 'Paris' does not begin at a token of its own\n\n"
        "  found     after 'in ' it tokenises as … n ĠParis\n\n"
        "  hint: move the blank from the end of the prompt to the front of the answer: ' Paris'\n"
        "  see:  docs/errors/bad-data.md"
    )


def test_tokens_as_they_are(tokenizer: PreTrainedTokenizerFast) -> None:
    row = encode(tokenizer, Prompt.tokenized([7, 9, 11]), "row", " Paris")
    assert row.tokens == (7, 9, 11, *tokenizer(" Paris", add_special_tokens=False)["input_ids"])
    assert row.prompt == 3
    assert Prompt.tokenized([7, 9]).digest != Prompt("7 9").digest
    with pytest.raises(BadData, match="does not begin at a token of its own"):
        encode(tokenizer, Prompt.tokenized([7]), "row").tokens + continuation(
            tokenizer, Prompt.tokenized([7]), (7,), ""
        )


@pytest.mark.parametrize("prompt", ["", Prompt(""), Prompt.tokenized([])])
def test_prompts_of_nothing(tokenizer: PreTrainedTokenizerFast, prompt: str | Prompt) -> None:
    """A BOS that the tokenizer adds to an empty text is not a text."""
    with pytest.raises(EmptyData, match=r"the prompt 'row' (tokenises to nothing|has no tokens)"):
        encode(tokenizer, Prompt.of(prompt), "row")


def test_what_is_no_prompt() -> None:
    with pytest.raises(BadData, match="a prompt is text, not 7"):
        Prompt(7)  # type: ignore[arg-type]


def test_chats_that_a_model_cannot_hold(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = make_tokenizer.__wrapped__()
    plain.chat_template = None
    with pytest.raises(BadData, match="this model has no chat template, and the prompt is a chat"):
        encode(plain, Prompt.chat("no"), "row")
    plain.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}a"
    assert encode(plain, Prompt.chat("no"), "row").tokens
    with pytest.raises(
        BadData, match=r"the chat template refuses these turns[\s\S]*found     system user: no system role"
    ):
        encode(plain, Prompt.chat("no", system="A"), "row")


# Pairs.


def _pairs(count: int, clusters: int | None = None) -> Pairs:
    names = [] if clusters is None else [f"c{index % clusters}" for index in range(count)]
    return Pairs.of([f"good {i}" for i in range(count)], [f"bad {i}" for i in range(count)], names)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from(["", "x", "y", "z", "w"])),
        min_size=6,
        max_size=24,
    )
)
def test_no_content_and_no_cluster_is_on_two_sides(items: list[tuple[int, int, str]]) -> None:
    pairs = Pairs(tuple(Pair(Prompt(f"p{a}"), Prompt(f"n{b}"), cluster=c) for a, b, c in items))
    try:
        parts = pairs.split(0.4, 0.3, seed=1)
    except EmptyData:
        return
    sides = [parts.fit, parts.tune, parts.test]
    assert sorted(pair.digest for side in sides for pair in side) == sorted(pair.digest for pair in pairs)
    for a in range(3):
        for b in range(a):
            assert not sides[a].digests & sides[b].digests
            assert not set(sides[a].clusters) & set(sides[b].clusters)


def test_splits_depend_on_the_seed_alone() -> None:
    a, b, c = (_pairs(40).split(seed=seed) for seed in (0, 0, 1))
    assert a == b != c
    assert (len(a.fit), len(a.tune), len(a.test)) == (20, 8, 12)


def test_identity_is_the_content() -> None:
    assert Prompt("a {s}", s="b").digest == Prompt("a b").digest != Prompt.chat("a b").digest
    assert Prompt.chat("a", prefix="b").digest != Prompt.chat("ab").digest
    assert Pairs(tuple(reversed(_pairs(4).items))).digest == _pairs(4).digest


def test_leaks_are_refused() -> None:
    used = _pairs(4).digests
    refuse_leak(used, [Prompt("fresh")], "honest")
    with pytest.raises(LeakedData, match=r"1 test prompts were used to find or tune honest\n\n  found     'good 0'"):
        refuse_leak(used, [Prompt("fresh"), Prompt("{s} 0", s="good")], "honest")


def test_no_pairs_at_all() -> None:
    with pytest.raises(EmptyData, match="there are no pairs"):
        Pairs(())
    with pytest.raises(EmptyData, match="there are no pairs"):
        _pairs(4)[4:]
    with pytest.raises(EmptyData, match=r"a split of 2 clusters into fit=0\.5, tune=0\.2 leaves a part empty"):
        _pairs(2).split()
    with pytest.raises(BadData, match="positives and negatives do not pair up"):
        Pairs.of(["a"], [])


# Files.


def _file(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_the_three_formats(tmp_path: Path) -> None:
    rows = [
        dict(positive=f"p{i}", negative=f"n{i}", question="q", answers=["A", "B"], cluster="c", topic="t")
        for i in range(2)
    ]
    lines = Pairs.load(_file(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n"))
    assert lines == Pairs.load(_file(tmp_path, "a.json", json.dumps(rows)))
    csv = "positive,negative,question,answers,cluster,topic\np0,n0,q,A|B,c,t\np1,n1,q,A|B,c,t\n"
    assert lines == Pairs.load(_file(tmp_path, "a.csv", csv)) == Pairs.load(_file(tmp_path, "b.csv", "\ufeff" + csv))
    assert lines[0] == Pair(Prompt("p0"), Prompt("n0"), Prompt("q"), ("A", "B"), "c", "t")


def test_a_cluster_named_zero_is_a_cluster(tmp_path: Path) -> None:
    """Zero is real: were it lost, items of cluster 0 would be split apart and leak."""
    rows = [dict(positive=f"p{i}", negative=f"n{i}", cluster=i % 2, topic=0) for i in range(6)]
    pairs = Pairs.load(_file(tmp_path, "a.json", json.dumps(rows)))
    assert pairs.clusters == ["0", "1"]
    assert {pair.topic for pair in pairs} == {"0"}


def test_a_line_ends_at_a_line_feed_only(tmp_path: Path) -> None:
    rows = [dict(positive="a\u2028b\x85c", negative="n")]
    pairs = Pairs.load(_file(tmp_path, "a.jsonl", json.dumps(rows[0], ensure_ascii=False)))
    assert pairs[0].positive.text == "a\u2028b\x85c"


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.jsonl", '{"positive": "p", "negative": "n"}\n\n{"positive', "a.jsonl, line 3 is no JSON"),
        ("a.jsonl", '{"positive": "p", "negative": "n"}\n{"positive": "p"}', "a.jsonl, item 2 has no negative"),
        ("a.jsonl", '{"positive": "", "negative": 3}', "a.jsonl, item 1 has no positive and no negative"),
        ("a.jsonl", "[1]", "a.jsonl, item 1 is no object"),
        ("a.jsonl", '{"positive": "p", "negative": "n", "answers": ["A"]}', "a.jsonl, item 1 has 1 answers"),
        ("a.json", '{"positive": "p"}', "does not read"),
        ("a.json", "[", "does not read"),
        ("a.csv", "positive\np\n", "a.csv, item 1 has no negative"),
        (
            "a.json",
            '[{"question": "q", "answer_matching_behavior": "(A)"}]',
            "an A/B item needs two different answer letters",
        ),
        (
            "a.json",
            '[{"question": "q", "answer_matching_behavior": 5, "answer_not_matching_behavior": 5}]',
            "an A/B item needs",
        ),
    ],
)
def test_files_that_are_not_pairs(tmp_path: Path, name: str, text: str, what: str) -> None:
    with pytest.raises(BadData) as caught:
        Pairs.load(_file(tmp_path, name, text))
    assert what in caught.value.what


def test_files_that_are_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="does not read"):
        Pairs.load(tmp_path / "no.jsonl")
    with pytest.raises(EmptyData, match="there are no pairs"):
        Pairs.load(_file(tmp_path, "empty.jsonl", "\n"))
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadData, match="does not read"):
        Pairs.load(tmp_path / "bytes.jsonl")


def test_the_answer_letter_protocol(tokenizer: PreTrainedTokenizerFast) -> None:
    (pair,) = Pairs.answers_ab([("Is it?\n(A) yes\n(B) no ", " (B)", " (A)")])
    assert pair.answers == ("B", "A")
    assert _texts(tokenizer, pair.positive)[-3:] == ["<|assistant|>", "(", "B"]
    assert _texts(tokenizer, pair.negative)[-3:] == ["<|assistant|>", "(", "A"]
    assert pair.question is not None
    assert _texts(tokenizer, pair.question, "B")[-3:] == ["<|assistant|>", "(", "B"]
    assert pair.swapped().positive == pair.negative


def test_a_text_before_a_prompt_moves_its_spans_along() -> None:
    after = Prompt("The {subject} is", subject="Tower").after("Note. ")
    ((name, start, end),) = after.spans
    assert (after.text, name, after.text[start:end]) == ("Note. The Tower is", "subject", "Tower")
    turns: Any = [("user", "a"), ("assistant", "b")]
    chat = Prompt.chat("Is it?", system="You are.", before=turns, prefix="(").after("Be.\n\n")
    assert chat == Prompt.chat("Be.\n\nIs it?", system="You are.", before=turns, prefix="(")
    with pytest.raises(BadData, match="given as tokens: 'Be honest.'"):
        Prompt.tokenized([1, 2]).after("Be honest.\n\n")
