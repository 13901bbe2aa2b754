"""A logistic probe: the direction that best tells the two sides apart.

    min over w, b   ½‖w‖² + C Σ log(1 + exp(−y (w·z + b))),   z = (h − mean)/std,   y = ±1

    v ∝ w/std,  as long as the mean difference is along it,     log-odds(h) = slope (v·h) + bias

Unlike a mean it discounts coordinates in which the sides overlap, and so separates them better. It is fitted on
standardised activations, so that the penalty treats all coordinates alike, and folded back, so that v lives where
activations live. ``slope`` and ``bias`` are notes of the fit; with them it classifies.

Same as: linear probe, logistic regression; with C → 0 the mean difference divided by the variance of each coordinate.

Misleads: with more coordinates than prompts it separates anything, so its accuracy on the pairs that made it says
nothing; what best *reads* a concept is often not what best *moves* it (the weights also cancel correlated noise).

Source: Alain and Bengio 2016, Understanding intermediate layers using linear classifier probes; as a direction to steer
with, Li et al. 2023, Inference-Time Intervention, §3.1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from assay.act.intervention import Place
from assay.errors import BadData
from assay.find.found import Fit, Found, fitted
from assay.pairs import Pairs
from assay.registry import finder
from assay.run.model import Model


def logistic(h: Tensor, labels: np.ndarray, C: float = 1.0) -> tuple[Tensor, float]:
    """Weights ``[d]`` and bias of an L2 logistic regression on ``h`` ``[n, d]`` as it is (scikit-learn, L-BFGS)."""
    fitted = LogisticRegression(C=C, max_iter=1000).fit(h.numpy(), labels)
    return torch.from_numpy(fitted.coef_[0]), float(fitted.intercept_[0])


def check_penalty(C: float) -> None:
    """Raise `BadData` unless it is a positive number."""
    if not 0 < C < math.inf:
        raise BadData(f"C={C!r} is no strength of a penalty", hint="give a positive number; 1 is the usual one")


def fit(positive: Tensor, negative: Tensor, C: float = 1.0) -> Fit:
    """The probe of positive against negative activations, ``[pair, d]`` each."""
    h = torch.cat([positive, negative])
    mean, std = h.mean(dim=0), h.std(dim=0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    w, b = logistic((h - mean) / std, np.repeat([1, 0], [len(positive), len(negative)]), C)
    w = w / std
    v = w * (w @ (positive - negative).mean(dim=0)) / (w @ w)
    return Fit(v, {"slope": float(w.norm() / v.norm()), "bias": b - float(w @ mean)})


@finder(fit)
def probe(model: Model, pairs: Pairs, *, at: Place, C: float = 1.0, name: str = "probe") -> Found:
    """A probe at each site of ``at``, read at ``@ last`` where it names no position.

    ``C`` is scikit-learn's: the larger, the weaker the penalty. Raises `NoSuchSite`, `BadSite`, `BadData`, `EmptyData`,
    `OneClass`, `NoSuchPosition` before anything runs; `BadVector`.
    """
    check_penalty(C)
    return fitted(model, pairs, at, lambda positive, negative: fit(positive, negative, C), name)
