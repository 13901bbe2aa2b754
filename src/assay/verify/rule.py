"""The rule: when a direction holds.

It holds where the slope of the score over mirrored doses is larger than under ``random``, ``covariance`` and
``shuffled`` directions (permutation tests, each draw counted with both signs) *and* is shown over the items (one-sided
sign flips of whole clusters). Each test is at alpha and all must pass, so no correction is due among them: a null
direction passes them all no more often than the one whose null it comes from (Berger 1982, intersection-union tests).

Why all four: a real but unrelated concept passes ``random`` far too often, since directions that the model uses do more
than isotropic noise; the items alone pass in about half of all cases, since almost any push moves an answer somewhere.
The rates are in ``calibration/``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from assay.stats import Effect, items_needed, minimum_detectable_effect
from assay.verify.verdict import ConceptShare, Control, Missing, Power, Word

Array = NDArray[np.float64]

GATES = ("random", "covariance", "shuffled")

CONFOUNDED = 0.10
"""Share of the within-class variance along the direction above which covariance-matched draws hold too much of it to
refute it. In simulation .98 of true directions pass the control at a share of .09, .89 at .17, .44 at .31."""

POWER = 0.8

_FAILS = {
    "items": "the items do not agree that it moves the score",
    "random": "random directions of its length do as much",
    "covariance": "directions drawn from the activations' own covariance do as much",
    "shuffled": "the same finder does as much on shuffled labels",
}


def decide(
    items_p: float,
    controls: Mapping[str, Control],
    alpha: float,
    effect: Effect,
    concept: ConceptShare | Missing,
) -> tuple[Word, str, float]:
    """The word, one sentence, and the largest p of the tests that decide.

    A gate that was not run leaves it undecided at best; so does a covariance gate that fails alone where the direction
    holds much of the variance.
    """
    gates = {name: control for name, control in controls.items() if control.gating}
    ps = {"items": items_p} | {name: control.p for name, control in gates.items() if control.p is not None}
    failed = [name for name, p in ps.items() if p > alpha]
    absent = [name for name, control in gates.items() if control.p is None]
    largest = max(ps.values())
    low, high = effect.interval.low, effect.interval.high
    said = f"One dose moves the score by {effect.value:+.3g} nats ({low:+.3g} to {high:+.3g})"
    if not failed and not absent:
        against = ", ".join(f"{len(control.values)} {name}" for name, control in gates.items())
        return (
            "holds",
            f"{said}, more than {against} directions do, and its items agree (largest p {largest:.3g}).",
            largest,
        )
    if not failed:
        missing = "; ".join(f"{name}: {gates[name].note}" for name in absent)
        return (
            "undecided",
            f"{said}, and no test speaks against it, but not every control was run ({missing}).",
            largest,
        )
    share = concept.share if isinstance(concept, ConceptShare) else 0.0
    if failed == ["covariance"] and share > CONFOUNDED:
        why = f"{_FAILS['covariance']} (p {ps['covariance']:.3g})"
        return "undecided", f"{said}; {why}, but {share:.0%} of that variance lies along it: they resemble it.", largest
    if effect.value <= 0:
        return "does not hold", f"{said}: not toward the matching answer.", largest
    why = "; ".join(f"{_FAILS[name]} (p {ps[name]:.3g})" for name in failed)
    return "does not hold", f"{said}, but {why}.", largest


def bar(null: Array, chosen: int, alpha: float) -> float:
    """The slope at the chosen site that a draw of ``null [draws, sites]`` exceeds with chance alpha, both signs and the
    largest of all sites counted.
    """
    size = np.sqrt(np.mean(null**2, axis=0))
    scaled = null / np.where(size > 0, size, 1)
    largest = np.concatenate([scaled.max(axis=1), -scaled.min(axis=1)])
    return float(np.quantile(largest, 1 - alpha) * size[chosen])


def power(effect: Effect, slopes: Array, clusters: NDArray[np.intp], bars: Mapping[str, float], alpha: float) -> Power:
    """The least true slope that passes, and the items that the observed one needs."""
    if not effect.se > 0:
        return Power(
            detectable=max([0.0, *bars.values()]),
            limit=max(bars, key=bars.__getitem__, default="items"),
            items_needed=None,
        )
    reach = minimum_detectable_effect(effect.se, alpha=alpha, power=POWER, tail="greater")
    luck = minimum_detectable_effect(effect.se, alpha=0.5, power=POWER, tail="greater")
    detectable = {"items": reach} | {name: height + luck for name, height in bars.items()}
    limit = max(detectable, key=detectable.__getitem__)
    means = np.bincount(clusters, slopes) / np.bincount(clusters)
    plannable = effect.value > 0 and np.std(means) > 0
    needed = (
        items_needed(float(np.std(means, ddof=1)), effect.value, alpha=alpha, power=POWER, tail="greater")
        if plannable
        else None
    )
    return Power(detectable=detectable[limit], limit=limit, items_needed=needed)
