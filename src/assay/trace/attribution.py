"""Attribution patching: what patching would do, to first order, at every place at once (Nanda 2023; Syed et al. 2023).

The change that an activation of the other run would make is read off the gradient of the metric::

    score(n) = (a_n(source) − a_n(base)) · ∂M/∂a_n

Two runs and one backward pass give all places, where patching takes a run each. It is exact where the model is linear
between the two activations; it goes wrong where softmaxes or norms saturate, for whole residual streams above all. With
``steps`` the gradient is averaged between the two inputs (integrated gradients, Sundararajan et al. 2017; for patching
Hanna et al. 2024): over the embeddings the scores then add up to the whole difference of the metric, as steps grow. With
``drop`` paths that cancel are seen all the same (GradDrop, one half of AtP*, Kramár et al. 2024); its other half, for queries
and keys, is `queries_and_keys`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from assay.act.program import Place
from assay.errors import BadDose
from assay.run.model import Model
from assay.site import Site
from assay.trace.contrast import Metric, Mode, Patched, Prompts, contrasted
from assay.trace.gradients import Grid, dropped, gradients, refuse_grid


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
    drop: bool = False,
) -> Patched:
    """Estimate `patching` at every site and token.

    Args:
        clean, corrupted, at, metric, answers, mode: as for `patching`.
        steps: points between base and source at which gradients are taken; 1 with ``grid="left"`` is the base alone.
        grid: which end of each of the ``steps`` intervals, or its middle. ``left`` holds the base and not the source.
        drop: average sizes over backward passes that each leave one layer out; a pass a layer. Effects have no sign then.

    Raises as `patching` does, and `BadDose` for steps or a grid that there are not.
    """
    refuse_grid(steps, grid)
    if drop and steps > 1:
        raise BadDose("layers are dropped at the base alone", found=f"steps={steps}", hint="leave steps out")
    pair = contrasted(model, clean, corrupted, at, metric, answers, mode)
    places: list[Place] = list(dict.fromkeys(site.address for site in pair.sites))
    change = {place: (pair.source.values[place] - pair.base.values[place]).float() for place in places}

    def estimate(slopes: dict[Place, Tensor], place: Place) -> np.ndarray:
        return np.asarray((change[place] * slopes[place]).sum(dim=-1).cpu().numpy())

    if drop:
        sizes = [{p: np.abs(estimate(slopes, p)) for p in places} for slopes in dropped(model, pair, places)]
        # Its own layer dropped, a component has no effect: of as many passes as there are layers one counts for nothing.
        scores = {place: sum(one[place] for one in sizes) / max(1, len(sizes) - 1) for place in places}
    else:
        slopes = gradients(model, pair, places, steps, grid)
        scores = {place: estimate(slopes, place) for place in places}
    plain, target = pair.scored(model, pair.base.final), pair.scored(model, pair.source.final)
    values = np.stack([_of_head(scores[site.address], site).T + plain for site in pair.sites])
    return Patched(pair.sites, pair.tokens, plain, target, values, mode)


def _of_head(scores: np.ndarray, site: Site) -> np.ndarray:
    return scores if scores.ndim == 2 else scores[:, :, site.index]
