"""repeng: `ControlModel` around the touched layer, `set_control` for each condition, a batch of the prompts.

Layer l is the output of block l, as here, with one exception: its reading of the last block is taken after the final
norm. In a batch a forward pass needs ``position_ids`` (without them it fails), from which it also sees where padding
ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from repeng import ControlModel, ControlVector
from repeng.extract import batched_get_hiddens
from transformers import BatchEncoding

from benchmarks.jobs import Capture, Condition, Scores, Steered, Tokens
from benchmarks.peers.batches import BATCH, answers, left_padded, load, new_tokens, positions


class Candidate:
    version = f"repeng {version('repeng')}, transformers {version('transformers')}"

    def __init__(self, folder: Path) -> None:
        self.model = load(folder)

    @torch.no_grad()
    def steered(self, job: Steered) -> list[list[int]]:
        batch = left_padded(job.prompts, job.stop)
        found = []
        for model in self._controlled(job.conditions):
            out = model.generate(**batch, max_new_tokens=job.new, do_sample=False, pad_token_id=job.stop)
            found += new_tokens(out, batch["input_ids"].shape[1], job.stop)
        return found

    def capture(self, job: Capture) -> np.ndarray:
        def encode(batch: Sequence[Tokens], **_: object) -> BatchEncoding:
            return BatchEncoding(left_padded(batch, job.stop))

        layers = list(range(self.model.config.num_hidden_layers))
        found = batched_get_hiddens(self.model, encode, list(job.prompts), layers, batch_size=BATCH)
        return np.stack([found[layer] for layer in layers])

    @torch.no_grad()
    def scores(self, job: Scores) -> torch.Tensor:
        batch = left_padded(job.prompts, job.stop)
        batch["position_ids"] = positions(batch["attention_mask"])
        return torch.stack([answers(model(**batch).logits, job.answers) for model in self._controlled(job.conditions)])

    def _controlled(self, conditions: Sequence[Condition]) -> Iterator[ControlModel]:
        """The model under each condition in turn, wrapped anew only where the layer changes."""
        with contextlib.ExitStack() as stack:
            layer = None
            for condition in conditions:
                if condition.layer != layer:
                    stack.close()
                    layer = condition.layer
                    model = ControlModel(self.model, [layer])
                    stack.callback(model.unwrap)
                vector = np.array(condition.vector, dtype=np.float32)
                model.set_control(ControlVector(model_type="llama", directions={layer: vector}), 1.0)
                yield model
