"""Norms as what they are but for one number per token: ``norm(x) = g ⊙ c(x) / σ(x) + b``.

``c`` takes the mean away in LayerNorm and nothing in RMSNorm; σ is the size of what is left. With σ held at the value that a
token has, a norm is linear, and what many writers added to the stream can be told apart behind it. Gain, bias and c are
found by showing the norm three vectors, so no family's way of writing a norm (Gemma's ``1 + weight``) has to be known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.errors import UnknownArchitecture
from assay.model.anatomy import head_of, matrix, module_at
from assay.model.engine import Start
from assay.run.model import Model

_FAR = 1024.0  # beside it the ε that norms add to their variance is nothing


@dataclass(frozen=True, eq=False)
class Norm:
    """One norm.

    Attributes:
        gain, bias: ``[d]``, float64, on the CPU.
        centred: whether the mean is taken away first.
        rounding: how far, relative to its size, what the model's precision gives may be away from the formula.
        absent: whether there is no norm at all, so that σ is 1.
    """

    gain: Tensor
    bias: Tensor
    centred: bool
    rounding: float
    absent: bool = False

    @classmethod
    def none(cls, width: int) -> Norm:
        """What changes nothing."""
        gain = torch.ones(width, dtype=torch.float64)
        return cls(gain, torch.zeros_like(gain), False, 0.0, absent=True)

    @classmethod
    def of(cls, call: Callable[[Tensor], Tensor], width: int, dtype: torch.dtype, device: torch.device) -> Norm:
        """Of what maps ``[n, d]`` to ``[n, d]``."""
        one = torch.ones(width, dtype=torch.float64)
        other = torch.where(torch.arange(width) % 2 == 0, one, -one)
        with torch.no_grad():
            shown = call(torch.stack([0 * one, _FAR * one, _FAR * other]).to(device, dtype)).double().cpu()
        if shown.shape[-1] != width:
            raise _no_norm(f"it makes vectors of width {shown.shape[-1]} from vectors of width {width}")
        bias, level, gain = shown[0], shown[1] - shown[0], shown[2] - shown[0]
        centred = bool(level.norm() < 0.1 * gain.norm())
        seen = other - other.mean() if centred else other
        rounding = max(1e-3, 16 * torch.finfo(dtype).eps)
        return cls(gain / (seen / seen.square().mean().sqrt()), bias, centred, rounding)

    def centre(self, x: Tensor) -> Tensor:
        """c(x)."""
        return x - x.mean(dim=-1, keepdim=True) if self.centred else x

    def inverse_size(self, x: Tensor, y: Tensor) -> Tensor:
        """1/σ of every ``x [..., d]``, given what the norm made of it. Raises `UnknownArchitecture` where it is no norm."""
        if self.absent:
            return torch.ones(x.shape[:-1], dtype=torch.float64)
        straight, seen = self.gain * self.centre(x.double().cpu()), y.double().cpu() - self.bias
        found = (straight * seen).sum(-1) / straight.square().sum(-1).clamp_min(1e-300)
        off = float(((seen - found[..., None] * straight).norm(dim=-1) / seen.norm(dim=-1).clamp_min(1e-300)).max())
        if off > self.rounding:
            raise _no_norm(f"of what it gives, {off:.1e} is not its gain times what it is given")
        return found

    def folded(self, readers: Tensor) -> Tensor:
        """``readers [..., d]`` of the normed stream as readers of the stream itself, up to 1/σ and the norm's bias."""
        return self.centre(readers.double().cpu() * self.gain)


def attention_norm(model: Model, layer: int) -> Norm:
    """The norm that a layer's attention reads the stream through."""
    anatomy = model.engine.anatomy
    if anatomy.attn_in == anatomy.attn:
        return Norm.none(model.shape.d_model)
    return module_norm(model, module_at(model.engine.hooks.blocks[layer], anatomy.attn_in))


def behind_attention(model: Model, layer: int) -> Norm:
    """The norm that what a layer's heads write goes through, in the families that have one."""
    anatomy = model.engine.anatomy
    if anatomy.heads_add:
        return Norm.none(model.shape.d_model)
    return module_norm(model, module_at(model.engine.hooks.blocks[layer], anatomy.attn_out))


def module_norm(model: Model, module: nn.Module) -> Norm:
    """A module's. Not by calling it, which hooks of an open `under` would see."""
    width = sum(weight.numel() for name, weight in module.named_parameters() if name.endswith("weight"))
    return Norm.of(module.forward, width, model.engine.dtype, model.engine.device)


def final_norm(model: Model) -> Norm:
    """The norm before the scores."""
    return Norm.of(lambda x: normed(model, x), model.shape.d_model, model.engine.dtype, model.engine.device)


def normed(model: Model, streams: Tensor) -> Tensor:
    """What the model makes of streams ``[n, d_model]`` behind its last block: a pass with no block in it, ``[n, d_model]``."""
    engine = model.engine
    start = Start(model.shape.layers, streams[:, None].to(engine.device, engine.dtype))
    tokens, positions = idle(model, len(streams), 1)
    return engine.forward(tokens, positions, start=start)[:, 0]


def idle(model: Model, rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Tokens and positions ``[row, pos]`` for a pass whose stream is given: what they are makes no difference."""
    token = model.row("a").tokens[-1]  # not the one that pads, about which some models warn
    return torch.full((rows, length), token), torch.arange(length).expand(rows, length)


def unembedding(model: Model) -> tuple[Tensor, Tensor]:
    """How the scores read the normed stream: ``W_U [vocab, d_model]`` and ``b_U [vocab]``."""
    head = head_of(model.hf)
    assert head is not None
    weight, bias = matrix(head), getattr(head, "bias", None)
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach()


def _no_norm(found: str) -> UnknownArchitecture:
    return UnknownArchitecture(
        "a norm of this model is neither a LayerNorm nor an RMSNorm",
        found=found,
        hint="what stands before such a norm cannot be told apart behind it; patch or ablate instead",
    )
