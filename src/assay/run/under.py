"""``with model.under(…)``: interventions on every run inside the block, also on calls of the Hugging Face model itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from assay.act.intervention import Intervention
from assay.act.program import Program
from assay.act.receipt import Receipt, check
from assay.act.rows import Row
from assay.model.clock import foreign_positions
from assay.model.core import Core


_OPEN = 1 << 20
"""How far a sequence may go on when somebody else generates it."""


@dataclass
class Under:
    """An open block. ``receipts`` tells what was done to calls made on the Hugging Face model itself; runs of Assay
    carry their own."""

    interventions: tuple[Intervention, ...]
    receipts: list[Receipt] = field(default_factory=list)
    _program: Program | None = None
    _positions: Tensor | None = None
    _lengths: list[int] = field(default_factory=list)

    def begin(self, core: Core, arguments: dict[str, Any]) -> None:
        """A call of the model's own begins: find its positions; a new sequence closes the one before."""
        if core.engine.driving:
            return
        positions = foreign_positions(arguments)
        self._positions = positions
        reached = (positions.max(dim=1).values + 1).tolist()
        starts = positions.masked_fill(positions < 0, 1 << 40).min(dim=1).values
        if self._program is None or bool((starts == 0).any()) or len(reached) != len(self._lengths):
            self.close()
            rows = [_foreign_row(str(index), arguments, positions[index], reached[index]) for index in range(len(reached))]
            outer = core.active
            core.active = []
            try:
                self._program = core.program(rows, [self.interventions] * len(rows))
            finally:
                core.active = outer
        self._lengths = reached

    def apply(self, core: Core, place: Any, h: Tensor) -> Tensor | None:
        """The tap of one place: passive while Assay itself drives the model."""
        if core.engine.driving or self._program is None or self._positions is None or place not in self._program.groups:
            return None
        rows, length = self._positions.shape
        flat = h.dim() == 2
        new = self._program.apply(place, h.view(rows, length, -1) if flat else h, self._positions)
        return new.flatten(0, 1) if flat else new

    def close(self) -> None:
        """Take the receipts of the sequence that ends, and check them."""
        if self._program is not None:
            told = [receipt for _, receipt in self._program.receipts(self._lengths)]
            self._program = None
            self.receipts += told
            check(told)


def _foreign_row(name: str, arguments: dict[str, Any], positions: Tensor, length: int) -> Row:
    ids, row = arguments.get("input_ids"), int(name)
    tokens = (0,) * length if ids is None else tuple(ids[row, positions.to(ids.device) >= 0].tolist())
    return Row(name, tokens, length, room=_OPEN)


@contextmanager
def under(core: Core, interventions: Sequence[Intervention]) -> Iterator[Under]:
    """Open a block. Whatever is wrong with the interventions is raised before anything is touched; on any way out the
    model is as it was."""
    whole = tuple(interventions)
    core.inside([whole])
    places = {
        site.address
        for one in whole
        if not one.idle
        for wide in one.sites
        for site in core.shape.expand(wide)
    }
    block = Under(whole)

    def tap(place: Any) -> Any:
        return lambda h: block.apply(core, place, h)

    hooks = core.engine.hooks
    with hooks.tapped({place: tap(place) for place in places}), hooks.watched(lambda arguments: block.begin(core, arguments)):
        core.active = [*core.active, *whole]
        try:
            yield block
            block.close()
        finally:
            core.active = core.active[: len(core.active) - len(whole)]
