"""Attribution patching: what patching would do, to first order, at every place at once (Nanda 2023; Syed et al. 2023).

The change that an activation of the other run would make is read off the gradient of the metric::

    score(n) = (a_n(source) − a_n(base)) · ∂M/∂a_n

Two runs and one backward pass give all places, where patching takes a run each. It is exact where the model is linear
between the two activations; it goes wrong where softmaxes or norms saturate, for whole residual streams above all. With
``steps`` the gradient is averaged between the two inputs (integrated gradients, Sundararajan et al. 2017; for patching
Hanna et al. 2024): over the embeddings the scores then add up to the whole difference of the metric, as steps grow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from assay.act.program import Place
from assay.errors import BadDose
from assay.run.model import Model
from assay.site import Site
from assay.trace.contrast import Contrast, Metric, Mode, Patched, Prompts, contrasted

Grid = Literal["left", "middle", "right"]
OFFSETS = {"left": 0.0, "middle": 0.5, "right": 1.0}


def attribution(
    model: Model,
    clean: Prompts,
    corrupted: Prompts,
    *,
    at: str | Site | Sequence[str | Site] = "L:.head[:].z",
    metric: Metric | None = None,
    answers: tuple[str, str] | None = None,
    mode: Mode = "denoise",
    steps: int = 1,
    grid: Grid = "left",
) -> Patched:
    """Estimate `patching` at every site and token.

    Args:
        clean, corrupted, at, metric, answers, mode: as for `patching`.
        steps: points between base and source at which gradients are taken; 1 with ``grid="left"`` is the base alone.
        grid: which end of each of the ``steps`` intervals, or its middle. ``left`` holds the base and not the source.

    Raises as `patching` does, and `BadDose` for steps or a grid that there are not.
    """
    if steps < 1 or grid not in OFFSETS:
        raise BadDose(
            f"steps={steps}, grid={grid!r} is no grid", found=", ".join(OFFSETS), hint="take at least one step"
        )
    pair = contrasted(model, clean, corrupted, at, metric, answers, mode)
    places: list[Place] = list(dict.fromkeys(site.address for site in pair.sites))
    slopes: dict[Place, Tensor] = {}
    for step in range(steps):
        for place, slope in _gradients(model, pair, places, (step + OFFSETS[grid]) / steps).items():
            slopes[place] = slopes[place] + slope / steps if place in slopes else slope / steps
    plain, target = pair.scored(model, pair.base.final), pair.scored(model, pair.source.final)
    scores = {
        place: ((pair.source.values[place] - pair.base.values[place]).float() * slopes[place]).sum(dim=-1).cpu().numpy()
        for place in places
    }
    values = np.stack([_of_head(scores[site.address], site).T + plain for site in pair.sites])
    return Patched(pair.sites, pair.tokens, plain, target, values, mode)


def _of_head(scores: np.ndarray, site: Site) -> np.ndarray:
    return scores if scores.ndim == 2 else scores[:, :, site.index]


def _gradients(model: Model, pair: Contrast, places: Sequence[Place], share: float) -> dict[Place, Tensor]:
    """Gradients of each pair's metric, with embeddings that are ``share`` of the way from base to source."""
    embed = torch.lerp(pair.base.below(0).float(), pair.source.below(0).float(), share).to(model.engine.dtype)
    seen: dict[Place, Tensor] = {}

    def tap(place: Place) -> Callable[[Tensor], Tensor]:
        def show(h: Tensor) -> Tensor:
            # A copy, so that what follows depends on the very tensor that is kept.
            seen[place] = embed.requires_grad_() if place == (None, "embed") else h.clone()
            return seen[place]

        return show

    tokens = pair.base.tokens
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
    reads = {place: tap(place) for place in dict.fromkeys([(None, "embed"), *places])}
    final = model.engine.forward(tokens, positions, reads=reads, gradients=True)
    with torch.enable_grad():
        total = pair.measure(model.engine.unembed(final[:, -1], gradients=True).float()).sum()
        found = torch.autograd.grad(total, [seen[place] for place in places], allow_unused=True)
    return {
        place: torch.zeros_like(seen[place]) if slope is None else slope
        for place, slope in zip(places, found, strict=True)
    }
