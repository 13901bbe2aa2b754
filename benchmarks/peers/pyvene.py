"""pyvene: an `IntervenableModel` with an `AdditionIntervention` for each condition; `CollectIntervention` for reading.

Layer l of ``block_output`` is the output of block l, as here. ``generate`` without ``intervene_on_prompt=True`` leaves
the prompt alone; with it and no ``unit_locations`` every position is touched, the prompt's and the new ones'.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pyvene
import torch
from torch import Tensor

from benchmarks.jobs import Capture, Condition, Scores, Steered, Traced
from benchmarks.peers.batches import BATCH, answers, chunks, left_padded, load, new_tokens


class Candidate:
    version = f"pyvene {version('pyvene')}, transformers {version('transformers')}"

    def __init__(self, folder: Path) -> None:
        self.model = load(folder)

    @torch.no_grad()
    def steered(self, job: Steered) -> list[list[int]]:
        batch = left_padded(job.prompts, job.stop)
        options = dict(max_new_tokens=job.new, do_sample=False, pad_token_id=job.stop)
        found = []
        for condition in job.conditions:
            _, out = self._adding(condition).generate(batch, unit_locations=None, intervene_on_prompt=True, **options)
            found += new_tokens(out, batch["input_ids"].shape[1], job.stop)
        return found

    @torch.no_grad()
    def capture(self, job: Capture) -> Tensor:
        layers = range(self.model.config.num_hidden_layers)
        collect = [
            {"layer": layer, "component": "block_output", "intervention_type": pyvene.CollectIntervention}
            for layer in layers
        ]
        model = pyvene.IntervenableModel(collect, model=self.model)
        found = []
        for part in chunks(job.prompts, BATCH):
            batch = left_padded(part, job.stop)
            (_, collected), _ = model(batch, unit_locations={"base": batch["input_ids"].shape[1] - 1})
            found.append(torch.stack([values[:, 0] for values in collected]))
        return torch.cat(found, dim=1)

    @torch.no_grad()
    def scores(self, job: Scores) -> Tensor:
        batch = left_padded(job.prompts, job.stop)
        found = []
        for condition in job.conditions:
            _, out = self._adding(condition)(batch, unit_locations=None)
            found.append(answers(out.logits, job.answers))
        return torch.stack(found)

    @torch.no_grad()
    def traced(self, job: Traced) -> Tensor:
        """As in its tutorial: the noise is an intervention on what block 0 receives, restoring is one on each module."""
        tokens, noise, found = torch.tensor([job.prompts[0]]), torch.tensor(job.noise), []
        rows, length = tokens.repeat(len(noise), 1), tokens.shape[1]
        names = {"resid": "block_output", "mlp.out": "mlp_output", "attn.out": "attention_output"}
        start, stop = job.subject
        whole = torch.zeros(len(noise), length, noise.shape[-1])
        whole[:, start:stop] = noise
        for part in job.parts:
            for at in range(length):
                for layer in range(job.layers):
                    near = job.near(part, layer)
                    add = pyvene.AdditionIntervention(source_representation=whole)
                    places = [{"layer": 0, "component": "block_input", "intervention": add}]
                    places += [
                        {"layer": one, "component": names[part], "intervention_type": pyvene.VanillaIntervention}
                        for one in near
                    ]
                    model = pyvene.IntervenableModel(places, model=self.model)
                    everywhere = [[list(range(length))] * len(noise)]
                    here = [[[at]] * len(noise)] * len(near)
                    _, out = model(
                        {"input_ids": rows},
                        [None, *[{"input_ids": rows}] * len(near)],
                        {"sources->base": ([None, *here], [*everywhere, *here])},
                    )
                    found.append(out.logits[:, -1].softmax(dim=-1)[:, job.answer].mean())
        return torch.stack(found).reshape(len(job.parts), length, job.layers)

    def _adding(self, condition: Condition) -> pyvene.IntervenableModel:
        add = pyvene.AdditionIntervention(source_representation=torch.tensor(condition.vector))
        place = {"layer": condition.layer, "component": "block_output", "intervention": add}
        return pyvene.IntervenableModel([place], model=self.model)
