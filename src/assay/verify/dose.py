"""Doses of a direction: more does more, in both signs, enough to bring the behaviour about, at what cost elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from assay.act.intervention import Intervention, add
from assay.direction import Direction
from assay.errors import BadDose
from assay.prompt import Prompt
from assay.run.model import Model
from assay.run.sweep import Progress
from assay.site import Site
from assay.stats import dose_response, paired_effect
from assay.verify.verdict import DoseResponse, Sufficiency

Array = NDArray[np.float64]

_FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Strengths at which the side effect of a direction is measured, to find where it meets the budget."""


def mirrored(doses: Sequence[float], what: str = "doses") -> tuple[float, ...]:
    """The doses other than 0, rising. Raises `BadDose` unless each has its negative."""
    found = [float(dose) for dose in doses]
    if not all(map(math.isfinite, found)) or len(set(found)) < len(found):
        raise BadDose(f"{what}={tuple(doses)} repeat, or are not finite", hint="give each finite dose once")
    acting = sorted(dose for dose in found if dose != 0)
    alone = [dose for dose in acting if -dose not in acting]
    if not acting or alone:
        raise BadDose(
            f"{what}={tuple(doses)} are not mirrored",
            found=f"{alone[0]:g} without {-alone[0]:g}" if alone else "no dose but 0",
            hint="give each dose in both signs, such as (-4, -2, 0, 2, 4): damage that both do alike then cancels",
        )
    return tuple(acting)


def directed(vector: Array, site: Site, name: str) -> Direction:
    """An array as a direction at a site."""
    return Direction(torch.from_numpy(vector), site, name=name)


def pushes(vector: Array, site: Site, doses: Sequence[float], name: str) -> list[tuple[Intervention, ...]]:
    """One condition per dose; ``vector`` is as long as one dose. The zero vector changes nothing."""
    if not vector.any():
        return [()] * len(doses)
    direction = directed(vector, site, name)
    return [(add(direction, times=dose),) for dose in doses]


def response(doses: Sequence[float], effects: Array, clusters: NDArray[np.intp], seed: int) -> DoseResponse:
    """From each item's change against dose 0, ``[items, doses]``."""
    x, e = np.append(doses, 0.0), np.column_stack([effects, np.zeros(len(effects))])
    order = np.argsort(x)
    bands = [paired_effect(column, clusters) for column in e[:, order].T]
    return DoseResponse(
        doses=tuple(x[order].tolist()),
        means=tuple(band.value for band in bands),
        lows=tuple(band.interval.low for band in bands),
        highs=tuple(band.interval.high for band in bands),
        trend=dose_response(doses, effects, clusters=clusters, seed=seed),
    )


def sufficiency(dose: float, dosed: Array, natural: Array, clusters: NDArray[np.intp]) -> Sufficiency:
    """From each item's score under the largest dose and without it, ``[items]``."""
    absent = natural < 0
    return Sufficiency(
        dose=dose,
        effect=paired_effect(dosed - natural, clusters),
        absent=int(absent.sum()),
        turned=int((absent & (dosed > 0)).sum()),
    )


def equal_kl(
    model: Model,
    texts: Sequence[str | Prompt],
    vectors: Array,
    site: Site,
    largest: float,
    budget: float,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Array:
    """By how much to scale each vector ``[n, …]``, ``[n]``, for its largest dose to cost ``budget`` nats per token of
    neutral text, mean of both signs.

    Read off the curve of KL against strength, both logarithmic; below the weakest strength measured KL goes with its
    square. A vector that is within the budget at twice the dose is taken at that. A vector and its negative have one
    factor, so mirrored draws stay mirrored.
    """
    doses = [sign * factor * largest for factor in _FACTORS for sign in (1, -1)]
    conditions = [condition for vector in vectors for condition in pushes(vector, site, doses, "draw")]
    measured = model.drift(texts, conditions, memory=memory, progress=progress)
    kl = (measured.kl * measured.tokens[:, None]).sum(axis=0) / measured.tokens.sum()
    curves = np.maximum.accumulate(kl.reshape(len(vectors), len(_FACTORS), 2).mean(axis=2), axis=1)
    return np.array([_crossing(curve, budget) for curve in curves])


def _crossing(curve: Array, budget: float) -> float:
    if curve[-1] <= budget:
        return _FACTORS[-1]
    if curve[0] >= budget:
        return float(_FACTORS[0] * math.sqrt(budget / curve[0]))
    floor = np.maximum(curve, np.finfo(float).tiny)
    return float(np.exp(np.interp(math.log(budget), np.log(floor), np.log(_FACTORS))))
