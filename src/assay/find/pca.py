"""The first principal component of pairs, each centred on its own midpoint.

    ±δᵢ/2 = h(±ᵢ) − (h(+ᵢ) + h(−ᵢ))/2        u = argmax_{‖u‖=1} Σᵢ (u·δᵢ)²        v = u (u · mean δ)

Centring each pair on its midpoint takes away what its two sides share and keeps all of what parts them. Both halves
together have mean zero, so that nothing more is taken away: a shift c that every pair has is the component, as long
as ‖c‖² is above the largest variance of δ around it. The labels give the sign and the length: those of the mean
difference.

Same as: ``pca_center`` in repeng, ``pca_pairwise`` of CAST, the uncentred PCA of the differences. It is not repeng's
``pca_diff``, which subtracts the mean of the differences and with it the signal, nor RepE's reader fed with pairs in
one order, which does the same; on a constant shift those have |cos| ≈ 0.01 with it.

Misleads: where some nuisance varies more between the two sides than the concept shifts them, the component is the
nuisance, and the mean difference is better. The note ``explained`` is the share of Σ‖δ‖² along u; compare with
`find.mean_difference` by ``cosine``. It says little when the shares of the first two components are alike.

Source: Zou et al. 2023, Representation Engineering, §3.1 (PCA of contrasts); Lee et al. 2024, Programming Refusal with
Conditional Activation Steering, §3 (centring by pairs).
"""

from __future__ import annotations

import torch
from torch import Tensor

from assay.act.intervention import Place
from assay.find.found import Fit, Found, fitted
from assay.pairs import Pairs
from assay.registry import finder
from assay.run.model import Model


def fit(positive: Tensor, negative: Tensor) -> Fit:
    """The first component of the pairs' differences, signed and scaled by their mean; ``[pair, d]`` each."""
    difference = positive - negative
    _, S, Vh = torch.linalg.svd(difference, full_matrices=False)
    u = Vh[0]
    return Fit(u * (u @ difference.mean(dim=0)), {"explained": float(S[0] ** 2 / (S**2).sum())})


@finder(fit)
def pca(model: Model, pairs: Pairs, *, at: Place, name: str = "pca") -> Found:
    """The pair-centred first component at each site of ``at``, read at ``@ last`` where it names no position.

    Raises `NoSuchSite`, `BadSite`, `BadData`, `EmptyData`, `OneClass`, `NoSuchPosition` before anything runs;
    `BadVector` where the two sides have the same mean, so that nothing gives the sign.
    """
    return fitted(model, pairs, at, fit, name)
