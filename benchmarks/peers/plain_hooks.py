"""PyTorch hooks written by hand, as one does who needs no library: each row of a batch adds its own vector."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from benchmarks.jobs import Capture, Condition, Scores, Steered, Traced
from benchmarks.peers.batches import answers, chunks, left_padded, load, new_tokens
from benchmarks.peers.transformers_reference import buckets


class Candidate:
    """Every other candidate's results are compared with these.

    For the log-probability sweep it is the reference in speed too: batches of `ROWS` cells, each cell a whole forward
    pass, padded to the longest, with the head at the last position only.
    """

    version = f"torch {torch.__version__}, transformers {transformers.__version__}"
    ROWS = 64

    def __init__(self, folder: Path) -> None:
        self.model = load(folder)
        self.layers = self.model.model.layers

    @torch.no_grad()
    def steered(self, job: Steered) -> list[list[int]]:
        """All rows in one batch."""
        cells = [(prompt, condition) for condition in job.conditions for prompt in job.prompts]
        batch = left_padded([prompt for prompt, _ in cells], job.stop)
        with self._added([condition for _, condition in cells]):
            out = self.model.generate(**batch, max_new_tokens=job.new, do_sample=False, pad_token_id=job.stop)
        return new_tokens(out, batch["input_ids"].shape[1], job.stop)

    @torch.no_grad()
    def capture(self, job: Capture) -> Tensor:
        """Sorted by length, in batches of about 1024 tokens, without the head."""
        found: list[list[Tensor]] = [[] for _ in self.layers]
        with self._hooks({i: lambda _, __, out, i=i: found[i].append(out[:, -1].clone()) for i in range(len(found))}):
            for rows in buckets(job.prompts, 1024):
                self.model.model(**left_padded(rows, job.stop), use_cache=False)
        values = torch.stack([torch.cat(rows) for rows in found])
        order = sorted(range(job.rows), key=lambda i: len(job.prompts[i]), reverse=True)
        unsorted = torch.empty_like(values)
        unsorted[:, order] = values
        return unsorted

    @torch.no_grad()
    def scores(self, job: Scores) -> Tensor:
        """Cells in the job's order, in batches of `ROWS`."""
        cells = [(prompt, condition) for condition in job.conditions for prompt in job.prompts]
        found = []
        for part in chunks(cells, self.ROWS):
            with self._added([condition for _, condition in part]):
                batch = left_padded([prompt for prompt, _ in part], job.stop)
                found.append(answers(self.model(**batch, use_cache=False, logits_to_keep=1).logits, job.answers))
        return torch.cat(found).reshape(len(job.conditions), len(job.prompts), len(job.answers))

    @torch.no_grad()
    def traced(self, job: Traced) -> Tensor:
        """The loop of the paper's code: for each cell one batch of the clean row and all corrupted ones, from the start."""
        noise, found = torch.tensor(job.noise), []
        tokens = torch.tensor([job.prompts[0]] * (len(noise) + 1))
        for part in job.parts:
            for at in range(tokens.shape[1]):
                for layer in range(job.layers):

                    def corrupt(_: object, __: object, out: Tensor) -> None:
                        out[1:, slice(*job.subject)] += noise

                    def restore(_: object, __: object, out: Tensor | tuple[Tensor, ...], at: int = at) -> None:
                        h = out[0] if isinstance(out, tuple) else out
                        h[1:, at] = h[0, at]

                    modules = [self._module(part, one) for one in job.near(part, layer)]
                    handles = [self.model.model.embed_tokens.register_forward_hook(corrupt)]
                    handles += [module.register_forward_hook(restore) for module in modules]
                    try:
                        logits = self.model(tokens, use_cache=False).logits
                    finally:
                        for handle in handles:
                            handle.remove()
                    found.append(logits[1:, -1].softmax(dim=-1)[:, job.answer].mean())
        return torch.stack(found).reshape(len(job.parts), tokens.shape[1], job.layers)

    def _module(self, part: str, layer: int) -> torch.nn.Module:
        block = self.layers[layer]
        found: torch.nn.Module = {"resid": block, "mlp.out": block.mlp, "attn.out": block.self_attn}[part]
        return found

    @contextlib.contextmanager
    def _added(self, conditions: Sequence[Condition]) -> Iterator[None]:
        """Within, row i of each batch has its condition's vector added, at every position."""
        hooks = {}
        for layer in {condition.layer for condition in conditions}:
            rows = torch.tensor([i for i, condition in enumerate(conditions) if condition.layer == layer])
            vectors = torch.tensor([condition.vector for condition in conditions if condition.layer == layer])

            def add(_: object, __: object, out: Tensor, rows: Tensor = rows, vectors: Tensor = vectors) -> Tensor:
                return out.index_add(0, rows, vectors[:, None].expand(-1, out.shape[1], -1))

            hooks[layer] = add
        with self._hooks(hooks):
            yield

    @contextlib.contextmanager
    def _hooks(self, hooks: Mapping[int, Callable[..., Any]]) -> Iterator[None]:
        handles = [self.layers[layer].register_forward_hook(hook) for layer, hook in hooks.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
