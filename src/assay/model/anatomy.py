"""Which module is which site. The only file that knows architectures.

Everything is a path from the model or from one block to a module whose input or output *is* the site, so weights and
numerics stay Hugging Face's own. Adding a family is one entry; `selftest` then proves it on the model at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from assay.errors import NotACausalLM, UnknownArchitecture, nearest
from assay.model.spread import whole
from assay.sites import Shape


@dataclass(frozen=True)
class Anatomy:
    """Paths to the modules of one family.

    Attributes:
        blocks: path to the list of blocks.
        o_proj: in a block, the projection whose input is the heads' mixed values (``head.z``).
        attn_out: in a block, the module whose output attention adds to the stream (a norm in Gemma and OLMo 2).
        mlp_out: in a block, the module whose output the MLP adds to the stream.
        down: in a block, the projection whose input is the neurons (``mlp.act``); None with routed experts.
        attn: in a block, the attention module.
        attn_in, mlp_in: in a block, the modules whose input is the stream as attention and the MLP read it (their norms,
            or themselves where there is none); ``mlp_in`` is None where both read through one.
        parallel: attention and MLP read the same stream, so there is no ``mid``.
        softcap: name of the config field that caps the logits, if any.
        qkv: in a block, the projections that give queries, keys and values; one path where a single one gives all three.
        woven: whether that single one gives the three head by head, and not one after the other.
        qk_norms: in a block, the norms that queries and keys go through, if any.
    """

    blocks: str = "model.layers"
    o_proj: str = "self_attn.o_proj"
    attn_out: str = "self_attn.o_proj"
    mlp_out: str = "mlp"
    down: str | None = "mlp.down_proj"
    attn: str = "self_attn"
    attn_in: str = "input_layernorm"
    mlp_in: str | None = "post_attention_layernorm"
    parallel: bool = False
    softcap: str | None = None
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    woven: bool = False
    qk_norms: tuple[str, ...] = ()

    @property
    def heads_add(self) -> bool:
        """Whether what attention adds is the sum of what its heads write; not where a norm stands behind them."""
        return self.attn_out == self.o_proj

    @property
    def neurons_add(self) -> bool:
        """Whether what the MLP adds is what its down projection gives, which neither experts nor a norm behind it leave."""
        return self.down is not None and f"{self.down}.".startswith(f"{self.mlp_out}.")


_LLAMA = Anatomy()
_GEMMA = Anatomy(
    attn_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
    mlp_in="pre_feedforward_layernorm",
    softcap="final_logit_softcapping",
)
_QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
_EXPERTS = Anatomy(down=None)

ANATOMIES: dict[str, Anatomy] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": replace(_LLAMA, qk_norms=_QK_NORMS),
    "phi3": replace(_LLAMA, qkv=("self_attn.qkv_proj",)),
    "gemma2": _GEMMA,
    "gemma3_text": replace(_GEMMA, qk_norms=_QK_NORMS),
    "olmo2": Anatomy(
        attn_out="post_attention_layernorm",
        mlp_out="post_feedforward_layernorm",
        attn_in="self_attn",
        mlp_in="mlp",
        qk_norms=_QK_NORMS,
    ),
    "mixtral": _EXPERTS,
    "qwen2_moe": _EXPERTS,
    "gpt2": Anatomy(
        blocks="transformer.h",
        o_proj="attn.c_proj",
        attn_out="attn.c_proj",
        mlp_out="mlp",
        down="mlp.c_proj",
        attn="attn",
        attn_in="ln_1",
        mlp_in="ln_2",
        qkv=("attn.c_attn",),
    ),
    "gpt_neox": Anatomy(
        blocks="gpt_neox.layers",
        o_proj="attention.dense",
        attn_out="attention.dense",
        down="mlp.dense_4h_to_h",
        attn="attention",
        parallel=True,
        qkv=("attention.query_key_value",),
        woven=True,
    ),
    "gptj": Anatomy(
        blocks="transformer.h",
        o_proj="attn.out_proj",
        attn_out="attn.out_proj",
        down="mlp.fc_out",
        attn="attn",
        attn_in="ln_1",
        mlp_in=None,
        parallel=True,
        qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    ),
    "opt": Anatomy(
        blocks="model.decoder.layers",
        o_proj="self_attn.out_proj",
        attn_out="self_attn.out_proj",
        mlp_out="fc2",
        down="fc2",
        attn_in="self_attn_layer_norm",
        mlp_in="final_layer_norm",
    ),
}
"""By ``config.model_type``."""


def crosswise(module: nn.Module) -> bool:
    """Whether a projection's weight is ``[in, out]``, as in GPT-2's ``Conv1D``, and not ``[out, in]``."""
    return type(module).__name__ == "Conv1D"


def matrix(module: nn.Module) -> Tensor:
    """A projection's weight ``[out, in]``. Raises `NotWhole` where this process has a shard of it."""
    weight = whole(module).detach()
    return weight.T if crosswise(module) else weight


def by_head(anatomy: Anatomy, shape: Shape, given: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries ``[…, head, d_head]``, keys and values ``[…, kv head, d_head]``, of what the projections ``qkv`` give,
    ``[…, out]`` each. Weights ``[in, out]`` and biases split in the same way.
    """
    joined = torch.cat(list(given), dim=-1)
    if anatomy.woven:
        query, key, value = joined.unflatten(-1, (shape.heads, 3, shape.d_head)).unbind(dim=-2)
        return query, key, value
    widths = [shape.d_head * heads for heads in (shape.heads, shape.kv_heads, shape.kv_heads)]
    query, key, value = (part.unflatten(-1, (-1, shape.d_head)) for part in joined.split(widths, dim=-1))
    return query, key, value


_HOW = """declare it, and the self-test will prove it:
        from assay.model.anatomy import Anatomy
        mine = Anatomy(
            blocks="model.layers",            # the list of blocks
            o_proj="self_attn.o_proj",        # in a block: its input is the heads' mixed values
            attn_out="self_attn.o_proj",      # its output is what attention adds
            mlp_out="mlp",                    # its output is what the MLP adds
            down="mlp.down_proj",             # its input is the neurons; None with experts
            attn="self_attn",
        )
        model = Model.load(source, anatomy=mine)"""


def anatomy_of(hf: nn.Module) -> Anatomy:
    """The entry for a model. Raises `NotACausalLM`, `UnknownArchitecture`."""
    encodes = bool(getattr(hf.config, "is_encoder_decoder", False))
    if head_of(hf) is None or encodes:
        raise NotACausalLM(
            f"{type(hf).__name__} is no causal language model",
            found="it is an encoder with a decoder" if encodes else "it has no projection onto a vocabulary",
            hint="load the …ForCausalLM class of the model, not its base or a classifier",
        )
    config: Any = hf.config
    kind = config.get_text_config().model_type
    if kind not in ANATOMIES:
        lists = [
            f"{name} ({len(module)} × {type(module[0]).__name__})"
            for name, module in hf.named_modules()
            if isinstance(module, nn.ModuleList) and len(module)
        ]
        raise UnknownArchitecture(
            f"no anatomy is known for model_type {kind!r}",
            found=f"{type(hf).__name__} with {'; '.join(lists[:3]) or 'no list of blocks'}",
            nearest=nearest(kind, ANATOMIES),
            hint=_HOW,
        )
    if kind == "gpt_neox" and not config.use_parallel_residual:
        return Anatomy(**{**vars(ANATOMIES[kind]), "parallel": False})
    return ANATOMIES[kind]


def head_of(hf: Any) -> nn.Module | None:
    """The projection onto the vocabulary, if the model has one."""
    try:
        return hf.get_output_embeddings()
    # A class without a head may lack the method, or have one that only raises.
    except (AttributeError, NotImplementedError):
        return None


def module_at(root: nn.Module, path: str) -> nn.Module:
    """The module at a dotted path. Raises `UnknownArchitecture` when the anatomy is wrong about it."""
    try:
        return root.get_submodule(path)
    except AttributeError as error:
        raise UnknownArchitecture(
            f"the anatomy names {path!r}, which {type(root).__name__} does not have",
            found=", ".join(name for name, _ in root.named_children()),
            hint="correct the path in the Anatomy; print(model.hf) shows the modules",
        ) from error


def shape_of(hf: nn.Module, anatomy: Anatomy) -> Shape:
    """Sizes, read from the modules themselves rather than from names in the config."""
    config: Any = hf.config
    config = config.get_text_config()
    blocks = module_at(hf, anatomy.blocks)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        raise UnknownArchitecture(
            f"{anatomy.blocks!r} is no list of blocks",
            found=f"a {type(blocks).__name__}",
            hint="print(model.hf) shows the modules",
        )
    o_proj = module_at(blocks[0], anatomy.o_proj)
    heads = config.num_attention_heads
    lacks = {}
    if anatomy.parallel:
        lacks["mid"] = "attention and MLP read the same stream in parallel, so nothing lies between them"
    if anatomy.down is None:
        lacks["mlp.act"] = "the MLP is a set of routed experts, which share no neurons"
    return Shape(
        layers=len(blocks),
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        d_model=_width(o_proj, 1),
        d_head=_width(o_proj, 0) // heads,
        d_mlp=_width(module_at(blocks[0], anatomy.down), 0) if anatomy.down else 0,
        vocab=_width(head_of(hf), 1),
        lacks=lacks,
    )


def _width(module: Any, side: int) -> int:
    """Input (0) or output (1) width of a Linear, or of GPT-2's Conv1D, whose weight is transposed."""
    transposed = type(module).__name__ == "Conv1D"
    return int(module.weight.shape[side if transposed else 1 - side])
