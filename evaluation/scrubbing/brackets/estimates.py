"""What the published hypotheses say the averaging head computes: one direction, and how evenly it looks.

Nicholas Goldowsky-Dill and others, Causal scrubbing: results on a paren balance checker, Alignment Forum 2022.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.organisms.small import Attention, SmallTransformer
from evaluation.scrubbing.brackets.data import CLOSE, END, LONGEST, OPEN, START, TOKENS, columns, p_open_after


def _attention(model: SmallTransformer) -> Attention:
    found = model.blocks[0].attn
    assert isinstance(found, Attention)
    return found


def open_vector(model: SmallTransformer, averaging: int) -> Tensor:
    """V ``[d_model]``: half of what an opening bracket makes the layer-0 head write more than a closing one.

    v = ½ (mean_i OV(LN(E_( + P_i)) − mean_i OV(LN(E_) + P_i))), over the positions i = 1..40. The value's bias cancels.
    """
    attn, width = _attention(model), model.sizes.d_head
    with torch.no_grad():
        placed = model.embed.weight[[OPEN, CLOSE], None] + model.positions[1 : LONGEST + 1]
        values = attn.value(attn.norm(placed))[..., averaging * width : (averaging + 1) * width]
        opened, closed = (values @ attn.W_O[averaging]).mean(1)
    return (opened - closed) / 2


def phi(model: SmallTransformer, averaging: int, strings: NDArray[np.int64]) -> Tensor:
    """φ(p) = v (2p − 1) ``[row, d_model]``, with p of the whole string: the head's output at position 1, as published."""
    p = torch.from_numpy(p_open_after(strings)[:, 0]).float()
    return (2 * p - 1)[:, None] * open_vector(model, averaging)


def looks(model: SmallTransformer, averaging: int) -> dict[int, NDArray[np.float64]]:
    """How the layer-0 head looks from an opening bracket anywhere, for each length: ``[pos, pos]``, rows are queries.

    What it looks at is the mean of an opening and a closing bracket behind the norm, so it depends on length alone.
    """
    attn, width = _attention(model), model.sizes.d_head
    part, found = slice(averaging * width, (averaging + 1) * width), {}
    with torch.no_grad():
        placed = attn.norm(model.embed.weight[:, None] + model.positions)
        query, key = attn.query(placed)[..., part], attn.key(placed)[..., part]
        for length in range(2, LONGEST + 1, 2):
            end = length + 1
            asks, has = query[OPEN, : end + 1].clone(), (key[OPEN, : end + 1] + key[CLOSE, : end + 1]) / 2
            asks[0], has[0], asks[end], has[end] = query[START, 0], key[START, 0], query[END, end], key[END, end]
            found[length] = (asks @ has.T / width**0.5).softmax(-1).double().numpy()
    return found


def adjusted_p(model: SmallTransformer, averaging: int, strings: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of opening brackets as the layer-0 head weighs them, ``[row, pos]``; at END and PAD 0, as in `p_open_after`.

    A bracket before the position weighs what the head looks at such a one on average, and one from there on likewise, by
    `looks`. Of a head that sees only what follows it is p itself.
    """
    lengths, opened = columns(strings)["length"], strings == OPEN
    from_here = opened[:, ::-1].cumsum(1)[:, ::-1]
    before = opened.sum(1, keepdims=True) - from_here
    found = np.zeros((len(strings), TOKENS))
    for length, pattern in looks(model, averaging).items():
        rows = lengths == length
        for at in range(length + 1):
            first = max(at, 1)
            early = pattern[at, 1:first].mean() if first > 1 else 0.0
            late = pattern[at, first : length + 1].mean()
            weighed = early * before[rows, at] + late * from_here[rows, at]
            found[rows, at] = weighed / (early * (first - 1) + late * (length + 1 - first))
    return found
