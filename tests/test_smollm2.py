"""The contracts on the real model, SmolLM2-135M-Instruct: short, and few forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from assay import Model, Prompt, Sampling, ablate, add, freeze, noise, patch
from assay.errors import NeverFired

FACT = Prompt("The {subject} is in the city of", subject="Eiffel Tower")
TEXTS = ["The Eiffel Tower is in the city of", "Once upon a time, in a village by the sea,", "I hate you because"]
V = torch.randn(576, generator=torch.Generator().manual_seed(0))


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def ids(model: Model, text: str | Prompt) -> Tensor:
    return torch.tensor([model.row(text).tokens])


def close(a: Tensor, b: Tensor, most: float = 1e-3) -> bool:
    return float((a - b).abs().max()) <= most


@torch.no_grad()
def test_logits_are_those_of_transformers_to_the_bit(smollm2: Model) -> None:
    plain = smollm2.hf(ids(smollm2, FACT)).logits[0]
    run = smollm2.run(FACT, read=["L:.resid @ last", "L10.head[:].z"], under=add(V, dose=0, at="L10.resid"))
    assert bits(run.logits) == bits(plain)
    with smollm2.under(), smollm2.under(add(V, times=0, at="L3.mlp.out")):
        assert bits(smollm2.hf(ids(smollm2, FACT)).logits[0]) == bits(plain)


def test_it_was_proved_when_it_was_loaded(smollm2: Model) -> None:
    assert smollm2.tested is not None
    assert all(check.holds for check in smollm2.tested.checks)
    assert smollm2.loaded.revision.startswith("sha256:")
    assert (smollm2.shape.layers, smollm2.shape.heads, smollm2.shape.kv_heads) == (30, 9, 3)
    assert not smollm2.loaded.remote_code


# BOS and template, exactly once.


def test_a_chat_is_rendered_once_and_begins_once(smollm2: Model) -> None:
    row = smollm2.row(smollm2.chat("What is {x}?", x="the capital of France"))
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    expected = smollm2.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert list(row.tokens) == expected
    text = smollm2.decode(row.tokens)
    assert text.count("<|im_start|>assistant") == text.count("<|im_start|>user") == 1
    assert smollm2.decode(row.tokens[slice(*row.spans["x"])]).strip() == "the capital of France"
    plain = smollm2.row("What is the capital of France?").tokens
    assert list(plain) == smollm2.tokenizer("What is the capital of France?")["input_ids"]
    prefixed = smollm2.row(smollm2.chat("What is it?", prefix="It is"))
    assert smollm2.decode(prefixed.tokens).endswith("<|im_start|>assistant\nIt is")


def test_an_answer_to_a_chat_ends_by_itself(smollm2: Model) -> None:
    made = smollm2.generate(smollm2.chat("What is the capital of France? Answer in one word."), tokens=24)
    assert "Paris" in made.text
    assert made.tokens[-1] in smollm2.stops
    assert "<|im_end|>" not in made.text


# Generation.


def _padded(model: Model, texts: Sequence[str]) -> dict[str, Any]:
    rows = [model.row(text).tokens for text in texts]
    most = max(map(len, rows))
    return dict(
        input_ids=torch.tensor([[0] * (most - len(row)) + [*row] for row in rows]),
        attention_mask=torch.tensor([[0] * (most - len(row)) + [1] * len(row) for row in rows]),
    )


def test_greedy_generation_is_that_of_transformers(smollm2: Model) -> None:
    """One row at a time, as they are; under an intervention, also in one left-padded batch."""
    acts = [(), add(V, dose=1, at="L10.resid @ last:")]
    ours = smollm2.sweep(TEXTS, acts, generate=6).table["tokens"].to_pylist()
    for place, act in enumerate(acts):
        with smollm2.under(act):
            single = [
                smollm2.hf.generate(ids(smollm2, text), max_new_tokens=6, do_sample=False)[
                    0, ids(smollm2, text).shape[1] :
                ]
                for text in TEXTS
            ]
            batch = smollm2.hf.generate(**_padded(smollm2, TEXTS), max_new_tokens=6, do_sample=False)[:, -6:]
        for number in range(len(TEXTS)):
            assert ours[number * len(acts) + place] == single[number].tolist() == batch[number].tolist()
    assert ours[0] != ours[1]


def test_sampling_is_seeded(smollm2: Model) -> None:
    texts = [smollm2.generate(TEXTS[2], tokens=6, sampling=Sampling(seed=seed)).text for seed in (0, 0, 1, 2)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


# Interventions.


def test_worlds_of_causal_tracing(smollm2: Model) -> None:
    hurt = noise("embed @ subject", dose=3, into=["hurt", "mended", "whole"])
    mend = patch("L10.resid @ subject", source="clean", into="mended")
    whole = patch("L10.resid", source="clean", into="whole")
    run = smollm2.run(clean=FACT, hurt=FACT, mended=FACT, whole=FACT, under=[hurt, mend, whole], read=["L10.resid"])
    paris = smollm2.tokenizer(" Paris")["input_ids"][0]
    p = {name: float(run[name].logits[-1].softmax(-1)[paris]) for name in run.rows}
    assert p["clean"] > 0.2 > p["hurt"]
    assert p["mended"] > p["hurt"]
    assert bits(run["whole"]["L10.resid"]) == bits(run["clean"]["L10.resid"])
    assert close(run["whole"].logits, run["clean"].logits)
    subject = smollm2.row(FACT).spans["subject"]
    told = {receipt.row: receipt.touched for receipt in run.receipts if receipt.what == str(hurt)}
    assert told == dict.fromkeys(("hurt", "mended", "whole"), subject[1] - subject[0])


def test_there_and_back_and_gone(smollm2: Model) -> None:
    plain = smollm2.run(FACT)
    back = smollm2.run(FACT, under=[add(V, dose=2, at="L10.resid"), add(V, dose=-2, at="L10.resid")])
    assert close(back.logits, plain.logits)
    gone = smollm2.run(FACT, under=ablate(V, at="everywhere"), read=["L:.resid", "L:.attn.out"])
    for h in gone["row"].sites.values():
        assert float((h @ (V / V.norm())).abs().max()) < 1e-4 * float(h.norm(dim=-1).max())
    assert len(gone.receipts) == 90
    hidden = smollm2.run(FACT, under=[add(V, dose=2, at="L10.resid"), freeze("L20.resid")])
    assert close(hidden.logits, plain.logits)
    assert not close(smollm2.run(FACT, under=add(V, dose=2, at="L10.resid")).logits, plain.logits, 0.5)


def test_a_grid_is_its_cells(smollm2: Model) -> None:
    acts = [
        add(V, dose=0.5, at="L5.resid @ last"),
        add(V[:64], times=1, at="L7.head[4].z"),
        (ablate(V, at="L20.attn.out"), add(V, dose=0.2, at="L29.resid @ response")),
    ]
    scores = smollm2.sweep([FACT, TEXTS[0] + " love and"], acts, score=[" Paris", " the lights"]).scores
    for number, prompt in enumerate([FACT, TEXTS[0] + " love and"]):
        for place, act in enumerate(acts):
            with smollm2.under(act) as block:
                expected = []
                for answer in (" Paris", " the lights"):
                    row = smollm2.row(prompt, answer=answer)
                    with torch.no_grad():
                        first = smollm2.hf(torch.tensor([row.tokens[: row.prompt]]), use_cache=True)
                        logprobs = [first.logits[0, -1].log_softmax(-1)[row.tokens[row.prompt]]]
                        for at in range(row.prompt, len(row.tokens) - 1):
                            first = smollm2.hf(torch.tensor([[row.tokens[at]]]), past_key_values=first.past_key_values)
                            logprobs.append(first.logits[0, -1].log_softmax(-1)[row.tokens[at + 1]])
                    expected.append(float(sum(logprobs)))
            assert scores[number, place] == pytest.approx(expected[0] - expected[1], abs=2e-3)
            assert block.receipts


def test_captured_values_are_the_hidden_states_of_transformers(smollm2: Model) -> None:
    found = smollm2.capture(TEXTS, ["embed @ last", "L:.resid @ last"])
    with torch.no_grad():
        for number, text in enumerate(TEXTS):
            states = smollm2.hf(ids(smollm2, text), output_hidden_states=True).hidden_states
            assert close(found["embed @ last"][number], states[0][0, -1], 1e-4)
            for layer in range(29):  # the last hidden state of transformers is normed
                expected = states[layer + 1][0, -1]
                assert close(found[f"L{layer}.resid @ last"][number], expected, 1e-4 * float(expected.abs().max()))
            last = smollm2.hf.model.norm(found["L29.resid @ last"][number])
            assert close(last, states[30][0, -1], 1e-3 * float(last.abs().max()))


def test_what_never_fires_says_so(smollm2: Model) -> None:
    with pytest.raises(NeverFired, match=r"add\(tensor, dose=3\) at L17\.resid @ subject touched no activation"):
        smollm2.run(clean=TEXTS[0], under=add(V, dose=3, at="L17.resid @ subject"))
    assert np.isfinite(smollm2.typical_norm("L17.resid"))
