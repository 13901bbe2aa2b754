"""Random tokens, once or repeated: text that no model has learned, in which only what a head does itself can help."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from assay.errors import BadData, EmptyData
from assay.run.model import Model

_RARE = 0.04
"""The share of the vocabulary left out at either end, as in Bansal et al. 2023."""


def pool(model: Model) -> list[int]:
    """The tokens to draw from: no special ones, and neither the most nor the least common. Ids of merged vocabularies are in
    the order of merging, which is close to that of frequency. Raises `EmptyData` where none are left.
    """
    tokenizer = model.tokenizer
    known = min(len(tokenizer), model.hf.get_input_embeddings().num_embeddings)
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    plain = [token for token in range(known) if token not in special]
    cut = int(_RARE * len(plain))
    if len(plain) <= 2 * cut:
        raise EmptyData(
            "the vocabulary has no plain tokens", found=f"{known} tokens", hint="load the model's tokenizer"
        )
    return plain[cut : len(plain) - cut]


def leading(model: Model, bos: bool | None) -> list[int]:
    """What stands before a sequence: what the tokenizer puts before a text, or BOS if asked for. Raises `BadData`."""
    if bos is None:
        plain = list(model.tokenizer("a", add_special_tokens=False)["input_ids"])
        whole = list(model.row("a").tokens)
        return whole[: len(whole) - len(plain)] if whole[len(whole) - len(plain) :] == plain else []
    if bos and model.tokenizer.bos_token_id is None:
        raise BadData("the tokenizer has no BOS", hint="leave bos out: the first token is then one of the sequence's")
    return [model.tokenizer.bos_token_id] if bos else []


def sequences(model: Model, count: int, length: int, repeats: int, seed: int, bos: bool | None) -> tuple[Tensor, int]:
    """Rows of ``length`` tokens, all different, repeated; with the number of tokens before them.

    ``[count, first + length · repeats]``. Raises `BadData` for sizes that there are not.
    """
    tokens = pool(model)
    if count < 1 or repeats < 1 or not 2 <= length <= len(tokens):
        raise BadData(
            f"{count} sequences of {length} tokens, {repeats} times",
            found=f"{len(tokens)} tokens to draw from",
            hint="draw at least one sequence, of at least two tokens that differ",
        )
    rng, first = np.random.default_rng(seed), leading(model, bos)
    drawn = [rng.choice(tokens, size=length, replace=False).tolist() for _ in range(count)]
    return torch.tensor([[*first, *one * repeats] for one in drawn]), len(first)
