"""Inference-time intervention: shift the few heads whose values tell the two sides apart.

    per head     z = input of o_proj at the last token;  accuracy of a logistic probe on held-out pairs
    top K        θ = (mean z(+) − mean z(−)) / ‖·‖ over all pairs given,   σ = std of θ·z over the same
    edit         z += α σ θ   at the last prompt token and every answer token

Only some heads hold what is looked for, and z is where a head says it, before W_O mixes it into the stream. Probes
choose the heads; means give the directions (the "mass-mean shift", which the paper finds better than the probes' own
weights); σ makes one α mean as much in a quiet head as in a loud one. Heads are query heads: under grouped-query
attention each has its z.

Same as: adding the constant α σ W_O[:, head] θ, summed over a layer's heads, to that layer's attention output.

Differs from the published code, on purpose. σ is measured on the pairs given here and never on anything else; there
it is the spread over a second set of activations that includes the test questions. Scoring edits every answer token;
in its current code multiple choice edits the last token of a teacher-forced pass only, which changes no score. Heads
of equal accuracy are ranked by the probe's loss on the same held-out pairs.

Misleads: with few held-out pairs the best of hundreds of heads is partly luck; the accuracy shown is that of the
winner of a search. The edits of one layer change what later heads read, so K directions together are not K times one.

Source: Li et al. 2023, Inference-Time Intervention: Eliciting Truthful Answers from a Language Model, §3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from assay.act.intervention import Intervention, Place, add
from assay.direction import Direction
from assay.errors import BadData, BadSite, EmptyData, NoSuchSite, nearest
from assay.find.contrast import contrast, reading
from assay.find.found import Directions, Fit, origin
from assay.find.probe import check_penalty, logistic
from assay.find.search import effects, magnitudes, questions, tuned
from assay.pairs import Pairs
from assay.registry import finder
from assay.run.model import Model
from assay.run.score import Answers
from assay.run.sweep import Progress
from assay.site import Site

By = Literal["validation accuracy", "validation loss"]


@dataclass(frozen=True, eq=False, repr=False)
class Heads(Directions):
    """The chosen heads, best first, each with its direction; the direction's ``scale`` is σ, so that a dose is α.

    Attributes:
        accuracy: the validation accuracy of every head that was probed, chosen or not.
        alpha: the strength of `intervention` unless another is given.
    """

    accuracy: Mapping[Site, float]
    alpha: float = 15.0

    def intervention(self, alpha: float | None = None, at: str = "last:") -> tuple[Intervention, ...]:
        """One `add` per head, α standard deviations along its direction, at the last prompt token and ever after."""
        dose = self.alpha if alpha is None else alpha
        return tuple(add(direction, dose=dose, at=direction.site.at(at)) for direction in self.directions)

    def best(
        self,
        on: Pairs,
        *,
        score: Answers | None = None,
        alphas: Sequence[float] = (5.0, 10.0, 15.0, 20.0),
        tops: Sequence[int] = (),
        progress: Progress | None = None,
    ) -> Heads:
        """The α, and of ``tops`` the K, with the largest effect on tuning pairs that ask a question.

        The effect is half the difference between the scores at +α and −α, as in `Found.search`. The K best heads keep
        their order; all of them unless ``tops`` says otherwise. Raises `LeakedData`, `BadData`, `BadDose`.
        """
        self._refuse_used(on)
        asked = questions(on, score)
        if asked is None:
            raise BadData(
                "heads are tuned on questions", found=repr(on), hint="give pairs that have questions and answers"
            )
        if not all(0 < top <= len(self) for top in tops):
            raise NoSuchSite(
                f"tops={list(tops)} of {len(self)} heads", hint="each is a number of heads that were chosen"
            )
        cells = [(top, alpha) for top in tops or (len(self),) for alpha in magnitudes(alphas)]
        pushes = [(self.intervention(alpha)[:top], self.intervention(-alpha)[:top]) for top, alpha in cells]
        found = effects(self.model, asked, pushes, progress)
        top, alpha = cells[int(np.argmax(found))]
        choice = f"best of {len(cells)} cells: effect {max(found):.4g} with {top} heads at α {alpha:g}"
        fits = dict(list(self.fits.items())[:top])
        return replace(self, fits=fits, alpha=alpha, provenance=tuned(self.provenance, on, choice))

    def _direction(self, site: Site, **arguments: Any) -> Direction:
        return super()._direction(site, top=1, **arguments)


def fit(positive: Tensor, negative: Tensor) -> Fit:
    """The unit mass-mean direction and σ of all activations along it; ``[pair, d_head]`` each."""
    shift = (positive - negative).mean(dim=0)
    theta = shift / shift.norm()
    return Fit(theta, {"sigma": float((torch.cat([positive, negative]) @ theta).std(correction=0))})


@finder(fit)
def heads(
    model: Model,
    pairs: Pairs,
    *,
    at: Place = "L:.head[:].z @ last",
    top: int = 48,
    by: By = "validation accuracy",
    validation: float = 0.2,
    C: float = 1.0,
    seed: int = 0,
    name: str = "heads",
) -> Heads:
    """The ``top`` heads of ``at`` whose values best tell the two sides apart, with their directions and σ.

    Args:
        model: where to look.
        pairs: what for.
        at: heads, read at ``@ last`` where no position is named.
        top: how many heads to keep, K.
        by: what ranks them; the other one breaks ties.
        validation: the share of clusters held out to rank heads. Directions and σ are from all pairs.
        C: the probes' inverse penalty; 1, on values as they are, is what the published code has.
        seed: draws the held-out clusters.
        name: what the directions are called.

    Raises `BadSite` for places that are no heads' values, `NoSuchSite` for more heads than there are, `EmptyData` for
    too few clusters to hold any out, and what `find.mean_difference` raises.
    """
    sites = reading(model, at)
    if any(site.part != "head.z" for site in sites):
        raise BadSite(
            f"find.heads reads the values of heads, not {sites[0]}", hint='at="L:.head[:].z @ last" is every head'
        )
    if by not in get_args(By):
        raise BadData(
            f"heads are not ranked by {by!r}", nearest=nearest(by, get_args(By)), hint=f"by={get_args(By)[0]!r}"
        )
    check_penalty(C)
    if not 0 < top <= len(sites):
        raise NoSuchSite(
            f"there are no {top} heads to choose", found=f"{len(sites)} heads", hint=f"top={min(48, len(sites))}"
        )
    train, held = _held_out(pairs, validation, seed)
    read = contrast(model, Pairs((*train, *held)), sites)
    fits = {site: _judged(*read[site], len(train), C) for site in sites}
    first, second = ("accuracy", "loss") if by == "validation accuracy" else ("loss", "accuracy")
    sign = {"accuracy": -1, "loss": 1}
    ranked = sorted(
        sites, key=lambda site: (sign[first] * fits[site].notes[first], sign[second] * fits[site].notes[second])
    )
    accuracy = {site: one.notes["accuracy"] for site, one in fits.items()}
    return Heads(model, {site: fits[site] for site in ranked[:top]}, name, origin(model, pairs), accuracy)


def _held_out(pairs: Pairs, validation: float, seed: int) -> tuple[Pairs, Pairs]:
    """Two parts of the pairs without a cluster or a prompt in common."""
    if not 0 < validation < 1:
        raise BadData(f"validation={validation!r} is no share", hint="give a number between 0 and 1, such as 0.2")
    try:
        parts = pairs.split(fit=1 - validation, tune=validation / 2, seed=seed)
    except EmptyData as error:
        raise EmptyData(
            f"{len(pairs)} pairs are too few to hold out {validation:g} of them",
            found=repr(pairs),
            hint="heads are ranked on pairs that their probes have not seen; give at least 8 clusters",
        ) from error
    return parts.fit, Pairs((*parts.tune, *parts.test))


def _judged(positive: Tensor, negative: Tensor, train: int, C: float) -> Fit:
    """The direction of one head, and how a probe on the first ``train`` pairs does on the others."""
    w, b = logistic(torch.cat([positive[:train], negative[:train]]), np.repeat([1, 0], train), C)
    margins = torch.cat([positive[train:] @ w + b, -(negative[train:] @ w + b)])
    made = fit(positive, negative)
    accuracy, loss = float((margins > 0).double().mean()), float(torch.nn.functional.softplus(-margins).mean())
    return replace(made, notes={"accuracy": accuracy, "loss": loss, **made.notes})
