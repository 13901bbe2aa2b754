"""How good a circuit search is: faithfulness over size, and recovery of edges that are known to be true.

Mueller et al. 2025 (MIB)::

    f(k) = (m(C_k) − m(∅)) / (m(M) − m(∅))        C_k: the share k of edges with the highest scores
    CPR  = area under f over k                    higher is better
    CMD  = area between f and 1                   0 is best
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.circuits.search import Ranking, Task
from assay.errors import BadData, OneClass
from assay.graph import Edge
from assay.stats import auroc

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, eq=False)
class Curve:
    """Faithfulness over size.

    Attributes:
        shares: of all edges, ``[size]``.
        counts: edges in the circuit, without those that lead nowhere, ``[size]``.
        faithfulness: ``[size]``; 0 is no edge at all, 1 the whole model, and others are possible.
        method: whose ranking.
    """

    shares: NDArray[np.float64]
    counts: NDArray[np.int64]
    faithfulness: NDArray[np.float64]
    method: str

    @property
    def cpr(self) -> float:
        """The area under faithfulness."""
        return float(np.trapezoid(self.faithfulness, self.shares))

    @property
    def cmd(self) -> float:
        """The area between faithfulness and 1."""
        return float(np.trapezoid(np.abs(1 - self.faithfulness), self.shares))


def curve(task: Task, ranking: Ranking, shares: Sequence[float] = SHARES) -> Curve:
    """Measure circuits of growing size. Raises `BadData` where the whole and the empty circuit measure alike."""
    whole, empty = task.value(task.edges.all), task.value(())
    if whole == empty:
        raise BadData(
            "the whole and the empty circuit measure alike", found=f"{whole:.3g}", hint="choose another measure"
        )
    found = []
    for share in shares:
        circuit = ranking.circuit(max(1, round(share * len(ranking.edges))))
        found.append((len(circuit), (task.value(circuit) - empty) / (whole - empty)))
    counts, values = zip(*found, strict=True)
    return Curve(np.array(shares, dtype=float), np.array(counts), np.array(values), ranking.method)


def roc(ranking: Ranking, truth: Collection[Edge]) -> float:
    """The chance that a true edge scores above another one, ties counting half. Raises `OneClass`, `BadData`."""
    unknown = set(truth) - set(ranking.edges)
    if unknown:
        u, v = min(unknown)
        raise BadData(f"the edge {u} → {v} is not one of the graph's", hint="name edges as the ranking does")
    true = np.array([edge in truth for edge in ranking.edges])
    if true.all() or not true.any():
        raise OneClass(f"{int(true.sum())} of {len(true)} edges are true", hint="a ranking needs edges of both kinds")
    return float(auroc(ranking.scores, true))
