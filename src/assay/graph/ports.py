"""Ports: where a graph is read and written, by name. ``L1.head[0].out`` is a place, a head of it, and when it runs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from assay.model.taps import Tap
from assay.site import Positions

Key = Hashable
"""What a graph hooks: activations there are ``[row, pos, d]``, or of heads ``[row, pos, head, d]``."""


@dataclass(frozen=True)
class Port:
    """A place where activations are read and replaced.

    Attributes:
        name: as it is written.
        key: what is hooked.
        entry: the first block whose input it can make a difference to.
        end: the block up to which a pass has to run for it to be there, exclusive; None for a whole pass.
        order: sorts ports as a forward pass reaches them.
        head: which head of the activation there; None for all of it.
        writes: whether it is added to the stream, so that direct paths may start there.
    """

    name: str
    key: Key
    entry: int
    end: int | None
    order: tuple[int, int]
    head: int | None = None
    writes: bool = False

    def of(self, h: Tensor) -> Tensor:
        """The port's part of the activation that is hooked."""
        return h if self.head is None else h[:, :, self.head]


@dataclass(frozen=True)
class Reader:
    """A place that reads the stream.

    Attributes:
        name: as it is written: ``L2.attn``, ``L2.head[5].q``, ``L2.mlp``, ``logits``, or a stream, ``L2.resid``.
        key: what is hooked; the activation there is a copy of the stream for this reader, or the stream itself.
        order: sorts with ports; a reader sees what writes before it.
        head: whose copy of the stream it is, where each head has its own.
        own: whether that copy is hooked by itself; otherwise it is one of the heads on the third axis.
    """

    name: str
    key: Key
    order: tuple[int, int]
    head: int | None = None
    own: bool = False

    def of(self, stream: Tensor) -> Tensor:
        """The reader's copy of what is hooked."""
        return stream if self.head is None or self.own else stream[:, :, self.head]

    def plus(self, stream: Tensor, added: Tensor) -> Tensor:
        """What is read there, with something ``[row, pos, d_model]`` added for this reader."""
        if self.head is None or self.own:
            return stream + added
        only = torch.zeros(stream.shape[2], device=added.device, dtype=added.dtype)
        only[self.head] = 1
        return stream + added.unsqueeze(2) * only[:, None]


class Inputs(Protocol):
    """Inputs of one model, made ready by its graph."""

    def __len__(self) -> int: ...

    @property
    def features(self) -> Mapping[str, Sequence[Any]]:
        """What the graph can tell of each input by itself."""
        ...


class Graph(Protocol):
    """A model as scrubbing and circuit search see it."""

    stages: int
    """How many blocks the stream goes through."""

    def inputs(self, data: Any) -> Inputs:
        """Make inputs ready. Raises what does not fit."""
        ...

    def targets(self, inputs: Any, given: Any) -> Tensor:
        """What is right for each input, as numbers ``[row, pos]``, −100 where nothing is. Raises `BadData`."""
        ...

    def port(self, name: str) -> Port:
        """Raises `NoSuchSite`."""
        ...

    def reader(self, name: str) -> Reader:
        """Raises `NoSuchSite`."""
        ...

    def ports(self) -> Sequence[Port]:
        """All single places, heads one by one, in their order."""
        ...

    def readers(self) -> Sequence[Reader]:
        """All that read the stream, in their order."""
        ...

    def below(self, entry: int) -> Port | None:
        """The stream below a block, from which a pass can start there; None where it cannot."""
        ...

    def written(self, port: Port, change: Tensor) -> Tensor:
        """What a change ``[row, pos, d]`` of a port that writes adds to the stream."""
        ...

    def bounds(self, inputs: Any, ids: Sequence[int], positions: Positions) -> list[tuple[int, int]]:
        """The half-open interval of tokens that positions name, for each row. Raises `NoSuchPosition`."""
        ...

    def forward(
        self,
        inputs: Any,
        ids: Sequence[int],
        taps: Mapping[Key, Tap],
        start: tuple[int, Tensor] | None = None,
        end: int | None = None,
        gradients: bool = False,
    ) -> Tensor | None:
        """Run the rows ``ids``; with ``start`` from a block on with the stream below it, with ``end`` up to that block
        only, giving nothing back. Scores are ``[row, pos, outputs]``, with ``gradients`` to what the taps put in.
        """
        ...
