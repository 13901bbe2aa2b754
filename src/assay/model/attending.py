"""What can be done to attention while it is computed: look at it, mix values again, give readers rows of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.model.taps import Tap


@dataclass(frozen=True, eq=False)
class Attention:
    """One layer's attention as it was computed.

    Attributes:
        query, key: with positions in them, ``[row, head, pos, d_head]``; keys by their own heads, of which there may be fewer.
        pattern: makes patterns ``[row, head, pos, key]`` of other queries and keys, everything else as it was.
    """

    query: Tensor
    key: Tensor
    pattern: Callable[[Tensor, Tensor], Tensor]


class Copies:
    """Rows of one layer's attention, and behind them a copy of all rows for each reader that is tapped."""

    def __init__(self, taps: Mapping[tuple[str, int], Tap]) -> None:
        self.taps, self.rows = dict(taps), 0
        self.roles = {role for role, _ in taps}

    def made(self, h: Tensor) -> Tensor:
        """The rows, then each reader's copy of them."""
        self.rows = len(h)
        shown = [(tap(h), h) for tap in self.taps.values()]
        return torch.cat([h, *(old if new is None else new for new, old in shown)])

    def cut(self, h: Tensor) -> Tensor:
        """The rows alone."""
        return h[: self.rows]

    def gathered(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values ``[row, head, pos, d_head]`` of the rows, each reader's from its copy."""
        groups = query.shape[1] // key.shape[1] if self.roles & {"k", "v"} else 1
        found = []
        for role, whole in (("q", query), ("k", key), ("v", value)):
            of_group = 1 if role == "q" else groups
            own = list(whole[: self.rows].repeat_interleave(of_group, dim=1).unbind(1))
            for number, (which, head) in enumerate(self.taps, start=1):
                if which == role:
                    own[head] = whole[number * self.rows : (number + 1) * self.rows, head // of_group]
            found.append(torch.stack(own, dim=1))
        return tuple(found)


def mixed_again(tap: Tap | None, weights: Tensor, value: Tensor) -> tuple[Tensor, Tensor] | None:
    """Values mixed by what the tap makes of the weights ``[row, head, pos, key]``; None where it changes nothing."""
    new = tap(weights.transpose(1, 2)) if tap else None
    if new is None:
        return None
    weights = new.transpose(1, 2)
    return torch.matmul(weights, value.repeat_interleave(weights.shape[1] // value.shape[1], dim=1)), weights
