"""TransformerLens: a `TransformerBridge` with a hook on ``hook_resid_post`` for each condition, a batch of the prompts.

``blocks.l.hook_resid_post`` is the output of block l, as here, un-normed also for the last. Prompts are given as
tokens, because it puts a BOS before strings, and with their attention mask, because without one it takes padding for
context.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from benchmarks.jobs import Capture, Condition, Scores, Steered, Traced
from benchmarks.peers.batches import BATCH, answers, chunks, left_padded, new_tokens


class Candidate:
    version = f"transformer-lens {version('transformer-lens')}, transformers {version('transformers')}"

    def __init__(self, folder: Path) -> None:
        self.model = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)
        self.sites = [f"blocks.{layer}.hook_resid_post" for layer in range(self.model.cfg.n_layers)]

    @torch.no_grad()
    def steered(self, job: Steered) -> list[list[int]]:
        batch, found = left_padded(job.prompts, job.stop), []
        options: dict[str, Any] = dict(do_sample=False, eos_token_id=job.stop, return_type="tokens", verbose=False)
        for condition in job.conditions:
            with self.model.hooks(fwd_hooks=self._adding(condition)):
                out = self.model.generate(
                    batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=job.new, **options
                )
            found += new_tokens(out, batch["input_ids"].shape[1], job.stop)
        return found

    @torch.no_grad()
    def capture(self, job: Capture) -> Tensor:
        found = []
        for part in chunks(job.prompts, BATCH):
            batch = left_padded(part, job.stop)
            _, cache = self.model.run_with_cache(
                batch["input_ids"], attention_mask=batch["attention_mask"], names_filter=self.sites, pos_slice=-1
            )
            found.append(torch.stack([cache[site].flatten(1) for site in self.sites]))
        return torch.cat(found, dim=1)

    @torch.no_grad()
    def scores(self, job: Scores) -> Tensor:
        batch, found = left_padded(job.prompts, job.stop), []
        for condition in job.conditions:
            logits = self.model.run_with_hooks(
                batch["input_ids"], attention_mask=batch["attention_mask"], fwd_hooks=self._adding(condition)
            )
            found.append(answers(logits, job.answers))
        return torch.stack(found)

    @torch.no_grad()
    def traced(self, job: Traced) -> Tensor:
        """The clean run cached once; then a batch of the corrupted rows for each cell."""
        tokens, noise = torch.tensor([job.prompts[0]]), torch.tensor(job.noise)
        names = {"resid": "hook_resid_post", "mlp.out": "hook_mlp_out", "attn.out": "hook_attn_out"}
        _, clean = self.model.run_with_cache(tokens, prepend_bos=False)
        rows, found = tokens.repeat(len(noise), 1), []

        def corrupt(h: Tensor, hook: Any) -> Tensor:
            h[:, slice(*job.subject)] += noise
            return h

        for part in job.parts:
            for at in range(tokens.shape[1]):

                def restore(h: Tensor, hook: Any, at: int = at) -> Tensor:
                    h[:, at] = clean[hook.name][0, at]
                    return h

                for layer in range(job.layers):
                    hooks = [(f"blocks.{one}.{names[part]}", restore) for one in job.near(part, layer)]
                    logits = self.model.run_with_hooks(
                        rows, prepend_bos=False, fwd_hooks=[("hook_embed", corrupt), *hooks]
                    )
                    found.append(logits[:, -1].softmax(dim=-1)[:, job.answer].mean())
        return torch.stack(found).reshape(len(job.parts), tokens.shape[1], job.layers)

    def _adding(self, condition: Condition) -> list[tuple[str, Any]]:
        vector = torch.tensor(condition.vector)
        return [(self.sites[condition.layer], lambda residual, hook: residual + vector)]
