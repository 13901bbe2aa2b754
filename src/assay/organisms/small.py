"""A small transformer whose every step is a module of its own, so that each can be read and replaced.

Models with a known answer are made of it: trained ones (a checker of brackets, a predictor of repeated text) and
programs whose weights are written down. It is bidirectional or causal, with or without norms, MLPs and biases, and
declares its places to `assay.graph` in `graph`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from assay import tensorfile
from assay.graph import ModuleGraph, Spot, given, made

MASKED = -1e4


@dataclass(frozen=True)
class Sizes:
    """What a small transformer is.

    Attributes:
        layers, heads, d_model, d_head: as everywhere.
        d_mlp: neurons of each MLP; 0 for attention alone.
        vocab, length, outputs: tokens there are, tokens in a row, and scores that come out.
        norm: LayerNorm before attention, MLP and the scores; without it the model is linear but for softmax and ReLU.
        causal: tokens see only what stands before them.
        padding: the token that no other attends to, if any.
        shortformer: positions are added for queries and keys alone, and never enter the stream (Press et al. 2021).
        first: scores are read at the first token alone, as a classifier's.
    """

    layers: int
    heads: int
    d_model: int
    d_head: int
    d_mlp: int
    vocab: int
    length: int
    outputs: int
    norm: bool = True
    causal: bool = False
    padding: int | None = None
    shortformer: bool = False
    first: bool = False


class Attention(nn.Module):
    """Heads, each of which writes to the stream by itself."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, wide = sizes, sizes.heads * sizes.d_head
        self.norm = nn.LayerNorm(sizes.d_model) if sizes.norm else nn.Identity()
        self.query, self.key, self.value = (nn.Linear(sizes.d_model, wide) for _ in range(3))
        self.W_O = nn.Parameter(torch.empty(sizes.heads, sizes.d_head, sizes.d_model))
        self.b_O = nn.Parameter(torch.zeros(sizes.d_model))
        nn.init.normal_(self.W_O, std=wide**-0.5)
        # Places: what passes through can be seen and replaced, by head. The reads are each head's own copy of the stream.
        self.read_q, self.read_k, self.read_v = (nn.Identity() for _ in range(3))
        self.q, self.k, self.v, self.pattern, self.z, self.out = (nn.Identity() for _ in range(6))

    def forward(self, stream: Tensor, mask: Tensor, positions: Tensor | None) -> Tensor:
        """What attention adds, ``[row, pos, d_model]``; ``mask [row, 1, pos, pos]`` is true where none may look."""
        each = stream.unsqueeze(2).expand(-1, -1, self.sizes.heads, -1)
        places = 0 if positions is None else positions[:, None]
        q = self.q(self._project(self.query, self.read_q(each) + places))
        k = self.k(self._project(self.key, self.read_k(each) + places))
        v = self.v(self._project(self.value, self.read_v(each)))
        scores = torch.einsum("rqhd,rkhd->rhqk", q, k) / self.sizes.d_head**0.5
        pattern = self.pattern(scores.masked_fill(mask, MASKED).softmax(-1).transpose(1, 2))
        z = self.z(torch.einsum("rqhk,rkhd->rqhd", pattern, v))
        written: Tensor = self.out(torch.einsum("rqhd,hdm->rqhm", z, self.W_O))
        return written.sum(2) + self.b_O

    def _project(self, layer: nn.Linear, read: Tensor) -> Tensor:
        """Each head's part of a projection of its own copy of the stream, ``[row, pos, head, d_head]``."""
        by_head = (self.sizes.heads, self.sizes.d_head)
        weight, bias = layer.weight.unflatten(0, by_head), layer.bias.unflatten(0, by_head)
        return torch.einsum("rphm,hdm->rphd", self.norm(read), weight) + bias


class MLP(nn.Module):
    """Two layers around a ReLU."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(sizes.d_model) if sizes.norm else nn.Identity()
        self.up, self.down = nn.Linear(sizes.d_model, sizes.d_mlp), nn.Linear(sizes.d_mlp, sizes.d_model)

    def forward(self, stream: Tensor) -> Tensor:
        """What the MLP adds, ``[row, pos, d_model]``."""
        added: Tensor = self.down(torch.relu(self.up(self.norm(stream))))
        return added


class Block(nn.Module):
    """Attention, then an MLP where there is one."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attn = Attention(sizes)
        self.mlp = MLP(sizes) if sizes.d_mlp else None

    def forward(self, stream: Tensor, mask: Tensor, positions: Tensor | None) -> Tensor:
        """The stream behind the block."""
        stream = stream + self.attn(stream, mask, positions)
        return stream if self.mlp is None else stream + self.mlp(stream)


class SmallTransformer(nn.Module):
    """Tokens ``[row, pos]`` to scores ``[row, pos, outputs]``, of a classifier ``[row, 1, outputs]``."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embed = nn.Embedding(sizes.vocab, sizes.d_model)
        self.positions = nn.Parameter(torch.randn(sizes.length, sizes.d_model) * 0.02)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.d_model) if sizes.norm else nn.Identity()
        self.unembed = nn.Linear(sizes.d_model, sizes.outputs)
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores."""
        positions = self.positions[: tokens.shape[1]]
        stream = self.embed(tokens) if self.sizes.shortformer else self.embed(tokens) + positions
        for block in self.blocks:
            stream = block(stream, self._mask(tokens), positions if self.sizes.shortformer else None)
        if self.sizes.first:
            stream = stream[:, :1]
        scores: Tensor = self.unembed(self.norm(stream))
        return scores

    def _mask(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = torch.zeros(1, 1, length, length, dtype=torch.bool, device=tokens.device)
        if self.sizes.causal:
            mask = mask | torch.ones_like(mask).triu(1)
        if self.sizes.padding is not None:
            mask = mask | (tokens == self.sizes.padding)[:, None, None]
        return mask

    def graph(self) -> ModuleGraph:
        """Its places, for causal scrubbing and circuit search."""
        blocks = cast("list[Block]", list(self.blocks))
        sites: dict[str, Spot] = {"embed": given(blocks[0])}
        readers: dict[str, Spot] = {}
        for layer, block in enumerate(blocks):
            attn, at = block.attn, f"L{layer}."
            inside = {"q": attn.q, "k": attn.k, "v": attn.v, "pattern": attn.pattern, "z": attn.z, "out": attn.out}
            sites |= {f"{at}head.{part}": made(module) for part, module in inside.items()}
            sites[f"{at}attn.out"] = made(attn)
            reads = {"q": attn.read_q, "k": attn.read_k, "v": attn.read_v}
            readers |= {f"{at}head.{part}": made(module) for part, module in reads.items()}
            readers[f"{at}attn"] = given(attn)
            if block.mlp is not None:
                sites[f"{at}mlp.out"], readers[f"{at}mlp"] = made(block.mlp), given(block.mlp)
            sites[f"{at}resid"] = made(block)
        return ModuleGraph(self, stages=blocks, sites=sites, readers=readers)

    def save(self, path: str | Path) -> Path:
        """Write weights and sizes as safetensors. Raises `Unwritable`."""
        return tensorfile.save(path, "small transformer", self.state_dict(), asdict(self.sizes))

    @classmethod
    def load(cls, path: str | Path) -> SmallTransformer:
        """Read what `save` wrote, for evaluation. Raises `CorruptFile`."""

        def read(tensors: dict[str, Tensor], told: dict[str, Any]) -> SmallTransformer:
            model = cls(Sizes(**told))
            model.load_state_dict(tensors)
            return model.eval().requires_grad_(False)

        return tensorfile.load(path, "small transformer", read)
