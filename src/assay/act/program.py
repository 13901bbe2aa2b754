"""The program of one batch: per place, groups of equal operations over rows, applied in order.

A program is pure: it maps activations and absolute positions to new activations. It knows no model and no hooks.
Rows are independent; what differs between them (vector, strength, head, positions) is data with a leading item axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from assay.act.receipt import Receipt, overlap
from assay.act.rows import Row
from assay.errors import NeverFired

Place = tuple[int | None, str]
"""A hookable place: layer and part. Heads are an axis of the activation there."""


@dataclass
class Item:
    """One operation on one row at one place, resolved to numbers.

    ``vector`` makes the values ``[d]`` or ``[n, d]`` (their number of axes is ``rank``) when everything else is known to
    fit: the unit of a dose may have to be measured first.
    """

    row: int
    head: int
    start: int
    stop: int
    what: str
    site: str
    vector: Callable[[], Tensor] | None = None
    rank: int = 0
    basis: Tensor | None = None
    value: float = 0.0
    source_row: int = -1
    source_start: int = 0


class Group:
    """Items of one kind at one place that no row has twice, and so may be applied at once."""

    def __init__(self, kind: str, items: Sequence[Item], device: torch.device | str) -> None:
        self.kind = kind
        self.items = list(items)
        self.rows = self._home = torch.tensor([item.row for item in items])
        self.live = torch.ones(len(items), dtype=torch.bool)
        self.heads = torch.tensor([item.head for item in items])
        self.start = torch.tensor([item.start for item in items])
        self.stop = torch.tensor([item.stop for item in items])
        self.source = self._source_home = torch.tensor([item.source_row for item in items])
        self.shift = torch.tensor([item.source_start - item.start for item in items])
        self.value = torch.tensor([item.value for item in items], device=device)
        self.touched = torch.zeros(len(items), dtype=torch.long)
        self.sums = torch.zeros(4, len(items), device=device)
        self.vectors = _stacked([item.vector() for item in items if item.vector is not None], device)
        self.axis = self._axes(device)

    def _axes(self, device: torch.device | str) -> Tensor | None:
        """Orthonormal bases ``[item, k, d]`` of what the operation acts along; zero rows fill up smaller subspaces."""
        bases = [item.basis for item in self.items]
        if any(basis is None for basis in bases):
            return None
        most = max(basis.shape[0] for basis in bases if basis is not None)
        filled = [
            torch.nn.functional.pad(basis, (0, 0, 0, most - basis.shape[0])) for basis in bases if basis is not None
        ]
        return torch.stack(filled).to(device)

    def move(self, index: Tensor) -> None:
        """Follow rows to new indices ``index[row]`` in the batch; −1 for a row that has left it."""
        self.rows = index[self._home]
        self.source = torch.where(self._source_home < 0, -1, index[self._source_home])
        self.live = self.rows >= 0

    def apply(self, h: Tensor, positions: Tensor) -> Tensor:
        """New activations from ``h`` ``[row, pos, head, d]``; ``positions`` ``[row, pos]`` are absolute, −1 for padding."""
        here = positions[self.rows]
        inside = (here >= self.start[:, None]) & (here < self.stop[:, None]) & self.live[:, None]
        item, at = inside.nonzero(as_tuple=True)
        if not len(item):
            return h
        self.touched += torch.bincount(item, minlength=len(self.items))
        offset = positions[self.rows[item], at] - self.start[item]
        index = self.rows[item].to(h.device), at.to(h.device), self.heads[item].to(h.device)
        before = h[index]
        after = self._operate(before, item.to(h.device), offset.to(h.device), h, positions, item)
        self._note(before, after, item.to(h.device))
        h = h.clone()
        h[index] = after.to(h.dtype)
        return h

    def _operate(
        self, x: Tensor, item: Tensor, offset: Tensor, h: Tensor, positions: Tensor, item_cpu: Tensor
    ) -> Tensor:
        if self.kind == "add":
            assert self.vectors is not None
            delta = self.vectors[item] if self.vectors.dim() == 2 else self.vectors[item, offset]
            return x + delta.to(x.dtype)
        if self.kind == "set":
            assert self.vectors is not None
            given = self.vectors[item, offset]
            return torch.nn.functional.pad(given, (0, x.shape[-1] - given.shape[-1])).to(x.dtype)  # a pattern's padding
        if self.kind == "patch":
            return h[self._sources(positions, item_cpu, offset.cpu(), h.device)]
        assert self.axis is not None
        basis = self.axis[item]
        along = torch.einsum("nkd,nd->nk", basis, x.to(basis.dtype))
        wanted = self.value[item][:, None] if self.kind == "clamp" else 0.0
        return x + torch.einsum("nkd,nk->nd", basis, wanted - along).to(x.dtype)

    def _sources(
        self, positions: Tensor, item: Tensor, offset: Tensor, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = self.source[item]
        wanted = self.start[item] + self.shift[item] + offset
        found = positions[rows] == wanted[:, None]
        if not found.any(dim=1).all():
            missing = self.items[int(item[~found.any(dim=1)][0])]
            raise NeverFired(
                f"{missing.what} finds no value to copy",
                found="the source row has no token at that place in this pass",
                hint="patch between rows whose prompts have the same length there, or from a tensor",
            )
        return rows.to(device), found.int().argmax(dim=1).to(device), self.heads[item].to(device)

    @torch.no_grad()
    def _note(self, before: Tensor, after: Tensor, item: Tensor) -> None:
        before, after = before.float(), after.float()
        length = (after - before).norm(dim=-1)
        told = [length / before.norm(dim=-1).clamp_min(1e-30), length]
        if self.axis is not None:
            first = self.axis[item, 0].float()
            told += [(before * first).sum(-1), (after * first).sum(-1)]
        for sums, values in zip(self.sums, told, strict=False):
            sums.index_add_(0, item, values)

    def receipts(self, rows: Sequence[Row], lengths: Sequence[int], starts: Sequence[int]) -> list[tuple[int, Receipt]]:
        """What each item did, against what it was to do in rows of which the tokens ``starts`` to ``lengths`` ran."""
        touched = self.touched.tolist()
        means = (self.sums.cpu() / self.touched.clamp_min(1)).tolist()
        made = []
        for number, item in enumerate(self.items):
            told = [mean[number] if touched[number] else None for mean in means]
            made.append(
                (
                    item.row,
                    Receipt(
                        row=rows[item.row].name,
                        site=item.site,
                        what=item.what,
                        touched=touched[number],
                        expected=overlap(max(item.start, starts[item.row]), item.stop, lengths[item.row]),
                        relative=told[0],
                        length=told[1],
                        before=told[2] if self.axis is not None else None,
                        after=told[3] if self.axis is not None else None,
                    ),
                )
            )
        return made


@dataclass
class Program:
    """All groups of a batch, by place, in order."""

    rows: Sequence[Row]
    groups: dict[Place, list[Group]] = field(default_factory=dict)

    def apply(self, place: Place, h: Tensor, positions: Tensor) -> Tensor:
        """Run the groups of one place on ``h``: ``[row, pos, d]``, or ``[row, pos, head, d]``."""
        folded = h.dim() == 3
        h = h[:, :, None] if folded else h
        for group in self.groups[place]:
            h = group.apply(h, positions)
        return h[:, :, 0] if folded else h

    def move(self, index: Tensor) -> None:
        """Follow rows to new indices in a batch that shrank; see `Group.move`."""
        for groups in self.groups.values():
            for group in groups:
                group.move(index)

    def receipts(
        self, lengths: Sequence[int] | None = None, starts: Sequence[int] | None = None
    ) -> list[tuple[int, Receipt]]:
        """Receipts with the index of their row; ``lengths`` is where each row ended in the model, ``starts`` where it
        began (0, unless its first tokens came from somebody else's cache).
        """
        lengths = [len(row.tokens) for row in self.rows] if lengths is None else lengths
        starts = [0] * len(self.rows) if starts is None else starts
        return [
            told
            for groups in self.groups.values()
            for group in groups
            for told in group.receipts(self.rows, lengths, starts)
        ]


def _stacked(vectors: Sequence[Tensor], device: torch.device | str) -> Tensor | None:
    """One tensor, ragged ones padded with zeros; single and positional vectors are never in one group."""
    if not vectors:
        return None
    if vectors[0].dim() == 1:
        return torch.stack(list(vectors)).to(device)
    most, widest = max(vector.shape[0] for vector in vectors), max(vector.shape[1] for vector in vectors)
    filled = [torch.nn.functional.pad(v, (0, widest - v.shape[1], 0, most - v.shape[0])) for v in vectors]
    return torch.stack(filled).to(device)
