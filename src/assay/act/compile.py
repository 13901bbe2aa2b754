"""Interventions compiled for one batch: sites expanded, positions resolved, doses made vectors, rows grouped.

Whatever does not fit is raised here, before anything runs.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from assay.act.intervention import Intervention
from assay.act.program import Group, Item, Place, Program
from assay.act.receipt import never
from assay.act.rows import Row, numbered
from assay.direction import orthonormal
from assay.errors import BadSite, BadVector, NeverFired, NoSuchPosition
from assay.site import Site
from assay.sites import Shape

Scale = Callable[[Site, str], float]
"""Gives the unit of one dose at a site: ``"norm"`` or ``"std"``."""


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
    return torch.stack(drawn) * ready.sigma(site) if drawn else torch.zeros(0, width)


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
        raise never(
            item.what, [target, source], f"{lengths[0]} tokens in {target.name!r}, {lengths[1]} in {source.name!r}"
        )
    item.stop = min(item.stop, target.total)
    item.source_start = start
    return item
