"""``python -m evaluation.scrubbing.brackets.roles``: which head of a trained checker does what, found without scrubbing.

The published hypotheses name heads of one model by their roles; another seed has its roles elsewhere, if it has them. So
strings that are wrong in one way alone are taken, and a head's output in them is replaced by its output in a balanced string
of the same length: what then speaks more for balance is what the head said against it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.graph import ModuleGraph
from assay.graph.module import Tensors
from assay.organisms.small import SmallTransformer
from evaluation.markdown import table
from evaluation.scrubbing.brackets.data import END, OPEN, START, columns, strings
from evaluation.scrubbing.brackets.train import SEEDS, load

Place = tuple[int, int]
"""Layer and head."""
Kind = Literal["balanced", "count", "horizon", "first"]
KINDS: tuple[Kind, ...] = ("balanced", "count", "horizon", "first")
EACH = 300
"""Strings of each kind."""


@dataclass(frozen=True)
class Head:
    """What is seen of one head. Shifts are of the logit difference, towards balance.

    Attributes:
        place: layer and head.
        uneven: how far it is from looking evenly, from opening brackets, at the brackets from there on: total variation.
        looks: mean attention from START to START, the first bracket, the other brackets, and END.
        direct: by kind, the shift when its output at START changes for the last norm alone.
        start: when its output at START changes.
        rest: when its output everywhere else changes.
    """

    place: Place
    uneven: float
    looks: tuple[float, float, float, float]
    direct: dict[Kind, float]
    start: dict[Kind, float]
    rest: dict[Kind, float]


@dataclass(frozen=True)
class Roles:
    """Heads by role.

    Attributes:
        averaging: in layer 0, the one that looks most evenly from opening brackets at all that follows.
        horizon: in layers 1 and 2, the one that says most, at START, against strings that fail the horizon test alone.
        counts: of the other three there, the two that say most against strings that fail the count test alone, by layer.
        heads: what was seen of each.
    """

    averaging: int
    horizon: Place
    counts: tuple[Place, Place]
    heads: tuple[Head, ...]

    def __str__(self) -> str:
        counts = ", ".join(f"{layer}.{head}" for layer, head in self.counts)
        return f"averaging 0.{self.averaging}, counting {counts}, horizon {self.horizon[0]}.{self.horizon[1]}"


def roles(model: SmallTransformer, tokens: NDArray[np.int64]) -> Roles:
    """The rules of `Roles`, on strings ``[row, 42]``. What is said is the shift of `Head.start`."""
    heads = look(model, tokens)
    averaging = min((one for one in heads if one.place[0] == 0), key=lambda one: one.uneven)
    later = [one for one in heads if one.place[0] > 0]
    horizon = max(later, key=lambda one: one.start["horizon"])
    first, second, *_ = sorted(
        (one for one in later if one is not horizon), key=lambda one: one.start["count"], reverse=True
    )
    low, high = sorted((first.place, second.place))
    return Roles(averaging.place[1], horizon.place, (low, high), heads)


def look(model: SmallTransformer, tokens: NDArray[np.int64]) -> tuple[Head, ...]:
    """Every head, on the first strings of each kind among these."""
    ids, donors = _chosen(tokens)
    graph, every = model.graph(), np.concatenate([ids[kind] for kind in KINDS])
    inputs = graph.inputs(torch.from_numpy(np.concatenate([tokens[every], tokens[donors]])))
    seen: dict[str, Tensor] = {}
    layers = range(model.sizes.layers)
    names = [f"L{layer}.{part}" for layer in layers for part in ("head.pattern", "head.out", "resid")]
    scores = graph.forward(
        inputs, range(len(inputs)), {name: partial(seen.__setitem__, name) for name in [*names, "-> logits"]}
    )
    assert scores is not None
    count, plain = len(every), scores[: len(every), 0]
    part = dict(zip(KINDS, np.split(np.arange(count), np.cumsum([len(ids[kind]) for kind in KINDS])[:-1]), strict=True))

    def shift(changed: Tensor) -> dict[Kind, float]:
        more = (changed - plain) @ torch.tensor([-1.0, 1.0])
        return {kind: float(more[rows].mean()) for kind, rows in part.items()}

    found = []
    for layer in layers:
        out, pattern = seen[f"L{layer}.head.out"], seen[f"L{layer}.head.pattern"]
        below = (layer, seen[f"L{layer - 1}.resid"][:count]) if layer else None
        for head in range(model.sizes.heads):
            other = out[count:, :, head]
            moved = seen["-> logits"][:count, :1] + (other - out[:count, :, head])[:, :1]
            found.append(
                Head(
                    (layer, head),
                    _uneven(tokens[every], pattern[:count, :, head]),
                    _looks(tokens[every], pattern[:count, 0, head]),
                    shift(model.unembed(model.norm(moved))[:, 0]),
                    shift(_replaced(graph, inputs, below, (layer, head), other, slice(0, 1))),
                    shift(_replaced(graph, inputs, below, (layer, head), other, slice(1, None))),
                )
            )
    return tuple(found)


def _chosen(tokens: NDArray[np.int64]) -> tuple[dict[Kind, NDArray[np.int64]], NDArray[np.int64]]:
    """The first strings of each kind, wrong in one way alone; and for each of them a balanced one of its length."""
    has = columns(tokens)
    balanced, count, horizon, opens = (has[name].astype(bool) for name in ("balanced", "count", "horizon", "opens"))
    which: dict[Kind, NDArray[np.bool_]] = {
        "balanced": balanced,
        "count": opens & horizon & ~count,
        "horizon": opens & count & ~horizon,
        "first": ~opens & count,
    }
    ids = {kind: np.flatnonzero(rows)[:EACH] for kind, rows in which.items()}
    rng, lengths = np.random.default_rng(0), has["length"]
    of_length = {length: np.flatnonzero(balanced & (lengths == length)) for length in np.unique(lengths).tolist()}
    donors = [rng.choice(of_length[int(lengths[i])]) for kind in KINDS for i in ids[kind]]
    return ids, np.array(donors)


def _replaced(
    graph: ModuleGraph, inputs: Tensors, below: tuple[int, Tensor] | None, place: Place, other: Tensor, where: slice
) -> Tensor:
    """Scores ``[row, 2]`` with a head's output there replaced by ``other [row, pos, d_model]``, from the stream below on."""
    layer, head = place

    def tap(h: Tensor) -> Tensor:
        h = h.clone()
        h[:, where, head] = other[:, where]
        return h

    scores = graph.forward(inputs, range(len(other)), {f"L{layer}.head.out": tap}, below)
    assert scores is not None
    return scores[:, 0]


def _uneven(tokens: NDArray[np.int64], pattern: Tensor) -> float:
    """Half the summed distance of ``pattern [row, query, key]`` from evenness, mean over opening brackets."""
    at, brackets = np.arange(tokens.shape[1]), tokens >= OPEN
    follows = torch.from_numpy(brackets[:, None, :] & (at >= at[:, None]))
    even = follows / follows.sum(-1, keepdim=True).clamp(min=1)
    apart = (pattern - even).abs().sum(-1) / 2
    return float(apart[torch.from_numpy(tokens == OPEN)].mean())


def _looks(tokens: NDArray[np.int64], pattern: Tensor) -> tuple[float, float, float, float]:
    """Mean attention to START, the first bracket, the others and END, of ``pattern [row, key]``."""
    at = np.arange(tokens.shape[1])
    kinds = (tokens == START, (tokens >= OPEN) & (at == 1), (tokens >= OPEN) & (at > 1), tokens == END)
    one, first, others, end = (float((pattern * torch.from_numpy(kind)).sum(1).mean()) for kind in kinds)
    return one, first, others, end


def described(heads: tuple[Head, ...]) -> str:
    """A table: attention in percent, shifts in logits, direct / at START / elsewhere."""
    names = ["head", "uneven", "looks: START, first, others, END", *(f"says against {kind}" for kind in KINDS)]
    rows = [
        [
            f"{one.place[0]}.{one.place[1]}",
            f"{one.uneven:.2f}",
            ", ".join(f"{100 * share:.0f}" for share in one.looks),
            *(f"{one.direct[kind]:.1f} / {one.start[kind]:.1f} / {one.rest[kind]:.1f}" for kind in KINDS),
        ]
        for one in heads
    ]
    return table(names, rows)


def main() -> None:
    """Print the roles of every trained model, and what they were told by."""
    tokens = strings()
    for seed in SEEDS:
        found = roles(load(seed), tokens)
        sys.stdout.write(f"seed {seed}: {found}\n\n{described(found.heads)}\n\n")


if __name__ == "__main__":
    main()
