"""``python -m evaluation.scrubbing.brackets.train --seed 0``: train the checker from its published description.

Strings that it is judged on are not among those it is trained on, where there are enough: of up to 14 brackets nearly all
strings are in both. Training goes through `scores`, which gives what the model gives at half the cost.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from assay.organisms.small import Block, Sizes, SmallTransformer
from evaluation.scrubbing.brackets.data import OPEN, PAD, TOKENS, columns, strings

WEIGHTS = Path(__file__).with_name("weights")
SEEDS = range(5)
SIZES = Sizes(
    layers=3, heads=2, d_model=56, d_head=28, d_mlp=56, vocab=5, length=TOKENS, outputs=2, padding=PAD, first=True
)
HELD = 16
"""From so many brackets on, strings that judge are kept from training."""

STEPS, BATCH, GROUPS = 3000, 512, 4
RATE, DECAY, WARM = 2e-3, 0.01, 0.05


def held_out() -> NDArray[np.int64]:
    """Strings that no model was trained on: those of `strings()` that are long enough. ``[row, 42]``."""
    tokens = strings()
    return tokens[(tokens >= OPEN).sum(1) >= HELD]


def _codes(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number per string ``[row]``: a one above the bits of its brackets."""
    length = (tokens >= OPEN).sum(1)
    return ((tokens == OPEN) * (1 << np.arange(TOKENS))).sum(1) + (1 << (length + 1))


def stream(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, tokens ``[row, pos]`` and whether balanced ``[row]``; none of them holds a string held out."""
    kept = np.unique(_codes(held_out()))
    for epoch in range(1, 1000):
        tokens = strings(1000 * (seed + 1) + epoch)
        tokens = tokens[~np.isin(_codes(tokens), kept)]
        balanced = columns(tokens)["balanced"].astype(np.int64)
        for start in range(0, len(tokens) - BATCH + 1, BATCH):
            part = slice(start, start + BATCH)
            yield torch.from_numpy(tokens[part]), torch.from_numpy(balanced[part])


def scores(model: SmallTransformer, tokens: Tensor) -> Tensor:
    """What the model gives ``[row, 2]`` for ``tokens [row, pos]``, without its places and at half the cost.

    Rows are cut to the longest, as none attends to padding; and the last block asks at the first token, which alone is read.
    """
    tokens = tokens[:, : int((tokens != PAD).sum(1).max())]
    heads = (model.sizes.heads, model.sizes.d_head)
    seen, stream = (tokens != PAD)[:, None, None], model.embed(tokens) + model.positions[: tokens.shape[1]]
    blocks = cast(list[Block], model.blocks)
    for number, block in enumerate(blocks):
        attn = block.attn
        assert block.mlp is not None
        asked = 1 if number == len(blocks) - 1 else tokens.shape[1]
        normed, stream = attn.norm(stream), stream[:, :asked]
        q = attn.query(normed[:, :asked]).unflatten(-1, heads).transpose(1, 2)
        k, v = (part(normed).unflatten(-1, heads).transpose(1, 2) for part in (attn.key, attn.value))
        z = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen.expand(-1, -1, asked, -1))
        stream = stream + z.transpose(1, 2).flatten(2) @ attn.W_O.flatten(0, 1) + attn.b_O
        stream = stream + block.mlp(stream)
    found: Tensor = model.unembed(model.norm(stream))[:, 0]
    return found


def losses(model: SmallTransformer, tokens: NDArray[np.int64], batch: int = 1000) -> tuple[Tensor, Tensor]:
    """Loss of each string, and whether it was told right: ``[row]`` each."""
    order = np.argsort((tokens != PAD).sum(1), kind="stable")
    found, right = torch.empty(len(tokens)), torch.empty(len(tokens), dtype=torch.bool)
    labels = torch.from_numpy(columns(tokens)["balanced"].astype(np.int64))
    with torch.no_grad():
        for ids in np.array_split(order, max(1, len(tokens) // batch)):
            told = scores(model, torch.from_numpy(tokens[ids]))
            found[ids] = functional.cross_entropy(told, labels[ids], reduction="none")
            right[ids] = told.argmax(1) == labels[ids]
    return found, right


def train(seed: int, steps: int = STEPS, say: Callable[[str], None] | None = None) -> SmallTransformer:
    """A model from this seed, its weights and its strings: AdamW with warm-up and cosine, gradients clipped at 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SmallTransformer(SIZES)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(step / (WARM * steps), 0.5 + 0.5 * float(np.cos(np.pi * step / steps))),
    )
    recent = []
    for step, (tokens, balanced) in zip(range(steps), stream(seed), strict=False):
        order = (tokens != PAD).sum(1).argsort()
        total = 0.0
        for ids in order.chunk(GROUPS):
            loss = functional.cross_entropy(scores(model, tokens[ids]), balanced[ids], reduction="sum") / len(tokens)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        recent.append(total)
        if say and step % 200 == 199:
            say(f"step {step + 1}: loss {np.mean(recent):.5f}")
            recent.clear()
    return model.eval().requires_grad_(False)


def load(seed: int) -> SmallTransformer:
    """The trained model of a seed."""
    return SmallTransformer.load(WEIGHTS / f"seed{seed}.safetensors")


def verdict(model: SmallTransformer) -> str:
    """Loss and accuracy on all strings and on those held out."""
    told = []
    for name, tokens in (("all strings", strings()), (f"held out, {HELD} brackets and more", held_out())):
        loss, right = losses(model, tokens)
        told.append(f"{name}: loss {loss.mean():.6f}, {int((~right).sum())} of {len(right):,} wrong")
    return "; ".join(told)


def main() -> None:
    """Train and save a model, and print how it does."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--steps", type=int, default=STEPS)
    options.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights")
    given = options.parse_args()
    started = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.0f} s  {text}\n")

    torch.set_num_threads(1)
    model = train(given.seed, given.steps, say)
    given.out.mkdir(parents=True, exist_ok=True)
    model.save(given.out / f"seed{given.seed}.safetensors")
    sys.stdout.write(f"seed {given.seed}: {verdict(model)}\n")


if __name__ == "__main__":
    main()
