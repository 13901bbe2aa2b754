"""Tiny random models of every supported family, with a tokenizer to go with them.

They compute nothing useful. They are made so that a mistake shows: every weight is of order one, so that where a model
looks and where a token stands change the logits; norms and biases are random too, so that reading before or after one
is not the same; heads share keys wherever the family can do that, and no two axes of a model have one length.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

D_MODEL, D_MLP, HEADS, KV_HEADS, LAYERS = 32, 40, 4, 2, 3

_WORDS = (
    "The the is was in of a an not and city capital Paris Rome Berlin Tower Eiffel true false True False yes no Yes No "
    "Love Hate I you love hate because A B"
)
_SPECIAL = ("<pad>", "<bos>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# What the modern families share; the older ones name every size in their own way.
_MODERN = dict(
    hidden_size=D_MODEL,
    intermediate_size=D_MLP,
    num_attention_heads=HEADS,
    num_key_value_heads=KV_HEADS,
    num_hidden_layers=LAYERS,
    max_position_embeddings=256,
)
_WINDOW = 12  # shorter than a usual prompt plus its answer, so that the window's edge is crossed

_SIZES: dict[str, dict[str, Any]] = {
    "llama": _MODERN,
    "mistral": _MODERN | dict(sliding_window=_WINDOW),
    "qwen2": _MODERN,
    "qwen3": _MODERN | dict(head_dim=12),
    "gemma2": _MODERN | dict(head_dim=12, sliding_window=_WINDOW, query_pre_attn_scalar=12),
    "gemma3_text": _MODERN
    | dict(
        head_dim=12,
        sliding_window=_WINDOW,
        query_pre_attn_scalar=12,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "phi3": _MODERN,
    "gpt2": dict(n_embd=D_MODEL, n_inner=D_MLP, n_head=HEADS, n_layer=LAYERS, n_positions=256),
    "gpt_neox": dict(
        hidden_size=D_MODEL,
        intermediate_size=D_MLP,
        num_attention_heads=HEADS,
        num_hidden_layers=LAYERS,
        max_position_embeddings=256,
    ),
    "gptj": dict(n_embd=D_MODEL, n_inner=D_MLP, n_head=HEADS, n_layer=LAYERS, n_positions=256, rotary_dim=4),
    "opt": dict(
        hidden_size=D_MODEL,
        word_embed_proj_dim=D_MODEL,
        ffn_dim=D_MLP,
        num_attention_heads=HEADS,
        num_hidden_layers=LAYERS,
        max_position_embeddings=256,
    ),
    "olmo2": _MODERN,
    "mixtral": _MODERN | dict(num_local_experts=5, num_experts_per_tok=2),
    "qwen2_moe": _MODERN
    | dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=D_MLP, shared_expert_intermediate_size=D_MLP),
}

FAMILIES = tuple(_SIZES)


def tiny(family: str, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A fresh fp32 model of ``family`` in evaluation mode: 3 layers, width 32, 4 heads (2 for keys where that exists).

    The same family, seed and changes to its configuration give the same weights.
    """
    text = tokenizer()
    sizes = dict(
        vocab_size=len(text),
        pad_token_id=text.pad_token_id,
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
    )
    config = AutoConfig.for_model(family, **sizes, **_SIZES[family] | changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        _enlarge(model)
    # Generation settings otherwise come from the family's class and name tokens that this vocabulary lacks.
    model.generation_config = transformers.GenerationConfig.from_model_config(config)
    return model.eval()


@torch.no_grad()
def _enlarge(model: nn.Module) -> None:
    """Draws every weight anew, at the size at which it matters."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            drawn = torch.randn_like(weight)
            if isinstance(module, nn.Embedding):
                weight.copy_(0.7 * drawn)
            elif weight.dim() > 1:
                weight.copy_(0.25 * drawn)
            elif name == "weight":
                weight.add_(0.3 * drawn)  # a norm's gain, around whatever means "one" in its family
            else:
                weight.copy_(0.3 * drawn)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and some whole words that are one token with their space (" Paris"); adds BOS, has a chat template."""
    text = PreTrainedTokenizerFast(
        tokenizer_object=_bytes_and_words(),
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=256,
    )
    text.chat_template = _TEMPLATE
    return text


def _bytes_and_words() -> Tokenizer:
    vocab = {token: i for i, token in enumerate([*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    merges: list[tuple[str, str]] = []
    for word in _WORDS.split():
        left = "Ġ"  # how byte-level vocabularies write a space
        for letter in word:
            if left + letter not in vocab:
                vocab[left + letter] = len(vocab)
                merges.append((left, letter))
            left += letter
    text = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text.decoder = decoders.ByteLevel()
    text.add_special_tokens(list(_SPECIAL))
    text.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", vocab["<bos>"])]
    )
    return text
