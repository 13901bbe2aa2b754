"""A small model whose computation is known: which direction its answer reads, and which it does not.

The stream is 64 wide. A word's embedding is anisotropic noise, with variances as 1/rank, and where the word is one side
of a contrast, ± a concept. The answer's score, logit(yes) − logit(no), reads one direction of the normed final stream.
Three blocks with random weights stand between, each of which adds about a third of what there is, so that concept and
readout are in every layer's stream, somewhat turned, and layers differ.

Planted: the readout is the concept itself, or has a given cosine with it. Unrelated: it is another direction with the
same law as the concept, so that the concept is represented, and read out no more than chance has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from assay import Model, Pair, Pairs, Prompt

Array = NDArray[np.float64]

WIDTH, LAYERS = 64, 3
SHIFT = 6.0
"""How far the concept parts the two sides of a pair, where an embedding is 8 long."""


@dataclass(frozen=True)
class Planted:
    """The model and its data.

    Attributes:
        model: no self-test: it is made anew hundreds of times, and the core's own tests run on such models.
        fit, tune, test: pairs of the concept; their questions ask what the readout answers.
        concept, readout: unit vectors of the stream at ``embed``.
        root: ``Σ^½`` of the embeddings' noise, ``[d, d]``: ``root @ z`` has their covariance.
    """

    model: Model
    fit: Pairs
    tune: Pairs
    test: Pairs
    concept: Array
    readout: Array
    root: Array


def planted(
    seed: int, cosine: float | None = 1.0, sizes: tuple[int, int, int] = (24, 16, 16), blocks: float = 0.7
) -> Planted:
    """A fresh organism.

    Args:
        seed: of everything.
        cosine: between readout and concept; None for an unrelated readout.
        sizes: pairs to fit, tune and test.
        blocks: the size of the blocks' weights, in 1/√width; what they add goes with its cube.
    """
    rng = np.random.default_rng([seed, 7])
    axes, _ = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))
    variance = 1 / np.arange(1, WIDTH + 1)
    root = axes * np.sqrt(variance * WIDTH / variance.sum())
    concept, other = unit(root @ rng.standard_normal(WIDTH)), unit(root @ rng.standard_normal(WIDTH))
    readout = other
    if cosine is not None:
        readout = cosine * concept + np.sqrt(1 - cosine**2) * unit(other - (other @ concept) * concept)
    words, vectors = _words(sum(sizes), root, concept, rng)
    model = _model(words, vectors, readout, blocks, seed)
    parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    fit, tune, test = (Pairs(tuple(_pair(int(item)) for item in part)) for part in parts)
    return Planted(model, fit, tune, test, concept, readout, root)


def unit(vector: Array) -> Array:
    """At norm 1."""
    return np.asarray(vector / np.linalg.norm(vector))


def _words(items: int, root: Array, concept: Array, rng: np.random.Generator) -> tuple[list[str], Array]:
    """The vocabulary and its embeddings. The two sides of a pair share half of their noise's variance."""
    noise = lambda: root @ rng.standard_normal(WIDTH)
    words, vectors = ["<pad>", "yes", "no", "so"], [noise() for _ in range(4)]
    for item in range(items):
        shared = noise()
        for side, sign in (("plus", 1), ("minus", -1)):
            words.append(f"{side}{item}")
            vectors.append(np.sqrt(0.5) * (shared + noise()) + sign * SHIFT / 2 * concept)
        words += [f"ask{item}", f"about{item}"]
        vectors += [noise(), noise()]
    return words, np.stack(vectors)


def _pair(item: int) -> Pair:
    start = f"about{item} so"
    sides = (Prompt(f"{start} {side}{item}") for side in ("plus", "minus"))
    return Pair(*sides, Prompt(f"{start} ask{item}"), (" yes", " no"), cluster=str(item))


def _model(words: Sequence[str], vectors: Array, readout: Array, blocks: float, seed: int) -> Model:
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=16,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        hf = LlamaForCausalLM(config).eval()
        for name, weight in hf.named_parameters():
            if weight.dim() == 2 and "layers" in name:
                weight.normal_(std=blocks / np.sqrt(WIDTH))
        hf.model.embed_tokens.weight.copy_(torch.from_numpy(vectors))
        hf.lm_head.weight.normal_(std=0.1)
        hf.lm_head.weight[1:3] = torch.from_numpy(np.outer([0.5, -0.5], readout)).float()
    text = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>"))  # noqa: S106
    text.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=text, pad_token="<pad>", unk_token="<pad>")  # noqa: S106
    return Model.load(hf, tokenizer=tokenizer, selftest=False)
