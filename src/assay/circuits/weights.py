"""What a head's weights do: where it looks (QK) and what it moves (OV), as products of thin factors.

::

    OV = W_O W_V                        what a token that is looked at adds, [d_model, d_model]
    QK(Δ) = s · W_Qᵀ R_Δᵀ R_0 W_K       the score of a query for a key Δ tokens before it, before the softmax and its cap

Both act on the stream as its norm leaves it but for the gain, ``x̂ = centre(x)/σ``: gains (and the centring of LayerNorm) are
folded into W_Q, W_K and W_V, the gain of a norm behind attention into W_O. With rotary positions a score depends on how far
apart query and key stand, so QK is that of a stated offset; the rotation R and the scale s are what the model's own attention
does to queries and keys that it is shown. A head's keys and values are those of its group: ``kv head = head // (heads / kv heads)``.
Neither product is formed: in SmolLM2 it has four and a half times as many numbers as its factors.

It misleads where biases matter (they are kept apart), and in families that put norms on queries and keys (Qwen 3,
Gemma 3, OLMo 2) a score is QK's only up to a positive factor for each query and each key.

Reference: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; rotary positions, Su et al. 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.circuits.norms import Norm, attention_norm, behind_attention, idle, module_norm
from assay.errors import BadData, NoSuchSite, UnknownArchitecture
from assay.model.anatomy import by_head, matrix, module_at
from assay.model.attending import Attention
from assay.model.engine import Start
from assay.model.hooks import on_output
from assay.prompt import Prompt
from assay.run.model import Model
from assay.run.plan import token_budget
from assay.site import Site


@dataclass(frozen=True, eq=False)
class Factored:
    """A matrix as a product that is not carried out: ``left [m, r] @ right [r, n]``."""

    left: Tensor
    right: Tensor

    @property
    def transposed(self) -> Factored:
        """The other way round, ``[n, m]``."""
        return Factored(self.right.T, self.left.T)

    @property
    def dense(self) -> Tensor:
        """Carried out, ``[m, n]``."""
        return self.left @ self.right

    @property
    def core(self) -> Tensor:
        """A small matrix with the same singular values, ``[r, r]`` at most: the triangles of both factors multiplied."""
        return torch.linalg.qr(self.left).R @ torch.linalg.qr(self.right.T).R.T

    @property
    def norm(self) -> float:
        """Frobenius norm."""
        return float(self.core.norm())

    @property
    def singular_values(self) -> Tensor:
        """All that are not 0 by construction, largest first."""
        return torch.linalg.svdvals(self.core)

    @property
    def eigenvalues(self) -> Tensor:
        """Of a square matrix, those that are not 0 by construction, complex: ``left @ right`` shares them with ``right @ left``."""
        return torch.linalg.eigvals(self.right @ self.left)

    def __matmul__(self, other: Factored) -> Factored:
        return Factored(self.left, (self.right @ other.left) @ other.right)


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """One head's weights, gains folded in.

    Attributes:
        site: the head, ``L3.head[5].z``.
        kv_head: whose keys and values it uses.
        W_Q, W_K, W_V: ``[d_head, d_model]``.
        bias_q, bias_k, bias_v: ``[d_head]``, what is there whatever the token; the norm's own bias included.
        W_O: ``[d_model, d_head]``.
        turns: by offset, ``s · R_Δᵀ R_0``, ``[d_head, d_head]``.
        qk_norms: whether queries and keys are normed, so that scores are QK's up to a factor for each.
    """

    site: Site
    kv_head: int
    W_Q: Tensor
    bias_q: Tensor
    W_K: Tensor
    bias_k: Tensor
    W_V: Tensor
    bias_v: Tensor
    W_O: Tensor
    turns: Mapping[int, Tensor]
    qk_norms: bool

    @property
    def ov(self) -> Factored:
        """``W_O W_V``: maps what is looked at to what is added."""
        return Factored(self.W_O, self.W_V)

    def qk(self, offset: int) -> Factored:
        """``QK(Δ)``: ``x̂_query · QK · x̂_key`` is the score at that offset. Raises `BadData` for one that was not asked for."""
        if offset not in self.turns:
            raise BadData(
                f"QK of {self.site} at offset {offset} was not read",
                found=f"offsets {', '.join(map(str, self.turns))}",
                hint=f"ask for it: circuits.weights(model, {str(self.site)!r}, offsets=[{offset}])",
            )
        return Factored(self.W_Q.T @ self.turns[offset], self.W_K)


def weights(model: Model, at: str | Site, *, offsets: Sequence[int] = (0,)) -> HeadWeights:
    """The weights of the head at a site, ``L3.head[5].z``.

    ``offsets`` are how many tokens before its query a key stands. Raises `NoSuchSite`, `BadData` for a negative offset, and
    `UnknownArchitecture` where an anatomy that was declared does not say where queries, keys and values come from.
    """
    (site,) = model.sites(at).expect(1)
    if not isinstance(site.layer, int) or not isinstance(site.head, int):
        raise NoSuchSite(f"{site} is no head", nearest="L0.head[0].z", hint="name a head by its z: L3.head[5].z")
    return layer_weights(model, site.layer, offsets)[site.head]


def layer_weights(model: Model, layer: int, offsets: Sequence[int] = (0,)) -> list[HeadWeights]:
    """The weights of all heads of a layer, in float32. Errors as for `weights`."""
    engine, shape = model.engine, model.shape
    block, anatomy = engine.hooks.blocks[layer], engine.anatomy
    modules = [module_at(block, path) for path in anatomy.qkv]
    turned, norm = turns(model, layer, offsets), attention_norm(model, layer)
    given, constants = [], []
    for module in modules:
        weight, bias = matrix(module).double().cpu(), getattr(module, "bias", None)
        given.append(norm.folded(weight).T)
        constants.append(weight @ norm.bias + (0 if bias is None else bias.detach().double().cpu()))
    W_Q, W_K, W_V = (one.permute(1, 2, 0) for one in by_head(anatomy, shape, given))
    b_Q, b_K, b_V = by_head(anatomy, shape, constants)
    if anatomy.qk_norms:
        (W_Q, b_Q), (W_K, b_K) = (
            _scaled(module_norm(model, module_at(block, path)), W, b)
            for path, W, b in zip(anatomy.qk_norms, (W_Q, W_K), (b_Q, b_K), strict=True)
        )
    W_O = matrix(module_at(block, anatomy.o_proj)).double().cpu()
    W_O = behind_attention(model, layer).folded(W_O.T).T.unflatten(1, (shape.heads, shape.d_head)).transpose(0, 1)
    W_Q, b_Q, W_K, b_K, W_V, b_V, W_O = (
        one.to(engine.device, torch.float32) for one in (W_Q, b_Q, W_K, b_K, W_V, b_V, W_O)
    )
    found = []
    for head in range(shape.heads):
        kv, site = head // (shape.heads // shape.kv_heads), Site("head.z", layer, head)
        queries, keys, values = (W_Q[head], b_Q[head]), (W_K[kv], b_K[kv]), (W_V[kv], b_V[kv])
        found.append(HeadWeights(site, kv, *queries, *keys, *values, W_O[head], turned, bool(anatomy.qk_norms)))
    return found


def _scaled(norm: Norm, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``[head, d_head, d_model]`` of queries or keys with the gain of their norm."""
    if norm.centred or norm.bias.any():
        raise UnknownArchitecture(
            "queries and keys go through a norm that is more than a gain",
            found="it takes a mean away, or adds a bias",
            hint="look at patterns instead: circuits.attention",
        )
    gain = norm.gain.view(-1, W.shape[1])  # one for each head, or one for all
    return W * gain[..., None], b * gain


def turns(model: Model, layer: int, offsets: Sequence[int]) -> dict[int, Tensor]:
    """``s · R_Δᵀ R_0`` by offset, ``[d_head, d_head]``: what the scores of a layer make of its queries and keys.

    Row i of a batch is given the i-th unit vector as the query and key of every token; what attention gets of it holds the
    rotation. Only this block runs.
    """
    wanted = sorted(set(offsets))
    if not wanted or wanted[0] < 0:
        raise BadData(
            f"offsets={list(offsets)}", found="an offset below 0, or none", hint="an offset is query minus key: 0, 1, …"
        )
    length, width = max(wanted[-1] + 1, 2), model.shape.d_head
    model.row(Prompt.tokenized([0] * length))  # refuses what is longer than learned positions
    most, found, scale = max(1, token_budget(model, None) // length), [], 0.0
    for first in range(0, width, most):
        seen = _shown(model, layer, torch.eye(width)[first : first + most], length)
        scale = scale or _scale(seen)
        found.append((seen.query[:, 0, wanted].float(), seen.key[:, 0, 0].float()))
    query, key = torch.cat([q for q, _ in found]), torch.cat([k for _, k in found])
    return {offset: scale * query[:, index] @ key.T for index, offset in enumerate(wanted)}


def _shown(model: Model, layer: int, units: Tensor, length: int) -> Attention:
    """A layer's attention where the queries and keys of row i, before positions, are ``units[i]``."""
    engine, shape = model.engine, model.shape

    def instead(h: Tensor) -> Tensor:
        # However queries, keys and values lie in it, every d_head numbers are one of them.
        return units.to(h)[:, None].expand(-1, h[0].numel() // shape.d_head, -1).reshape(h.shape)

    block, anatomy = engine.hooks.blocks[layer], engine.anatomy
    tokens, positions = idle(model, len(units), length)
    stream = torch.zeros(len(units), length, shape.d_model, dtype=engine.dtype, device=engine.device)
    with ExitStack() as stack:
        seen = stack.enter_context(engine.hooks.attended())
        for path in anatomy.qk_norms or anatomy.qkv:
            on_output(stack, module_at(block, path), instead)
        engine.forward(tokens, positions, start=Start(layer, stream), end=layer + 1)
    return seen[layer]


@torch.no_grad()
def _scale(seen: Attention) -> float:
    """What multiplies the product of query and key: read off how two keys share a query's attention."""
    query, key = torch.zeros_like(seen.query[:1]), torch.zeros_like(seen.key[:1])
    query[..., 0], key[:, :, 0, 0] = 1, 1

    def at(size: float) -> float:
        share = seen.pattern(size * query, key)[0, 0, 1, :2].float()
        return float((share[0] / share[1]).log()) / size

    # Small enough for a cap on scores not to be felt, large enough for the precision of the weights.
    return at((0.3 if query.dtype in (torch.float32, torch.float64) else 3.0) / at(1.0))
