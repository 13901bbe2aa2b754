"""Programs as transformers: the weights are written down, so the circuit is known and not found.

===========  ==================================================================  ========================
`copy`       each position says its own token, which a head moves to the output  one head
`reverse`    each position says the token that is as far from the other end      an MLP, then a head
`fraction`   the share of tokens so far that are one given symbol                an MLP, then a head
`histogram`  how often the position's token occurs in the row                    a head, then an MLP
`brackets`   are the brackets so far balanced?                                   head, MLP, head, MLP
===========  ==================================================================  ========================

All have two layers, and heads, MLPs and neurons that are spare: they compute random things into a part of the stream
that nothing else reads. Selectors are sure and steps steep, so gradients through them are all but zero: attribution of
first order misses edges that intervening finds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from assay.errors import BadData, nearest
from assay.graph import Edge
from assay.organisms.craft import Craft, Move, Select
from assay.organisms.small import SmallTransformer

Ablation = Literal["resample", "zero"]
BOS = 0
"""The first token of programs that have one: it marks the start and is no symbol of theirs."""
_ABLATIONS = ("resample", "zero")


@dataclass(frozen=True, eq=False)
class Program:
    """A transformer, what it computes, and through which edges.

    Writers are ``embed`` (token and position), ``L0.head[0].out`` and ``L0.mlp.out``; readers are ``L0.head[0].q``, ``.k``
    and ``.v``, ``L0.mlp`` and ``logits``. An edge is one writer's part of what one reader is given. **It is true under an
    ablation iff replacing that part alone changes an answer on some input.** The replacement is zero, or for
    ``resample`` what the writer writes at the same position on another row of `inputs`. What only tells where a token
    stands is the same on all inputs: such an edge is false under resampling and true under zero. All that is true under
    resampling is true under zero.

    No edge stands in for another: replacing all that are false, at once, changes no answer either. Both are tested by
    doing it.

    Attributes:
        name: as in `PROGRAMS`.
        model: its scores are ``[row, pos, outputs]``, at each position an answer.
        symbols: what the tokens stand for.
        reads: an answer is the highest of the scores, or the single score itself.
        define: the program in plain Python: the tokens of a row to its answers.
        draw: how many rows and a generator to tokens ``[row, pos]``.
        varying: the edges that are true under both ablations.
        constant: those that are true under zero alone.
    """

    name: str
    model: SmallTransformer
    symbols: tuple[str, ...]
    reads: Literal["classes", "number"]
    define: Callable[[list[int]], Sequence[float]]
    draw: Callable[[int, torch.Generator], Tensor]
    varying: frozenset[Edge]
    constant: frozenset[Edge]

    @property
    def bos(self) -> int | None:
        """The token that each row begins with, if any."""
        return BOS if self.symbols[BOS] == "BOS" else None

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges of the model, true and false, in the order of the forward pass."""
        found, writers, sizes = list[Edge](), ["embed"], self.model.sizes
        for layer in range(sizes.layers):
            heads = [f"L{layer}.head[{head}]" for head in range(sizes.heads)]
            found += [(writer, f"{head}.{part}") for head in heads for part in "qkv" for writer in writers]
            writers += [f"{head}.out" for head in heads]
            found += [(writer, f"L{layer}.mlp") for writer in writers]
            writers += [f"L{layer}.mlp.out"]
        return (*found, *((writer, "logits") for writer in writers))

    def inputs(self, count: int, seed: int) -> Tensor:
        """Tokens ``[count, pos]``, always as long as the model allows."""
        return self.draw(count, torch.Generator().manual_seed(seed))

    def targets(self, tokens: Tensor) -> Tensor:
        """What is right, ``[row, pos]``: from the definition, not from the model. Classes are integers."""
        rows = [self.define(row) for row in tokens.tolist()]
        return torch.tensor(rows, dtype=torch.long if self.reads == "classes" else torch.float)

    def answers(self, scores: Tensor) -> Tensor:
        """What scores ``[row, pos, outputs]`` say, ``[row, pos]``."""
        return scores.argmax(-1) if self.reads == "classes" else scores[..., 0]

    def circuit(self, ablation: Ablation) -> frozenset[Edge]:
        """The true edges under an ablation. Raises `BadData`."""
        if ablation not in _ABLATIONS:
            raise BadData(
                f"ablation={ablation!r} is none that a circuit is stated for",
                nearest=nearest(str(ablation), _ABLATIONS),
                hint=", ".join(_ABLATIONS),
            )
        return self.varying if ablation == "resample" else self.varying | self.constant


def copy() -> Program:
    """Each position says its own token. A head that looks at its own position moves it to the output."""
    vocab, length = 4, 6
    craft = Craft({}, vocab=vocab, length=length, outputs=vocab, heads=3, d_mlp=8)
    here = Select("position", "position", torch.eye(length))
    craft.head(0, 1, Move("token", "out", torch.eye(vocab)), here)
    return Program(
        name="copy",
        model=craft.model,
        symbols=("a", "b", "c", "d"),
        reads="classes",
        define=lambda row: row,
        draw=lambda count, generator: torch.randint(vocab, (count, length), generator=generator),
        varying=frozenset({("embed", "L0.head[1].v"), ("L0.head[1].out", "logits")}),
        constant=frozenset({("embed", "L0.head[1].q"), ("embed", "L0.head[1].k")}),
    )


def reverse() -> Program:
    """Each position says the token that stands as far from the other end.

    An MLP tells each position the one opposite, and a head looks there. Only tokens vary between inputs, so that all of
    this is one edge into the head's values when edges are resampled.
    """
    vocab, length = 4, 6
    craft = Craft({"opposite": length}, vocab=vocab, length=length, outputs=vocab, heads=3, d_mlp=16)
    craft.steps(0, {"position": torch.eye(length)}, "opposite", torch.eye(length).flip(0))
    there = Select("opposite", "position", torch.eye(length))
    craft.head(1, 2, Move("token", "out", torch.eye(vocab)), there)
    return Program(
        name="reverse",
        model=craft.model,
        symbols=("a", "b", "c", "d"),
        reads="classes",
        define=lambda row: row[::-1],
        draw=lambda count, generator: torch.randint(vocab, (count, length), generator=generator),
        varying=frozenset({("embed", "L1.head[2].v"), ("L1.head[2].out", "logits")}),
        constant=frozenset({("embed", "L0.mlp"), ("L0.mlp.out", "L1.head[2].q"), ("embed", "L1.head[2].k")}),
    )


def fraction() -> Program:
    """The share of the tokens so far, this one too, that are ``x``.

    An MLP marks ``x``, and a head takes the mean of the marks. The model is bidirectional: that the head sees no later
    token is its selector's doing. This is Tracr's ``frac_prevs``, circuits included.
    """
    vocab, length, symbol = 3, 7, 1
    craft = Craft({"mark": 1}, vocab=vocab, length=length, outputs=1, heads=2, d_mlp=8)
    craft.steps(0, {"token": torch.eye(vocab)[:, symbol : symbol + 1]}, "mark", torch.ones(1, 1))
    so_far = Select("position", "position", torch.ones(length, length).tril())
    craft.head(1, 0, Move("mark", "out", torch.ones(1, 1)), so_far)
    return Program(
        name="fraction",
        model=craft.model,
        symbols=("a", "x", "b"),
        reads="number",
        define=lambda row: [row[: at + 1].count(symbol) / (at + 1) for at in range(len(row))],
        draw=lambda count, generator: torch.randint(vocab, (count, length), generator=generator),
        varying=frozenset({("embed", "L0.mlp"), ("L0.mlp.out", "L1.head[0].v"), ("L1.head[0].out", "logits")}),
        constant=frozenset({("embed", "L1.head[0].q"), ("embed", "L1.head[0].k")}),
    )


def histogram() -> Program:
    """How often each position's token occurs in the row; at BOS, which is no symbol, 0.

    A head looks at BOS and at all tokens like its own, and moves a mark that BOS alone has: of c equal tokens it gives
    1/(1 + c). An MLP turns that into c. BOS always stands first, so that it reaches values by a constant edge.
    """
    vocab, symbols = 4, 6
    craft = Craft({"share": 1}, vocab=vocab, length=symbols + 1, outputs=symbols + 1, heads=3, d_mlp=16)
    alike = torch.eye(vocab)
    alike[:, BOS] = 1
    mark = torch.eye(vocab)[:, BOS : BOS + 1]
    craft.head(1, 0, Move("token", "share", mark), Select("token", "token", alike))
    # Step c tells a count of at most c from more: share ≥ 1/(1 + c) from share ≤ 1/(2 + c), with room for rounding.
    more, most = 1 / torch.arange(2.0, symbols + 2), 1 / torch.arange(1.0, symbols + 1)
    room = (most - more) / 4
    counts = torch.eye(symbols + 1)
    craft.steps(
        1,
        {"share": torch.ones(1, symbols)},
        "out",
        counts[:-1] - counts[1:],  # step c turns the answer c + 1 into c, and all of them turn the last into 0
        low=more + room,
        high=most - room,
        constant=counts[-1],
    )
    return Program(
        name="histogram",
        model=craft.model,
        symbols=("BOS", "a", "b", "c"),
        reads="classes",
        define=lambda row: [0 if token == BOS else row.count(token) for token in row],
        draw=lambda count, generator: _after_bos(torch.randint(1, vocab, (count, symbols), generator=generator)),
        varying=frozenset(
            {
                ("embed", "L1.head[0].q"),
                ("embed", "L1.head[0].k"),
                ("L1.head[0].out", "L1.mlp"),
                ("L1.mlp.out", "logits"),
            }
        ),
        constant=frozenset({("embed", "L1.head[0].v")}),
    )


def brackets() -> Program:
    """Are the brackets so far balanced? 1 for yes, as at BOS, behind which nothing was opened yet.

    A head takes the mean of +1 for ``(`` and −1 for ``)``; an MLP marks where more are open than closed, and where more
    are closed than opened. A second head looks for the latter mark so far, and an MLP says no if it finds one or if some
    are open now. The model is causal and both heads look evenly, so that nothing depends on positions, and both
    ablations have one circuit. Half of the inputs are balanced as a whole.
    """
    pairs = 4
    length = 2 * pairs + 1
    between = {"balance": 1, "sides": 2, "fell": 1}
    craft = Craft(between, vocab=3, length=length, outputs=2, heads=3, d_mlp=12, causal=True)
    craft.head(0, 2, Move("token", "balance", torch.tensor([[0.0], [1.0], [-1.0]])))
    # A mean that is not 0 is at least 1/length away from it: length times as much takes a whole step.
    far = torch.tensor([[float(length)]])
    craft.steps(0, {"balance": torch.cat([far, -far], 1)}, "sides", torch.eye(2))
    some_open, fallen = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    craft.head(1, 0, Move("sides", "fell", fallen))
    no = torch.tensor([[1.0, -1.0]])
    craft.steps(1, {"sides": some_open, "fell": far}, "out", no, constant=torch.tensor([0.0, 1.0]))
    return Program(
        name="brackets",
        model=craft.model,
        symbols=("BOS", "(", ")"),
        reads="classes",
        define=_balanced,
        draw=lambda count, generator: _after_bos(_half_balanced(count, pairs, generator)),
        varying=frozenset(
            {
                ("embed", "L0.head[2].v"),
                ("L0.head[2].out", "L0.mlp"),
                ("L0.mlp.out", "L1.head[0].v"),
                ("L1.head[0].out", "L1.mlp"),
                ("L0.mlp.out", "L1.mlp"),
                ("L1.mlp.out", "logits"),
            }
        ),
        constant=frozenset(),
    )


def _balanced(row: list[int]) -> list[int]:
    steps = {BOS: 0, 1: 1, 2: -1}
    depths = [sum(steps[token] for token in row[: at + 1]) for at in range(len(row))]
    return [int(depth == 0 and min(depths[: at + 1]) >= 0) for at, depth in enumerate(depths)]


def _after_bos(symbols: Tensor) -> Tensor:
    return torch.cat([torch.full((len(symbols), 1), BOS), symbols], 1)


def _half_balanced(count: int, pairs: int, generator: torch.Generator) -> Tensor:
    rows = torch.randint(1, 3, (count, 2 * pairs), generator=generator)
    opens, depth = rows == 1, torch.zeros(count, dtype=torch.long)
    for at in range(2 * pairs):
        opens[:, at] = (opens[:, at] | (depth == 0)) & (depth < 2 * pairs - at)
        depth += torch.where(opens[:, at], 1, -1)
    rows[::2] = torch.where(opens, 1, 2)[::2]
    return rows


PROGRAMS: Mapping[str, Callable[[], Program]] = MappingProxyType(
    {made.__name__: made for made in (copy, reverse, fraction, histogram, brackets)}
)
