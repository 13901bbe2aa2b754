"""Logit lens: what the model would say if it stopped after each block (nostalgebraist 2020).

::

    logits(l) = unembed(norm_final(h_l))

The final norm is computed anew on every stream, so the last row is what the model says. Where a token rises through the
layers, later blocks had less left to do.

It misleads where early layers write in another basis than the last one reads, as most do: a token that the lens does not
show may be there all the same (Belrose et al. 2023 learn a map for each layer). What it shows is no cause of anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.act.intervention import Condition
from assay.circuits.norms import normed
from assay.circuits.plot import lens_map
from assay.errors import BadData
from assay.figure import save
from assay.model.encode import answer_token
from assay.prompt import Prompt
from assay.run.model import Model

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lens:
    """What each layer would say.

    Attributes:
        layers: ``embed``, ``L0``, ``L1``, …
        tokens: at which it was read, as text.
        said: the likeliest tokens, best first, ``[layer][token][place]`` as text.
        likely: their probabilities, ``[layer, token, place]``.
        answer: whose rise is followed, if any.
        probability: the answer's, ``[layer, token]``; None without one.
        rank: how many tokens are likelier than the answer, ``[layer, token]``.
    """

    layers: tuple[str, ...]
    tokens: tuple[str, ...]
    said: tuple[tuple[tuple[str, ...], ...], ...]
    likely: Array
    answer: str | None = None
    probability: Array | None = None
    rank: NDArray[np.int64] | None = None

    def plot(self, path: str | Path) -> Path:
        """Draw layers × tokens with the likeliest token in each cell, as SVG. Raises `Unwritable`."""
        return save(path, self._repr_svg_())

    def _repr_svg_(self) -> str:
        return lens_map(self)

    def __str__(self) -> str:
        lines = []
        for index, layer in enumerate(self.layers):
            best = f"{self.said[index][-1][0]!r} {self.likely[index, -1, 0]:.3f}"
            told = f"{layer:<6} {best:<24}"
            if self.probability is not None and self.rank is not None:
                told += f" {self.answer!r} {self.probability[index, -1]:.3f}, rank {self.rank[index, -1]}"
            lines.append(told.rstrip())
        return "\n".join(lines)


def lens(
    model: Model,
    prompt: str | Prompt,
    *,
    at: str = "last",
    answer: str | None = None,
    top: int = 5,
    under: Condition | None = None,
) -> Lens:
    """Read every stream of one prompt as if it were the last one.

    Args:
        at: which tokens, as in a site: ``last``, ``all``, ``2:6``, ``subject``.
        answer: one token, whose probability and rank are followed.
        top: how many tokens are kept of each layer.
        under: interventions.

    Raises `NoSuchPosition`, and `BadData` for an answer of several tokens or a ``top`` that there is not.
    """
    if not 1 <= top <= model.shape.vocab:
        raise BadData(f"top={top} of {model.shape.vocab} tokens", hint="keep at least one")
    prompt, row = Prompt.of(prompt), model.row(prompt)
    token = None if answer is None else answer_token(model.tokenizer, prompt, row.tokens, answer)
    sites = [f"embed @ {at}", *(f"L{layer}.resid @ {at}" for layer in range(model.shape.layers))]
    start, stop = row.bounds(model.shape.expand(sites[0])[0])
    found = model.run(prompt, under=under, read=sites)["row"]
    said, likely, probability, rank = [], [], [], []
    for site in sites:
        p = read_out(model, found[site]).float().softmax(dim=-1)
        best = p.topk(top, dim=-1)
        said.append(tuple(tuple(model.decode([one]) for one in ids) for ids in best.indices.tolist()))
        likely.append(best.values)
        if token is not None:
            probability.append(p[:, token])
            rank.append((p > p[:, token, None]).sum(dim=-1))
    return Lens(
        ("embed", *(f"L{layer}" for layer in range(model.shape.layers))),
        tuple(model.decode([one]) for one in row.tokens[start:stop]),
        tuple(said),
        _stacked(likely).astype(np.float64),
        answer,
        None if token is None else _stacked(probability).astype(np.float64),
        None if token is None else _stacked(rank),
    )


def read_out(model: Model, streams: Tensor) -> Tensor:
    """Scores ``[n, vocab]`` of streams ``[n, d_model]``, through the final norm."""
    return model.engine.unembed(normed(model, streams))


def _stacked(rows: list[Tensor]) -> NDArray[Any]:
    return torch.stack(rows).cpu().numpy()
