"""Is the same direction found again? Its finder, run on random halves of the clusters that found it."""

from __future__ import annotations

import numpy as np

from assay.verify.controls import Formula, Sides
from assay.verify.verdict import Missing, Stability

LEAST_CLUSTERS = 4


def split_half(sides: Sides, formula: Formula, rng: np.random.Generator, halvings: int = 20) -> Stability | Missing:
    """Cosines between the directions of two halves, over random halvings.

    Each half has half the data: the cosine of the whole with a second set of its size is higher.
    """
    clusters = int(sides.clusters.max()) + 1
    if clusters < LEAST_CLUSTERS:
        return Missing(reason=f"{clusters} clusters cannot be halved; it takes {LEAST_CLUSTERS}")
    cosines = []
    for _ in range(halvings):
        first = np.zeros(clusters, dtype=np.bool_)
        first[rng.permutation(clusters)[: clusters // 2]] = True
        one, other = (sides.part(half).raw(formula) for half in (first, ~first))
        size = np.linalg.norm(one) * np.linalg.norm(other)
        cosines.append(float(one @ other / size) if size > 0 else 0.0)
    return Stability(cosine=float(np.mean(cosines)), least=min(cosines), halvings=halvings, clusters=clusters)
