"""Which heads are which, by the published attention scores alone; what scrubbing finds is never asked.

*Previous token*: the mean of ``A[i, i−1]`` on held-out text. *Prefix matching* (Olsson et al. 2022, with the erratum): on
`BOS` and 25 random words four times over, the attention from a word to those words that followed it earlier, meaned over
all words from the second time on. The most and the least frequent 4 % of words are not drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from assay.model.taps import Tap
from assay.organisms.small import SmallTransformer
from evaluation.scrubbing.induction.data import BOS, VOCAB, text

PREVIOUS, MATCHING = 0.5, 0.4
"""A head has a role from these scores on."""
WORDS, TIMES, ROWS = 25, 4, 64
ASIDE = 0.04
"""The share of words at either end of the frequencies that is not drawn."""


@dataclass(frozen=True)
class Roles:
    """Heads by what they attend to.

    Attributes:
        previous: heads of layer 0 that attend to the previous token, the strongest first.
        induction: heads of layer 1 that attend to what followed a token earlier, the strongest first.
    """

    previous: tuple[int, ...]
    induction: tuple[int, ...]


def roles(model: SmallTransformer) -> Roles:
    """The heads whose scores reach `PREVIOUS` and `MATCHING`."""
    previous, matching = scores(model)
    return Roles(_from(previous[0], PREVIOUS), _from(matching[1], MATCHING))


def scores(model: SmallTransformer) -> tuple[np.ndarray, np.ndarray]:
    """Previous-token and prefix-matching scores, each ``[layer, head]``."""
    held = torch.from_numpy(text(ROWS, seed=1, part="held out").tokens.copy())
    again = repeated()
    previous = [pattern.diagonal(-1, 2, 3).mean((0, 2)) for pattern in patterns(model, held)]
    # A key follows an earlier occurrence of the query where the word before the key is the query's.
    matches = torch.zeros(len(again), again.shape[1], again.shape[1])
    matches[:, :, 1:] = (again[:, :, None] == again[:, None, :-1]).float()
    matches = matches.tril()
    late = slice(1 + WORDS, None)
    matching = [torch.einsum("rhqk,rqk->rqh", p, matches)[:, late].mean((0, 1)) for p in patterns(model, again)]
    return torch.stack(previous).numpy(), torch.stack(matching).numpy()


def repeated(seed: int = 0) -> Tensor:
    """`BOS` and random words again and again, ``[row, 1 + WORDS × TIMES]``; no word is twice among the 25."""
    rng, aside = np.random.default_rng(seed), round(ASIDE * VOCAB)
    usual = np.arange(BOS + 1 + aside, VOCAB - aside)  # words are numbered by their frequency
    rows = [[BOS, *np.tile(rng.choice(usual, WORDS, replace=False), TIMES)] for _ in range(ROWS)]
    return torch.tensor(np.array(rows))


def patterns(model: SmallTransformer, tokens: Tensor) -> list[Tensor]:
    """Each layer's attention, ``[row, head, query, key]``."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Tap:
        return lambda h: seen.update({name: h.transpose(1, 2)})

    graph, names = model.graph(), [f"L{layer}.head.pattern" for layer in range(model.sizes.layers)]
    graph.forward(graph.inputs(tokens), range(len(tokens)), {name: keep(name) for name in names})
    return [seen[name] for name in names]


def _from(found: np.ndarray, least: float) -> tuple[int, ...]:
    return tuple(int(head) for head in np.argsort(-found) if found[head] >= least)
