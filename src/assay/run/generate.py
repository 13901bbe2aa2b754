"""Generation under interventions: one cache in which slot = absolute position, one decoding loop for all cells."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.act.intervention import Intervention
from assay.act.program import Program
from assay.act.receipt import Receipt
from assay.act.rows import Row
from assay.errors import BadData, BadDose
from assay.model.clock import SlotCache
from assay.model.core import Core
from assay.run.passes import base_pass, by_row, resume
from assay.run.plan import Cell, cells_of, packed, refuse, token_budget

LEAVE = 0.125
"""Finished rows leave the batch when they are at least this part of it: copying the cache then costs less than they do."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: divides the logits.
        top_k, top_p: keep the k likeliest tokens, or the likeliest whose probabilities reach p.
        seed: rows with one prompt draw the same random numbers, so conditions differ by the condition only.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise BadDose(
                f"temperature {self.temperature!r} is not positive", hint="for greedy decoding leave sampling out"
            )
        if self.top_k is not None and self.top_k < 1:
            raise BadDose(f"top_k {self.top_k!r} keeps no token", hint="give at least 1, or None to keep all")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise BadDose(f"top_p {self.top_p!r} is no probability", hint="give a number above 0 and at most 1")


@dataclass(frozen=True)
class Generation:
    """What one cell generated. Its ``str`` is the text.

    Attributes:
        prompt, condition: indices of the cell.
        text: the generated text, without special tokens.
        tokens: the generated tokens, with the one that ended it, if any.
        receipts: what was done.
    """

    prompt: int
    condition: int
    text: str
    tokens: tuple[int, ...]
    receipts: tuple[Receipt, ...]

    def __str__(self) -> str:
        return self.text


def generate(
    core: Core,
    rows: Sequence[Row],
    conditions: Sequence[Sequence[Intervention]],
    sampling: Sampling | None = None,
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Generation]:
    """Generate up to ``row.room`` tokens for every row under every condition, row by row, conditions in order."""
    if min(row.room for row in rows) < 1:
        raise BadData(f"{rows[0].room} tokens cannot be generated", hint="ask for at least one: tokens=32")
    refuse(core, [[row] for row in rows], conditions)
    found: dict[tuple[int, int], Generation] = {}
    total = len(rows) * len(conditions)
    for cells in _chunks(core, cells_of(core, rows, conditions), rows, memory):
        report = _portion(progress, len(found), len(cells), total) if progress else None
        for cell, tokens, receipts in _generate(core, rows, conditions, cells, sampling, memory, report):
            text = core.tokenizer.decode(tokens, skip_special_tokens=True)
            found[cell.base, cell.condition] = Generation(cell.base, cell.condition, text, tokens, tuple(receipts))
    return [found[base, condition] for base in range(len(rows)) for condition in range(len(conditions))]


def _portion(progress: Callable[[int, int], None], done: int, size: int, total: int) -> Callable[[float], None]:
    return lambda part: progress(done + round(part * size), total)


def _generate(
    core: Core,
    rows: Sequence[Row],
    conditions: Sequence[Sequence[Intervention]],
    cells: Sequence[Cell],
    sampling: Sampling | None,
    memory: int | None,
    report: Callable[[float], None] | None,
) -> Iterator[tuple[Cell, tuple[int, ...], list[Receipt]]]:
    mine = [rows[cell.base] for cell in cells]
    program = core.program(mine, [conditions[cell.condition] for cell in cells])
    stream, cache = _prefill(core, rows, cells, program, memory)
    draw = _Drawing(sampling, mine)
    lengths, room = torch.tensor([len(row.tokens) for row in mine]), torch.tensor([row.room for row in mine])
    written: list[list[int]] = [[] for _ in cells]
    done = torch.zeros(len(cells), dtype=torch.bool)
    here = torch.arange(len(cells))  # which cell each row of the batch is
    stops = torch.tensor(sorted(core.stops))
    for step in range(1, int(room.max()) + 1):
        tokens = draw(core.engine.unembed(stream).float(), here, step).cpu()
        for cell, token, over in zip(here.tolist(), tokens.tolist(), done[here].tolist(), strict=True):
            if not over:
                written[cell].append(token)
        done[here] |= torch.isin(tokens, stops) | (room[here] <= step)
        if bool(done.all()):
            break
        if int(done[here].sum()) >= LEAVE * len(here):
            keep = (~done[here]).nonzero()[:, 0]
            here, tokens, cache = here[keep], tokens[keep], cache.pick(keep)
        program.move(_inverse(here, len(cells)))
        slots = lengths[here, None] + step - 1
        # A row that has ended but not yet left computes on unseen: nothing acts on it and nobody reads it.
        positions = torch.where(done[here, None], -1, slots)
        stream = core.engine.forward(tokens[:, None], positions, program=program, cache=cache, slots=slots)[:, 0]
        if report:
            report(step / int(room.max()))
    fed = [len(row.tokens) + len(answer) - 1 for row, answer in zip(mine, written, strict=True)]
    for cell, answer, receipts in zip(cells, written, by_row(program, len(cells), fed), strict=True):
        yield cell, tuple(answer), receipts


def _prefill(
    core: Core, rows: Sequence[Row], cells: Sequence[Cell], program: Program, memory: int | None
) -> tuple[Tensor, SlotCache]:
    """The final stream at each cell's last prompt token, and a cache that holds its prompt. Shared work is done once."""
    bases = sorted({cell.base for cell in cells})
    local = {base: index for index, base in enumerate(bases)}
    cells = [Cell(local[cell.base], cell.condition, cell.entry, cell.first) for cell in cells]
    base = base_pass(core, [rows[index] for index in bases], {cell.entry for cell in cells}, keep_cache=True)
    assert base.cache is not None
    longest = max(len(row.tokens) for row in base.rows)
    cache = core.engine.empty_cache(len(cells), longest + max(row.room for row in base.rows))
    cache.copy_from(base.cache, torch.tensor([cell.base for cell in cells]), longest)
    streams, start = [], 0
    for batch in packed(cells, base.rows, token_budget(core, memory)):
        stop = start + len(batch)
        program.move(_inverse(torch.arange(start, stop), len(cells)))
        final, first = resume(core, base, batch, program, cache.part(start, stop))
        last = torch.tensor([len(base.rows[cell.base].tokens) - 1 - first for cell in batch], device=final.device)
        streams.append(final[torch.arange(len(batch), device=final.device), last])
        start = stop
    return torch.cat(streams), cache


def _inverse(here: Tensor, total: int) -> Tensor:
    """Where each cell is in the batch; −1 for those that are not."""
    index = torch.full((total,), -1)
    index[here] = torch.arange(len(here))
    return index


def _argmax(logits: Tensor, block: int = 128) -> Tensor:
    """The first index of each row's maximum. On the CPU ``argmax`` over a vocabulary is not vectorised but ``amax`` is, so
    the block that holds the maximum is found first: the same result in a tenth of the time.
    """
    rows, vocab = logits.shape
    if logits.device.type != "cpu" or vocab % block:
        return logits.argmax(dim=-1)
    blocks = logits.view(rows, -1, block)
    found = blocks.amax(dim=-1).argmax(dim=-1)
    return found * block + blocks[torch.arange(rows), found].argmax(dim=-1)


class _Drawing:
    """Chooses next tokens: the likeliest, or by the Gumbel-max trick with one random stream per prompt."""

    def __init__(self, sampling: Sampling | None, rows: Sequence[Row]) -> None:
        self.sampling = sampling
        self.keys = [int.from_bytes(hashlib.sha256(row.digest.encode()).digest()[:6], "little") for row in rows]

    def __call__(self, logits: Tensor, here: Tensor, step: int) -> Tensor:
        if self.sampling is None:
            return _argmax(logits)
        logits = self._filtered(logits.cpu() / self.sampling.temperature)
        noise = torch.stack([self._gumbel(cell, step, logits.shape[-1]) for cell in here.tolist()])
        return (logits + noise).argmax(dim=-1)

    def _gumbel(self, cell: int, step: int, size: int) -> Tensor:
        assert self.sampling is not None
        seed = hashlib.sha256(f"{self.sampling.seed}|{self.keys[cell]}|{step}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(seed[:8], "little") >> 1)
        uniform = torch.rand(size, generator=generator).clamp_min(1e-20)
        return -(-uniform.log()).clamp_min(1e-20).log()

    def _filtered(self, logits: Tensor) -> Tensor:
        assert self.sampling is not None
        if self.sampling.top_k is not None:
            least = logits.topk(min(self.sampling.top_k, logits.shape[-1]), dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.sampling.top_p is not None:
            ordered, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
            spare = (ordered.cumsum(dim=-1) - ordered) >= self.sampling.top_p
            logits = logits.masked_fill(spare.scatter(1, order, spare), -torch.inf)
        return logits


def _chunks(core: Core, cells: Sequence[Cell], rows: Sequence[Row], memory: int | None) -> Iterator[list[Cell]]:
    """As many cells at a time as their KV caches have room for."""
    longest = max(row.total for row in rows)
    on_gpu = core.engine.device.type == "cuda"
    free = torch.cuda.mem_get_info(core.engine.device)[0] if on_gpu else 2 << 30
    budget = memory or core.engine.spread.least(free) // 2
    most = max(1, budget // (longest * core.engine.bytes_per_token()))
    yield from ([*cells[start : start + most]] for start in range(0, len(cells), most))
