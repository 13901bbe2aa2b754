"""steering-vectors: `SteeringVector.apply` around ``generate`` for each condition, a batch of the prompts.

Layer l is the output of block l, as here. It pins transformers 4, which reads ``rope_theta`` from the config and not
the ``rope_parameters`` of transformers 5: the model's folder must have both.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch
from steering_vectors import SteeringVector, record_activations
from torch import Tensor

from benchmarks.jobs import Capture, Condition, Scores, Steered
from benchmarks.peers.batches import BATCH, answers, chunks, left_padded, load, new_tokens


class Candidate:
    version = f"steering-vectors {version('steering-vectors')}, transformers {version('transformers')}"

    def __init__(self, folder: Path) -> None:
        self.model = load(folder)

    @torch.no_grad()
    def steered(self, job: Steered) -> list[list[int]]:
        batch = left_padded(job.prompts, job.stop)
        found = []
        for condition in job.conditions:
            with _vector(condition).apply(self.model):
                out = self.model.generate(**batch, max_new_tokens=job.new, do_sample=False, pad_token_id=job.stop)
            found += new_tokens(out, batch["input_ids"].shape[1], job.stop)
        return found

    @torch.no_grad()
    def capture(self, job: Capture) -> Tensor:
        found = []
        for part in chunks(job.prompts, BATCH):
            with record_activations(self.model) as recorded:
                self.model(**left_padded(part, job.stop))
            found.append(torch.stack([recorded[layer][0][:, -1] for layer in sorted(recorded)]))
        return torch.cat(found, dim=1)

    @torch.no_grad()
    def scores(self, job: Scores) -> Tensor:
        batch = left_padded(job.prompts, job.stop)
        found = []
        for condition in job.conditions:
            with _vector(condition).apply(self.model):
                found.append(answers(self.model(**batch).logits, job.answers))
        return torch.stack(found)


def _vector(condition: Condition) -> SteeringVector:
    return SteeringVector({condition.layer: torch.tensor(condition.vector)})
