"""nnsight: one invoke per row, each with its own condition, in one batch; one trace per batch of prompts for reading.

It intervenes where one says, so there is no layer convention. Prompts are given as token ids, where the tokenizer
cannot add a BOS; rows of different lengths it pads on the left by itself.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch
from nnsight import TransformersModel, save
from torch import Tensor

from benchmarks.jobs import Capture, Scores, Steered, Traced
from benchmarks.peers.batches import BATCH, answers, chunks, left_padded, new_tokens


class Candidate:
    version = f"nnsight {version('nnsight')}, transformers {version('transformers')}"
    ROWS = 64

    def __init__(self, folder: Path) -> None:
        self.model = TransformersModel(str(folder), task="text-generation", dispatch=True, dtype=torch.float32)

    @torch.no_grad()
    def steered(self, job: Steered) -> list[list[int]]:
        model, steps = self.model, job.new
        cells = [(list(p), c.layer, torch.tensor(c.vector)) for c in job.conditions for p in job.prompts]
        with model.generate(max_new_tokens=steps, do_sample=False, pad_token_id=job.stop) as tracer:
            for prompt, layer, vector in cells:
                with tracer.invoke(prompt):
                    for _ in tracer.iter[:steps]:
                        model.model.layers[layer].output += vector
            with tracer.invoke():
                out = tracer.result.save()
        return new_tokens(out, max(map(len, job.prompts)), job.stop)

    @torch.no_grad()
    def capture(self, job: Capture) -> Tensor:
        model, found = self.model, []
        for part in chunks(job.prompts, BATCH):
            batch = left_padded(part, job.stop)
            with model.trace(batch):
                states = save([])
                for layer in model.model.layers:
                    states.append(layer.output[:, -1])
            found.append(torch.stack(states))
        return torch.cat(found, dim=1)

    @torch.no_grad()
    def scores(self, job: Scores) -> Tensor:
        model, found = self.model, []
        cells = [(list(p), c.layer, torch.tensor(c.vector)) for c in job.conditions for p in job.prompts]
        for part in chunks(cells, self.ROWS):
            with model.trace() as tracer:
                for prompt, layer, vector in part:
                    with tracer.invoke(prompt):
                        model.model.layers[layer].output += vector
                with tracer.invoke():
                    logits = model.output.logits[:, -1:].save()
            found.append(answers(logits, job.answers))
        return torch.cat(found).reshape(len(job.conditions), len(job.prompts), len(job.answers))

    @torch.no_grad()
    def traced(self, job: Traced) -> Tensor:
        """A trace of the clean row and all corrupted ones for each cell."""
        model, noise, found = self.model, torch.tensor(job.noise), []
        tokens = torch.tensor([job.prompts[0]] * (len(noise) + 1))
        start, stop = job.subject
        for part in job.parts:
            for at in range(tokens.shape[1]):
                for layer in range(job.layers):
                    with model.trace(tokens):
                        model.model.embed_tokens.output[1:, start:stop] += noise
                        for one in job.near(part, layer):
                            block = model.model.layers[one]
                            if part == "resid":
                                block.output[1:, at] = block.output[0, at]
                            elif part == "mlp.out":
                                block.mlp.output[1:, at] = block.mlp.output[0, at]
                            else:
                                block.self_attn.output[0][1:, at] = block.self_attn.output[0][0, at]
                        logits = model.output.logits[1:, -1].save()
                    found.append(logits.softmax(dim=-1)[:, job.answer].mean())
        return torch.stack(found).reshape(len(job.parts), tokens.shape[1], job.layers)
