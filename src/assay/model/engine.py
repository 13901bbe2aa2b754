"""The engine: one forward pass of a Hugging Face model, from its first block or from the middle, under a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from assay.act.program import Place, Program
from assay.model.anatomy import Anatomy, head_of, module_at, shape_of
from assay.model.clock import BranchCache, SlotCache, SuffixCache, columns
from assay.model.hooks import Hooks, only
from assay.model.spread import measured, spread_of
from assay.model.taps import Tap


@dataclass(frozen=True)
class Start:
    """Where a pass starts: block ``entry``, given the stream ``[row, pos, d_model]`` below it."""

    entry: int
    stream: Tensor


class Engine:
    """A causal language model with named sites. It never wraps, folds or changes the model it drives.

    Attributes:
        hf: the Hugging Face model, as it was loaded.
        anatomy, shape: its module paths and its sizes.
        spread: where its parts lie, and which places this process sees whole.
        device: where tokens enter, and where every activation is shown.
        driving: whether the pass under way is the engine's own.
    """

    def __init__(self, hf: Any, anatomy: Anatomy) -> None:
        self.hf = hf
        self.anatomy = anatomy
        self.shape = shape_of(hf, anatomy)
        self.spread = spread_of(hf, module_at(hf, anatomy.blocks).children(), self.shape)
        self.hooks = Hooks(hf, anatomy, self.shape, self.spread)
        self.device = self.spread.device
        self.dtype: torch.dtype = next(hf.parameters()).dtype
        self.driving = False
        self._lm_head: Any = head_of(hf)
        self._body: nn.Module = hf.get_decoder()
        self._tuples = self.hooks.blocks_return_tuples(self._body, self.device)
        if self.spread.processes > 1:
            self.spread = self.hooks.spread = measured(self.spread, hf, self.shape, self.hooks.tapped)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        *,
        program: Program | None = None,
        reads: Mapping[Place, Tap] | None = None,
        cache: SlotCache | BranchCache | SuffixCache | None = None,
        slots: Tensor | None = None,
        start: Start | None = None,
        end: int | None = None,
        scores: bool = False,
        gradients: bool = False,
    ) -> Tensor:
        """Run right-padded rows ``[row, pos]``; ``positions`` are absolute, −1 for padding.

        Returns the normed final stream ``[row, pos, d_model]``, or with ``scores`` the logits ``[row, pos, vocab]``
        exactly as the model's own forward gives them. With neither cache nor start the call is the plain one,
        so that without interventions every bit is the library's. What a tap of ``reads`` returns, unless None, goes on
        in place of what it was shown. ``slots`` are the cache's slots where they are not
        simply the positions. Blocks from ``end`` on are left out: what is returned then is of no use.
        """
        arguments: dict[str, Any] = {"input_ids": tokens.to(self.device), "use_cache": False}
        if cache is not None:
            slots = columns(positions) if slots is None else slots
            arguments |= {
                "use_cache": True,
                "past_key_values": cache,
                "position_ids": slots.to(self.device),
                "attention_mask": cache.advance(slots, self.hf.config, self.dtype, self.device),
            }
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(gradients))
            stack.enter_context(self._driven())
            if start is not None or end is not None:
                entry, stream = (start.entry, start.stream) if start else (0, None)
                if stream is not None:  # the block above finds it where the one below would have left it
                    stream = stream.to(self.spread.blocks[entry - 1])
                stack.enter_context(only(self.hooks.blocks, entry, stream, end, self._tuples))
            stack.enter_context(self.hooks.tapped(self._taps(program, reads or {}, positions)))
            output = (self.hf if scores else self._body)(**arguments)
        return (output.logits if scores else output.last_hidden_state).to(self.device)

    def unembed(self, stream: Tensor, gradients: bool = False) -> Tensor:
        """Scores ``[…, vocab]`` of a normed final stream ``[…, d_model]``."""
        with torch.set_grad_enabled(gradients):
            return self._unembed(stream)

    def _unembed(self, stream: Tensor) -> Tensor:
        logits: Tensor = self._lm_head(stream).to(self.device)
        cap = getattr(self.hf.config.get_text_config(), self.anatomy.softcap, None) if self.anatomy.softcap else None
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def log_p(self, stream: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities of ``tokens [k]`` at ``rows [k]`` of a normed final stream ``[row, d_model]``, float32.

        One tensor of logits is made, and overwritten: on the CPU a second one costs more than the arithmetic.
        """
        logits = self.unembed(stream).float()
        logits -= logits.amax(dim=-1, keepdim=True)
        rows, tokens = rows.to(logits.device), tokens.to(logits.device)
        said = logits[rows, tokens]
        return said - logits.exp_().sum(dim=-1).log()[rows]

    def empty_cache(self, rows: int, length: int, lowest: int = 0) -> SlotCache:
        """A cache for ``rows`` rows of up to ``length`` tokens, in the layers from ``lowest`` on."""
        return self.spread.cache(rows, length, self.shape, self.dtype, lowest)

    def bytes_per_token(self) -> int:
        """Bytes that the KV cache of this process takes for one token of one row."""
        return 2 * self.shape.layers * self.spread.kv_heads * self.shape.d_head * self.dtype.itemsize

    def _taps(self, program: Program | None, reads: Mapping[Place, Tap], positions: Tensor) -> dict[Place, Tap]:
        """One tap per place: first what the program writes, then what is read, or written by whoever reads it."""
        written: Sequence[Place] = list(program.groups) if program else []
        length = positions.shape[1]

        def at(place: Place) -> Tap:
            def tap(h: Tensor) -> Tensor | None:
                # OPT's MLP sees its tokens without the row axis.
                flat = h.dim() == 2
                h = h.view(-1, length, h.shape[-1]) if flat else h
                new = program.apply(place, h, positions) if program and place in program.groups else h
                shown = reads[place](new) if place in reads else None
                new = new if shown is None else shown
                if new is h:
                    return None
                return new.flatten(0, 1) if flat else new

            return tap

        return {place: at(place) for place in dict.fromkeys([*written, *reads])}

    @contextmanager
    def _driven(self) -> Iterator[None]:
        before, self.driving = self.driving, True
        try:
            yield
        finally:
            self.driving = before
