"""The tiny models are what the other tests take them for: alike when made alike, and sensitive to every mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from tests.tiny import FAMILIES, LAYERS
from tests.tiny import tiny as fresh

Tiny = Callable[[str], PreTrainedModel]
TEXT = "The Eiffel Tower is in the city of Paris and the Tower"


def _ids(tokenizer: PreTrainedTokenizerFast, text: str = TEXT) -> Tensor:
    return torch.tensor([tokenizer(text)["input_ids"]])


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: Tensor, **more: object) -> Tensor:
    logits: Tensor = model(ids, **more).logits
    return logits


def test_there_are_fourteen_families() -> None:
    assert len(FAMILIES) == 14


def test_same_seed_same_weights(family: str, tiny: Tiny, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = _ids(tokenizer)
    there, again, other = tiny(family), fresh(family), fresh(family, seed=1)
    assert there.config.num_hidden_layers == LAYERS
    assert torch.equal(_logits(there, ids), _logits(again, ids))
    assert not torch.allclose(_logits(there, ids), _logits(other, ids), atol=0.1)


def test_order_and_distance_matter(family: str, tiny: Tiny, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = _ids(tokenizer)
    swapped = ids.clone()
    swapped[0, [4, 5]] = ids[0, [5, 4]]
    model = tiny(family)
    assert (_logits(model, ids)[0, -1] - _logits(model, swapped)[0, -1]).abs().max() > 0.05
    stretched = torch.arange(ids.shape[1])[None] * 3
    assert (_logits(model, ids) - _logits(model, ids, position_ids=stretched)).abs().max() > 0.05


def _left_padded(ids: Tensor, pad_id: int, pad: int = 5) -> tuple[Tensor, dict[str, Tensor]]:
    """The row with ``pad`` tokens before it, and the mask and positions that undo them."""
    padded = torch.cat([torch.full((1, pad), pad_id), ids], dim=1)
    mask = (torch.arange(padded.shape[1]) >= pad).long()[None]
    return padded, {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def test_left_padded_is_unpadded(family: str, tiny: Tiny, tokenizer: PreTrainedTokenizerFast) -> None:
    ids, model = _ids(tokenizer), tiny(family)
    padded, more = _left_padded(ids, tokenizer.pad_token_id)
    torch.testing.assert_close(_logits(model, padded, **more)[:, 5:], _logits(model, ids), atol=1e-4, rtol=0)


def test_padding_without_positions_is_seen(tiny: Tiny, tokenizer: PreTrainedTokenizerFast) -> None:
    """The mistake that every padding test is there for: GPT-2 counts the padding unless it is told not to."""
    ids, model = _ids(tokenizer), tiny("gpt2")
    padded, more = _left_padded(ids, tokenizer.pad_token_id)
    off = _logits(model, padded, attention_mask=more["attention_mask"])[:, 5:] - _logits(model, ids)
    assert off.abs().max() > 0.5


def test_cached_is_uncached(family: str, tiny: Tiny, tokenizer: PreTrainedTokenizerFast) -> None:
    ids, model = _ids(tokenizer), tiny(family)
    with torch.no_grad():
        first = model(ids[:, :9], use_cache=True)
        second = model(ids[:, 9:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], dim=1), _logits(model, ids), atol=1e-4, rtol=0)


def test_a_saved_model_comes_back(family: str, tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tiny(family).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, text = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert text(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    assert torch.equal(_logits(model, _ids(text)), _logits(tiny(family), _ids(tokenizer)))


def test_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_ids_to_tokens(tokenizer(" Paris")["input_ids"]) == ["<bos>", "ĠParis"]
    assert tokenizer.decode(tokenizer("naïve Rome")["input_ids"], skip_special_tokens=True) == "naïve Rome"
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "yes"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<bos><|user|>yes<|end|><|assistant|>"
