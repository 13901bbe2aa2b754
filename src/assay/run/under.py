"""``with model.under(…)``: interventions on every run inside the block, also on calls of the Hugging Face model itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from assay.act.compile import fitted
from assay.act.intervention import Intervention
from assay.act.program import Program
from assay.act.receipt import Receipt, check
from assay.act.rows import Row
from assay.errors import BadSite, NeverFired
from assay.model.clock import foreign_positions
from assay.model.core import Core
from assay.site import END

_OPEN = 1 << 20
"""How far a sequence may go on when somebody else generates it."""


@dataclass
class Under:
    """An open block. ``receipts`` tells what was done to calls made on the Hugging Face model itself; runs of Assay
    carry their own.
    """

    interventions: tuple[Intervention, ...]
    receipts: list[Receipt] = field(default_factory=list)
    _program: Program | None = None
    _positions: Tensor | None = None
    _starts: list[int] = field(default_factory=list)
    _lengths: list[int] = field(default_factory=list)

    def begin(self, core: Core, arguments: dict[str, Any]) -> None:
        """A call of the model's own begins: find its positions; a new sequence closes the one before."""
        if core.engine.driving:
            return
        positions = foreign_positions(arguments)
        self._positions = positions
        reached = (positions.max(dim=1).values + 1).tolist()
        starts = (positions.masked_fill(positions < 0, END).min(dim=1).values % END).tolist()
        if self._program is None or 0 in starts or len(reached) != len(self._lengths):
            self.close()
            self._starts = starts
            rows = [
                _foreign_row(str(index), arguments, positions[index], starts[index]) for index in range(len(reached))
            ]
            outer = core.active
            core.active = []
            try:
                self._program = core.program(rows, [self.interventions] * len(rows))
            finally:
                core.active = outer
            if bool((positions[:, 0] < 0).any()) and any(part == "head.pattern" for _, part in self._program.groups):
                raise BadSite(
                    "patterns cannot be written in a call that is padded on the left",
                    found="a key's column is not its position there",
                    hint="pad on the right, or use model.run",
                )
        self._lengths = reached

    def apply(self, core: Core, place: Any, h: Tensor) -> Tensor | None:
        """The tap of one place: passive while Assay itself drives the model."""
        if core.engine.driving or self._program is None or self._positions is None or place not in self._program.groups:
            return None
        rows, length = self._positions.shape
        flat = h.dim() == 2
        h = h.view(rows, length, -1) if flat else h
        # Logits may be asked for at the last tokens only.
        new = self._program.apply(place, h, self._positions[:, length - h.shape[1] :])
        return new.flatten(0, 1) if flat else new

    def close(self) -> None:
        """Take the receipts of the sequence that ends, and check them."""
        if self._program is not None:
            told = [receipt for _, receipt in self._program.receipts(self._lengths, self._starts)]
            told = [
                replace(receipt, expected=receipt.touched) if receipt.site.startswith("logits") else receipt
                for receipt in told
            ]
            self._program = None
            self.receipts += told
            check(told)

    def finish(self) -> None:
        """Close, and refuse an intervention that touched nothing in the whole block although the model was called."""
        self.close()
        touched = {receipt.what for receipt in self.receipts if receipt.touched}
        for receipt in self.receipts:
            if receipt.what not in touched:
                raise NeverFired(
                    f"{receipt.what} touched no activation",
                    rows=receipt.row,
                    site=receipt.site,
                    found="no call in the block reached these positions",
                    hint="name positions that are computed in the block: @ all, @ last, @ last:",
                )


def _foreign_row(name: str, arguments: dict[str, Any], positions: Tensor, start: int) -> Row:
    ids, real = arguments.get("input_ids"), positions >= 0
    given = [0] * int(real.sum()) if ids is None else ids[int(name), real.to(ids.device)].tolist()
    tokens = (*[0] * start, *given)  # what somebody else's cache holds is unknown
    return Row(name, tokens, len(tokens), room=_OPEN)


@contextmanager
def under(core: Core, interventions: Sequence[Intervention]) -> Iterator[Under]:
    """Open a block. Whatever is wrong with the interventions is raised before anything is touched; on any way out the
    model is as it was.
    """
    whole = tuple(interventions)
    core.inside([whole])
    for one in whole:
        fitted(one, core.shape)
    places = {site.address for one in whole if not one.idle for wide in one.sites for site in core.shape.expand(wide)}
    block = Under(whole)

    def tap(place: Any) -> Any:
        return lambda h: block.apply(core, place, h)

    hooks = core.engine.hooks
    with (
        hooks.tapped({place: tap(place) for place in places}),
        hooks.watched(lambda arguments: block.begin(core, arguments)),
    ):
        core.active = [*core.active, *whole]
        try:
            yield block
            block.finish()
        finally:
            core.active = core.active[: len(core.active) - len(whole)]
