"""Values of all nodes on what was drawn for them: each distinct (node, inputs below it) once, in batches.

A leaf's value is the model's own on an input; all leaves share one pass over the distinct inputs. A node with parts runs
the input drawn for the rest of it, from the lowest block that a part reaches, with the parts' values in their places.
The tree is walked from its leaves; equal subtrees on equal inputs are one row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from assay.errors import BadHypothesis
from assay.graph import Graph, Port
from assay.graph.ports import Key
from assay.model.taps import Tap, in_turn
from assay.scrub.data import Ids, Items
from assay.scrub.tree import Bound, Draws
from assay.site import Positions

ALL = Positions()
Sink = Callable[[Ids, Tensor], None]
"""Is shown the references of a batch and their scores ``[row, pos, outputs]``."""


@dataclass(frozen=True, eq=False)
class Values:
    """A node's distinct values, and whose they are.

    Attributes:
        rows: ``[value, token, d]``, padded.
        tokens: how many tokens each has, ``[value]``.
        index: the value of each reference, ``[reference]``.
    """

    rows: Tensor
    tokens: Tensor
    index: Ids


@dataclass(eq=False)
class _Wanted:
    """Values to be read off the model's own passes."""

    port: Port
    positions: Positions
    ids: Ids
    found: Tensor | None = None
    tokens: Tensor | None = None

    def keep(self, place: Ids, h: Tensor, rows: Ids, bounds: Sequence[tuple[int, int]], longest: int) -> None:
        """Take ``rows`` of an activation for the ids at ``place``."""
        kept = _gathered(self.port.of(h), bounds, torch.as_tensor(rows), longest)
        if self.found is None:
            self.found = kept.new_zeros(len(self.ids), *kept.shape[1:])
            self.tokens = torch.zeros(len(self.ids), dtype=torch.long)
        assert self.tokens is not None
        self.found[torch.as_tensor(place)] = kept
        self.tokens[torch.as_tensor(place)] = torch.tensor([stop - start for start, stop in bounds])


@dataclass
class Evaluation:
    """One evaluation of a tree.

    Attributes:
        graph, items, draws: what runs, on what, and what was drawn.
        batch: rows per pass.
        restart: start passes at the lowest block that is changed.
        rows: how many rows have been run, whole or in part.
    """

    graph: Graph
    items: Items
    draws: Draws
    batch: int
    restart: bool = True
    rows: int = 0
    _own: dict[tuple[int, ...], _Wanted] = field(default_factory=dict)
    _below: dict[tuple[int, ...], _Wanted] = field(default_factory=dict)
    _known: dict[Positions, list[tuple[int, int]]] = field(default_factory=dict)

    def scores(self, root: Bound, sink: Sink) -> None:
        """Show ``sink`` the scores of every reference."""
        self._plan(root)
        self._read_all()
        if not root.runs:
            given = self.draws.given[root.path]
            for rows in _chunks(np.argsort(given, kind="stable"), self.batch):
                scores = self.graph.forward(self.items.inputs, given[rows].tolist(), {})
                assert scores is not None
                self.rows += len(rows)
                sink(rows, scores)
            return
        parts = [self._value(part) for part in root.parts]
        order = np.argsort(self.draws.references, kind="stable")
        for rows in _chunks(order, self.batch):
            scores = self._pass(root, parts, rows, {})
            assert scores is not None
            sink(rows, scores)

    def _plan(self, root: Bound) -> None:
        for one in root.walk():
            if one.runs:
                entry = _entry(one)
                below = self.graph.below(entry) if self.restart and entry else None
                if below is not None:
                    self._below[one.path] = _Wanted(below, ALL, np.unique(self.draws.others[one.path]))
            elif one.port is not None and one.node.estimate is None:
                self._own[one.path] = _Wanted(one.port, one.positions, np.unique(self.draws.given[one.path]))

    def _read_all(self) -> None:
        """Run every distinct input once, as far up as anything that is read of it."""
        wanted = [*self._own.values(), *self._below.values()]
        if not wanted:
            return
        whole = self.graph.stages + 1
        highest = np.zeros(len(self.items), dtype=np.int64)
        for one in wanted:
            highest[one.ids] = np.maximum(highest[one.ids], whole if one.port.end is None else max(1, one.port.end))
        for end in np.unique(highest[highest > 0]):
            for ids in _chunks(np.flatnonzero(highest == end), self.batch):
                self._read(ids, wanted, None if end >= whole else int(end))

    def _read(self, ids: Ids, wanted: Sequence[_Wanted], end: int | None) -> None:
        taps: dict[Key, list[tuple[_Wanted, Ids, Ids]]] = defaultdict(list)
        for one in wanted:
            place = np.minimum(np.searchsorted(one.ids, ids), len(one.ids) - 1)
            rows = np.flatnonzero(one.ids[place] == ids)
            if len(rows):
                taps[one.port.key].append((one, rows, place[rows]))

        def at(members: list[tuple[_Wanted, Ids, Ids]]) -> Tap:
            def tap(h: Tensor) -> None:
                for one, rows, place in members:
                    bounds = self._bounds(one.positions)
                    one.keep(place, h, rows, [bounds[i] for i in ids[rows]], self._longest(one.positions))

            return tap

        self.rows += len(ids)
        self.graph.forward(
            self.items.inputs, ids.tolist(), {key: at(members) for key, members in taps.items()}, end=end
        )

    def _bounds(self, positions: Positions) -> list[tuple[int, int]]:
        if positions not in self._known:
            self._known[positions] = self.graph.bounds(self.items.inputs, range(len(self.items)), positions)
        return self._known[positions]

    def _longest(self, positions: Positions) -> int:
        return max(stop - start for start, stop in self._bounds(positions))

    def _value(self, one: Bound) -> Values:
        given = self.draws.given[one.path]
        if one.node.estimate is not None:
            return self._estimated(one)
        if not one.runs:
            wanted = self._own[one.path]
            assert wanted.found is not None and wanted.tokens is not None
            return Values(wanted.found, wanted.tokens, np.searchsorted(wanted.ids, given))
        parts = [self._value(part) for part in one.parts]
        others = self.draws.others[one.path]
        _, first, index = np.unique(
            np.stack([others, *(part.index for part in parts)], axis=1), axis=0, return_index=True, return_inverse=True
        )
        found: list[Tensor] = []
        bounds = self._bounds(one.positions)
        assert one.port is not None
        port, longest = one.port, self._longest(one.positions)
        for rows in _chunks(first, self.batch):
            there = [bounds[i] for i in others[rows]]

            def tap(h: Tensor, there: list[tuple[int, int]] = there) -> None:
                found.append(_gathered(port.of(h), there, torch.arange(len(there)), longest))

            self._pass(one, parts, rows, {port.key: tap}, port.end)
        tokens = torch.tensor([bounds[i][1] - bounds[i][0] for i in others[first]])
        return Values(torch.cat(found), tokens, index.reshape(-1))

    def _estimated(self, one: Bound) -> Values:
        """The estimate on the node's input, less that on the input into whose activation it goes."""
        assert one.node.estimate is not None
        table = self.items.estimates[one.node.estimate]
        table = table[:, None] if table.dim() == 2 else table
        given, others = self.draws.given[one.path], self.draws.others[one.path[:-1]]
        pairs, index = np.unique(np.stack([given, others], axis=1), axis=0, return_inverse=True)
        bounds = self._bounds(one.positions)
        tokens = torch.tensor([bounds[i][1] - bounds[i][0] for i in pairs[:, 1]])
        rows = table[pairs[:, 0]] - table[pairs[:, 1]]
        return Values(rows.expand(-1, int(tokens.max()), -1) if rows.shape[1] == 1 else rows, tokens, index.reshape(-1))

    def _pass(
        self, one: Bound, parts: Sequence[Values], rows: Ids, reads: dict[Key, Tap], end: int | None = None
    ) -> Tensor | None:
        """Run the others of ``rows`` with the parts' values in their places."""
        others = self.draws.others[one.path][rows]
        start, below = None, self._below.get(one.path)
        if below is not None:
            assert below.found is not None
            longest = max(self._bounds(ALL)[i][1] for i in others)
            stream = below.found[torch.as_tensor(np.searchsorted(below.ids, others))][:, :longest]
            start = (_entry(one), stream)
        puts = [_Put(part, values, rows, self, others) for part, values in zip(one.parts, parts, strict=True)]
        self.rows += len(rows)
        return self.graph.forward(self.items.inputs, others.tolist(), _taps(puts, reads), start, end)


class _Put:
    """One part's values on their way into the rows of a pass."""

    def __init__(self, part: Bound, values: Values, rows: Ids, evaluation: Evaluation, others: Ids) -> None:
        assert part.port is not None
        self.part, self.port, self.graph = part, part.port, evaluation.graph
        bounds = [evaluation._bounds(part.positions)[i] for i in others]
        index = torch.as_tensor(values.index[rows])
        tokens = values.tokens[index]
        wrong = [row for row, (start, stop) in enumerate(bounds) if stop - start != tokens[row]]
        if wrong:
            start, stop = bounds[wrong[0]]
            raise BadHypothesis(
                f"{part.node.at} is {int(tokens[wrong[0]])} tokens in one input and {stop - start} in another",
                hint='name single tokens (subject[-1]), or let inputs agree in "length": feature="… & length", others="length"',
            )
        row = torch.repeat_interleave(torch.arange(len(rows)), tokens)
        within = torch.cat([torch.arange(int(count)) for count in tokens])
        first = torch.tensor([start for start, _ in bounds])
        self.where = (row, first[row] + within)
        self.value = values.rows[index[row], within]
        self.now: Tensor | None = None

    def change(self, h: Tensor) -> Tensor:
        """What the part adds to its own activation ``[token, d]`` there."""
        if self.part.node.estimate is not None:
            return self.value.to(h)
        change = self.value - h[self.where]
        return change if self.part.basis is None else change @ self.part.basis.T.to(h) @ self.part.basis.to(h)

    def see(self, h: Tensor) -> None:
        """Keep what a direct path's writer gives in this pass."""
        self.now = self.port.of(h)

    def set(self, h: Tensor) -> Tensor:
        """The activation with the part's value in its place; a whole value is put there bit for bit."""
        own, new = self.port.of(h), h.clone()
        plain = self.part.node.estimate is None and self.part.basis is None
        value = self.value if plain else own[self.where] + self.change(own)
        new[self.where if self.port.head is None else (*self.where, self.port.head)] = value.to(h)
        return new

    def add(self, stream: Tensor) -> Tensor:
        """A reader's copy of the stream, with what the direct path adds."""
        assert self.now is not None and self.part.reader is not None
        change = torch.zeros_like(self.now)
        change[self.where] = self.change(self.now)
        return self.part.reader.plus(stream, self.graph.written(self.port, change))


def _taps(puts: Sequence[_Put], reads: dict[Key, Tap]) -> dict[Key, Tap]:
    """At each place: what is put there, then what direct paths see, then what they add, then what is read."""
    steps: dict[Key, list[Tap]] = defaultdict(list)
    for put in puts:
        if put.part.reader is None:
            steps[put.port.key].append(put.set)
    for put in puts:
        if put.part.reader is not None:
            steps[put.port.key].append(put.see)
    for put in puts:
        if put.part.reader is not None:
            steps[put.part.reader.key].append(put.add)
    for key, tap in reads.items():
        steps[key].append(tap)

    return {key: in_turn(members) for key, members in steps.items()}


def _entry(one: Bound) -> int:
    """The lowest block that a part reaches."""
    return min(part.port.entry for part in one.parts if part.port is not None)


def _gathered(h: Tensor, bounds: Sequence[tuple[int, int]], rows: Tensor, longest: int) -> Tensor:
    """The tokens that bounds name, ``[row, token, d]``, padded with zeros to ``longest``."""
    start = torch.tensor([first for first, _ in bounds])[:, None]
    stop = torch.tensor([last for _, last in bounds])[:, None]
    at = start + torch.arange(longest)
    inside = at < stop
    found = h.detach()[rows[:, None], torch.where(inside, at, start)]
    return found * inside[..., None].to(found) if not bool(inside.all()) else found


def _chunks(ids: Ids, size: int) -> Iterator[Ids]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
