"""Interventions compiled for one batch: per place, groups of equal operations over rows, applied in order.

A program is pure: it maps activations and absolute positions to new activations. It knows no model and no hooks.
Rows are independent; what differs between them (vector, strength, head, positions) is data with a leading item axis.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from assay.act.intervention import Intervention
from assay.act.receipt import Receipt, never, overlap
from assay.act.rows import Row, numbered
from assay.errors import BadSite, BadVector, NeverFired, NoSuchPosition
from assay.site import END, Site
from assay.sites import Shape

Place = tuple[int | None, str]
"""A hookable place: layer and part. Heads are an axis of the activation there."""

Scale = Callable[[Site, str], float]
"""Gives the unit of one dose at a site: ``"norm"`` or ``"std"``."""


@dataclass
class Item:
    """One operation on one row at one place, resolved to numbers."""

    row: int
    head: int
    start: int
    stop: int
    what: str
    site: str
    vector: Tensor | None = None
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
        self.vectors = _stacked([item.vector for item in items], device)
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
            return self.vectors[item, offset].to(x.dtype)
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

    def _note(self, before: Tensor, after: Tensor, item: Tensor) -> None:
        before, after = before.float(), after.float()
        length = (after - before).norm(dim=-1)
        told = [length / before.norm(dim=-1).clamp_min(1e-30), length]
        if self.axis is not None:
            first = self.axis[item, 0].float()
            told += [(before * first).sum(-1), (after * first).sum(-1)]
        for sums, values in zip(self.sums, told, strict=False):
            sums.index_add_(0, item, values)

    def receipts(self, rows: Sequence[Row], lengths: Sequence[int]) -> list[tuple[int, Receipt]]:
        """What each item did, against what it was to do in rows of which ``lengths`` tokens ran."""
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
                        expected=overlap(item.start, item.stop, lengths[item.row]),
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

    def receipts(self, lengths: Sequence[int] | None = None) -> list[tuple[int, Receipt]]:
        """Receipts with the index of their row; ``lengths`` are how many tokens of each row went through the model."""
        lengths = [len(row.tokens) for row in self.rows] if lengths is None else lengths
        return [told for groups in self.groups.values() for group in groups for told in group.receipts(self.rows, lengths)]


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
    depth: dict[tuple[Place, int, int], int] = defaultdict(int)
    prepared: dict[int, _Prepared] = {}
    for index, interventions in enumerate(conditions):
        for intervention in interventions:
            if intervention.idle:
                continue
            if id(intervention) not in prepared:
                prepared[id(intervention)] = _Prepared(intervention, shape, scale)
            ready = prepared[id(intervention)]
            if intervention.into is not None and index not in numbered(rows, intervention.into, ready.what):
                continue
            for site in ready.sites:
                place = (site.layer, site.part)
                item, kind = _resolve(ready, site, index, rows, twins)
                key = (place, index, item.head)
                ordered[place][depth[key], _shape_key(kind, item)].append(item)
                depth[key] += 1
    groups = {
        place: [
            Group(kind.partition(":")[0], items, device)
            for (_, kind), items in sorted(levels.items(), key=lambda level: level[0][0])
        ]
        for place, levels in ordered.items()
    }
    return Program(rows, groups)


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
        return _orthonormal([direction.unit for direction in self.of.directions])

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
    try:
        start, stop = site.positions.resolve(row.prompt, row.spans, row.total or None)
    except NoSuchPosition as error:
        raise never(ready.what, [row], error.what) from error
    if start >= row.total:
        raise never(ready.what, [row], f"the row {row.name!r} ends before position {start}")
    item = Item(index, site.head if isinstance(site.head, int) else 0, start, stop, ready.what, str(site))
    item.basis = ready.basis
    match op:
        case "add":
            item.vector = ready.added(site)
            if item.vector.dim() == 2:
                item.stop = min(item.stop, item.start + item.vector.shape[0])
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
            assert twins is not None
            item.stop = min(item.stop, row.total)
            item.source_row, item.source_start = twins[index], start
            return item, "patch"


def _noisy(ready: _Prepared, site: Site, item: Item, row: Row) -> Item:
    # Only tokens that are given have noise: what is generated later differs between the rows that share a draw.
    item.stop = min(item.stop, len(row.tokens))
    key = hashlib.sha256(f"{ready.of.seed}|{site.place}|{row.digest}|{item.start}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
    width = ready.widths[site.part]
    assert width is not None
    item.vector = torch.randn(item.stop - item.start, width, generator=generator) * ready.sigma(site)
    return item


def _given(ready: _Prepared, site: Site, item: Item, row: Row) -> Item:
    values, width = ready.of.source, ready.widths[site.part]
    assert isinstance(values, torch.Tensor)
    item.stop = min(item.stop, row.total)
    if values.shape[0] != item.stop - item.start or (width is not None and values.shape[-1] != width):
        raise BadVector(
            f"{item.what} got values that do not fit",
            found=f"{tuple(values.shape)} for {item.stop - item.start} tokens of width {width}",
            hint="give one value per position of the site: [positions, width]",
        )
    if not torch.isfinite(values).all():
        raise BadVector(f"{item.what} got values that are not finite", hint="find out where the NaN comes from")
    item.vector = values
    return item


def _copying(ready: _Prepared, site: Site, item: Item, rows: Sequence[Row]) -> Item:
    assert isinstance(ready.of.source, str)
    item.source_row = numbered(rows, (ready.of.source,), item.what)[0]
    source, target = rows[item.source_row], rows[item.row]
    try:
        start, stop = site.positions.resolve(source.prompt, source.spans, source.total or None)
    except NoSuchPosition as error:
        raise never(ready.what, [source], error.what) from error
    lengths = min(item.stop, target.total) - item.start, min(stop, source.total) - start
    if lengths[0] != lengths[1]:
        raise never(item.what, [target, source], f"{lengths[0]} tokens in {target.name!r}, {lengths[1]} in {source.name!r}")
    item.stop = min(item.stop, target.total)
    item.source_start = start
    return item


def _orthonormal(units: Sequence[Tensor]) -> Tensor:
    """An orthonormal basis ``[k, d]`` of the span, in float64 until the end; dependent vectors are dropped."""
    stacked = torch.stack([unit.double() for unit in units])
    if len(units) == 1:
        return (stacked / stacked.norm()).float()
    _, singular, basis = torch.linalg.svd(stacked, full_matrices=False)
    return basis[singular > singular[0] * 1e-10].float()


def _shape_key(kind: str, item: Item) -> str:
    """Items share a group only when their vectors stack; ragged ones are padded, so single and positional part ways."""
    return f"{kind}:{0 if item.vector is None else item.vector.dim()}:{item.basis is None}"


def _stacked(vectors: Sequence[Tensor | None], device: torch.device | str) -> Tensor | None:
    present = [vector for vector in vectors if vector is not None]
    if not present:
        return None
    if present[0].dim() == 1:
        return torch.stack(present).to(device)
    most = max(vector.shape[0] for vector in present)
    return torch.stack([torch.nn.functional.pad(v, (0, 0, 0, most - v.shape[0])) for v in present]).to(device)
