"""``python -m evaluation.scrubbing.induction.train --seed N``: train one model, write its weights, say what it learned.

A model is two layers of attention and nothing else, with positions for queries and keys alone, as the published one. Text
is drawn as it goes, so no row is seen twice; the seed gives the first weights and the text. With ``--told``, nothing is
trained: what the stored weights do is told again.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from assay.organisms.small import Block, Sizes, SmallTransformer
from evaluation.scrubbing.induction.data import LENGTH, VOCAB, Text, candidates, text, twice
from evaluation.scrubbing.induction.roles import roles, scores

SIZES = Sizes(
    layers=2,
    heads=4,
    d_model=64,
    d_head=32,
    d_mlp=0,
    vocab=VOCAB,
    length=LENGTH,
    outputs=VOCAB,
    norm=True,
    causal=True,
    shortformer=True,
)
SEEDS = (0, 1, 2, 3, 4)
STEPS, BATCH, RATE, WARM = 3000, 32, 3e-3, 100
WAVE = 0.3
"""How high the positions' waves are to begin with; words begin at 0.02 and grow."""
HELD = 512
"""Held-out rows on which losses are told."""


def weights(seed: int) -> Path:
    """Where a seed's weights are."""
    return Path(__file__).with_name("weights") / f"seed{seed}.safetensors"


def load(seed: int) -> SmallTransformer:
    """The trained model of a seed."""
    return SmallTransformer.load(weights(seed))


def losses(model: SmallTransformer, some: Text) -> np.ndarray:
    """Cross-entropy of the next word in nats, ``[row, pos]``."""
    with torch.no_grad():
        batches = zip(*(part.split(128) for part in _parts(some)), strict=True)
        return torch.cat([_loss(model(tokens), labels) for tokens, labels in batches]).numpy()


def train(seed: int, steps: int = STEPS) -> SmallTransformer:
    """A model trained from its seed on one thread: a warm start, then a cosine down to nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SmallTransformer(SIZES)
    with torch.no_grad():
        model.positions.copy_(waves())
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    begun, every = time.monotonic(), 64
    for step in range(steps):
        if not step % every:
            tokens, labels = _parts(text(BATCH * every, seed=1000 * (seed + 1) + step // every))
        rows = slice(BATCH * (step % every), BATCH * (step % every + 1))
        rate = RATE * min(1.0, (step + 1) / WARM) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _loss(fused(model, tokens[rows]), labels[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if not step % 500:
            sys.stderr.write(f"{time.monotonic() - begun:5.0f} s  step {step}: {loss.item():.3f}\n")
    return model.eval().requires_grad_(False)


def fused(model: SmallTransformer, tokens: Tensor) -> Tensor:
    """What the model gives, by attention that makes no pattern: half the time of a step."""
    stream, positions = model.embed(tokens), model.positions[: tokens.shape[1]]
    for block in model.blocks:
        assert isinstance(block, Block)
        attn = block.attn
        normed, placed = attn.norm(stream), attn.norm(stream + positions)
        q, k, v = (
            make(given).unflatten(-1, (model.sizes.heads, model.sizes.d_head)).transpose(1, 2)
            for make, given in ((attn.query, placed), (attn.key, placed), (attn.value, normed))
        )
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        stream = stream + z @ attn.W_O.flatten(0, 1) + attn.b_O
    scores: Tensor = model.unembed(model.norm(stream))
    return scores


def waves() -> Tensor:
    """Positions to begin with, as the shortformer's: sines and cosines from one token long to the whole row."""
    angles = torch.arange(LENGTH)[:, None] * torch.logspace(0, -math.log10(LENGTH), SIZES.d_model // 2)
    return WAVE * torch.cat([angles.sin(), angles.cos()], dim=1)


def told(model: SmallTransformer) -> str:
    """Losses on held-out text, and the scores of every head."""
    held = text(HELD, seed=0, part="held out")
    lost, (second, first) = losses(model, held), twice(held)
    good = candidates(held.tokens)
    lines = [
        f"loss {lost.mean():.3f}, at good candidates {lost[good].mean():.3f}",
        f"repeated spans: first {lost[first].mean():.3f}, second {lost[second].mean():.3f}",
    ]
    previous, matching = scores(model)
    for layer in range(SIZES.layers):
        lines += [f"L{layer} previous token  " + " ".join(f"{one:.2f}" for one in previous[layer])]
        lines += [f"L{layer} prefix matching " + " ".join(f"{one:.2f}" for one in matching[layer])]
    return "\n".join([*lines, str(roles(model))])


def _parts(some: Text) -> tuple[Tensor, Tensor]:
    tokens, labels = (torch.from_numpy(words.copy()) for words in (some.tokens, some.labels))
    return tokens, labels


def _loss(scores: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(scores.transpose(1, 2), labels, reduction="none")


def main() -> None:
    """Train, write, tell."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, required=True)
    options.add_argument("--told", action="store_true", help="only tell what the stored weights do")
    given = options.parse_args()
    torch.set_num_threads(1)
    model = load(given.seed) if given.told else train(given.seed)
    if not given.told:
        weights(given.seed).parent.mkdir(exist_ok=True)
        model.save(weights(given.seed))
    sys.stdout.write(f"seed {given.seed}\n{told(model)}\n")


if __name__ == "__main__":
    main()
