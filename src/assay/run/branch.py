"""Branches: continuations of rows that have been run, each changed at a few places. What tracing and patching consist of.

A change at token t of block l leaves everything below that block and before that token as it was. So a branch resumes at
its block with its trunk's stream from token t on, attends to its trunk's keys and values before t, and only what can
change is computed. Branches of one trunk share a row, one after the other; trunks, and branches that resume at other
blocks, are rows of one batch, which grows from below as the pass reaches their blocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import torch
from torch import Tensor

from assay.act.program import Place
from assay.errors import NeverFired
from assay.model.clock import BranchCache, SlotCache
from assay.model.core import Core
from assay.model.engine import Start
from assay.model.taps import keeper


def _under(entry: int) -> Place:
    """Where the stream below a block is."""
    return (entry - 1, "resid") if entry else (None, "embed")


@dataclass(frozen=True)
class Trunks:
    """Rows of one length after their pass.

    Attributes:
        tokens: ``[trunk, pos]``.
        values: what was read, by place: ``[trunk, pos, d]``, of heads ``[trunk, pos, head, d]``.
        final: the normed final stream at the last token, ``[trunk, d_model]``.
        cache: keys and values.
    """

    tokens: Tensor
    values: Mapping[Place, Tensor]
    final: Tensor
    cache: SlotCache

    @property
    def positions(self) -> Tensor:
        """``[trunk, pos]``."""
        return torch.arange(self.tokens.shape[1]).expand(self.tokens.shape)

    def below(self, entry: int) -> Tensor:
        """The stream below a block, ``[trunk, pos, d_model]``."""
        return self.values[_under(entry)]


@dataclass(frozen=True)
class Change:
    """At ``place``, and there at ``head`` if any, the branch's tokens from its first on become ``value``
    ``[trunk, pos, d]``; fewer positions than the branch has leave the rest alone.
    """

    place: Place
    value: Tensor
    head: int | None = None

    @property
    def entry(self) -> int:
        """The first block that it can make a difference to."""
        layer, part = self.place
        return 0 if layer is None else layer + (part == "resid")


@dataclass(frozen=True)
class Branch:
    """One continuation of every trunk.

    Attributes:
        entry: the block at which it resumes; as many as there are blocks leaves only the final norm.
        first: the token at which it leaves its trunk.
        start: the stream below ``entry`` at its first tokens, ``[trunk, pos, d_model]``, where that is not the trunk's.
        changes: what is changed on the way, at ``entry`` or above.
    """

    entry: int
    first: int
    start: Tensor | None = None
    changes: tuple[Change, ...] = ()

    @classmethod
    def of(cls, first: int, *changes: Change) -> Branch:
        """The shortest branch with these changes: a stream that is changed below all else is where it starts."""
        ordered = sorted(changes, key=lambda change: change.entry)
        lowest = ordered[0]
        if lowest.place[1] in ("resid", "embed"):
            return cls(lowest.entry, first, lowest.value, tuple(ordered[1:]))
        return cls(lowest.entry, first, None, tuple(ordered))


def trunks(core: Core, tokens: Tensor, places: Sequence[Place], embed: Tensor | None = None) -> Trunks:
    """Run rows of one length ``[trunk, pos]``, keeping all streams and ``places``; ``embed`` replaces what block 0 receives."""
    values: dict[Place, Tensor] = {}
    streams = [_under(entry) for entry in range(core.shape.layers + 1)]
    reads = {place: keeper(values, place) for place in dict.fromkeys([*streams, *places])}
    if embed is not None:
        values[_under(0)] = embed
        reads[_under(0)] = lambda _: embed
    cache = core.engine.empty_cache(*tokens.shape)
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
    final = core.engine.forward(tokens, positions, reads=reads, cache=cache)
    return Trunks(tokens, values, final[:, -1], cache)


def grown(core: Core, base: Trunks, branches: Sequence[Branch], budget: int) -> Iterator[tuple[list[int], Tensor]]:
    """Run all branches; yields their indices and the final stream at the last token, ``[branch, trunk, d_model]``.

    ``budget`` is how many tokens a batch should hold. Raises `NeverFired` for a change whose place does not run.
    """
    count, length = base.tokens.shape
    for firsts in _layouts(branches, length, max(1, budget // count)):
        width = sum(length - first for first in firsts)
        lines = _lines(branches, firsts)
        most = max(1, budget // (count * width))
        for start in range(0, len(lines), most):
            batch = _Batch(core, base, branches, firsts, lines[start : start + most])
            final = batch.run()
            yield batch.indices, final


def _layouts(branches: Sequence[Branch], length: int, most: int) -> list[tuple[int, ...]]:
    """The tokens at which branches leave, in groups of at most ``most`` tokens of branches."""
    found: list[tuple[int, ...]] = []
    room = 0
    for first in sorted({branch.first for branch in branches}):
        room -= length - first
        if room < 0:
            found.append(())
            room = most - (length - first)
        found[-1] += (first,)
    return found


@dataclass(frozen=True)
class _Line:
    """One branch for each place of a layout, all resuming at one block; None where there is none."""

    entry: int
    members: tuple[int | None, ...]


def _lines(branches: Sequence[Branch], firsts: tuple[int, ...]) -> list[_Line]:
    by_entry: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, branch in enumerate(branches):
        if branch.first in firsts:
            by_entry[branch.entry][branch.first].append(index)
    lines = []
    for entry in sorted(by_entry):
        columns = [by_entry[entry][first] for first in firsts]
        lines += [_Line(entry, members) for members in zip_longest(*columns)]
    return lines


@dataclass
class _Edit:
    """The changes of a batch at one place, gathered: activations at ``rows``, ``tokens`` (and ``heads``) become ``values``."""

    rows: list[Tensor] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)
    heads: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def add(self, row: int, token: int, change: Change, pos: int) -> None:
        value = change.value[:, :pos]
        rows, tokens = torch.arange(row, row + value.shape[0]), torch.arange(token, token + value.shape[1])
        self.rows.append(rows[:, None].expand(value.shape[:2]).flatten())
        self.tokens.append(tokens.expand(value.shape[:2]).flatten())
        if change.head is not None:
            self.heads.append(torch.full((value.shape[0] * value.shape[1],), change.head))
        self.values.append(value.flatten(0, 1))

    def apply(self, h: Tensor) -> Tensor:
        index = [torch.cat(self.rows), torch.cat(self.tokens), *([torch.cat(self.heads)] if self.heads else [])]
        h = h.clone()
        h[tuple(one.to(h.device) for one in index)] = torch.cat(self.values).to(h)
        return h


class _Batch:
    """Lines that run together: rows ``line × trunk``, the lines that resume at lower blocks first."""

    def __init__(
        self, core: Core, base: Trunks, branches: Sequence[Branch], firsts: tuple[int, ...], lines: Sequence[_Line]
    ) -> None:
        self.core, self.base, self.branches, self.firsts, self.lines = core, base, branches, firsts, lines
        self.count, length = base.tokens.shape
        self.offsets = [sum(length - first for first in firsts[:index]) for index in range(len(firsts) + 1)]
        self.where = torch.cat([torch.arange(first, length) for first in firsts])
        self.ends = torch.tensor(self.offsets[1:]) - 1
        self.indices = [index for line in lines for index in line.members if index is not None]

    def run(self) -> Tensor:
        """The final stream at the last token of every branch that there is, ``[branch, trunk, d_model]``."""
        base, lowest = self.base, self.lines[0].entry
        edits = self._edits()
        entries = sorted({line.entry for line in self.lines})
        joining = {
            _under(entry): torch.cat([self._stream(line) for line in self.lines if line.entry == entry])
            for entry in entries
        }
        fired: set[Place] = set()

        def tap(place: Place) -> Callable[[Tensor], Tensor]:
            def through(h: Tensor) -> Tensor:
                fired.add(place)
                if place in joining:
                    h = joining[place] if place == _under(lowest) else torch.cat([h, joining[place]])
                return edits[place].apply(h) if place in edits else h

            return through

        places = list(dict.fromkeys([*joining, *edits]))
        tokens = base.tokens[:, self.where]
        cache = BranchCache(base.cache, self.firsts)
        final = self.core.engine.forward(
            tokens,
            cache.positions,
            reads={place: tap(place) for place in places},
            cache=cache,
            slots=cache.positions,
            start=Start(lowest, joining[_under(lowest)]) if lowest else None,
        )
        missed = [place for place in places if place not in fired]
        if missed:
            layer, part = missed[0]
            raise NeverFired(
                f"a change at {part if layer is None else f'L{layer}.{part}'} touched no activation",
                found="the module behind this site did not run",
                hint="check with `assay sites MODEL`",
            )
        there = torch.tensor([index is not None for line in self.lines for index in line.members])
        final = final[:, self.ends.to(final.device)].unflatten(0, (len(self.lines), self.count)).transpose(1, 2)
        return final.flatten(0, 1)[there.to(final.device)]

    def _stream(self, line: _Line) -> Tensor:
        """The stream below the line's block, ``[trunk, token, d_model]``."""
        stream = self.base.below(line.entry)[:, self.where.to(self.base.final.device)]
        for index, offset in zip(line.members, self.offsets, strict=False):
            given = None if index is None else self.branches[index].start
            if given is not None:
                stream[:, offset : offset + given.shape[1]] = given
        return stream

    def _edits(self) -> dict[Place, _Edit]:
        found: dict[Place, _Edit] = defaultdict(_Edit)
        for number, line in enumerate(self.lines):
            for slot, index in enumerate(line.members):
                for change in () if index is None else self.branches[index].changes:
                    room = self.offsets[slot + 1] - self.offsets[slot]
                    found[change.place].add(number * self.count, self.offsets[slot], change, room)
        return found
