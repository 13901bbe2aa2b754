"""Beginnings of true statements, on which read-outs are fitted, chosen and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.audit.problems.truth.statements import read
from assay.errors import EmptyData

_LEFT_OUT, _LEAST_WORDS, _LEAST_FACTS = 5, 3, 20
_FITTED = 0.7


class Begun(NamedTuple):
    """Beginnings of facts.

    Attributes:
        texts: each once.
        tuned: which of them choose the layer; no cluster of statements is on both sides, ``[fact]``.
    """

    texts: list[str]
    tuned: NDArray[np.bool_]


def beginnings(path: Path, count: int, seed: int) -> Begun:
    """True statements without their last five words, which would say whether they are true; at most ``count``, of whole
    clusters in an order fixed by hashing. Raises what `read` does, and `EmptyData` where few are long enough.
    """
    homes: dict[str, str] = {}
    for one in read(path):
        words = one.statement.split()[:-_LEFT_OUT]
        if one.label and len(words) >= _LEAST_WORDS:
            homes.setdefault(" ".join(words), one.cluster)
    ordered = sorted(homes, key=lambda text: (_hash(f"{seed} {homes[text]}"), text))[:count]
    clusters = list(dict.fromkeys(homes[text] for text in ordered))
    if len(ordered) < _LEAST_FACTS or len(clusters) < 4:
        raise EmptyData(
            f"{len(ordered)} beginnings of true statements in {len(clusters)} clusters cannot find a read-out",
            found=f"beginnings of {_LEAST_WORDS} words or more, {_LEFT_OUT} words before the statement's end",
            hint=f"give {_LEAST_FACTS} or more, in 4 clusters or more",
        )
    fitted = set(clusters[: round(_FITTED * len(clusters))])
    return Begun(ordered, np.array([homes[text] not in fitted for text in ordered]))


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
