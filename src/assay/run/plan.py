"""Which cells of a grid share which computation, and how they are packed into batches.

A cell is one prompt under one condition. Everything below the lowest block that a condition touches, and everything
before the first token that it touches, is the same for all conditions of a prompt: it is computed once, in a base pass,
and each cell resumes from there. Cells that resume at the same block travel in one batch, whatever else differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.act.compile import compile_program, fitted, interval
from assay.act.intervention import Intervention
from assay.act.receipt import never
from assay.act.rows import Row
from assay.errors import NeverFired, NoSuchPosition, NoSuchRow
from assay.model.core import Core
from assay.site import Positions, Site

WORTH_SHARING = 0.25
"""Tokens before the first touched one are shared when they are at least this part of the row; below it the explicit
mask and the copied cache cost more than they save."""


@dataclass(frozen=True)
class Cell:
    """One base row under one condition.

    Attributes:
        base: index of the base row.
        condition: index of the condition.
        entry: the block at which it resumes; 0 is a full pass.
        first: the token from which it is computed anew: the first that is touched, at the latest the prompt's last,
            where the answer's first token is read.
    """

    base: int
    condition: int
    entry: int
    first: int


def entry_of(sites: Sequence[Site], layers: int) -> int:
    """The block at which a pass has to resume for interventions at these single sites.

    A change to ``L3.resid`` leaves block 3 as it was; a change to any other part of block 3 does not.
    """

    def entry(site: Site) -> int:
        if site.part == "logits":
            return layers
        if site.part == "embed" or not isinstance(site.layer, int):
            return 0
        return site.layer + 1 if site.part == "resid" else site.layer

    return min((entry(site) for site in sites), default=layers)


def cells_of(core: Core, rows: Sequence[Row], conditions: Sequence[Sequence[Intervention]]) -> list[Cell]:
    """Every cell of the grid, in the order in which they are best computed: by entry, by how much is new, by length."""
    made = []
    for number, condition in enumerate(core.inside(conditions)):
        acting = [one for one in condition if not one.idle]
        sites = [single for one in acting for wide in one.sites for single in core.shape.expand(wide)]
        entry = entry_of(sites, core.shape.layers)
        places = {site.positions for site in sites}
        for base, row in enumerate(rows):
            first = min((_first(positions, row) for positions in places), default=0)
            made.append(Cell(base, number, entry, first))

    def order(cell: Cell) -> tuple[int, ...]:
        length = len(rows[cell.base].tokens)
        return cell.entry, length - cell.first, length, cell.base, cell.condition

    return sorted(made, key=order)


def refuse(core: Core, prompts: Sequence[Sequence[Row]], conditions: Sequence[Sequence[Intervention]]) -> None:
    """Raise whatever would not act in some cell of a grid, before any is computed. ``prompts`` are each prompt's rows."""
    known: set[tuple[Positions, bool]] = set()
    every = [row for rows in prompts for row in rows]
    for one in {id(one): one for condition in core.inside(conditions) for one in condition}.values():
        if one.into is not None or isinstance(one.source, str):
            raise NoSuchRow(
                f"{one} names rows",
                found="the rows of a grid have no names",
                hint="into= and source= name the rows of model.run",
            )
        sites = fitted(one, core.shape)
        if one.op == "freeze" or any(site.part == "logits" for site in sites):
            raise NeverFired(
                f"{one} touched no activation",
                found="a grid computes no natural row beside each row, and logits only where they are read",
                hint="freeze, and write logits, in model.run(...)",
            )
        if isinstance(one.source, Tensor):
            compile_program(every, [[one]] * len(every), core.shape, lambda site, kind: 1.0)
        drawn = one.op == "noise"  # for tokens that are given, not for those that are generated
        for site in {
            site.positions: site for site in sites if not one.idle and (site.positions, drawn) not in known
        }.values():
            known.add((site.positions, drawn))
            for rows in prompts:
                if all(interval(str(one), site, row)[0] >= (len(row.tokens) if drawn else row.fed) for row in rows):
                    raise never(
                        str(one), rows, "no token there goes through the model; an answer's last one is only read"
                    )


def _first(positions: Positions, row: Row) -> int:
    try:
        return min(positions.resolve(row.prompt, row.spans, row.total or None)[0], row.prompt - 1)
    except NoSuchPosition:
        return 0  # compiling the program says so properly


def shared(first: int, longest: int) -> int:
    """How many tokens at the beginning of rows are taken from their base pass, where ``first`` could be."""
    return first if first >= WORTH_SHARING * longest else 0


def packed(cells: Sequence[Cell], rows: Sequence[Row], tokens: int, most: int | None = None) -> Iterator[list[Cell]]:
    """Batches of cells with one entry, of at most ``tokens`` tokens that are computed, padding included, and at most
    ``most`` cells.
    """
    batch: list[Cell] = []
    longest = first = 0
    for cell in cells:
        mine = len(rows[cell.base].tokens)
        long, early = (max(longest, mine), min(first, cell.first)) if batch else (mine, cell.first)
        full = (len(batch) + 1) * (long - shared(early, long)) > tokens or (most is not None and len(batch) >= most)
        if batch and (cell.entry != batch[0].entry or full):
            yield batch
            batch, long, early = [], mine, cell.first
        batch.append(cell)
        longest, first = long, early
    if batch:
        yield batch


def token_budget(core: Core, memory: int | None) -> int:
    """How many tokens a batch may hold: enough to saturate the machine, and within ``memory`` bytes of activations."""
    shape = core.shape
    per_token = core.engine.dtype.itemsize * (10 * shape.d_model + 4 * shape.d_mlp + 4 * shape.heads * shape.d_head)
    if core.engine.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(core.engine.device)
        free = core.engine.spread.least(free)  # processes that share a model have to pack alike
        return max(1, min(65536, (memory or free // 2) // per_token))
    return max(1, min(640, (memory or 1 << 30) // per_token))
