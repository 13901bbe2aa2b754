"""Positions are absolute: padding on either side, the KV cache, windows and learned positions do not move them.

Everything here is compared with a reference that knows nothing of Assay: one plain hook, no cache, one row at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from assay import Intervention, Model, Prompt, ablate, add, noise, patch
from assay.errors import BadSite, NeverFired
from assay.model.anatomy import module_at

TEXTS = (
    "The Eiffel Tower is in the city of",
    "I love Paris",
    "true or false: the capital of Berlin is",
)  # 11, 4, 14 tokens
ANSWER = 7  # tokens; prompt and answer together reach beyond the tiny models' window of 12

# How a position reads, and what it names in a row of `prompt` + further tokens.
POSITIONS: dict[str, Callable[[int, int], bool]] = {
    "all": lambda at, prompt: True,
    "last": lambda at, prompt: at == prompt - 1,
    "last:": lambda at, prompt: at >= prompt - 1,
    "response": lambda at, prompt: at >= prompt,
    "-2": lambda at, prompt: at == prompt - 2,
    "-3:-1": lambda at, prompt: prompt - 3 <= at < prompt - 1,
    "0": lambda at, prompt: at == 0,
    "2:4": lambda at, prompt: 2 <= at < 4,
    "3:": lambda at, prompt: at >= 3,
}


def vector(seed: int = 0, width: int = 32) -> Tensor:
    return 2 * torch.randn(width, generator=torch.Generator().manual_seed(seed))


def act(at: str, place: str = "L1.resid") -> Intervention:
    return add(vector(), times=1, at=f"{place} @ {at}")


@torch.no_grad()
def reference(model: Model, tokens: Sequence[int], prompt: int, at: str) -> Tensor:
    """Logits ``[pos, vocab]`` of one row, with the vector added after block 1 where ``at`` says."""
    where = torch.tensor([POSITIONS[at](index, prompt) for index in range(len(tokens))])

    def hook(_: Any, __: Any, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        h = torch.where(where[None, :, None], h + vector(), h)
        return (h, *output[1:]) if isinstance(output, tuple) else h

    handle = module_at(model.hf, model.engine.anatomy.blocks)[1].register_forward_hook(hook)  # type: ignore[index]
    try:
        logits: Tensor = model.hf(torch.tensor([tokens]), use_cache=False).logits[0]
        return logits
    finally:
        handle.remove()


def written(model: Model, tokens: Sequence[int], at: str, count: int = ANSWER) -> list[int]:
    """The reference's greedy answer."""
    row = list(tokens)
    while len(row) < len(tokens) + count and (len(row) == len(tokens) or row[-1] not in model.stops):
        row.append(int(reference(model, row, len(tokens), at)[-1].argmax()))
    return row[len(tokens) :]


def padded(model: Model, texts: Sequence[str], left: bool = True, pad: int = 0) -> dict[str, Tensor]:
    rows = [model.row(text).tokens for text in texts]
    longest = max(map(len, rows)) + pad
    fill = [[0] * (longest - len(row)) for row in rows]
    ids = [[*gap, *row] if left else [*row, *gap] for gap, row in zip(fill, rows, strict=True)]
    ones = [
        [0] * len(gap) + [1] * len(row) if left else [1] * len(row) + [0] * len(gap)
        for gap, row in zip(fill, rows, strict=True)
    ]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(ones)}


def numbered(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with the position ids that its mask implies; models with learned positions need to be told."""
    return batch | {"position_ids": (batch["attention_mask"].cumsum(1) - 1).clamp_min(0)}


def close(a: Tensor, b: Tensor, most: float = 2e-4) -> bool:
    return float((a - b).abs().max()) <= most * max(1.0, float(b.abs().max()))


# Runs and generations of Assay's own.


@pytest.mark.parametrize("at", [at for at in POSITIONS if at != "response"])
def test_a_batch_of_unlike_rows(llama: Model, at: str) -> None:
    run = llama.run(a=TEXTS[0], b=TEXTS[1], c=TEXTS[2], under=act(at))
    for name, text in zip("abc", TEXTS, strict=True):
        tokens = llama.row(text).tokens
        assert close(run[name].logits, reference(llama, tokens, len(tokens), at))
    assert all(receipt.touched == receipt.expected > 0 for receipt in run.receipts)


def test_generation_acts_where_an_uncached_loop_does(model: Model) -> None:
    for at in POSITIONS:
        made = model.generate(list(TEXTS), tokens=ANSWER, under=act(at))
        for text, found in zip(TEXTS, made, strict=True):
            tokens = model.row(text).tokens
            assert list(found.tokens) == written(model, tokens, at), at
            fed = len(tokens) + len(found.tokens) - 1
            (receipt,) = found.receipts
            assert receipt.touched == sum(POSITIONS[at](index, len(tokens)) for index in range(fed))


def test_one_token_of_an_answer(model: Model) -> None:
    """Position 13 is the first answer's third token, the second's tenth, and the last of the third prompt."""
    POSITIONS["13"] = lambda at, prompt: at == 13
    made = model.generate(list(TEXTS), tokens=ANSWER + 6, under=act("13"))
    for text, found in zip(TEXTS, made, strict=True):
        assert list(found.tokens) == written(model, model.row(text).tokens, "13", ANSWER + 6)
        assert found.receipts[0].touched == (len(model.row(text).tokens) + len(found.tokens) - 1 > 13)


def test_teacher_forced_answers_are_touched_like_generated_ones(model: Model) -> None:
    for at in ("response", "last:", "-2", "all"):
        for text in TEXTS:
            tokens = model.row(text).tokens
            answer = written(model, tokens, at)
            prompt = Prompt.tokenized(tokens)
            scored = model.score([prompt], [[model.tokenizer.decode(answer)]], under=act(at))
            again = [*tokens, *model.tokenizer(model.tokenizer.decode(answer), add_special_tokens=False)["input_ids"]]
            logprobs = reference(model, again, len(tokens), at).log_softmax(-1)
            expected = sum(float(logprobs[place - 1, again[place]]) for place in range(len(tokens), len(again)))
            assert float(scored.total[0, 0, 0]) == pytest.approx(expected, abs=2e-3), at


def test_spans_are_found_in_every_row(model: Model) -> None:
    prompts = [Prompt("The {s} is in", s="Tower"), Prompt("I love the {s} city of Paris", s="Eiffel Tower")]
    run = model.run(a=prompts[0], b=prompts[1], under=act("s"))
    assert {receipt.row: receipt.touched for receipt in run.receipts} == {"a": 1, "b": 2}
    for name, prompt in zip("ab", prompts, strict=True):
        row = model.row(prompt)
        start, stop = row.spans["s"]
        POSITIONS["span"] = lambda at, _, start=start, stop=stop: start <= at < stop  # type: ignore[misc]
        assert close(run[name].logits, reference(model, row.tokens, row.prompt, "span"))
    last = model.run(prompts[1], under=act("s[-1]")).logits
    POSITIONS["span"] = lambda at, _: at == stop - 1
    assert close(last, reference(model, row.tokens, row.prompt, "span"))
    made = model.generate(prompts, tokens=4, under=act("s"))
    POSITIONS["span"] = lambda at, _: start <= at < stop
    assert list(made[1].tokens) == written(model, row.tokens, "span", 4)


# Calls that somebody else makes on the Hugging Face model.


def test_left_padded_calls(model: Model) -> None:
    batch = numbered(padded(model, TEXTS, pad=2))
    for at in (at for at in POSITIONS if at not in ("response", "13", "span")):
        with model.under(act(at)) as block, torch.no_grad():
            logits = model.hf(**batch).logits
        for index, text in enumerate(TEXTS):
            tokens = model.row(text).tokens
            assert close(logits[index, -len(tokens) :], reference(model, tokens, len(tokens), at)), at
            expected = sum(POSITIONS[at](place, len(tokens)) for place in range(len(tokens)))
            assert (block.receipts[index].row, block.receipts[index].touched) == (str(index), expected)


def test_right_padded_calls_and_embeddings(model: Model) -> None:
    batch = padded(model, TEXTS, left=False, pad=1)
    embedded = {
        "inputs_embeds": model.hf.get_input_embeddings()(batch["input_ids"]).detach(),
        "attention_mask": batch["attention_mask"],
    }
    if model.hf.config.model_type.startswith("gemma"):
        embedded = batch  # Gemma scales its embeddings inside the model, so these would not be what a user passes
    for call in (batch, embedded):
        with model.under(act("-2")), torch.no_grad():
            logits = model.hf(**call).logits
        for index, text in enumerate(TEXTS):
            tokens = model.row(text).tokens
            assert close(logits[index, : len(tokens)], reference(model, tokens, len(tokens), "-2"))


@pytest.mark.parametrize("left", [True, False])
def test_generate_of_transformers(model: Model, left: bool) -> None:
    """Left-padded, as transformers wants it; or one row at a time."""
    for at in ("all", "last:", "response", "-2", "2:4"):
        with model.under(act(at)) as block:
            if left:
                out = model.hf.generate(**padded(model, TEXTS), max_new_tokens=ANSWER, do_sample=False, pad_token_id=0)
                answers = out[:, 14:].tolist()
            else:
                answers = []
                for text in TEXTS:
                    ids = torch.tensor([model.row(text).tokens])
                    out = model.hf.generate(ids, max_new_tokens=ANSWER, do_sample=False, pad_token_id=0)
                    answers.append(out[0, ids.shape[1] :].tolist())
        for text, answer in zip(TEXTS, answers, strict=True):
            expected = written(model, model.row(text).tokens, at)
            assert answer[: len(expected)] == expected, at
            assert not any(answer[len(expected) :])
        assert len(block.receipts) == 3


def _hooked(model: Model) -> Any:
    """The same vector after block 1 at every token, by a plain hook."""
    block = module_at(model.hf, model.engine.anatomy.blocks)[1]  # type: ignore[index]
    return block.register_forward_hook(
        lambda _, __, out: (out[0] + vector(), *out[1:]) if isinstance(out, tuple) else out + vector()
    )


@pytest.mark.parametrize(
    "how",
    [
        dict(num_beams=3, do_sample=False),
        dict(num_beams=2, num_return_sequences=2, do_sample=False),
        dict(do_sample=True, num_return_sequences=2, temperature=0.7),
        dict(do_sample=False, use_cache=False),
        dict(do_sample=False, cache_implementation="static"),
        dict(do_sample=False, min_new_tokens=ANSWER, repetition_penalty=1.5),
        dict(do_sample=False, prefill_chunk_size=5),
    ],
    ids=lambda how: "-".join(map(str, how)),
)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_other_ways_to_generate(model: Model, how: dict[str, Any]) -> None:
    batch = padded(model, TEXTS[:2])
    settings = dict(max_new_tokens=ANSWER, pad_token_id=0, **how)

    def made() -> list[list[int]]:
        torch.manual_seed(0)
        return model.hf.generate(**batch, **settings).tolist()

    plain = made()
    handle = _hooked(model)
    try:
        expected = made()
    finally:
        handle.remove()
    with model.under(act("all")):
        assert made() == expected != plain
    assert made() == plain


def test_a_prompt_in_several_calls(model: Model) -> None:
    """What is fed in pieces is one sequence: positions and receipts go on from piece to piece."""
    tokens = model.row(TEXTS[0]).tokens
    ids = torch.tensor([tokens])
    for at in ("2:8", "all", "3:"):
        POSITIONS["2:8"] = lambda at, _: 2 <= at < 8
        with model.under(act(at)) as block, torch.no_grad():
            first = model.hf(ids[:, :5], use_cache=True)
            second = model.hf(ids[:, 5:9], past_key_values=first.past_key_values, use_cache=True)
            third = model.hf(ids[:, 9:], past_key_values=second.past_key_values, use_cache=True)
        logits = torch.cat([first.logits, second.logits, third.logits], dim=1)[0]
        assert close(logits, reference(model, tokens, len(tokens), at))
        (receipt,) = block.receipts
        assert receipt.touched == receipt.expected == sum(POSITIONS[at](index, 11) for index in range(11))


def test_a_prompt_that_was_cached_before_the_block(model: Model) -> None:
    """Steering only what comes later is no mistake: what lies in the cache was not there to be touched."""
    ids = torch.tensor([model.row(TEXTS[0]).tokens])
    with torch.no_grad():
        first = model.hf(ids[:, :6], use_cache=True)
        with model.under(act("all")) as block:
            second = model.hf(ids[:, 6:], past_key_values=first.past_key_values)
    POSITIONS["6:"] = lambda at, _: at >= 6
    assert close(second.logits[0], reference(model, ids[0].tolist(), 11, "6:")[6:])
    assert [(receipt.touched, receipt.expected) for receipt in block.receipts] == [(5, 5)]


def test_one_sequence_after_another_in_one_block(model: Model) -> None:
    with model.under(act("-2"), ablate(vector(1), at="L0.resid")) as block, torch.no_grad():
        for text in TEXTS:
            model.hf(torch.tensor([model.row(text).tokens]))
        model.run(TEXTS[0])  # a run of Assay's own carries its own receipts
    assert [receipt.touched for receipt in block.receipts] == [1, 11, 1, 4, 1, 14]


def test_noise_in_a_padded_call_is_that_of_the_run(model: Model) -> None:
    hurt = noise("embed @ 1:3", dose=2, seed=3)
    with model.under(hurt), torch.no_grad():
        logits = model.hf(**numbered(padded(model, TEXTS[:2], pad=1))).logits
    for index, text in enumerate(TEXTS[:2]):
        tokens = model.row(text).tokens
        assert close(logits[index, -len(tokens) :], model.run(text, under=hurt).logits)


def test_values_patched_into_a_prompt_stay_there_while_it_is_answered(model: Model) -> None:
    """Values for the tokens of the prompt fit a site that goes on into the answer."""
    clean = model.run(TEXTS[0], read=["L1.resid"])["row"]["L1.resid"]
    hurt = noise("embed", dose=3)
    mend = patch("L1.resid", source=clean)
    plain = model.generate(TEXTS[0], tokens=1)
    assert model.generate(TEXTS[0], tokens=1, under=[hurt, mend]).tokens == plain.tokens
    assert model.generate(TEXTS[0], tokens=ANSWER, under=mend).tokens == model.generate(TEXTS[0], tokens=ANSWER).tokens
    with model.under(mend), torch.no_grad():
        ids = torch.tensor([model.row(TEXTS[0]).tokens])
        assert close(model.hf(ids).logits[0], model.run(TEXTS[0]).logits)
        out = model.hf.generate(ids, max_new_tokens=ANSWER, do_sample=False, pad_token_id=0)
    assert tuple(out[0, 11:].tolist()) == model.generate(TEXTS[0], tokens=ANSWER).tokens


# What names nothing says so.


@pytest.mark.parametrize("at", ["response", "50", "40:"])
def test_a_block_whose_calls_never_reach_the_place(llama: Model, at: str) -> None:
    ids = torch.tensor([llama.row(TEXTS[0]).tokens])
    with pytest.raises(NeverFired) as caught, llama.under(act(at)):
        llama.hf(ids)
        llama.hf(ids)
    assert str(caught.value) == (
        f"add(tensor, times=1) at L1.resid @ {at} touched no activation\n\n"
        "  rows      0\n"
        f"  site      L1.resid @ {at}\n"
        "  found     no call in the block reached these positions\n\n"
        "  hint: name positions that are computed in the block: @ all, @ last, @ last:\n"
        "  see:  docs/errors/never-fired.md"
    )


def test_a_block_in_which_one_call_reaches_the_place(llama: Model) -> None:
    ids = torch.tensor([llama.row(TEXTS[0]).tokens])
    with llama.under(act("response")) as block, torch.no_grad():
        llama.hf(ids)
        llama.hf.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert [receipt.touched for receipt in block.receipts] == [0, 2]


@pytest.mark.parametrize(
    ("at", "what"), [("subject", "has no span"), ("-12", "names no token"), ("5:5", "names no token")]
)
def test_places_that_a_call_does_not_have(llama: Model, at: str, what: str) -> None:
    ids = torch.tensor([llama.row(TEXTS[0]).tokens])
    with pytest.raises(NeverFired, match=rf"touched no activation[\s\S]*{what}"), llama.under(act(at)):
        llama.hf(ids)


def test_logits_under_a_block(model: Model) -> None:
    """transformers asks for the last logits only; a token that is made impossible is never written."""
    plain = model.generate(TEXTS[0], tokens=4)
    ban = torch.zeros(model.shape.vocab)
    ban[plain.tokens[0]] = -1e4
    ids, natural = torch.tensor([model.row(TEXTS[0]).tokens]), model.run(TEXTS[0]).logits
    with model.under(add(ban, times=1, at="logits")):
        out = model.hf.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
        assert plain.tokens[0] not in out[0, 11:].tolist()
        assert close(model.run(TEXTS[0]).logits, natural + ban)


def test_patterns_of_left_padded_rows_are_refused(llama: Model) -> None:
    eye = patch("L1.head[0].pattern @ last", source=torch.eye(4)[-1:])
    with (
        pytest.raises(BadSite, match="patterns cannot be written in a call that is padded on the left"),
        llama.under(eye),
    ):
        llama.hf(**numbered(padded(llama, [TEXTS[1]], pad=2)))
