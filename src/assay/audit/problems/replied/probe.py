"""Read-outs of instructed dishonesty: the same words, said under two personas, token by token.

    logistic         w = argmin Σᵢ log(1 + exp(−yᵢ w·zᵢ)) + ‖w‖² / 2C, z standardised, C = .1, no intercept
    mean difference  w = mean of x under the dishonest persona − under the honest one

Each token of a beginning is an example; its label is the persona. Since the words are the same under both, they tell
nothing. The first is the probe of Goldowsky-Dill et al. 2025 (*Detecting Strategic Deception Using Linear Probes*, §3),
the second their mean-difference variant. The score of a reply is the mean over its tokens, x · w up to a constant.

The layer of each is the one that separates facts left out best. Transcripts choose nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from assay.stats import auroc

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

KINDS = ("logistic", "mean difference")
LOGISTIC, DIFFERENCE = 0, 1
REGULARISATION = 0.1
_ITERATIONS = 500


@dataclass(frozen=True)
class Instructed:
    """The stream at one layer over beginnings of facts, each said under both personas.

    Attributes:
        x: ``[token, d]``, every token of every beginning under the honest persona, then under the dishonest one.
        fact: which fact a token is of, ``[token]``.
        dishonest: ``[token]``.
    """

    x: Array
    fact: NDArray[np.intp]
    dishonest: Mask

    def part(self, facts: Mask) -> Instructed:
        """Those of some facts, ``facts [fact]``."""
        mine = facts[self.fact]
        return Instructed(self.x[mine], self.fact[mine], self.dishonest[mine])


def scale_of(x: Array) -> Array:
    """Standard deviation by coordinate, ``[d]``; 1 where it does not vary."""
    found = x.std(axis=0)
    return np.where(found > 0, found, 1.0)


def logistic(of: Instructed, flips: Array | None = None) -> Array:
    """The logistic read-out ``[d]``, of the unscaled stream. ``flips [fact]`` of −1 turn both labels of a fact round."""
    scale = scale_of(of.x)
    labels = np.where(of.dishonest, 1, -1)
    labels = labels if flips is None else labels * np.sign(flips[of.fact]).astype(int)
    fitted = LogisticRegression(C=REGULARISATION, fit_intercept=False, max_iter=_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # its direction has long settled then
        fitted.fit((of.x - of.x.mean(axis=0)) / scale, labels)
    return np.asarray(fitted.coef_[0] / scale)


def difference(of: Instructed) -> Array:
    """The mean difference ``[d]``."""
    return np.asarray(of.x[of.dishonest].mean(axis=0) - of.x[~of.dishonest].mean(axis=0))


def by_fact(of: Instructed, vector: Array) -> tuple[Array, Array]:
    """Each fact's mean score under the honest persona, and under the dishonest one."""
    scores, names = of.x @ vector, np.unique(of.fact)
    sides = [
        [float(scores[(of.fact == name) & side].mean()) for name in names] for side in (~of.dishonest, of.dishonest)
    ]
    return np.array(sides[0]), np.array(sides[1])


def separation(honest: Array, dishonest: Array) -> float:
    """d′: the difference of the means over the root mean variance."""
    spread = float(np.sqrt((honest.var() + dishonest.var()) / 2))
    return float(dishonest.mean() - honest.mean()) / max(spread, 1e-12)


@dataclass(frozen=True)
class Readouts:
    """What was fitted, at every layer.

    Attributes:
        vectors: ``[kind, layer, d]``, of the unscaled stream.
        separations: d′ of facts left out, ``[kind, layer]``.
        areas: their AUROC, likewise.
        scales: of the standardisation, ``[layer, d]``.
    """

    vectors: Array
    separations: Array
    areas: Array
    scales: Array

    @property
    def chosen(self) -> list[int]:
        """For each kind the layer (its index) that separates facts left out best."""
        return [int(layer) for layer in self.separations.argmax(axis=1)]


def fit(layers: Sequence[Instructed], tuned: Mask) -> Readouts:
    """Both read-outs at every layer, on the facts that are not ``tuned [fact]``, which they are then tried on."""
    vectors, separations, areas, scales = [], [], [], []
    for one in layers:
        inside, outside = one.part(~tuned), one.part(tuned)
        both = [logistic(inside), difference(inside)]
        sides = [by_fact(outside, vector) for vector in both]
        vectors.append(both)
        separations.append([separation(*side) for side in sides])
        areas.append([auroc(np.concatenate(side), np.repeat([0, 1], len(side[0]))) for side in sides])
        scales.append(scale_of(inside.x))
    return Readouts(
        np.array(vectors).swapaxes(0, 1), np.array(separations).T, np.array(areas).T, np.array(scales)
    )  # fmt: skip


def shuffled(of: Instructed, draws: int, seed: int) -> Array:
    """The logistic read-out refitted on labels that are turned round for a random half of the facts, ``[draw, d]``.

    Half, since the personas lie far apart: were more turned round than not, what is left of their difference would still
    be found, with one sign or the other, and an AUROC does not see how little is left.
    """
    rng = np.random.default_rng([seed, 1])
    names, flips = np.unique(of.fact), np.zeros(int(of.fact.max()) + 1)
    halves = np.resize((-1.0, 1.0), len(names))
    found = []
    for _ in range(draws):
        flips[names] = rng.permutation(halves)
        found.append(logistic(of, flips))
    return np.array(found)
