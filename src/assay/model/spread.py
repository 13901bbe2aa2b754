"""Where the parts of a model lie, and which of its sites are whole in this process.

A model may be spread over devices, block by block (``device_map``: hooks of accelerate move activations, and fetch weights that
are kept elsewhere). Every activation is whole then, wherever it is. Or its weights may be divided over processes (tensor
parallelism): between the first and the last projection of attention, and of an MLP, each process has some of the heads and
neurons, in plain tensors that nothing marks as parts. A steering vector would fit none of them or, worse, be broadcast. Which
places are whole is therefore measured at load and not read off a plan: a place is whole where every process sees all of its
numbers, and all processes the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from assay.act.program import Place
from assay.errors import NotWhole
from assay.model.clock import SlotCache
from assay.model.taps import Tap, keeper
from assay.site import PARTS
from assay.sites import Shape

_INNER = ("attn.in", "mlp.in", "mlp.down")
"""Places that are no sites, but are read and written like them."""
_HEADS = "head.z"
"""Where it shows whether this process has all heads: their patterns, queries, keys and values are whole if this is."""
_FINAL: Place = (None, "the final stream")
_LENGTH = 5
"""Tokens of the pass that measures; odd, so that a stream that is divided by position shows."""


@dataclass(frozen=True)
class Spread:
    """How a model lies in devices and processes.

    Attributes:
        device: where tokens enter; the engine shows every activation here.
        blocks: the device on which each block computes.
        kept: whether all weights are where they are used, and none is fetched for each pass.
        processes: over how many processes weights are divided; 1 where they are not.
        kv_heads: how many key/value heads this process computes, and keeps in a KV cache.
        parts: the places that are no whole ones, each with what was found there.
        whole: the parts of a site (``"resid"``) that are whole wherever they are.
    """

    device: torch.device
    blocks: tuple[torch.device, ...]
    kv_heads: int
    kept: bool = True
    processes: int = 1
    parts: Mapping[Place, str] = field(default_factory=dict)
    whole: tuple[str, ...] = PARTS

    @property
    def plain(self) -> bool:
        """Whether the model lies in one process, on one device, with all of its weights."""
        return self.kept and self.processes == 1 and not self.strewn

    @property
    def strewn(self) -> bool:
        """Whether blocks compute on more than one device."""
        return len({self.device, *self.blocks}) > 1

    def refuse(self, places: Iterable[Place]) -> None:
        """Raise `NotWhole` for the first place of which this process has a part only."""
        for layer, part in places:
            found = self.parts.get((layer, _HEADS if part.startswith("head") else part))
            if found is not None:
                name = part.replace("head.", "head[:].")
                raise NotWhole(
                    f"{name if layer is None else f'L{layer}.{name}'} is not whole in this process",
                    found=found,
                    nearest=", ".join(self.whole),
                    hint="use a site that is whole, or load without tp_plan: with device_map= every site is",
                )

    def shown(self, tap: Tap) -> Tap:
        """A tap that sees every activation on one device, and whose results go back to where the activation was."""
        if not self.strewn:
            return tap

        def moved(h: Tensor) -> Tensor | None:
            here = h.to(self.device)
            new = tap(here)
            return None if new is None or new is here else new.to(h.device)

        return moved

    def least(self, count: int) -> int:
        """The least of what the processes say, each of which calls this: for batches, which all must pack alike."""
        if self.processes == 1:
            return count
        counts = torch.tensor([count], device=self.device)
        torch.distributed.all_reduce(counts, torch.distributed.ReduceOp.MIN)
        return int(counts)

    def cache(self, rows: int, length: int, shape: Shape, dtype: torch.dtype, lowest: int) -> SlotCache:
        """A KV cache that lies where the blocks compute, with as many heads as this process has."""
        shape = replace(shape, kv_heads=self.kv_heads)
        if not self.strewn:
            return SlotCache.empty(rows, length, shape, dtype, self.device, lowest)
        made = SlotCache.empty(rows, length, shape, dtype, torch.device("meta"), lowest)
        pairs = zip(made.pairs, self.blocks, strict=True)
        return _StrewnCache([tuple(torch.zeros_like(one, device=at) for one in pair) for pair, at in pairs])


class _StrewnCache(SlotCache):
    """A `SlotCache` on several devices. Its indices stay on the CPU, from where they reach every device."""

    def __init__(self, pairs: Any) -> None:
        super().__init__(pairs)
        self.rows = torch.arange(pairs[0][0].shape[0])[:, None]

    def part(self, start: int, stop: int) -> SlotCache:
        """A view of some rows."""
        return self._like(super().part(start, stop))

    def pick(self, rows: Tensor) -> SlotCache:
        """A copy of some rows."""
        return self._like(super().pick(rows))

    def _like(self, made: SlotCache) -> SlotCache:
        view = _StrewnCache(made.pairs)
        view.used = made.used
        return view


def spread_of(hf: Any, blocks: Iterable[nn.Module], shape: Shape) -> Spread:
    """How a model lies, before any pass. Raises `NotWhole` where it lies in a way in which no site would be whole."""
    divided = [weight for weight in hf.parameters() if _divided(weight)]
    processes = max([1, *(weight.device_mesh.size() for weight in divided)])
    mesh = getattr(hf, "_device_mesh", None)
    names = getattr(mesh, "mesh_dim_names", None) or ()
    others = {name: size for name, size in zip(names, tuple(getattr(mesh, "shape", ())), strict=False) if name != "tp"}
    if any(size > 1 for size in others.values()) or any(weight.device_mesh.ndim > 1 for weight in divided):
        raise NotWhole(
            f"this {type(hf).__name__} is divided otherwise than by tensor parallelism",
            found=", ".join(f"{name} {size}" for name, size in others.items() if size > 1) or "a mesh of several axes",
            hint="load it with tp_plan alone, or with device_map=",
        )
    if (getattr(hf, "_tp_size", None) or 1) > 1 and not divided:
        raise NotWhole(
            f"the weights of this {type(hf).__name__} are divided, and do not say how",
            found=f"{hf._tp_size} processes, and no weight is a DTensor",
            hint="update transformers, or load without tp_plan",
        )
    lost = [
        name
        for path, module in hf.named_modules()
        for name in (
            f"{path}.{leaf}" for leaf, weight in _own(module) if weight.is_meta and _fetched(module, leaf) is None
        )
    ]
    if lost:
        raise NotWhole(
            f"this {type(hf).__name__} has weights without numbers",
            found=f"{len(lost)} on the device 'meta', which nothing fetches: {', '.join(lost[:3])}{', …' if len(lost) > 3 else ''}",
            hint="load it with a device_map of real devices, 'cpu' or 'disk'",
        )
    return Spread(
        device=device_of(hf.get_input_embeddings()),
        blocks=tuple(map(device_of, blocks)),
        kv_heads=shape.kv_heads,
        kept=not any(weight.is_meta for weight in hf.parameters()),
        processes=processes,
    )


@torch.no_grad()
def measured(
    spread: Spread, hf: Any, shape: Shape, tapped: Callable[[Mapping[Place, Tap]], AbstractContextManager[None]]
) -> Spread:
    """What one pass over a few tokens shows of a model whose weights are divided over processes, all of which call this.

    Raises `NotWhole` where the final stream or the logits are parts, without which nothing can be read or scored.
    """
    lacks = {*shape.lacks, "head.pattern", "embed", "logits", *(("mlp.down",) if "mlp.act" in shape.lacks else ())}
    inner = [part for part in (*PARTS, *_INNER) if part not in lacks]
    places: list[Place] = [(None, "embed"), *((layer, part) for layer in range(shape.layers) for part in inner)]
    seen: dict[Place, Tensor] = {}
    tokens = torch.arange(_LENGTH, device=spread.device)[None]
    with tapped({place: keeper(seen, place) for place in places}):
        output = hf(input_ids=tokens, use_cache=True, output_hidden_states=True)
    seen |= {_FINAL: output.hidden_states[-1], (None, "logits"): output.logits}
    parts = _parts(seen, shape, next(weight.device_mesh for weight in hf.parameters() if _divided(weight)))
    for place in (_FINAL, (None, "logits")):
        if place in parts:
            raise NotWhole(
                f"{place[1]} is not whole in this process",
                found=parts[place],
                hint="load with the model's own plan (tp_plan='auto'), or without tp_plan",
            )
    divided = {part for _, part in parts} | ({"head.pattern"} if any(part == _HEADS for _, part in parts) else set())
    return replace(
        spread,
        parts=parts,
        whole=tuple(part for part in PARTS if part not in divided and part not in shape.lacks),
        kv_heads=int(output.past_key_values.layers[0].keys.shape[1]),
    )


def _parts(seen: Mapping[Place, Tensor], shape: Shape, mesh: Any) -> dict[Place, str]:
    """Which of the values that were seen are parts: too few numbers, or other numbers than in another process."""
    widths = {place: (shape.width(place[1]) or 1) * (shape.heads if place[1] == _HEADS else 1) for place in seen}
    group = mesh.get_group()
    home = next(iter(seen.values())).device
    full = torch.tensor([_plain(h) and h.numel() == _LENGTH * widths[place] for place, h in seen.items()], device=home)
    # An uneven division may leave all to one process: what is a part for one is a part for all.
    everywhere = _over(full.int(), "MIN", group).bool().tolist()
    found: dict[Place, str] = {}
    for (place, h), whole in zip(seen.items(), everywhere, strict=True):
        if whole:
            continue
        numbers = f"{h.numel() // _LENGTH} of {widths[place]} dimensions"
        if not _plain(h) or h.numel() % _LENGTH:
            numbers = f"{h.numel()} of {_LENGTH * widths[place]} numbers over {_LENGTH} positions"
        found[place] = f"{mesh.size()} shards; this process holds {numbers}"
    rest = {place: h.float().to(home).flatten() for place, h in seen.items() if place not in found}
    values = torch.cat(list(rest.values()))
    spans = (_over(values, "MAX", group) - _over(values, "MIN", group)).split([len(h) for h in rest.values()])
    limit = max(1e-4, 64 * torch.finfo(next(iter(seen.values())).dtype).eps)
    for (place, h), span in zip(rest.items(), spans, strict=True):
        # Every process has to come to one answer, or the next pass would wait for one that does not run it.
        if float(_over(span.max() / h.abs().max().clamp_min(1e-30), "MAX", group)) > limit:
            found[place] = f"other numbers in each of {mesh.size()} processes, as in a sum that is not yet made"
    return found


def _over(values: Tensor, how: str, group: Any) -> Tensor:
    values = values.clone()
    torch.distributed.all_reduce(values, getattr(torch.distributed.ReduceOp, how), group)
    return values


# Weights.


def whole(module: nn.Module, name: str = "weight") -> Tensor:
    """A module's weight with all of its numbers, fetched where it is kept elsewhere. Raises `NotWhole` for a shard."""
    weight = module.get_parameter(name)
    if _divided(weight):
        raise NotWhole(
            f"the {name} of this {type(module).__name__} is not whole in this process",
            found=_shards(weight),
            hint="load without tp_plan: with device_map= every weight is whole",
        )
    return weight if not weight.is_meta else _needed(module, name)


def refuse_weights(hf: Any, names: Iterable[str]) -> None:
    """Raise `NotWhole` for the first of these weights that cannot be changed in place; other names are left alone."""
    known = dict(hf.named_parameters())
    for name in names:
        weight = known.get(name)
        if weight is not None and (_divided(weight) or weight.is_meta):
            raise NotWhole(
                f"the weight {name} cannot be changed in this process",
                found=_shards(weight) if _divided(weight) else "it is kept elsewhere, and read anew for each pass",
                hint="load without tp_plan or offloading: a device_map that keeps this weight on one device will do",
            )


def state(hf: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a model's state by name, in the names' order, one after the other, each whole.

    Where weights are divided over processes, all of them must go through it together.
    """
    for name, tensor in sorted(hf.state_dict().items()):
        if _divided(tensor):
            yield name, tensor.full_tensor()
        elif tensor.is_meta:
            path, _, leaf = name.rpartition(".")
            yield name, _needed(hf.get_submodule(path), leaf)
        else:
            yield name, tensor


def dispersed(hf: Any) -> bool:
    """Whether some weight is divided, or kept elsewhere, or hooks of accelerate move activations."""
    return any(_divided(one) or one.is_meta for one in hf.parameters()) or any(map(_hooks, hf.modules()))


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes: where its weights are, or where accelerate brings them."""
    for weight in module.parameters():
        if not weight.is_meta:
            return weight.device
    for one in module.modules():
        for hook in _hooks(one):
            at = getattr(hook, "execution_device", None)
            if at is not None:
                return torch.device(at)
    return torch.device("cpu")


def _hooks(module: nn.Module) -> list[Any]:
    """The hooks that accelerate put on a module."""
    hook = getattr(module, "_hf_hook", None)
    return [] if hook is None else [hook, *getattr(hook, "hooks", ())]


def _fetched(module: nn.Module, name: str) -> Any:
    """The map from which accelerate reads a weight for each pass; None where there is none."""
    for hook in _hooks(module):
        stored = getattr(hook, "weights_map", None)
        if stored is not None and name in stored:
            return stored
    return None


def _needed(module: nn.Module, name: str) -> Tensor:
    stored: Tensor = _fetched(module, name)[name]
    return stored.to(getattr(module, name).dtype)


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    return list(module.named_parameters(recurse=False))


def _divided(tensor: Any) -> bool:
    """Whether a tensor is a DTensor of which this process holds a part."""
    return any(not placement.is_replicate() for placement in getattr(tensor, "placements", ()))


def _plain(tensor: Tensor) -> bool:
    return not hasattr(tensor, "placements")


def _shards(weight: Any) -> str:
    here, all_of_it = list(weight.to_local().shape), list(weight.shape)
    return f"{weight.device_mesh.size()} shards; this process holds {here} of {all_of_it}"
