"""Interventions compiled for one batch: per place, groups of equal operations over rows, applied in order.

A program is pure: it maps activations and absolute positions to new activations. It knows no model and no hooks.
Rows are independent; what differs between them (vector, strength, head, positions) is data with a leading item axis.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from assay.act.intervention import Intervention
from assay.act.receipt import Receipt, never, overlap
from assay.act.rows import Row, numbered
from assay.direction import orthonormal
from assay.errors import BadSite, BadVector, NeverFired, NoSuchPosition
from assay.site import END, Site
from assay.sites import Shape

Place = tuple[int | None, str]
"""A hookable place: layer and part. Heads are an axis of the activation there."""

Scale = Callable[[Site, str], float]
"""Gives the unit of one dose at a site: ``"norm"`` or ``"std"``."""


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
        filled = [torch.nn.functional.pad(basis, (0, 0, 0, most - basis.shape[0])) for basis in bases if basis is not None]
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
        began (0, unless its first tokens came from somebody else's cache)."""
        lengths = [len(row.tokens) for row in self.rows] if lengths is None else lengths
        starts = [0] * len(self.rows) if starts is None else starts
        return [told for groups in self.groups.values() for group in groups for told in group.receipts(self.rows, lengths, starts)]


def compile_program(
    rows: Sequence[Row],
    conditions: Sequence[Sequence[Intervention]],
    shape: Shape,
    scale: Scale,
    device: torch.device | str = "cpu",
    twins: dict[int, int] | None = None,
) -> Program:
    """Resolve interventions against rows. ``conditions[i]`` acts on row i where its ``into`` allows.

    ``twins`` gives for a row the index of the row without interventions that `freeze` copies from.
    Raises the error of whatever does not fit, before anything runs.
    """
    ordered: dict[Place, dict[tuple[int, str], list[Item]]] = defaultdict(lambda: defaultdict(list))
    written: dict[tuple[Place, int, int], int] = defaultdict(int)
    copied: dict[tuple[Place, int, int], int] = defaultdict(int)
    distinct = {id(one): one for condition in conditions for one in condition}
    prepared = {key: _Prepared(one, shape, scale) for key, one in distinct.items()}
    for turn in range(max(map(len, conditions), default=0)):
        for index, condition in enumerate(conditions):
            if turn >= len(condition) or condition[turn].idle:
                continue
            ready = prepared[id(condition[turn])]
            if ready.of.into is not None and index not in numbered(rows, ready.of.into, ready.what):
                continue
            for site in ready.sites:
                place = site.address
                item, kind = _resolve(ready, site, index, rows, twins)
                # Left to right also between rows: a copy follows what was written at its source, and precedes what will be.
                here, there = (place, index, item.head), (place, item.source_row, item.head)
                level = max(written[here], copied[here], written[there])
                written[here] = level + 1
                if item.source_row >= 0:
                    copied[there] = max(copied[there], level + 1)
                ordered[place][level, f"{kind}:{item.rank}:{item.basis is None}"].append(item)
    groups = {
        place: [
            Group(kind.partition(":")[0], items, device)
            for (_, kind), items in sorted(levels.items(), key=lambda level: level[0][0])
        ]
        for place, levels in ordered.items()
    }
    return Program(rows, groups)


def interval(what: str, site: Site, row: Row) -> tuple[int, int]:
    """The absolute positions of a site in a row. Raises `NeverFired` where the row has none."""
    try:
        start, stop = site.positions.resolve(row.prompt, row.spans, row.total or None)
    except NoSuchPosition as error:
        raise never(what, [row], error.what) from error
    if start >= row.total:
        raise never(what, [row], f"the row {row.name!r} ends before position {start}")
    return start, stop


def fitted(intervention: Intervention, shape: Shape) -> list[Site]:
    """The single sites of an intervention. Raises whatever of it does not fit the model."""
    return _Prepared(intervention, shape, lambda site, kind: 1.0).sites


class _Prepared:
    """What of an intervention is the same for every row: its text, its single sites, its vectors at full strength."""

    def __init__(self, intervention: Intervention, shape: Shape, scale: Scale) -> None:
        self.of = intervention
        self.what = str(intervention)
        self.sites = [single for wide in intervention.sites for single in shape.expand(wide)]
        self.scale = scale
        self.widths = {site.part: self._checked(site, shape.width(site.part)) for site in self.sites}
        self.basis = self._basis()
        self.vectors: dict[Site, Tensor] = {}

    def _checked(self, site: Site, width: int | None) -> int | None:
        if width is None and self.of.op not in ("patch", "freeze"):
            raise BadSite(f"{self.of.op} does not act on {site}", hint="a pattern can be patched or frozen")
        for direction in self.of.directions:
            if direction.width != width:
                raise BadVector(
                    f"{direction.name!r} does not fit {site}",
                    found=f"a vector of width {direction.width}; the site has {width}",
                    hint="use a direction found at a site of this kind",
                )
        return width

    def _basis(self) -> Tensor | None:
        """What the operation acts along, ``[k, d]``; a positional vector has no one axis."""
        if not self.of.directions or any(direction.vector.dim() != 1 for direction in self.of.directions):
            return None
        return orthonormal([direction.unit for direction in self.of.directions])

    def added(self, site: Site) -> Tensor:
        """The vector that `add` adds at a site."""
        if site not in self.vectors:
            direction = self.of.directions[0]
            if self.of.times is not None:
                self.vectors[site] = direction.vector * self.of.times
            else:
                assert self.of.dose is not None
                one = direction.scale if direction.scale is not None else self.scale(site, "norm")
                self.vectors[site] = direction.unit * (self.of.dose * one)
        return self.vectors[site]

    def sigma(self, site: Site) -> float:
        """The standard deviation of `noise` at a site."""
        assert self.of.dose is not None
        return self.of.dose * self.scale(site, "std")


def _resolve(
    ready: _Prepared, site: Site, index: int, rows: Sequence[Row], twins: dict[int, int] | None
) -> tuple[Item, str]:
    row, op = rows[index], ready.of.op
    start, stop = interval(ready.what, site, row)
    item = Item(index, site.index, start, stop, ready.what, str(site))
    item.basis = ready.basis
    match op:
        case "add":
            given = ready.of.directions[0].vector
            item.vector, item.rank = partial(ready.added, site), given.dim()
            if item.rank == 2:
                item.stop = min(item.stop, item.start + given.shape[0])
            return item, "add"
        case "ablate" | "clamp":
            item.value = ready.of.value or 0.0
            return item, op
        case "noise":
            return _noisy(ready, site, item, row), "add"
        case "patch" if isinstance(ready.of.source, torch.Tensor):
            return _given(ready, site, item, row), "set"
        case "patch":
            return _copying(ready, site, item, rows), "patch"
        case _:
            if twins is None:
                raise NeverFired(
                    f"{ready.what} has no natural row to hold to",
                    found="this kind of run computes no row without interventions beside each row",
                    hint="freeze acts in model.run(...)",
                )
            item.stop = min(item.stop, row.total)
            item.source_row, item.source_start = twins[index], start
            return item, "patch"


def _noisy(ready: _Prepared, site: Site, item: Item, row: Row) -> Item:
    # Only tokens that are given have noise: what is generated later differs between the rows that share a draw.
    item.stop = min(item.stop, len(row.tokens))
    item.vector, item.rank = partial(_drawn, ready, site, row.digest, range(item.start, item.stop)), 2
    return item


def _drawn(ready: _Prepared, site: Site, prompt: str, positions: range) -> Tensor:
    """Noise ``[position, d]``, each position from a stream of its own: the same whatever other positions are drawn."""
    width, drawn = ready.widths[site.part], []
    assert width is not None
    for position in positions:
        key = hashlib.sha256(f"{ready.of.seed}|{site.place}|{prompt}|{position}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
        drawn.append(torch.randn(width, generator=generator))
    return torch.stack(drawn) * ready.sigma(site)


def _given(ready: _Prepared, site: Site, item: Item, row: Row) -> Item:
    values = ready.of.source
    assert isinstance(values, torch.Tensor)
    # Where the site goes on into an answer, values may cover the tokens that are given, or room for the answer too.
    wanted = [min(item.stop, end) - item.start for end in (len(row.tokens), row.total)]
    width = ready.widths[site.part] or len(row.tokens)
    if values.shape[0] not in wanted or values.shape[-1] != width:
        raise BadVector(
            f"{item.what} got values that do not fit",
            found=f"{tuple(values.shape)} for {wanted[0] if wanted[0] > 0 else wanted[1]} tokens of width {width}",
            hint="give one value per position of the site: [positions, width]",
        )
    if not torch.isfinite(values).all():
        raise BadVector(f"{item.what} got values that are not finite", hint="find out where the NaN comes from")
    item.stop = item.start + values.shape[0]
    item.vector, item.rank = lambda: values, 2
    return item


def _copying(ready: _Prepared, site: Site, item: Item, rows: Sequence[Row]) -> Item:
    assert isinstance(ready.of.source, str)
    item.source_row = numbered(rows, (ready.of.source,), item.what)[0]
    source, target = rows[item.source_row], rows[item.row]
    start, stop = interval(item.what, site, source)
    lengths = min(item.stop, target.total) - item.start, min(stop, source.total) - start
    if lengths[0] != lengths[1]:
        raise never(item.what, [target, source], f"{lengths[0]} tokens in {target.name!r}, {lengths[1]} in {source.name!r}")
    item.stop = min(item.stop, target.total)
    item.source_start = start
    return item


def _stacked(vectors: Sequence[Tensor], device: torch.device | str) -> Tensor | None:
    """One tensor, ragged ones padded with zeros; single and positional vectors are never in one group."""
    if not vectors:
        return None
    if vectors[0].dim() == 1:
        return torch.stack(list(vectors)).to(device)
    most, widest = max(vector.shape[0] for vector in vectors), max(vector.shape[1] for vector in vectors)
    filled = [torch.nn.functional.pad(v, (0, widest - v.shape[1], 0, most - v.shape[0])) for v in vectors]
    return torch.stack(filled).to(device)
