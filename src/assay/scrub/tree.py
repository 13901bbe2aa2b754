"""A hypothesis bound to a graph: every node's place found, and what cannot be a hypothesis refused, with a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from assay.errors import AssayError, BadHypothesis
from assay.graph import Graph, Port, Reader
from assay.scrub.data import Ids, Items
from assay.scrub.hypothesis import INPUT, Node
from assay.site import Positions


@dataclass(frozen=True, eq=False)
class Bound:
    """A node with its place.

    Attributes:
        node, path: as in the hypothesis; the path leads there from the root.
        port: where its value is read, and put; None for the output.
        positions: the tokens there.
        reader: what alone is given the value, where the node is a direct path.
        basis: orthonormal rows ``[k, d]`` where only a part of the activation is claimed.
        parts: the nodes below.
    """

    node: Node
    path: tuple[int, ...]
    port: Port | None
    positions: Positions
    reader: Reader | None
    basis: Tensor | None
    parts: tuple[Bound, ...]

    def walk(self) -> Iterator[Bound]:
        """Itself and all below."""
        yield self
        for part in self.parts:
            yield from part.walk()

    @property
    def runs(self) -> bool:
        """Whether its value is a pass of its own rather than one of the model's on an input."""
        return bool(self.parts)


def bind(graph: Graph, items: Items, hypothesis: Node) -> Bound:
    """Find every place. Raises `BadHypothesis`, with a picture of the tree that points at what is wrong."""
    if hypothesis.at is not None:
        raise _wrong(hypothesis, (), "the root has a place", "the root is the output: leave out at")
    bound = _bind(graph, items, hypothesis, hypothesis, (), None)
    _refuse_twice(hypothesis, bound)
    return bound


def _bind(graph: Graph, items: Items, root: Node, one: Node, path: tuple[int, ...], above: Port | None) -> Bound:
    port, positions, reader = None, Positions(), None
    try:
        if one.at is not None:
            place, arrow, end = one.at.partition("->")
            name, at, where = place.partition("@")
            port, positions = graph.port(name.strip()), Positions.parse(where) if at else Positions()
            end = end.strip()
            reader = graph.reader("logits" if end == "final norm" else end) if arrow else None
            graph.bounds(items.inputs, range(len(items)), positions)
        for feature in (one.feature, one.others):
            items.classes(feature)
    except AssayError as error:
        raise _wrong(root, path, error.what, error.hint, **error.fields) from error
    if port is not None:
        _refuse_place(root, one, path, port, reader, above)
    sizes = items.classes(one.feature).sizes
    if one.feature != INPUT and len(sizes) > 1 and sizes.max() == 1:
        raise _wrong(
            root,
            path,
            f"no two inputs agree in {one.feature!r}, so nothing would be resampled",
            f'say "{INPUT}" if that is meant',
        )
    if one.estimate is not None and one.estimate not in items.estimates:
        raise _wrong(root, path, f"the data have no estimate {one.estimate!r}", "give it: Data(…, estimates={…})")
    parts = tuple(
        _bind(graph, items, root, part, (*path, index), port if one.at else above)
        for index, part in enumerate(one.parts)
    )
    return Bound(one, path, port, positions, reader, _basis(one), parts)


def _refuse_place(
    root: Node, one: Node, path: tuple[int, ...], port: Port, reader: Reader | None, above: Port | None
) -> None:
    if above is not None and not port.order < above.order:
        raise _wrong(
            root, path, f"{port.name} does not run before {above.name}", "a part lies below what it is a part of"
        )
    if reader is None:
        return
    if not port.writes:
        raise _wrong(
            root, path, f"{port.name} is not added to the stream", "direct paths start at embed, heads or MLPs"
        )
    if not port.order < reader.order or (above is not None and not reader.order <= above.order):
        raise _wrong(
            root,
            path,
            f"{reader.name} does not lie between {port.name} and {above.name if above else 'the output'}",
            "a direct path ends at what reads the stream for the node above",
        )


def _refuse_twice(root: Node, bound: Bound) -> None:
    """No two parts of a node claim the same thing."""
    for one in bound.walk():
        for index, part in enumerate(one.parts):
            for other in one.parts[:index]:
                if _overlap(part, other):
                    raise _wrong(
                        root, part.path, f"{other.node.at} is claimed already", "claim a place once below each node"
                    )


def _overlap(a: Bound, b: Bound) -> bool:
    assert a.port is not None and b.port is not None
    heads = a.port.head is None or b.port.head is None or a.port.head == b.port.head
    readers = a.reader is None or b.reader is None or a.reader.key == b.reader.key
    places = a.positions == b.positions or not (a.positions.single and b.positions.single)
    spans = a.positions.span == b.positions.span or Positions() in (a.positions, b.positions)
    return a.port.key == b.port.key and heads and readers and places and spans


def _basis(one: Node) -> Tensor | None:
    if one.along is None:
        return None
    rows = torch.tensor(one.along, dtype=torch.float32)
    return torch.linalg.qr(rows.T).Q.T


def _wrong(root: Node, path: tuple[int, ...], what: str, hint: str, **fields: object) -> BadHypothesis:
    told = {name.replace(" ", "_"): value for name, value in fields.items()}
    return BadHypothesis(what, **told, picture=root.picture(path, "here"), hint=hint)


@dataclass(frozen=True, eq=False)
class Draws:
    """Which inputs every node sees, for each reference.

    Attributes:
        references: the inputs whose targets are read, ``[reference]``.
        given: by node path, the input that agrees with the node above in its feature, ``[reference]``.
        others: by path of a node that has parts, the input that all the rest of it comes from, ``[reference]``.
    """

    references: Ids
    given: dict[tuple[int, ...], Ids]
    others: dict[tuple[int, ...], Ids]


def draw(bound: Bound, items: Items, references: Ids, seed: int | Sequence[int]) -> Draws:
    """Draw as published: a node's input agrees in its feature with the input drawn for the node above, and one other
    input is shared by all that no part of a node claims. A node's draws depend on its path and place, not on its siblings.
    A node with a pool draws what lies below it as often for each of its inputs, and references take one of these.
    """
    draws = Draws(references, {}, {})
    _draw(bound, items, draws, references, np.arange(len(references)), [seed] if isinstance(seed, int) else list(seed))
    return draws


def _draw(one: Bound, items: Items, draws: Draws, above: Ids, index: Ids, seed: list[int]) -> None:
    """``above`` are the inputs of the node above, ``index`` which of them is each reference's."""
    random = np.random.default_rng([*seed, *one.path, *(one.node.at or "").encode()])
    given = above if one.node.feature == INPUT else items.classes(one.node.feature).draw(above, random)
    if one.node.pool is not None:
        pairs = np.stack([given, random.integers(one.node.pool, size=len(given))], axis=1)
        pairs, place = np.unique(pairs, axis=0, return_inverse=True)
        given, index = pairs[:, 0], place.reshape(-1)[index]
    draws.given[one.path] = given[index]
    if one.runs:
        draws.others[one.path] = items.classes(one.node.others).draw(given, random)[index]
    for part in one.parts:
        _draw(part, items, draws, given, index, seed)
