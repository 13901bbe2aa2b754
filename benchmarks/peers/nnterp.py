"""nnterp: `steer` in a trace for each condition, a batch of the prompts; its own batched reading of last tokens.

``layers_output[l]`` is the output of block l, as here, un-normed also for the last. nnterp 1.3 asks for nnsight 0.6 or
newer, but imports a module that 0.8 no longer has: 0.7 is pinned.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch
from nnterp import StandardizedTransformer
from nnterp.nnsight_utils import collect_token_activations_batched
from torch import Tensor

from benchmarks.jobs import Capture, Scores, Steered
from benchmarks.peers.batches import BATCH, answers, left_padded, new_tokens


class Candidate:
    version = f"nnterp {version('nnterp')}, nnsight {version('nnsight')}, transformers {version('transformers')}"

    def __init__(self, folder: Path) -> None:
        self.model = StandardizedTransformer(str(folder), device_map="cpu", dtype=torch.float32)

    @torch.no_grad()
    def steered(self, job: Steered) -> list[list[int]]:
        model, steps, found = self.model, job.new, []
        batch = left_padded(job.prompts, job.stop)
        for condition in job.conditions:
            layer, vector = condition.layer, torch.tensor(condition.vector)
            with model.generate(batch, max_new_tokens=steps, do_sample=False, pad_token_id=job.stop) as tracer:
                for _ in tracer.iter[:steps]:
                    model.steer(layers=layer, steering_vector=vector)
                out = tracer.result.save()
            found += new_tokens(out, batch["input_ids"].shape[1], job.stop)
        return found

    @torch.no_grad()
    def capture(self, job: Capture) -> Tensor:
        prompts = [list(prompt) for prompt in job.prompts]
        return collect_token_activations_batched(self.model, prompts, BATCH)

    @torch.no_grad()
    def scores(self, job: Scores) -> Tensor:
        model, found = self.model, []
        batch = left_padded(job.prompts, job.stop)
        for condition in job.conditions:
            layer, vector = condition.layer, torch.tensor(condition.vector)
            with model.trace(batch):
                model.steer(layers=layer, steering_vector=vector)
                logits = model.logits[:, -1:].save()
            found.append(answers(logits, job.answers))
        return torch.stack(found)
