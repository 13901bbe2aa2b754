"""Side effects: how far conditions move the model's predictions on text that has nothing to do with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from assay.act.intervention import Intervention
from assay.act.rows import Row
from assay.errors import EmptyData
from assay.model.core import Core
from assay.prompt import Prompt
from assay.run.passes import Pass, passes
from assay.run.plan import refuse

_POSITIONS = 256
"""Predictions over the whole vocabulary that are held at once (of one text, all)."""


@dataclass(frozen=True)
class Drift:
    """Predictions on the second half of each text, under conditions and without.

    Attributes:
        kl: KL(model ‖ under the condition), mean nats per predicted token, ``[text, condition]``.
        nll: −log P of the text's own tokens under the condition, mean nats per token, ``[text, condition]``.
        natural: the same without any condition, ``[text]``.
        tokens: predicted tokens, ``[text]``.
    """

    kl: np.ndarray
    nll: np.ndarray
    natural: np.ndarray
    tokens: np.ndarray

    @property
    def perplexity_ratio(self) -> np.ndarray:
        """Perplexity of all texts under each condition over that of the model as it is, ``[condition]``."""
        more = (self.nll - self.natural[:, None]) * self.tokens[:, None]
        return np.exp(more.sum(axis=0) / self.tokens.sum())


def halves(core: Core, texts: Sequence[str | Prompt]) -> list[Row]:
    """Texts as rows whose first half is the prompt and whose second half the answer, so that every kind of position
    (``last``, ``last:``, ``response``, ``all``) has its meaning in them. Raises `EmptyData` for a text of one token.
    """
    rows = core.rows(texts)
    short = [text for text, row in zip(texts, rows, strict=True) if len(row.tokens) < 2]
    if short:
        raise EmptyData(f"{str(short[0])!r} has no token to predict", hint="give texts of a sentence or more")
    return [replace(row, prompt=(len(row.tokens) + 1) // 2) for row in rows]


def drift(
    core: Core,
    texts: Sequence[str | Prompt],
    conditions: Sequence[Sequence[Intervention]],
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Drift:
    """KL and negative log-likelihood per token of each text's second half, under every condition."""
    rows = halves(core, texts)
    refuse(core, [[row] for row in rows], conditions)
    tokens = np.array([len(row.tokens) - row.prompt for row in rows])
    kl, nll = np.zeros((2, len(rows), len(conditions)))
    natural = np.zeros(len(rows))
    for done in passes(core, rows, conditions, memory, progress):
        for number, condition, found in _measured(core, done):
            kl[number, condition], nll[number, condition], natural[number] = found
    return Drift(kl / tokens[:, None], nll / tokens[:, None], natural / tokens, tokens)


def _measured(core: Core, done: Pass) -> Iterator[tuple[int, int, tuple[float, float, float]]]:
    """(text, condition, sums over the text's second half of KL, NLL and natural NLL) for every cell of a pass."""
    placed = sorted(enumerate(done.cells), key=lambda cell: cell[1].base)
    for base, group in groupby(placed, key=lambda cell: cell[1].base):
        row, cells = done.base.rows[base], list(group)
        first, stop = row.prompt - 1, len(row.tokens) - 1
        wanted = torch.tensor(row.tokens[row.prompt :], device=done.base.final.device)
        natural = _logp(core, done.base.final[base, first:stop])
        own = natural.gather(1, wanted[:, None])[:, 0]
        # A pass begins at the first token that is touched: what stands before it is as it was.
        same = max(0, min(done.first - first, len(wanted)))
        most = max(1, _POSITIONS // max(1, len(wanted) - same))
        for begin in range(0, len(cells), most):
            some = cells[begin : begin + most]
            places = torch.tensor([place for place, _ in some], device=wanted.device)
            logp = _logp(core, done.final[places, first + same - done.first : stop - done.first])
            diverged = (natural[same:].exp() * (natural[same:] - logp)).sum(dim=(1, 2)).clamp_min(0)
            gained = own[:same].sum() + logp.gather(2, wanted[same:].expand(len(some), -1)[..., None]).sum(dim=(1, 2))
            for (_, cell), one, more in zip(some, diverged.tolist(), gained.tolist(), strict=True):
                yield int(row.name), cell.condition, (one, -more, -float(own.sum()))


def _logp(core: Core, stream: Tensor) -> Tensor:
    return torch.log_softmax(core.engine.unembed(stream).float(), dim=-1)
