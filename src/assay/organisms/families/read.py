"""What acceptance tests read: answers, the stream, and linear read-outs of it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor
from transformers import PreTrainedModel

_ROWS = 2048


@torch.no_grad()
def logits(hf: PreTrainedModel, tokens: Tensor, at: int = -1) -> Tensor:
    """Scores of what follows the token at position ``at``, ``[row, vocab]``."""
    found = [hf.lm_head(hf.model(input_ids=part).last_hidden_state[:, at]) for part in tokens.split(_ROWS)]
    return torch.cat(found)


def odds(hf: PreTrainedModel, tokens: Tensor, yes: int, no: int, at: int = -1) -> Tensor:
    """Log P(yes) − log P(no), ``[row]``."""
    scores = logits(hf, tokens, at)
    return scores[:, yes] - scores[:, no]


@torch.no_grad()
def streams(hf: PreTrainedModel, tokens: Tensor, at: int = -1) -> Tensor:
    """The stream after each block at one position, ``[layer, row, d_model]``, before the last norm."""
    kept: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _, __, out: kept.append(first(out)[:, at])) for block in hf.model.layers
    ]
    try:
        hf.model(input_ids=tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(kept)


def first(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def balanced(right: Tensor, truth: Tensor) -> float:
    """The share that is right, true and false rows counting alike."""
    return float((right[truth].float().mean() + right[~truth].float().mean()) / 2)


def readable(fit: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> list[float]:
    """Balanced accuracy by layer of a logistic read-out fitted on one set of streams and labels, judged on another."""
    found = []
    for there, here in zip(fit[0], test[0], strict=True):
        said = torch.from_numpy(_fitted(there, fit[1]).predict(here.numpy()))
        found.append(balanced(said == test[1], test[1]))
    return found


def area(fit: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> list[float]:
    """AUROC by layer of such a read-out."""
    return [
        float(roc_auc_score(test[1].numpy(), _fitted(there, fit[1]).decision_function(here.numpy())))
        for there, here in zip(fit[0], test[0], strict=True)
    ]


class _Read:
    """A logistic regression on standardised activations."""

    def __init__(self, x: NDArray[np.float32], y: NDArray[np.bool_]) -> None:
        self.mean, self.scale = x.mean(0), x.std(0) + 1e-6
        self.model = LogisticRegression(C=1.0, max_iter=500, class_weight="balanced").fit(
            (x - self.mean) / self.scale, y
        )

    def decision_function(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(self.model.decision_function((x - self.mean) / self.scale))

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.bool_]:
        return self.decision_function(x) > 0


def _fitted(x: Tensor, y: Tensor) -> _Read:
    return _Read(x.numpy(), y.numpy())
