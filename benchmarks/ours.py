"""Assay itself, through its public calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import assay
from assay import Model, Prompt, add, trace
from benchmarks.jobs import Capture, Condition, Scores, Steered, Traced


class Candidate:
    """See `benchmarks.protocol.Candidate`."""

    version = f"assay {assay.__version__}"

    def __init__(self, folder: Path) -> None:
        self.model = Model.load(folder, selftest=False, dtype=torch.float32)
        self.notes: dict[str, Any] = {}

    def steered(self, job: Steered) -> Sequence[Sequence[int]]:
        """One sweep; its cells come prompt by prompt and are wanted condition by condition."""
        made = (
            self.model.sweep(_prompts(job), _conditions(job.conditions), generate=job.new).table["tokens"].to_pylist()
        )
        count = len(job.conditions)
        return [made[p * count + c] for c in range(count) for p in range(len(job.prompts))]

    def capture(self, job: Capture) -> Any:
        """Every block's output at the last token."""
        found = self.model.capture(_prompts(job), "L:.resid @ last")
        return torch.stack(list(found.values.values()))

    def scores(self, job: Scores) -> Any:
        """One sweep."""
        answers = [self.model.decode([token]) for token in job.answers]
        grid = self.model.sweep(_prompts(job), _conditions(job.conditions), score=answers)
        columns = [grid.table[f"logprob_{index}"].to_numpy().reshape(grid.shape) for index in range(len(answers))]
        return torch.stack([torch.from_numpy(column.T.copy()) for column in columns], dim=-1)

    def traced(self, job: Traced) -> Any:
        """One grid."""
        prompt = Prompt.tokenized(job.prompts[0], subject=job.subject)
        made = trace.causal(
            self.model,
            prompt,
            answer=self.model.decode([job.answer]),
            restore=job.parts,  # type: ignore[arg-type]
            noise=torch.tensor(job.noise),
            window=job.window,
            insist=True,
        )
        return torch.stack([torch.from_numpy(made.restored[part].mean(axis=-1)) for part in job.parts])


def _prompts(job: Steered | Capture | Scores) -> list[Prompt]:
    return [Prompt.tokenized(tokens) for tokens in job.prompts]


def _conditions(conditions: Sequence[Condition]) -> list[assay.Intervention]:
    return [add(torch.tensor(one.vector), times=1, at=f"L{one.layer}.resid") for one in conditions]
