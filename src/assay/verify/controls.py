"""Directions that should carry nothing, made to be as like the tested one as chance allows.

==============  =========================================================  ==========================================
family          a draw                                                     excludes that
==============  =========================================================  ==========================================
``random``      z ~ N(0, 1), at the direction's length                     any push of this length would do
``covariance``  Σ^½ z at the direction's length, Σ within classes          any push along what the model uses would do
``shuffled``    the finder on pairs whose sides are swapped at random      this method finds it in any labels
``orthogonal``  z without its part along the direction, same length        the surroundings do it
==============  =========================================================  ==========================================

Each draw is as likely as its negative, so tests count both signs.

- Σ is within classes: pooled over the contrast it would hold the direction itself. Nothing is projected out of it, so
  where the direction has much of its variance the control is weak; `ConceptShare` says how much. It is never formed:
  with residuals X ``[n, d]``, Xᵀz has covariance XᵀX.
- A refit on shuffled labels is never brought to the direction's length: for consistent pairs its *orientation* is the
  direction's own, and only its length tells that the labels carried nothing. It acts at ``‖raw refit‖/‖raw direction‖``
  of a dose, raw being the unit vector times the mean gap of the two sides along it. Clusters are swapped whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import BadVector
from assay.pairs import Pairs
from assay.run.model import Model
from assay.site import Site
from assay.verify.verdict import ConceptShare

Array = NDArray[np.float64]
Formula = Callable[[Tensor, Tensor], Tensor]
"""A finder's formula: positive and negative activations ``[pair, d]`` to a vector ``[d]``."""


@dataclass(frozen=True)
class Sides:
    """Activations of pairs, both sides ``[pair, d]`` in float64, and the cluster of each pair, 0 … k − 1."""

    positive: Tensor
    negative: Tensor
    clusters: NDArray[np.intp]

    @property
    def residuals(self) -> Array:
        """Both sides without their class means, ``[2 · pairs, d]``."""
        return torch.cat([side - side.mean(dim=0) for side in (self.positive, self.negative)]).numpy()

    def part(self, keep: NDArray[np.bool_]) -> Sides:
        """The pairs of some clusters, ``keep [clusters]``."""
        mine = torch.from_numpy(keep[self.clusters])
        return Sides(self.positive[mine], self.negative[mine], self.clusters[mine.numpy()])

    def swapped(self, flip: NDArray[np.bool_]) -> Sides:
        """The sides of some clusters exchanged, ``flip [clusters]``."""
        mine = torch.from_numpy(flip[self.clusters])[:, None]
        one, other = torch.where(mine, self.negative, self.positive), torch.where(mine, self.positive, self.negative)
        return Sides(one, other, self.clusters)

    def raw(self, formula: Formula) -> Array:
        """The direction that a finder gives here, as long as the mean gap of the sides along it, ``[d]``; zero where it
        gives none.
        """
        vector = formula(self.positive, self.negative).double()
        norm = vector.norm()
        if not torch.isfinite(norm):
            raise BadVector("the finder gives no finite vector on these pairs", hint="look for NaN in the activations")
        if norm == 0:
            return vector.numpy()
        unit = vector / norm
        return (unit * (unit @ (self.positive - self.negative).mean(dim=0))).numpy()


def read(model: Model, pairs: Pairs, sites: Sequence[Site]) -> dict[Site, Sides]:
    """Both sides of every pair at every site, in one pass over all prompts."""
    prompts = list(dict.fromkeys(side for pair in pairs for side in (pair.positive, pair.negative)))
    home = {prompt: index for index, prompt in enumerate(prompts)}
    plus, minus = [home[pair.positive] for pair in pairs], [home[pair.negative] for pair in pairs]
    captured = model.capture(prompts, list(dict.fromkeys(sites)))
    codes = cluster_codes(pairs)
    return {site: Sides(h.double()[plus], h.double()[minus], codes) for site, h in captured.values.items()}


def cluster_codes(pairs: Pairs) -> NDArray[np.intp]:
    """Each pair's cluster as 0 … k − 1."""
    names = {name: code for code, name in enumerate(pairs.clusters)}
    return np.array([names[pair.cluster or pair.digest] for pair in pairs], dtype=np.intp)


def random(vector: Array, draws: int, rng: np.random.Generator) -> Array:
    """Isotropic draws ``[draws, *vector.shape]``, each row as long as that of ``vector`` (``[d]``, or ``[T, d]``)."""
    return _as_long(rng.standard_normal((draws, *vector.shape)), vector)


def covariance(vector: Array, residuals: Array, draws: int, rng: np.random.Generator) -> Array:
    """Draws with the covariance of ``residuals [n, d]``, each row as long as that of ``vector``."""
    if not residuals.any():
        raise BadVector(
            "activations do not vary within classes, so nothing can be drawn with their covariance",
            found=f"{len(residuals)} prompts, all alike at the site",
            hint='give pairs that differ from one another, or leave the control out: controls={"covariance": 0}',
        )
    return _as_long(rng.standard_normal((draws, *vector.shape[:-1], len(residuals))) @ residuals, vector)


def orthogonal(vector: Array, draws: int, rng: np.random.Generator) -> Array:
    """Isotropic draws without their part along ``vector``, token by token, as long as it."""
    drawn = rng.standard_normal((draws, *vector.shape))
    size = np.linalg.norm(vector, axis=-1, keepdims=True)
    unit = vector / np.where(size > 0, size, 1)
    return _as_long(drawn - (drawn * unit).sum(axis=-1, keepdims=True) * unit, vector)


def flips(clusters: int, draws: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which clusters have their sides swapped, ``[draws, clusters]``: the same for every site of a search."""
    return rng.random((draws, clusters)) < 0.5


def shuffled(vector: Array, sides: Sides, formula: Formula, swaps: NDArray[np.bool_]) -> Array:
    """The finder's directions under swapped labels, as long as they are beside the true one, ``[draws, d]``."""
    true = np.linalg.norm(sides.raw(formula))
    if true == 0:
        raise BadVector(
            "the finder gives no direction on the fit pairs",
            found=f"{len(sides.clusters)} pairs whose sides have one mean",
            hint="give the pairs that the direction was found on, read where it was found",
        )
    return np.stack([sides.swapped(flip).raw(formula) for flip in swaps]) * (np.linalg.norm(vector) / true)


def concept_share(vector: Array, residuals: Array) -> ConceptShare:
    """``d'Σd / (‖d‖² tr Σ)``, and the participation ratio ``(tr Σ)² / tr Σ²``."""
    gram = residuals @ residuals.T
    total = float(np.trace(gram))
    along = float(np.sum((residuals @ vector) ** 2) / (vector @ vector))
    return ConceptShare(share=along / total, rank=total**2 / float(np.sum(gram**2)))


def _as_long(drawn: Array, vector: Array) -> Array:
    size = np.linalg.norm(drawn, axis=-1, keepdims=True)
    return drawn / np.where(size > 0, size, 1) * np.linalg.norm(vector, axis=-1, keepdims=True)
