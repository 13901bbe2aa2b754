"""What scrubbing is measured by: losses of scores, and the share of loss recovered."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.scrub.data import IGNORED, Ids
from assay.stats import Interval, bootstrap_interval

Array = NDArray[np.float64]
Loss = Callable[[Tensor, Tensor], Tensor]
"""From scores ``[row, pos, outputs]`` and targets ``[row, pos]`` to a number a row."""


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean over the positions of a row that have a target, ``[row]``, in nats."""
    losses = torch.nn.functional.cross_entropy(
        scores.float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )
    return losses.sum(1) / (targets != IGNORED).sum(1).clamp(min=1)


def divergence(model: Tensor, scrubbed: Tensor, targets: Tensor) -> Array:
    """KL(model ‖ scrubbed) in nats, mean over the positions that have a target, ``[row]``."""
    p, q = model.float().log_softmax(-1), scrubbed.float().log_softmax(-1)
    counted = (targets != IGNORED).to(p)
    each = (p.exp() * (p - q)).sum(-1)
    return np.asarray(((each * counted).sum(1) / counted.sum(1).clamp(min=1)).double().cpu())


def recovered_share(scrubbed: Array, model: Array, random: Array, references: Ids, seed: int = 0) -> Interval:
    """The share of loss recovered, with a bootstrap interval over inputs."""

    def share(values: Array, weights: Array) -> Array:
        lost = weights @ values
        return np.asarray((lost[:, 2] - lost[:, 0]) / (lost[:, 2] - lost[:, 1]))

    values = np.stack([scrubbed, model, random], axis=1)
    return bootstrap_interval(values, share, clusters=references, seed=seed, method="percentile")
