"""Causal scrubbing beside the plain recursion of the published pseudocode: one reference after another, each node a pass.

``python -m benchmarks.scrub`` prints the table of README: the ladder on a trained checker of brackets, both ways on the
same draws, interleaved.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from assay.graph import Graph
from assay.graph.ports import Key
from assay.model.taps import Tap, in_turn
from assay.scrub.data import Items
from assay.scrub.evaluate import Evaluation
from assay.scrub.loss import cross_entropy
from assay.scrub.tree import Bound, Draws, bind, draw
from evaluation.markdown import table
from evaluation.scrubbing.brackets.ladder import case


class Plain:
    """``run_scrub`` of Chan et al. 2022, on draws that were made before.

    Attributes:
        passes: how many rows have been run, each from the first block to the last.
    """

    def __init__(self, graph: Graph, items: Items, draws: Draws) -> None:
        self.graph, self.items, self.draws, self.passes = graph, items, draws, 0

    def scores(self, root: Bound, reference: int) -> Tensor:
        """Scores ``[1, pos, outputs]`` of one reference."""
        if not root.parts:
            return self._forward(int(self.draws.given[root.path][reference]), {})
        return self._with_parts(root, reference, {})

    def value(self, one: Bound, reference: int) -> Tensor:
        """A node's activation ``[token, d]`` for one reference."""
        assert one.port is not None
        given = int(self.draws.given[one.path][reference])
        runs = int(self.draws.others[one.path][reference]) if one.parts else given
        kept: list[Tensor] = []

        def tap(h: Tensor) -> None:
            kept.append(one.port.of(h)[0, self._tokens(one, runs)])  # type: ignore[union-attr]

        if one.parts:
            self._with_parts(one, reference, {one.port.key: tap})
        else:
            self._forward(given, {one.port.key: tap})
        return kept[-1]

    def _with_parts(self, one: Bound, reference: int, reads: dict[Key, Tap]) -> Tensor:
        runs = int(self.draws.others[one.path][reference])
        steps: list[tuple[Key, Tap]] = []
        for part in one.parts:
            if part.reader is None:
                steps += self._steps(part, reference, runs)
        for part in one.parts:
            if part.reader is not None:
                steps += self._steps(part, reference, runs)
        return self._forward(runs, _merged([*steps, *reads.items()]))

    def _steps(self, part: Bound, reference: int, runs: int) -> list[tuple[Key, Tap]]:
        port, where = part.port, self._tokens(part, runs)
        assert port is not None
        table = None if part.node.estimate is None else self.items.estimates[part.node.estimate]
        value = None if table is not None else self.value(part, reference)
        now: dict[str, Tensor] = {}

        def wanted(own: Tensor) -> Tensor:
            if table is not None:
                given = int(self.draws.given[part.path][reference])
                return own + table[given] - table[runs]
            assert value is not None
            return value if part.basis is None else own + (value - own) @ part.basis.T @ part.basis

        def put(h: Tensor) -> Tensor:
            new = h.clone()
            port.of(new)[0, where] = wanted(port.of(h)[0, where])
            return new

        def see(h: Tensor) -> None:
            now["h"] = port.of(h)

        def add(stream: Tensor) -> Tensor:
            change = torch.zeros_like(now["h"])
            change[0, where] = wanted(now["h"][0, where]) - now["h"][0, where]
            assert part.reader is not None
            return part.reader.plus(stream, self.graph.written(port, change))

        return [(port.key, put)] if part.reader is None else [(port.key, see), (part.reader.key, add)]

    def _tokens(self, one: Bound, runs: int) -> slice:
        return slice(*self.graph.bounds(self.items.inputs, [runs], one.positions)[0])

    def _forward(self, runs: int, taps: dict[Key, Tap]) -> Tensor:
        self.passes += 1
        scores = self.graph.forward(self.items.inputs, [runs], taps)
        assert scores is not None
        return scores


def _merged(steps: Sequence[tuple[Key, Tap]]) -> dict[Key, Tap]:
    """One tap for each place, that does what is to be done there in turn."""
    found: dict[Key, list[Tap]] = {}
    for key, tap in steps:
        found.setdefault(key, []).append(tap)

    return {key: in_turn(members) for key, members in found.items()}


def main(references: int = 1000, rounds: int = 1) -> None:
    """Print, for each rung, both ways' time and rows, and how far their losses are apart."""
    torch.set_num_threads(2)
    graph, data, rungs = case(seed=0, count=4000)
    items, lines = Items(graph, data), []
    ids = np.random.default_rng(0).integers(len(items), size=references)
    for name, rung in rungs.items():
        bound = bind(graph, items, rung)
        draws = draw(bound, items, ids, 0)
        times: dict[str, list[float]] = {"plain": [], "assay": []}
        losses: dict[str, Tensor] = {}
        rows: dict[str, int] = {}
        for _ in range(rounds):
            start = time.perf_counter()
            plain = Plain(graph, items, draws)
            scores = torch.cat([plain.scores(bound, row) for row in range(references)])
            times["plain"].append(time.perf_counter() - start)
            losses["plain"], rows["plain"] = cross_entropy(scores, items.targets[torch.as_tensor(ids)]), plain.passes
            start = time.perf_counter()
            found = torch.zeros_like(scores)
            ours = Evaluation(graph, items, draws, batch=195)

            def sink(which: object, some: Tensor, found: Tensor = found) -> None:
                found[torch.as_tensor(which)] = some

            ours.scores(bound, sink)
            times["assay"].append(time.perf_counter() - start)
            losses["assay"], rows["assay"] = cross_entropy(found, items.targets[torch.as_tensor(ids)]), ours.rows
        ratio = statistics.median(p / a for p, a in zip(times["plain"], times["assay"], strict=True))
        apart = float((losses["plain"] - losses["assay"]).abs().max())
        lines.append(
            [name, str(len(rung)), f"{rows['plain']:,}", f"{rows['assay']:,}", f"{ratio:.0f} ×", f"{apart:.0e}"]
        )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    head = ["rung", "nodes", "rows, plain", "rows, Assay", "plain time / Assay's", "losses apart by"]
    sys.stdout.write(
        f"{table(head, lines)}\n\n{references} references, {rounds} rounds, peak {memory:.0f} MB with torch.\n"
    )


if __name__ == "__main__":
    main()
