"""A grid is one call, and gives what a loop over its cells gives: one row, one condition, one pass, nothing shared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from assay import Intervention, Model, Prompt, Sampling, ablate, add, clamp, noise, patch
from assay.act.intervention import flat
from assay.act.receipt import Receipt
from assay.act.rows import Row
from assay.errors import BadData
from assay.run.forward import forward
from assay.run.generate import _argmax, _Drawing
from tests.tiny import tiny as fresh

PROMPTS = [
    Prompt("true or false: the {s} of Berlin is", s="capital city"),
    Prompt("The {s} is in the city of", s="Eiffel Tower"),
    Prompt("I love the {s}", s="Tower"),
    Prompt("A {s}", s="Tower"),
]
ANSWERS = [" Paris", " Rome and Paris", " not in Rome"]
TOKENS = 6


def vector(model: Model, place: str, seed: int = 0, *shape: int) -> Tensor:
    width = model.shape.width(model.sites(place)[0].part)
    assert width is not None
    return torch.randn(*shape, width, generator=torch.Generator().manual_seed(seed))


def conditions(model: Model) -> list[Intervention | tuple[Intervention, ...]]:
    """Every operation, at every entry and from every first token on, alone and together."""
    resid = vector(model, "L0.resid")
    found: list[Intervention | tuple[Intervention, ...]] = [
        (),
        add(resid, dose=0, at="L1.resid"),
        *(
            add(vector(model, "embed", seed), dose=2, at=f"L{seed}.resid @ {at}")
            for seed, at in enumerate(("all", "last", "-2:"))
        ),
        add(resid, times=2, at="embed @ s"),
        add(resid, times=-2, at="L2.resid @ s[-1]"),
        ablate(resid, vector(model, "embed", 5), at="L1.attn.out"),
        ablate(resid, at="everywhere"),
        clamp(resid, 3.0, at="L0.mlp.out @ last:"),
        add(vector(model, "L1.head[0].z"), times=3, at="L1.head[:].z"),
        add(vector(model, "L1.head[0].z", 1), times=3, at="L2.head[3].z @ -2:"),
        noise("embed @ s", dose=2, seed=1),
        noise("L1.mlp.out @ 1:", dose=1),
        patch("L1.resid @ last", source=vector(model, "embed", 7)),
        add(vector(model, "embed", 3, 2), times=2, at="L0.resid @ 1:"),
        (
            add(resid, dose=1, at="L2.resid @ -2:"),
            ablate(resid, at="L1.mlp.out @ last"),
            noise("L2.attn.out @ last", dose=1),
        ),
        (
            add(resid, times=1, at="L1.resid @ last:"),
            clamp(resid, 0.0, at="L1.resid @ last:"),
            add(resid, times=1, at="L1.resid @ s"),
        ),
    ]
    if "mid" not in model.shape.lacks:
        found.append((add(resid, times=2, at="L1.mid @ last:"), ablate(resid, at="L1.attn.out")))
    if "mlp.act" not in model.shape.lacks:
        found.append(add(vector(model, "L1.mlp.act"), times=2, at="L1.mlp.act @ 1:3"))
    return found


def alone(
    model: Model, prompt: Prompt, answer: str, condition: Intervention | Sequence[Intervention]
) -> tuple[float, tuple[Receipt, ...]]:
    """The log-probability of one answer, by one whole pass."""
    row = model.row(prompt, answer=answer)
    row = Row("0", row.tokens[:-1], row.prompt, row.spans, room=1)
    last = model.row(prompt, answer=answer).tokens[-1]
    run = forward(model, [row], flat(condition))
    logprobs = run.logits.double().log_softmax(-1)
    wanted = [*row.tokens[row.prompt :], last]
    return sum(float(logprobs[row.prompt - 1 + step, token]) for step, token in enumerate(wanted)), run.receipts


def told(receipts: Sequence[Receipt]) -> list[tuple[str, str, int]]:
    return sorted((receipt.site, receipt.what, receipt.touched) for receipt in receipts)


# Scores.


def test_scores_are_those_of_a_loop(model: Model) -> None:
    acts = conditions(model)
    grid = model.sweep(PROMPTS, acts, score=ANSWERS)
    assert grid.shape == (len(PROMPTS), len(acts))
    found = np.stack([grid.table[f"logprob_{index}"].to_numpy() for index in range(len(ANSWERS))], axis=-1).reshape(
        *grid.shape, -1
    )
    for number, prompt in enumerate(PROMPTS):
        for place, condition in enumerate(acts):
            for index, answer in enumerate(ANSWERS):
                expected, _ = alone(model, prompt, answer, condition)
                assert found[number, place, index] == pytest.approx(expected, abs=2e-3), (prompt, condition, answer)
    np.testing.assert_allclose(grid.scores, found[..., 0] - found[..., 1], atol=1e-9)


def test_the_receipts_of_a_grid_are_those_of_a_loop(model: Model) -> None:
    acts = conditions(model)
    scores = model.sweep(PROMPTS, acts, score=[[answer] for answer in (" Paris", " Rome and Paris", " not in", " no")])
    for number, prompt in enumerate(PROMPTS):
        for place, condition in enumerate(acts):
            cell = scores.table.slice(number * len(acts) + place, 1).to_pylist()[0]
            _, receipts = alone(model, prompt, (" Paris", " Rome and Paris", " not in", " no")[number], condition)
            assert (cell["prompt"], cell["condition"]) == (number, place)
            assert cell["touched"] == sum(receipt.touched for receipt in receipts)
            relative = [receipt.relative for receipt in receipts if receipt.relative is not None]
            assert (cell["relative"] is None) == (not relative)
            if relative:
                assert cell["relative"] == pytest.approx(sum(relative) / len(relative), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("at", ["response", "last:", "all", "-1", "11:", "12", "13:", "last", "5:12"])
def test_answers_read_before_the_first_touched_token(llama: Model, at: str) -> None:
    """The first token of an answer is scored at the prompt's last, which an intervention on the answer leaves alone."""
    prompt, answer = Prompt("The Eiffel Tower is in the city of"), " Paris and Rome in a city"
    act = add(vector(llama, "L1.resid"), times=2, at=f"L1.resid @ {at}")
    scores = llama.score(prompt, answer, under=act)
    expected, receipts = alone(llama, prompt, answer, act)
    assert float(scores.total[0, 0, 0]) == pytest.approx(expected, abs=1e-3)
    assert told(scores.receipts[0, 0]) == told(receipts)
    plain, _ = alone(llama, prompt, answer, ())
    assert abs(expected - plain) > 1e-2


def test_ragged_answers(llama: Model) -> None:
    answers = [[" Paris"], [" Rome", " Rome and Paris", " Berlin"], [" a"], [" yes", " no"]]
    scores = llama.score(PROMPTS, answers, under=add(vector(llama, "L1.resid"), times=1, at="L1.resid"))
    for number, options in enumerate(answers):
        for index, answer in enumerate(options):
            expected, _ = alone(llama, PROMPTS[number], answer, add(vector(llama, "L1.resid"), times=1, at="L1.resid"))
            assert float(scores.total[number, 0, index]) == pytest.approx(expected, abs=1e-3)
            row = llama.row(PROMPTS[number], answer=answer)
            assert scores.tokens[number, index] == len(row.tokens) - row.prompt
            assert scores.mean[number, 0, index] == pytest.approx(expected / scores.tokens[number, index], abs=1e-3)
        assert (scores.total[number, 0, len(options) :] == -math.inf).all()
        assert (scores.tokens[number, len(options) :] == 0).all()
    assert not np.isnan(scores.total).any() and not np.isnan(scores.mean).any()


def test_a_difference_needs_two_answers(llama: Model) -> None:
    with pytest.raises(BadData, match="a prompt with one answer has no difference"):
        _ = llama.score(PROMPTS[0], " Paris").difference
    mixed = [[" Paris"], [" Rome", " Paris"], [" a"], [" yes", " no"]]
    with pytest.raises(BadData, match="some prompts have one answer and some have several"):
        llama.sweep(PROMPTS, [()], score=mixed)
    two = llama.sweep(PROMPTS[:2], [()], score=[[" Paris", " Rome"], [" Rome", " Paris", " a"]])
    assert np.isfinite(two.scores).all()


def test_one_answer_for_all_or_the_same_for_all(llama: Model) -> None:
    one = llama.sweep(PROMPTS, [()], score=" Paris").scores
    np.testing.assert_allclose(one, llama.sweep(PROMPTS, [()], score=[[" Paris"]] * 4).scores, atol=1e-5)
    two = llama.score(PROMPTS, [" Paris", " Rome"])
    np.testing.assert_allclose(two.difference, llama.sweep(PROMPTS, [()], score=[" Paris", " Rome"]).scores, atol=1e-5)
    np.testing.assert_allclose(two.total[..., 0], one, atol=1e-5)
    assert two.answers == ((" Paris", " Rome"),) * 4


def test_the_probabilities_of_all_next_tokens_sum_to_one(llama: Model) -> None:
    words = [token for token in range(7, llama.shape.vocab)]
    prompt = Prompt.tokenized(llama.row("The city").tokens)
    act = add(vector(llama, "L1.resid"), dose=1, at="L1.resid")
    logits = llama.run(prompt, under=act).logits[-1].double().log_softmax(-1)
    texts = [llama.tokenizer.decode([token]) for token in words]
    single = [
        (token, text)
        for token, text in zip(words, texts, strict=True)
        if llama.tokenizer(text, add_special_tokens=False)["input_ids"] == [token]
    ]
    scores = llama.score(prompt, [text for _, text in single], under=act)
    np.testing.assert_allclose(scores.total[0, 0], logits[[token for token, _ in single]], atol=1e-4)
    assert len(single) > 100


# Generations.


def test_generations_are_those_of_a_loop(model: Model) -> None:
    acts = conditions(model)
    made = model.sweep(PROMPTS, acts, generate=TOKENS)
    for number, prompt in enumerate(PROMPTS):
        for place, condition in list(enumerate(acts))[number % 2 :: 2]:
            expected = model.generate(prompt, tokens=TOKENS, under=condition)
            assert made.table["tokens"].to_pylist()[number * len(acts) + place] == list(expected.tokens), (
                prompt,
                condition,
            )
            assert made.generated[number][place] == expected.text
            cell = made.table.slice(number * len(acts) + place, 1).to_pylist()[0]
            assert cell["touched"] == sum(receipt.touched for receipt in expected.receipts)


def test_rows_that_end_early_leave_and_the_others_go_on(family: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = Model.load(fresh(family), tokenizer=tokenizer, selftest=False)
    # A vector of each condition's own spreads the answers; every third token ends one, so rows leave at every step.
    acts = [add(vector(model, "L1.resid", seed), dose=2, at="L1.resid @ last:") for seed in range(12)]
    acts += [add(vector(model, "L0.head[1].z", seed), times=4, at="L0.head[1].z @ response") for seed in range(4)]
    endless = model.sweep(PROMPTS, acts, generate=10).table["tokens"].to_pylist()
    model.hf.generation_config.eos_token_id = list(range(2, model.shape.vocab, 5))
    made = model.sweep(PROMPTS, acts, generate=10)
    lengths = set()
    for cell, tokens in zip(made.table.to_pylist(), endless, strict=True):
        stop = next((step for step, token in enumerate(tokens, 1) if token in model.stops), len(tokens))
        assert cell["tokens"] == tokens[:stop]
        prompt = model.row(PROMPTS[cell["prompt"]]).prompt
        assert cell["touched"] == (stop if "last:" in cell["under"] else stop - 1), (cell, prompt)
        lengths.add(stop)
    assert len(lengths) > 2


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_a_memory_budget_changes_no_result(model: Model) -> None:
    acts = conditions(model)
    scores, texts = model.sweep(PROMPTS, acts, score=ANSWERS), model.sweep(PROMPTS, acts, generate=TOKENS)
    captured = model.capture(PROMPTS, "L:.resid @ last", under=acts[2])
    for memory in (1, 60_000):
        few = model.sweep(PROMPTS, acts, score=ANSWERS, memory=memory)
        np.testing.assert_allclose(few.scores, scores.scores, atol=2e-3)
        assert few.table["touched"] == scores.table["touched"]
        some = model.sweep(PROMPTS, acts, generate=TOKENS, memory=memory)
        assert some.table["tokens"] == texts.table["tokens"]
        assert some.table["touched"] == texts.table["touched"]
        again = model.capture(PROMPTS, "L:.resid @ last", under=acts[2], memory=memory)
        for site, values in captured.values.items():
            torch.testing.assert_close(again[site], values, atol=1e-4, rtol=1e-4)


def test_a_grid_inside_a_block_has_the_block_before_every_condition(llama: Model) -> None:
    outer, acts = ablate(vector(llama, "L0.resid", 9), at="L0.resid"), conditions(llama)
    with llama.under(outer):
        scores, texts = llama.sweep(PROMPTS, acts, score=ANSWERS), llama.sweep(PROMPTS, acts, generate=TOKENS)
        captured = llama.capture(PROMPTS, "L2.resid @ last")["L2.resid @ last"]
    whole = [(outer, *flat(act)) for act in acts]
    np.testing.assert_allclose(scores.scores, llama.sweep(PROMPTS, whole, score=ANSWERS).scores, atol=2e-3)
    assert texts.generated == llama.sweep(PROMPTS, whole, generate=TOKENS).generated
    torch.testing.assert_close(captured, llama.capture(PROMPTS, "L2.resid @ last", under=outer)["L2.resid @ last"])


# Sampling.


def test_sampling_depends_on_seed_and_prompt_and_nothing_else(llama: Model) -> None:
    acts = conditions(llama)[:8]
    sampling = Sampling(temperature=1.3, seed=3)
    grid = llama.sweep(PROMPTS, acts, generate=TOKENS, sampling=sampling)
    assert grid.generated == llama.sweep(PROMPTS, acts, generate=TOKENS, sampling=sampling, memory=1).generated
    for number, prompt in enumerate(PROMPTS):
        assert llama.generate(prompt, tokens=TOKENS, under=acts[3], sampling=sampling).text == grid.generated[number][3]
    turned = llama.sweep(PROMPTS[::-1], acts[::-1], generate=TOKENS, sampling=sampling)
    assert [row[::-1] for row in turned.generated[::-1]] == grid.generated
    other = llama.sweep(PROMPTS, acts, generate=TOKENS, sampling=Sampling(temperature=1.3, seed=4))
    assert other.generated != grid.generated
    both = llama.generate([PROMPTS[0]] * 2, tokens=TOKENS, sampling=sampling)
    assert both[0].text == both[1].text  # paired: conditions differ by the condition only
    assert grid.generated[0][0] == grid.generated[0][1]  # as it is, and at dose 0


def test_narrow_sampling_is_greedy(llama: Model) -> None:
    greedy = llama.sweep(PROMPTS, [()], generate=TOKENS).generated
    for narrow in (Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(temperature=1e-4)):
        assert llama.sweep(PROMPTS, [()], generate=TOKENS, sampling=narrow).generated == greedy


def _drawn(logits: Tensor, sampling: Sampling, count: int) -> np.ndarray:
    """How often each token is drawn, over as many prompts."""
    rows = [Row(str(index), (index, index + 1), 2) for index in range(count)]
    tokens = _Drawing(sampling, rows)(logits.expand(count, -1), torch.arange(count), 1)
    return np.bincount(tokens.numpy(), minlength=logits.shape[-1]) / count


def test_tokens_are_drawn_by_their_probabilities() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, 1.5, -3.0])
    count = 4000
    for temperature in (0.7, 1.0, 2.0):
        expected = (logits / temperature).softmax(-1).numpy()
        found = _drawn(logits, Sampling(temperature=temperature), count)
        assert np.abs(found - expected).max() < 4 * 0.5 / math.sqrt(count)
    best = _drawn(logits, Sampling(top_k=2), count)
    assert set(best.nonzero()[0]) == {3, 4}
    assert best[3] == pytest.approx(1 / (1 + math.exp(-0.5)), abs=0.03)
    # The likeliest three reach .83; with two it would be .73.
    nucleus = _drawn(logits, Sampling(top_p=0.8), count)
    assert set(nucleus.nonzero()[0]) == {0, 3, 4}
    assert set(_drawn(logits, Sampling(top_p=0.999999), count).nonzero()[0]) >= {0, 1, 2, 3, 4}


@given(st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0, 2.0 + 2**-22]), min_size=2 * 384, max_size=2 * 384))
def test_the_fast_argmax_is_the_first_maximum(numbers: list[float]) -> None:
    logits = torch.tensor(numbers).reshape(2, 384)
    assert _argmax(logits).tolist() == [row.index(max(row)) for row in logits.tolist()]
    assert _argmax(logits[:, :383].contiguous()).tolist() == [row.index(max(row)) for row in logits[:, :383].tolist()]


# The table.


def test_the_table_tells_every_cell(llama: Model) -> None:
    acts = [
        (),
        add(vector(llama, "L1.resid"), dose=0.5, at="L1.resid"),
        ablate(vector(llama, "L1.resid"), at="everywhere"),
    ]
    grid = llama.sweep(PROMPTS[:2], acts, score=" Paris")
    assert len(grid) == 6
    rows = grid.table.to_pylist()
    assert [(row["prompt"], row["condition"]) for row in rows] == [(p, c) for p in range(2) for c in range(3)]
    assert [row["op"] for row in rows[:3]] == [None, "add", "ablate"]
    assert [row["layer"] for row in rows[:3]] == [None, 1, None]
    assert [row["dose"] for row in rows[:3]] == [None, 0.5, None]
    assert [row["under"] for row in rows[:3]] == [
        "nothing",
        "add(tensor, dose=0.5) at L1.resid",
        "ablate(tensor) at everywhere",
    ]
    assert rows[0]["text"] == PROMPTS[0].text
    assert [row["relative"] is None for row in rows[:3]] == [True, False, False]
    assert abs(rows[2]["after"]) < 1e-4 < abs(rows[2]["before"])
    assert repr(grid).startswith("Grid(2 prompts × 3 conditions: prompt, condition, text, ")
    only = llama.sweep(PROMPTS[:1], [()], score=" Paris").table.schema
    assert [str(only.field(name).type) for name in ("op", "under", "layer", "relative")] == [
        "string",
        "string",
        "int64",
        "double",
    ]


def test_progress_counts_every_cell_once(llama: Model) -> None:
    for how in (
        dict(score=ANSWERS),
        dict(generate=TOKENS),
        dict(score=ANSWERS, memory=1),
        dict(generate=TOKENS, memory=1),
    ):
        seen: list[tuple[int, int]] = []
        llama.sweep(PROMPTS, conditions(llama)[:5], progress=lambda done, total: seen.append((done, total)), **how)  # noqa: B023
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        totals = {total for _, total in seen}
        assert len(totals) == 1
        assert seen[-1][0] <= totals.pop()


# Side effects.


@pytest.mark.parametrize("at", ["all", "last:", "response", "-2:", "last"])
def test_drift_is_that_of_whole_passes(llama: Model, at: str) -> None:
    texts = ["The Eiffel Tower is in the city of Paris and I love Paris", "true or false: Berlin is a city"]
    act = add(vector(llama, "L1.resid"), dose=1, at=f"L1.resid @ {at}")
    found = llama.drift(texts, [(), act])
    for number, text in enumerate(texts):
        tokens = llama.row(text).tokens
        row = Row("row", tokens, (len(tokens) + 1) // 2)
        natural, steered = (forward(llama, [row], under).logits.double().log_softmax(-1) for under in (None, act))
        places = range(row.prompt - 1, len(tokens) - 1)
        kl = [float((natural[p].exp() * (natural[p] - steered[p])).sum()) for p in places]
        nll = [-float(steered[p, tokens[p + 1]]) for p in places]
        assert found.tokens[number] == len(kl)
        assert found.kl[number, 1] == pytest.approx(sum(kl) / len(kl), abs=1e-4)
        assert found.nll[number, 1] == pytest.approx(sum(nll) / len(nll), abs=1e-4)
        assert found.kl[number, 0] == pytest.approx(0, abs=1e-6)
