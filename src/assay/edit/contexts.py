"""Texts of the model's own that stand before a prompt, so that an edit does not hang on how a text begins."""

from __future__ import annotations

from collections.abc import Sequence

from assay.prompt import Prompt
from assay.run.generate import Sampling
from assay.run.model import Model

OPENINGS = ("The", "Therefore", "Because", "I", "You")
"""How MEMIT's five contexts begin."""


def contexts(
    model: Model, count: int = 10, lengths: Sequence[int] = (5, 10), starts: Sequence[str] = ("",), seed: int = 0
) -> tuple[str, ...]:
    """``count`` texts of each length and each beginning, sampled from the model's first token on among its top 5."""
    first = model.tokenizer.bos_token_id
    first = next(iter(model.stops)) if first is None else first
    made = []
    for start in starts:
        begun = [first, *model.tokenizer(start, add_special_tokens=False)["input_ids"]]
        for length in lengths:
            for number in range(count):
                sampling = Sampling(top_k=5, seed=seed * 1_000_003 + length * 1009 + number)
                text = start + model.generate(Prompt.tokenized(begun), tokens=length, sampling=sampling).text
                made.append(text.strip().replace("\n", " ") + ". ")
    return tuple(made)
