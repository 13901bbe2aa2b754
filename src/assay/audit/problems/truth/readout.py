"""Reading truth from activations: two linear read-outs, topics left out, and the same search on meaningless labels.

    mean difference    w = Σᵢ yᵢ xᵢ / n, y = ±1, x centred within its topic
    whitened           w = (Σ + λ tr Σ / d · 1)⁻¹ · mean difference, Σ the covariance of x within topics

With as many true as false statements of either polarity the first is the general truth direction t_G of Bürger et al.
2024 (*Truth is Universal*, §3), the second the covariance-tilted mass-mean direction of Marks & Tegmark 2023 (*The
Geometry of Truth*, §5), shrunk. Σ does not look at labels, so both are linear in y: all draws of shuffled labels go
through the whole search together, each as one more column. A draw turns the labels of whole clusters, or does not.

AUROC is taken within each topic and averaged, so a level that differs between topics neither helps nor harms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import rankdata

from assay.stats import Interval, bootstrap_interval

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Mask = NDArray[np.bool_]

METHODS = ("mean difference", "whitened")
REGIONS = ("both", "affirmative", "negated")
SHRINKAGE = 0.3
"""λ: chosen once, on clusters that the default sample leaves out."""


@dataclass(frozen=True)
class Labelled:
    """What every reading of statements needs to know about them, ``[n]`` each."""

    truth: Mask
    negated: Mask
    topics: Codes
    clusters: Codes

    @property
    def signs(self) -> Array:
        """+1 for a truth, −1 for a falsehood."""
        return np.where(self.truth, 1.0, -1.0)

    def regions(self) -> tuple[Mask, Mask, Mask]:
        """Which statements belong to each of `REGIONS`."""
        return np.ones_like(self.truth), ~self.negated, self.negated


@dataclass(frozen=True)
class Fold:
    """Groups that find, groups that choose, groups that are scored: masks ``[n]``."""

    fit: Mask
    tune: Mask
    test: Mask


def folds(groups: Codes, most: int = 5) -> list[Fold]:
    """Each group is scored in one fold, and chooses in the one before it. Groups are dealt out in turn."""
    count = min(most, int(groups.max()) + 1)
    part = groups % count
    return [Fold((part != k) & (part != (k + 1) % count), part == (k + 1) % count, part == k) for k in range(count)]


def flips(clusters: Codes, draws: int, seed: int) -> Array:
    """±1 for each statement, the same throughout a cluster, ``[n, 1 + draws]``; the first column is all +1."""
    rng = np.random.default_rng([seed, 1])
    drawn = rng.choice((-1.0, 1.0), (int(clusters.max()) + 1, draws))
    return np.column_stack([np.ones(len(clusters)), drawn[clusters]])


def centred(x: Array, topics: Codes) -> Array:
    """Activations without the mean of their topic."""
    x = np.array(x, dtype=np.float64)
    for topic in np.unique(topics):
        x[topics == topic] -= x[topics == topic].mean(axis=0)
    return x


def directions(x: Array, signs: Array) -> dict[str, Array]:
    """The vectors of both methods, ``[d, columns]``; centred activations ``[n, d]``, labels ``[n, columns]``."""
    difference = x.T @ signs / len(x)
    return {"mean difference": difference, "whitened": whitened(x, difference)}


def whitened(x: Array, vectors: Array) -> Array:
    """``(Σ + λ tr Σ / d · 1)⁻¹ vectors``, through the smaller of the two Gram matrices of ``x [n, d]``."""
    n, d = x.shape
    ridge = SHRINKAGE * float(np.sum(x**2)) / n / d
    if ridge == 0:
        return np.zeros_like(vectors)
    if d <= n:
        return np.asarray(cho_solve(cho_factor(x.T @ x / n + ridge * np.eye(d)), vectors))
    inner = cho_solve(cho_factor(x @ x.T / n + ridge * np.eye(n)), x @ vectors) / n
    return np.asarray((vectors - x.T @ inner) / ridge)


def areas(scores: Array, truth: Mask, topics: Codes) -> Array:
    """AUROC within each topic, averaged over the topics that hold both classes, ``[columns]``; NaN where none does.

    ``scores [n, columns]``; ``truth [n, columns]``.
    """
    found = []
    for topic in np.unique(topics):
        mine = topics == topic
        ranks, positive = rankdata(scores[mine], axis=0), truth[mine]
        ups = positive.sum(axis=0)
        downs = len(positive) - ups
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(((ranks * positive).sum(axis=0) - ups * (ups + 1) / 2) / (ups * downs))
    table = np.array(found)
    known = np.isfinite(table).sum(axis=0)
    return np.where(known > 0, np.nansum(table, axis=0) / np.maximum(known, 1), np.nan)


def weighted_areas(values: Array, weights: Array) -> Array:
    """A statistic for `assay.stats.bootstrap_interval`: the AUROC of the first column, averaged over topics,
    minus that of the second where there is one more.

    ``values [n, (score, [other score,] truth, topic)]``, ``weights [draws, n]``, to ``[draws]``.
    """
    *scores, truth, topics = values.T
    found = [_weighted_area(score, truth > 0, topics, weights) for score in scores]
    return found[0] - found[1] if len(found) > 1 else found[0]


def _weighted_area(score: Array, truth: Mask, topics: Array, weights: Array) -> Array:
    total, known = np.zeros(len(weights)), np.zeros(len(weights))
    for topic in np.unique(topics):
        up, down = (np.flatnonzero((topics == topic) & side) for side in (truth, ~truth))
        gap = score[up][:, None] - score[down]
        beaten = (gap > 0) + 0.5 * (gap == 0)
        mass = weights[:, up].sum(axis=1) * weights[:, down].sum(axis=1)
        won = np.einsum("di,di->d", weights[:, up] @ beaten, weights[:, down])
        total += np.where(mass > 0, won / np.where(mass > 0, mass, 1), 0)
        known += mass > 0
    with np.errstate(invalid="ignore"):
        return total / known


@dataclass(frozen=True)
class Search:
    """A search over cells (layer × method), by fold, for the true labels and for every draw of shuffled ones.

    Attributes:
        tune, test: AUROC on the groups that choose, and on those that are scored, ``[fold, layer, method, 1 + draws]``;
            of ``test`` once for each of `REGIONS`, first axis.
        chosen: the cell ``(layer index, method index)`` that the true labels choose, by fold.
        cells: each statement's read-out in the fold that scores it, at every cell, ``[layer, method, n]``.
        scores: the same at the chosen cell, ``[n]``.
    """

    tune: Array
    test: Array
    chosen: tuple[tuple[int, int], ...]
    cells: Array
    scores: Array

    def observed(self, region: int) -> float:
        """The AUROC of the true labels: chosen on tune groups, taken on test groups."""
        return float(np.mean([self.test[region, fold, *cell, 0] for fold, cell in enumerate(self.chosen)]))

    def null(self, region: int) -> Array:
        """For each draw the largest AUROC of any cell on test groups, ``[draws]``: a bound on what the search finds."""
        over_folds = self.test[region, ..., 1:].mean(axis=0)
        return np.asarray(over_folds.reshape(-1, over_folds.shape[-1]).max(axis=0))


def search(x: Array, about: Labelled, splits: Sequence[Fold], draws: int, seed: int) -> Search:
    """Fit every cell on the fit groups of every fold, choose on the tune groups, score the test groups.

    ``x [n, layer, d]``.
    """
    turned = flips(about.clusters, draws, seed)
    signs, truth = about.signs[:, None] * turned, (about.signs[:, None] * turned) > 0
    shape = (len(splits), x.shape[1], len(METHODS), draws + 1)
    tune, test = np.zeros(shape), np.zeros((len(REGIONS), *shape))
    cells = np.zeros((x.shape[1], len(METHODS), len(x)))
    for number, fold in enumerate(splits):
        for layer in range(x.shape[1]):
            found = directions(centred(x[fold.fit, layer], about.topics[fold.fit]), signs[fold.fit])
            for method, name in enumerate(METHODS):
                scores = x[:, layer].astype(np.float64) @ found[name]
                tune[number, layer, method] = areas(scores[fold.tune], truth[fold.tune], about.topics[fold.tune])
                for place, region in enumerate(about.regions()):
                    mine = fold.test & region
                    test[place, number, layer, method] = areas(scores[mine], truth[mine], about.topics[mine])
                cells[layer, method, fold.test] = scores[fold.test, 0]
    best = [np.unravel_index(np.argmax(one[..., 0]), one.shape[:2]) for one in tune]
    chosen = tuple((int(layer), int(method)) for layer, method in best)
    scores = np.zeros(len(x))
    for fold, cell in zip(splits, chosen, strict=True):
        scores[fold.test] = cells[*cell, fold.test]
    return Search(tune, test, chosen, cells, scores)


def area(scores: Sequence[ArrayLike], about: Labelled, mine: Mask, draws: int = 1000) -> Interval:
    """The AUROC of one score ``[n]``, or of one minus another, over the statements of a mask, with its interval over
    clusters.
    """
    values = np.column_stack([*(np.asarray(one)[mine] for one in scores), about.truth[mine], about.topics[mine]])
    return bootstrap_interval(
        values.astype(float), weighted_areas, clusters=about.clusters[mine], strata=about.topics[mine], draws=draws
    )
