"""Contrastive activation addition: the mean difference between two sides of the same contrast.

    v = 1/n Σᵢ (h(positiveᵢ) − h(negativeᵢ))

What the pairs differ in adds up; what varies from pair to pair averages out as 1/√n. Nothing is scaled, so the length
is that of the model's own difference. The estimate does not mind how large the nuisance is, only how many pairs there
are.

Same as: difference in means, mass-mean direction (up to the probe's covariance), RepE's ``cluster_mean``; with one pair
and every position kept it is activation addition (`find.pair`).

The answer-letter protocol: with `Pairs.answers_ab`, or `Pairs.load` of its JSON, both prompts are the chat turn and
then ``(A`` or ``(B``. The letter is the last token, so ``@ last`` reads what the published code reads at −2 of
``(A)``: what follows a token does not change it. Its questions end in ``(`` and are scored on the two letters. The
vector acts at ``last:`` (the default of `best`), ``add(v, times=1)`` being the published multiplier 1; the published
code starts at the last token of the turn before the ``(``, which is ``add(v, times=1, at="L13.resid @ -2:")``.

Misleads: it finds whatever the sides differ in, such as a word, a length, or always the letter A (balance the letters);
a few prompts of large norm can dominate.

Source: Panickssery et al. 2024, Steering Llama 2 via Contrastive Activation Addition, §3; its layer l is
``L{l}.resid``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from assay.act.intervention import Place
from assay.errors import BadSite, EmptyData
from assay.find.found import Fit, Found, fitted
from assay.pairs import Pairs
from assay.registry import finder
from assay.run.model import Model


def fit(positive: Tensor, negative: Tensor) -> Fit:
    """The mean of positive − negative over pairs; ``[pair, d]`` each."""
    return Fit((positive - negative).mean(dim=0))


@finder(fit)
def mean_difference(model: Model, pairs: Pairs, *, at: Place, name: str = "mean difference") -> Found:
    """The mean difference at each site of ``at``, read at ``@ last`` where it names no position.

    Raises `NoSuchSite`, `BadSite`, `BadData`, `EmptyData`, `OneClass`, `NoSuchPosition` before anything runs;
    `BadVector`.
    """
    return fitted(model, pairs, at, fit, name)


def equal_norms(behaviours: Sequence[Found]) -> list[Found]:
    """The same directions, at each site scaled to the mean norm over the behaviours, so that one multiplier means the
    same for all of them. The published vectors are scaled in this way. Raises `BadSite` unless all were found at the
    same sites.
    """
    if not behaviours:
        raise EmptyData(
            "there are no behaviours to compare", hint="give what find.mean_difference found for each of them"
        )
    first, *others = behaviours
    if any(list(other) != list(first) for other in others):
        raise BadSite("the behaviours were found at different sites", hint="find all of them at the same sites")
    norms = {
        site: sum(float(found.fits[site].vector.norm()) for found in behaviours) / len(behaviours) for site in first
    }
    step = f"scaled to the mean norm of {len(behaviours)} behaviours"
    return [
        replace(
            found,
            fits={
                site: replace(one, vector=one.vector * (norms[site] / one.vector.norm()))
                for site, one in found.fits.items()
            },
            provenance=found.provenance.then(step, *(other.provenance for other in behaviours)),
        )
        for found in behaviours
    ]
