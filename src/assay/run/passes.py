"""Base passes and the passes that resume from them: the engine room of every grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.act.intervention import Intervention
from assay.act.program import Place, Program
from assay.act.receipt import Receipt, check
from assay.act.rows import Row
from assay.model.clock import SlotCache, right_padded
from assay.model.core import Core
from assay.model.engine import Start
from assay.run.plan import Cell, cells_of, packed, shared, token_budget


@dataclass
class Base:
    """Base rows after their pass.

    Attributes:
        rows: the base rows.
        streams: by entry block, the stream below it, ``[row, pos, d_model]``.
        final: the normed final stream, ``[row, pos, d_model]``.
        cache: keys and values, where cells resume after the first token or go on to generate.
    """

    rows: Sequence[Row]
    streams: dict[int, Tensor]
    final: Tensor
    cache: SlotCache | None = None


@dataclass
class Pass:
    """One batch of cells after its pass.

    Attributes:
        cells: what ran, one per row of ``final``.
        base: the base rows they resumed from.
        final: the normed final stream, ``[row, pos, d_model]``, of tokens ``first`` onwards.
        first: the absolute position of the first column.
        receipts: what was done, by index into ``cells``.
    """

    cells: Sequence[Cell]
    base: Base
    final: Tensor
    first: int
    receipts: list[list[Receipt]]


def base_pass(core: Core, rows: Sequence[Row], entries: set[int], keep_cache: bool) -> Base:
    """Run the rows once without interventions, keeping the streams below the entry blocks."""
    tokens, positions = right_padded([row.tokens for row in rows])
    streams: dict[int, Tensor] = {}

    def keep(entry: int) -> Callable[[Tensor], None]:
        def tap(h: Tensor) -> None:
            streams[entry] = h

        return tap

    reads: dict[Place, Callable[[Tensor], None]] = {(entry - 1, "resid"): keep(entry) for entry in entries if entry > 0}
    cache = core.engine.empty_cache(*tokens.shape) if keep_cache else None
    return Base(rows, streams, core.engine.forward(tokens, positions, reads=reads, cache=cache), cache)


def resume(
    core: Core, base: Base, cells: Sequence[Cell], program: Program, cache: SlotCache | None
) -> tuple[Tensor, int]:
    """Run cells that share an entry from their base rows on; returns their final stream and its first position.

    With ``cache`` (one row per cell, holding the base rows' keys and values) the keys and values are written there.
    """
    chosen = torch.tensor([cell.base for cell in cells])
    rows = [base.rows[cell.base] for cell in cells]
    lengths = torch.tensor([len(row.tokens) for row in rows])
    first = min(min(cell.first, len(row.tokens) - 1) for cell, row in zip(cells, rows, strict=True))
    longest, entry = int(lengths.max()), cells[0].entry
    first = shared(first, longest) if base.cache is not None or cache is not None else 0
    if first and cache is None:
        assert base.cache is not None
        cache = core.engine.empty_cache(len(cells), longest, entry)
        cache.copy_from(base.cache, chosen, first, range(entry, core.shape.layers))
    tokens, positions = right_padded([row.tokens[first:] for row in rows], [first] * len(rows))
    start = Start(entry, base.streams[entry][chosen.to(core.engine.device), first:longest]) if entry else None
    final = core.engine.forward(tokens, positions, program=program, cache=cache, start=start)
    return final, first


def passes(
    core: Core,
    rows: Sequence[Row],
    conditions: Sequence[Sequence[Intervention]],
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Pass]:
    """Every cell of rows × conditions, in shared, packed batches. ``memory`` bounds a batch's activations, in bytes."""
    total = len(rows) * len(conditions)
    done = 0
    if progress:
        progress(0, total)
    for part in _chunks(core, rows, conditions, memory):
        cells = cells_of(core, part, conditions)
        sharing = any(shared(cell.first, len(part[cell.base].tokens)) for cell in cells)
        base = base_pass(core, part, {cell.entry for cell in cells}, keep_cache=sharing)
        most = max(1, (memory or 1 << 30) // (core.engine.bytes_per_token() * len(part[-1].tokens)))
        for batch in packed(cells, part, token_budget(core, memory), most if sharing else None):
            program = core.program([part[cell.base] for cell in batch], [conditions[cell.condition] for cell in batch])
            final, first = resume(core, base, batch, program, None)
            receipts = by_row(program, len(batch), [len(part[cell.base].tokens) for cell in batch])
            yield Pass(batch, base, final, first, receipts)
            done += len(batch)
            if progress:
                progress(done, total)


def by_row(program: Program, rows: int, lengths: Sequence[int]) -> list[list[Receipt]]:
    """The program's receipts, checked, by row."""
    told: list[list[Receipt]] = [[] for _ in range(rows)]
    for index, receipt in program.receipts(lengths):
        told[index].append(receipt)
    check(receipt for row in told for receipt in row)
    return told


def _chunks(
    core: Core, rows: Sequence[Row], conditions: Sequence[Sequence[Intervention]], memory: int | None
) -> Iterator[list[Row]]:
    """Base rows in order of length, as many at a time as their kept streams have room for."""
    ordered = sorted(rows, key=lambda row: len(row.tokens))
    entries = {cell.entry for cell in cells_of(core, ordered[-1:], conditions)}
    per_token = core.engine.dtype.itemsize * core.shape.d_model * (len(entries) + 1) + core.engine.bytes_per_token()
    most = max(1, (memory or 1 << 30) // (per_token * len(ordered[-1].tokens)))
    for start in range(0, len(ordered), most):
        yield ordered[start : start + most]
