"""Is it this direction, at this layer, on these tokens? Contrasts that stand beside a verdict and do not decide it:
good directions often work next door, and one that stands there is no draw from a null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from assay.act.rows import Row
from assay.errors import NoSuchPosition
from assay.run.model import Model
from assay.site import Site
from assay.stats import Effect, paired_effect
from assay.verify.verdict import Missing

Array = NDArray[np.float64]


def wrong_layer(model: Model, site: Site) -> Site | Missing:
    """The same part half the model's depth away."""
    if not isinstance(site.layer, int):
        return Missing(reason=f"{site.place} has no layer")
    if model.shape.layers < 2:
        return Missing(reason="the model has one layer")
    return replace(site, layer=(site.layer + model.shape.layers // 2) % model.shape.layers)


def wrong_position(site: Site, rows: Sequence[Row]) -> Site | Missing:
    """The second token of the row: past an attention sink, before most of what a question says."""
    for row in rows:
        try:
            acts = site.positions.resolve(row.prompt, row.spans, len(row.tokens))
        except NoSuchPosition:
            return Missing(reason=f"{row.name} has no @ {site.positions}")
        if row.prompt < 3 or acts == (1, 2):
            return Missing(reason="a question is too short to have another place")
    return site.at(1)


def beyond(
    slopes: Array, controls: Mapping[str, Array | Missing], clusters: NDArray[np.intp]
) -> dict[str, Effect | Missing]:
    """The direction's slope minus each control's, item by item; ``[items]`` each."""
    return {
        name: control if isinstance(control, Missing) else paired_effect(slopes - control, clusters)
        for name, control in controls.items()
    }
