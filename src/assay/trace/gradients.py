"""Gradients of a metric, at the base or averaged between base and source: what attribution of places and edges shares.

A first-order estimate is a change times a gradient. Where two paths from a place cancel, the gradient is small and patching
is not; GradDrop (Kramár et al. 2024, §3.2) therefore takes it once for every layer, with what that layer adds to the stream
left out of the way back, so that paths through it do not count, and averages the estimates' sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from assay.act.program import Place
from assay.errors import BadDose
from assay.run.model import Model
from assay.trace.contrast import Contrast

Grid = Literal["left", "middle", "right"]
_OFFSETS = {"left": 0.0, "middle": 0.5, "right": 1.0}
_EMBED: Place = (None, "embed")


def refuse_grid(steps: int, grid: str) -> None:
    """Raise `BadDose` for a grid that there is not."""
    if steps < 1 or grid not in _OFFSETS:
        raise BadDose(
            f"steps={steps}, grid={grid!r} is no grid", found=", ".join(_OFFSETS), hint="take at least one step"
        )


def gradients(model: Model, pair: Contrast, places: Sequence[Place], steps: int, grid: Grid) -> dict[Place, Tensor]:
    """∂M/∂activation by place, ``[pair, pos, …]``, mean over ``steps`` embeddings on the line from base to source.

    ``grid`` is which end of each of the ``steps`` intervals is taken, or its middle.
    """
    means: dict[Place, Tensor] = {}
    for step in range(steps):
        for place, slope in _at(model, pair, places, (step + _OFFSETS[grid]) / steps).items():
            means[place] = means[place] + slope / steps if place in means else slope / steps
    return means


def dropped(model: Model, pair: Contrast, places: Sequence[Place]) -> Iterator[dict[Place, Tensor]]:
    """∂M/∂activation at the base, once for every layer, without the paths through what that layer adds."""
    added = [(layer, part) for layer in range(model.shape.layers) for part in ("attn.out", "mlp.out")]
    gate = _Gate()
    total, seen = _forward(model, pair, places, pair.base.below(0).clone(), gate, added)
    for layer in range(model.shape.layers):
        gate.closed = layer
        yield _slopes(total, seen, places)


class _Gate:
    """Lets gradients into what layers add to the stream, but for the layer ``closed``."""

    def __init__(self) -> None:
        self.closed: int | None = None

    def behind(self, layer: int, h: Tensor) -> Tensor:
        """The same activation, whose gradient comes through the gate."""
        passed = h.clone()
        passed.register_hook(lambda slope: torch.zeros_like(slope) if layer == self.closed else None)
        return passed


def _at(model: Model, pair: Contrast, places: Sequence[Place], share: float) -> dict[Place, Tensor]:
    embed = torch.lerp(pair.base.below(0).float(), pair.source.below(0).float(), share).to(model.engine.dtype)
    return _slopes(*_forward(model, pair, places, embed), places)


def _forward(
    model: Model,
    pair: Contrast,
    places: Sequence[Place],
    embed: Tensor,
    gate: _Gate | None = None,
    gated: Sequence[Place] = (),
) -> tuple[Tensor, dict[Place, Tensor]]:
    """The metric's sum over pairs, and the activations that it depends on."""
    seen: dict[Place, Tensor] = {}

    def tap(place: Place) -> Callable[[Tensor], Tensor]:
        def show(h: Tensor) -> Tensor:
            # A copy, so that what follows depends on the very tensor that is kept, and it has that one reader.
            seen[place] = embed.requires_grad_() if place == _EMBED else h.clone()
            if gate is None or place not in gated:
                return seen[place]
            assert place[0] is not None
            return gate.behind(place[0], seen[place])

        return show

    reads = {place: tap(place) for place in dict.fromkeys([_EMBED, *places, *gated])}
    final = model.engine.forward(pair.base.tokens, pair.base.positions, reads=reads, gradients=True)
    with torch.enable_grad():
        total = pair.measure(model.engine.unembed(final[:, -1], gradients=True).float()).sum()
    return total, seen


def _slopes(total: Tensor, seen: dict[Place, Tensor], places: Sequence[Place]) -> dict[Place, Tensor]:
    found = torch.autograd.grad(total, [seen[place] for place in places], allow_unused=True, retain_graph=True)
    return {
        place: torch.zeros_like(seen[place]) if slope is None else slope.float()
        for place, slope in zip(places, found, strict=True)
    }
