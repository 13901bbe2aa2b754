"""``python -m evaluation.circuits``: does circuit search find the circuits that are written down?

For every program of `assay.organisms` and both ablations that its circuit is stated for: the chance that a true edge scores
above another one (AUROC), and faithfulness over size (CPR, CMD).
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from assay import circuits
from assay.circuits.search import Ranking, Task
from assay.organisms import PROGRAMS
from evaluation.markdown import table

METHODS: dict[str, Callable[[Task], Ranking]] = {
    "ACDC": circuits.acdc,
    "EAP": circuits.estimate,
    "EAP-IG, 5 steps": lambda task: circuits.estimate(task, steps=5),
    "EAP-IG, 50 steps": lambda task: circuits.estimate(task, steps=50),
}
COUNT = 128


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    rows = []
    for name, make in PROGRAMS.items():
        program = make()
        graph, clean = program.model.graph(), program.inputs(COUNT, seed=0)
        for ablation in ("resample", "zero"):
            source = program.inputs(COUNT, seed=1) if ablation == "resample" else None
            truth = program.circuit(ablation)
            plain = Task(graph, clean, source, ablation=ablation)
            scores = plain.whole
            apart = lambda seen, scores=scores: (seen - scores).abs().mean((-1, -2))
            for method, search in METHODS.items():
                task = Task(graph, clean, source, ablation=ablation, measure=_sum if method == "EAP" else None)
                ranking = search(task)
                found = circuits.curve(Task(graph, clean, source, ablation=ablation, measure=apart), ranking)
                rows.append(
                    [
                        name,
                        ablation,
                        f"{len(truth)} of {len(ranking.edges)}",
                        method,
                        f"{circuits.roc(ranking, truth):.3f}",
                        f"{found.cpr:.3f}",
                        f"{found.cmd:.3f}",
                    ]
                )
    head = ["program", "ablation", "true edges", "method", "AUROC", "CPR", "CMD"]
    sys.stdout.write(f"{table(head, rows)}\n")


def _sum(scores: torch.Tensor) -> torch.Tensor:
    """A measure with a slope at the model's own run: the answer's score less the mean of all."""
    return (scores.amax(-1) - scores.mean(-1)).mean(-1) if scores.shape[-1] > 1 else scores.mean((-1, -2))


if __name__ == "__main__":
    main()
