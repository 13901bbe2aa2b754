"""Weights written by hand: a stream whose parts have names, heads that select, and neurons that step.

Heads select and move as in RASP (Weiss et al. 2021); that each intermediate value has a part of the stream for itself is
Tracr's way (Lindner et al. 2023). Nothing is approximate but for rounding: a selected key's score lies ``SURE`` above
the others, and a step is flat on both sides of what it tells apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.organisms.small import Sizes, SmallTransformer

SURE = 40.0
"""Scores differ by this much or not at all: exp(−40) is far below what rounding adds to 1."""
SPARE_STD, SPARE_WIDTH = 0.3, 4


@dataclass(frozen=True, eq=False)
class Select:
    """Which tokens look at which.

    Attributes:
        queries, keys: parts of the stream that hold one-hots.
        table: ``[query, key]``, true where a query with that one-hot looks at such a key. Each query needs a key.
    """

    queries: str
    keys: str
    table: Tensor


@dataclass(frozen=True, eq=False)
class Move:
    """What a head reads where it looks, and where it writes the mean of that.

    Attributes:
        source, into: parts of the stream.
        table: ``[source, into]``, the linear map between them.
    """

    source: str
    into: str
    table: Tensor


class Craft:
    """A model that is being written.

    Tokens and positions enter the stream as one-hots in the parts ``token`` and ``position``; scores are the part
    ``out``. Heads and neurons are spare until they are written: they read the whole stream with small random weights, and
    write into the part ``spare``, which only they read.
    """

    def __init__(
        self,
        between: Mapping[str, int],
        *,
        vocab: int,
        length: int,
        outputs: int,
        heads: int,
        d_mlp: int,
        layers: int = 2,
        causal: bool = False,
        seed: int = 0,
    ) -> None:
        """``between`` has the widths of the parts for intermediate values; ``seed`` draws what is spare."""
        widths = {"token": vocab, "position": length, **between, "out": outputs, "spare": SPARE_WIDTH}
        d_model, self.parts = 0, dict[str, slice]()
        for part, width in widths.items():
            self.parts[part], d_model = slice(d_model, d_model + width), d_model + width
        self.d_head = max(widths.values())
        sizes = Sizes(layers, heads, d_model, self.d_head, d_mlp, vocab, length, outputs, norm=False, causal=causal)
        with torch.random.fork_rng(devices=[]):  # a module draws its first weights from the global generator
            self.model = SmallTransformer(sizes).eval().requires_grad_(False)
        self._weights = dict(self.model.named_parameters())
        self._empty(torch.Generator().manual_seed(seed))
        self._weights["embed.weight"][:, self.parts["token"]] = torch.eye(vocab)
        self._weights["positions"][:, self.parts["position"]] = torch.eye(length)
        self._weights["unembed.weight"][:, self.parts["out"]] = torch.eye(outputs)

    def _empty(self, generator: torch.Generator) -> None:
        spare = self.parts["spare"]
        for name, weight in self._weights.items():
            drawn = torch.randn(weight.shape, generator=generator) * SPARE_STD
            if name.endswith(("W_O", "b_O", "down.bias")):
                weight.zero_()[..., spare] = drawn[..., spare]
            elif name.endswith("down.weight"):
                weight.zero_()[spare] = drawn[spare]
            elif name.startswith("blocks"):
                weight.copy_(drawn)
            else:  # tokens, positions and scores have nothing to spare
                weight.zero_()

    def head(self, layer: int, head: int, move: Move, select: Select | None = None) -> None:
        """Write a head. Without ``select`` each token looks evenly at all that it may see."""
        attn, rows = f"blocks.{layer}.attn", slice(head * self.d_head, (head + 1) * self.d_head)
        query, key, value = (self._part(f"{attn}.{name}", rows) for name in ("query", "key", "value"))
        if select is not None:
            width = select.table.shape[1]
            query[:width, self.parts[select.queries]] = SURE * self.d_head**0.5 * select.table.T.float()
            key[:width, self.parts[select.keys]] = torch.eye(width)
        width = move.table.shape[1]
        value[:width, self.parts[move.source]] = move.table.T
        out = self._weights[f"{attn}.W_O"][head].zero_()
        out[:width, self.parts[move.into]] = torch.eye(width)

    def _part(self, name: str, rows: slice) -> Tensor:
        self._weights[f"{name}.bias"][rows] = 0
        return self._weights[f"{name}.weight"][rows].zero_()

    def steps(
        self,
        layer: int,
        reads: Mapping[str, Tensor],
        into: str,
        writes: Tensor,
        *,
        low: float | Tensor = 0.25,
        high: float | Tensor = 0.75,
        constant: float | Tensor = 0.0,
    ) -> None:
        """Write an MLP's first neurons, two for each of n steps.

        Step i is 0 while ``y_i = Σ x_part · reads[part][:, i]`` is at most ``low``, and 1 from ``high`` on. The MLP adds
        ``constant + Σ step_i · writes[i]``.

        Args:
            layer: whose MLP.
            reads: by part, ``[part, n]``.
            into: the part that is written.
            writes: ``[n, into]``.
            low, high: of all steps or ``[n]``.
            constant: ``[into]`` or one number.
        """
        mlp, count = f"blocks.{layer}.mlp", len(writes)
        slope = 1 / (torch.as_tensor(high) - torch.as_tensor(low)).expand(count)
        start = -torch.as_tensor(low).expand(count) * slope
        up = self._part(f"{mlp}.up", slice(0, 2 * count))
        for part, table in reads.items():
            up[:, self.parts[part]] = (table * slope).T.repeat(2, 1)
        self._weights[f"{mlp}.up.bias"][: 2 * count] = torch.cat([start, start - 1])
        down = self._weights[f"{mlp}.down.weight"]
        down[:, : 2 * count] = 0
        down[self.parts[into], : 2 * count] = torch.cat([writes, -writes]).T
        self._weights[f"{mlp}.down.bias"][self.parts[into]] = constant
