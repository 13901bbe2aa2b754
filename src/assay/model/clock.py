"""Absolute positions, whatever padding and the KV cache do.

Inside Assay rows are padded on the right and a key's slot in the cache *is* its absolute position, so nothing ever has
to be shifted. Calls that the user makes on the Hugging Face model are read from their arguments instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from assay.sites import Shape


def right_padded(rows: Sequence[Sequence[int]], starts: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Tokens and absolute positions ``[row, pos]`` of rows of different length. Padding has position −1 and
    repeats the row's last token: nothing attends to it, and no model mistakes it for padding that needs a mask.
    """
    longest = max(len(row) for row in rows)
    tokens = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows])
    positions = torch.full((len(rows), longest), -1)
    for index, row in enumerate(rows):
        first = 0 if starts is None else starts[index]
        positions[index, : len(row)] = torch.arange(first, first + len(row))
    return tokens, positions


def columns(positions: Tensor) -> Tensor:
    """Positions with the padding on the right numbered on, so that every token has a slot."""
    return positions[:, :1] + torch.arange(positions.shape[1])


def foreign_positions(arguments: dict[str, Any]) -> Tensor:
    """Absolute positions ``[row, pos]`` of a forward call that somebody else makes; −1 marks padding.

    A two-dimensional attention mask says what is padding, on either side; failing that ``position_ids``, then the
    length of the cache.
    """
    given = arguments.get("input_ids")
    given = arguments["inputs_embeds"] if given is None else given
    rows, length = given.shape[:2]
    cache, mask = arguments.get("past_key_values"), arguments.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2:
        real = mask.bool().cpu()
        return torch.where(real, real.long().cumsum(dim=1) - 1, -1)[:, -length:]
    ids = arguments.get("position_ids")
    if ids is not None:
        # Padding on the left has a filler for its position, out of step with the tokens that count up to the last one.
        ids = ids.cpu().expand(rows, length)
        counted = ids[:, -1:] - torch.arange(length - 1, -1, -1)
        return torch.where((ids == counted) & (counted >= 0), ids, -1)
    seen = int(cache.get_seq_length()) if cache is not None else 0
    return torch.arange(seen, seen + length).expand(rows, length)


def masks(
    config: Any, queries: Tensor, keys: Tensor, dtype: torch.dtype, device: torch.device, seen: Tensor | bool = True
) -> Tensor | dict[str, Tensor]:
    """Additive attention masks ``[row, 1, pos, slot]`` for queries at positions ``[row, pos]`` over keys at positions
    ``[slot]`` or ``[row, 1, slot]``, of which ``seen`` ``[pos, slot]`` or ``[row, 1, slot]`` may be attended to.

    A dictionary by layer type where a model mixes full and sliding attention, as its forward pass expects.
    """
    config = config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    queries = queries[:, :, None]
    causal = (keys <= queries) & seen
    sliding = causal & (keys > queries - window) if window else causal

    def additive(allowed: Tensor) -> Tensor:
        closed = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
        return closed[:, None].to(device)

    if len(kinds) > 1:
        return {kind: additive(sliding if kind == "sliding_attention" else causal) for kind in kinds}
    if kinds:
        return additive(sliding if kinds == {"sliding_attention"} else causal)
    return additive(sliding)


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer in a tensor allocated once; a token's slot is its absolute position."""

    def __init__(self, keys: Tensor, values: Tensor, cache: SlotCache) -> None:
        super().__init__()
        self.keys, self.values, self.cache = keys, values, cache
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the tensors exist."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the tokens into their slots and give views of all slots used so far, without a copy."""
        assert self.keys is not None and self.values is not None
        at, used = self.cache.at, self.cache.used
        if isinstance(at, slice):
            self.keys[:, :, at], self.values[:, :, at] = key_states, value_states
        else:
            rows = self.cache.rows
            self.keys[rows, :, at] = key_states.transpose(1, 2)
            self.values[rows, :, at] = value_states.transpose(1, 2)
        return self.keys[:, :, :used], self.values[:, :, :used]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys."""
        return self.cache.used, 0

    def get_seq_length(self) -> int:
        """Slots used so far."""
        return self.cache.used

    def get_max_length(self) -> int:
        """Slots allocated."""
        assert self.keys is not None
        return int(self.keys.shape[2])


class SlotCache(Cache):
    """A KV cache ``[row, kv head, slot, d_head]`` per layer in which slot = absolute position."""

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.used = 0
        self.at: slice | Tensor = slice(0, 0)
        self.rows = torch.arange(pairs[0][0].shape[0], device=pairs[0][0].device)[:, None]
        self.pairs = list(pairs)
        super().__init__(layers=[SlotLayer(keys, values, self) for keys, values in pairs])

    @classmethod
    def empty(
        cls, rows: int, length: int, shape: Shape, dtype: torch.dtype, device: torch.device, lowest: int = 0
    ) -> SlotCache:
        """A cache with room for ``length`` tokens in each of ``rows`` rows, in the layers from ``lowest`` on."""

        def room(layer: int) -> Tensor:
            slots = length if layer >= lowest else 0
            return torch.zeros(rows, shape.kv_heads, slots, shape.d_head, dtype=dtype, device=device)

        return cls([(room(layer), room(layer)) for layer in range(shape.layers)])

    def advance(
        self, slots: Tensor, config: Any, dtype: torch.dtype, device: torch.device
    ) -> Tensor | dict[str, Tensor]:
        """Say which slots ``[row, pos]`` the next forward pass writes; returns its attention masks."""
        first, last = int(slots.min()), int(slots.max())
        self.used = max(self.used, last + 1)
        level = bool((slots == slots[:1]).all()) and last - first + 1 == slots.shape[1]
        self.at = slice(first, last + 1) if level else slots.to(self.rows.device)
        return masks(config, slots, torch.arange(self.used), dtype, device)

    def part(self, start: int, stop: int) -> SlotCache:
        """A view of some rows: what is written there is written here."""
        view = SlotCache([(keys[start:stop], values[start:stop]) for keys, values in self.pairs])
        view.used = self.used
        return view

    def pick(self, rows: Tensor) -> SlotCache:
        """A copy of some rows."""
        rows = rows.to(self.rows.device)
        chosen = SlotCache([(keys[rows], values[rows]) for keys, values in self.pairs])
        chosen.used = self.used
        return chosen

    def copy_from(self, source: SlotCache, rows: Tensor, length: int, layers: range | None = None) -> None:
        """Fill the first ``length`` slots of row i with those of ``source``'s row ``rows[i]``, in some layers or all."""
        rows = rows.to(self.rows.device)
        for index in range(len(self.pairs)) if layers is None else layers:
            for mine, other in zip(self.pairs[index], source.pairs[index], strict=True):
                mine[:, :, :length] = other[rows, :, :length]
        self.used = max(self.used, length)


class BranchLayer(CacheLayerMixin):
    """One layer of a `BranchCache`."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the tensors exist."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The trunks' keys and values, then the branches' own; nothing is kept."""
        assert self.keys is not None and self.values is not None
        times = key_states.shape[0] // self.keys.shape[0]
        return tuple(  # type: ignore[return-value]
            torch.cat([trunk.repeat(times, 1, 1, 1), own], dim=2)
            for trunk, own in ((self.keys, key_states), (self.values, value_states))
        )

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys."""
        return self.get_max_length() + query_length, 0

    def get_seq_length(self) -> int:
        """The trunk's length."""
        return self.get_max_length()

    def get_max_length(self) -> int:
        """The trunk's length."""
        assert self.keys is not None
        return int(self.keys.shape[2])


class BranchCache(Cache):
    """Keys and values of trunks, rows that have been run, for branches that leave them at some token.

    A row of the pass holds several branches of one trunk one after the other. Each sees its trunk's tokens below its
    first one, and itself. Row i belongs to trunk ``i % trunks``, however many rows there are.

    Args:
        trunks: their cache, filled.
        firsts: where each branch leaves; it ends where the trunk does.
    """

    def __init__(self, trunks: SlotCache, firsts: Sequence[int]) -> None:
        length = trunks.used
        self.positions = torch.cat([torch.arange(first, length) for first in firsts])[None]
        branch = torch.cat([torch.full((length - first,), index) for index, first in enumerate(firsts)])
        below = torch.arange(length) < torch.tensor(firsts)[branch][:, None]
        self.seen = torch.cat([below, branch[:, None] == branch], dim=1)
        self.trunk = length
        super().__init__(
            layers=[BranchLayer(keys[:, :, :length], values[:, :, :length]) for keys, values in trunks.pairs]
        )

    def advance(
        self, slots: Tensor, config: Any, dtype: torch.dtype, device: torch.device
    ) -> Tensor | dict[str, Tensor]:
        """The attention masks of the next forward pass, one for all rows."""
        keys = torch.cat([torch.arange(self.trunk), self.positions[0]])
        return masks(config, self.positions, keys, dtype, device, self.seen)


class SuffixCache(Cache):
    """Keys and values of rows that have been run, for passes that go on from a token of each row's own, and keep nothing.

    Args:
        rows: their cache, filled.
        firsts: ``[row]``, the token from which each row goes on.
    """

    def __init__(self, rows: SlotCache, firsts: Tensor) -> None:
        self.firsts, self.past = firsts[:, None], int(firsts.max())
        super().__init__(
            layers=[BranchLayer(keys[:, :, : self.past], values[:, :, : self.past]) for keys, values in rows.pairs]
        )

    def advance(
        self, slots: Tensor, config: Any, dtype: torch.dtype, device: torch.device
    ) -> Tensor | dict[str, Tensor]:
        """The attention masks of the next forward pass."""
        past = torch.arange(self.past).expand(len(slots), -1)
        seen = torch.cat([past < self.firsts, torch.ones_like(slots, dtype=torch.bool)], dim=1)
        return masks(config, slots, torch.cat([past, slots], dim=1)[:, None], dtype, device, seen[:, None])
