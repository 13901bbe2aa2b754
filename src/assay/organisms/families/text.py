"""Words as tokens, and a transformer from scratch: what every family is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
BOS = SPECIAL.index("<bos>")
LENGTH = 64
SPREAD = 0.08
"""The standard deviation of first weights. With transformers' .02 the same tables take two to three times the steps."""
_HEADS = 4


class Words:
    """A vocabulary whose tokens are whole words, separated by blanks. Every text begins with ``<bos>``."""

    def __init__(self, words: Sequence[str]) -> None:
        self.all = (*SPECIAL, *words)
        self._ids = {word: index for index, word in enumerate(self.all)}
        assert len(self._ids) == len(self.all), "a word stands in the vocabulary twice"

    def ids(self, words: Sequence[str]) -> Tensor:
        """Their tokens, ``[word]``."""
        return torch.tensor([self._ids[word] for word in words])

    def one(self, word: str) -> int:
        """Its token."""
        return self._ids[word]

    def text(self, tokens: Tensor) -> str:
        """A row of tokens as a prompt, without ``<bos>``, which the tokenizer adds."""
        return " ".join(self.all[token] for token in tokens.tolist() if token != BOS)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """For transformers; saved beside the weights."""
        text = Tokenizer(models.WordLevel(vocab=dict(self._ids), unk_token="<unk>"))  # noqa: S106 - a token, no secret
        text.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        text.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS)]
        )
        names: dict[str, Any] = {f"{name.strip('<>')}_token": name for name in SPECIAL}
        return PreTrainedTokenizerFast(tokenizer_object=text, model_max_length=LENGTH, **names)


def fresh(words: Words, depth: int, d_model: int, seed: int) -> PreTrainedModel:
    """A Llama with random weights of that seed; the MLPs are twice as wide as the stream."""
    config = LlamaConfig(
        vocab_size=len(words.all),
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=depth,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        max_position_embeddings=LENGTH,
        initializer_range=SPREAD,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=BOS,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = LlamaForCausalLM(config).float()
    hf.generation_config = GenerationConfig.from_model_config(config)
    return hf.eval()


def invented(count: int) -> list[str]:
    """That many names that mean nothing: bado, badu, …"""
    first, last = ("ba", "ke", "li", "mo", "nu", "ra", "se", "ti"), ("do", "fi", "ga", "hu", "pe", "vo", "zi", "lu")
    return [a + b for b in last for a in first][:count]
