"""Taps: functions that are shown activations, and may replace them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from assay.act.program import Place

Tap = Callable[[Tensor], Tensor | None]
"""Sees an activation, ``[row, pos, d]`` or ``[row, pos, head, d]``; what it returns, unless None, takes its place."""


def keeper(seen: dict[Place, Tensor], place: Place) -> Tap:
    """A tap that keeps what it sees, and changes nothing."""

    def tap(h: Tensor) -> None:
        seen[place] = h.detach()

    return tap


def in_turn(taps: Sequence[Tap]) -> Tap:
    """Several taps as one: each is shown what those before it leave."""

    def tap(h: Tensor) -> Tensor | None:
        new = None
        for one in taps:
            made = one(h)
            if made is not None:
                h = new = made
        return new

    return tap
