"""What candidates on Hugging Face models need: the model, left-padded batches, the new tokens cut out of an output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BATCH = 32
"""Prompts per batch where the job leaves it open; it is also the default of repeng and of several examples."""


def load(folder: Path) -> Any:
    """The model in fp32 on the CPU, with transformers' default attention."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def left_padded(prompts: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask``, padded on the left."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return {"input_ids": ids, "attention_mask": mask}


def positions(mask: Tensor) -> Tensor:
    """Positions counted from each row's first real token; padding has 0."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def new_tokens(sequences: Tensor, width: int, stop: int) -> list[list[int]]:
    """What follows the prompt, up to and including the first stop token."""
    rows = sequences[:, width:].tolist()
    return [row[: row.index(stop) + 1] if stop in row else row for row in rows]


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Consecutive pieces of at most ``size``."""
    return (items[start : start + size] for start in range(0, len(items), size))


def answers(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """``[row, answer]``: log-probabilities at the last position of ``logits``, ``[row, pos, vocab]``."""
    return logits[:, -1].log_softmax(-1)[:, list(tokens)]
