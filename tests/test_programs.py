"""Programs whose weights are written: they compute what they say, and the edges that are stated are the true ones.

Edges are judged by a forward pass of its own, which builds what each reader is given from what each writer wrote and
shares nothing with the library but the weights.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from torch import Tensor

from assay.errors import BadData
from assay.graph import Edge
from assay.organisms import PROGRAMS, Program, SmallTransformer

NAMES = tuple(PROGRAMS)
ROUNDING = 1e-4  # what a false edge may add to a score; a true one changes an answer
ROWS = 256

Replaced = Callable[[str, str, Tensor], Tensor]
"""A writer, a reader, and what the writer wrote: what the reader gets of it."""


@cache
def program(name: str) -> Program:
    return PROGRAMS[name]()


def unchanged(writer: str, reader: str, wrote: Tensor) -> Tensor:
    return wrote


def run(model: SmallTransformer, tokens: Tensor, get: Replaced = unchanged) -> tuple[Tensor, dict[str, Tensor]]:
    """Scores, and what each writer wrote. A reader is given the sum of what it gets from each writer so far."""
    W, sizes, length = model.state_dict(), model.sizes, tokens.shape[1]
    wrote = {"embed": W["embed.weight"][tokens] + W["positions"][:length]}
    nobodys = torch.zeros(sizes.d_model)  # attention's output bias is no head's

    def given(reader: str, writers: list[str]) -> Tensor:
        return sum((get(writer, reader, wrote[writer]) for writer in writers), nobodys)

    for layer in range(sizes.layers):
        attn, mlp, before = f"blocks.{layer}.attn", f"blocks.{layer}.mlp", list(wrote)
        for head in range(sizes.heads):
            name, rows = f"L{layer}.head[{head}]", slice(head * sizes.d_head, (head + 1) * sizes.d_head)
            q, k, v = (
                given(f"{name}.{part[0]}", before) @ W[f"{attn}.{part}.weight"][rows].T + W[f"{attn}.{part}.bias"][rows]
                for part in ("query", "key", "value")
            )
            scores = q @ k.transpose(1, 2) / math.sqrt(sizes.d_head)
            if sizes.causal:
                scores = scores + torch.full((length, length), -torch.inf).triu(1)
            wrote[f"{name}.out"] = scores.softmax(-1) @ v @ W[f"{attn}.W_O"][head]
        nobodys = nobodys + W[f"{attn}.b_O"]
        hidden = given(f"L{layer}.mlp", list(wrote)) @ W[f"{mlp}.up.weight"].T + W[f"{mlp}.up.bias"]
        wrote[f"L{layer}.mlp.out"] = hidden.clamp(min=0) @ W[f"{mlp}.down.weight"].T + W[f"{mlp}.down.bias"]
    return given("logits", list(wrote)) @ W["unembed.weight"].T + W["unembed.bias"], wrote


def edges_of(model: SmallTransformer) -> Iterator[Edge]:
    """Every edge there is, found by seeing who asks for what."""
    asked: dict[Edge, None] = {}

    def ask(writer: str, reader: str, wrote: Tensor) -> Tensor:
        asked[writer, reader] = None
        return wrote

    run(model, torch.zeros(1, model.sizes.length, dtype=torch.long), ask)
    return iter(asked)


def replacing(edges: set[Edge], ablation: str, other: dict[str, Tensor]) -> Replaced:
    def get(writer: str, reader: str, wrote: Tensor) -> Tensor:
        if (writer, reader) not in edges:
            return wrote
        return torch.zeros_like(wrote) if ablation == "zero" else other[writer]

    return get


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_its_definition_on_every_input(name: str) -> None:
    it = program(name)
    drawn = it.inputs(600, seed=1)
    symbols = range(0 if it.bos is None else 1, len(it.symbols))
    rows = itertools.product(symbols, repeat=drawn.shape[1] - (it.bos is not None))
    every = torch.tensor([row if it.bos is None else (it.bos, *row) for row in rows])
    for tokens in (drawn, every):
        answers = it.answers(it.model(tokens))
        torch.testing.assert_close(answers, it.targets(tokens), rtol=0, atol=1e-5)


EXAMPLES = {
    "copy": ("a c c d b a", ["a", "c", "c", "d", "b", "a"]),
    "reverse": ("a c c d b a", ["a", "b", "d", "c", "c", "a"]),
    "fraction": ("x a b x x a b", [1, 1 / 2, 1 / 3, 2 / 4, 3 / 5, 3 / 6, 3 / 7]),
    "histogram": ("BOS a b a c a b", [0, 3, 2, 3, 1, 3, 2]),
    "brackets": ("BOS ( ( ) ) ) ( ( )", [1, 0, 0, 0, 1, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_by_hand(name: str) -> None:
    it, (text, right) = program(name), EXAMPLES[name]
    tokens = torch.tensor([[it.symbols.index(symbol) for symbol in text.split()]])
    right = [it.symbols.index(answer) if isinstance(answer, str) else answer for answer in right]
    for answers in (it.targets(tokens), it.answers(it.model(tokens))):
        assert answers[0].tolist() == pytest.approx(right, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_begin_with_bos_alone_and_repeat_with_their_seed(name: str) -> None:
    it = program(name)
    tokens = it.inputs(600, seed=3)
    assert tokens.shape == (600, it.model.sizes.length)
    assert torch.equal(tokens, it.inputs(600, seed=3))
    assert not torch.equal(tokens, it.inputs(600, seed=4))
    assert (it.bos is not None) == (name in ("histogram", "brackets"))
    if it.bos is not None:
        assert (tokens[:, 0] == it.bos).all()
        assert (tokens[:, 1:] != it.bos).all()
    start = int(it.bos is not None)
    assert set(tokens[:, start:].unique().tolist()) == set(range(start, len(it.symbols)))
    targets = it.targets(tokens)
    assert all(len(targets[:, at].unique()) > 1 for at in range(start, tokens.shape[1]) if name != "brackets")


def test_half_of_the_brackets_are_balanced_in_many_ways() -> None:
    it = program("brackets")
    tokens = it.inputs(1000, seed=0)
    assert it.targets(tokens)[::2, -1].all()
    assert not it.targets(tokens)[1::2, -1].all()
    assert len(tokens[::2].unique(dim=0)) == 14  # all there are of four pairs: the fourth Catalan number


@pytest.mark.parametrize("name", NAMES)
def test_the_pass_that_judges_edges_is_the_model(name: str) -> None:
    it = program(name)
    tokens = it.inputs(64, seed=5)
    torch.testing.assert_close(run(it.model, tokens)[0], it.model(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("name", NAMES)
def test_an_edge_is_stated_iff_replacing_it_alone_changes_an_answer(name: str, ablation: str) -> None:
    it = program(name)
    tokens, (_, other) = it.inputs(ROWS, seed=6), run(it.model, it.inputs(ROWS, seed=7))
    scores, _ = run(it.model, tokens)
    found = set()
    for edge in edges_of(it.model):
        changed, _ = run(it.model, tokens, replacing({edge}, ablation, other))
        if (it.answers(changed) - it.answers(scores)).abs().max() > 0.01:
            found.add(edge)
        else:  # nothing lies between: what changes no answer changes no score either
            torch.testing.assert_close(changed, scores, rtol=0, atol=ROUNDING)
    assert found == it.circuit(ablation)


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("name", NAMES)
def test_all_other_edges_at_once_change_nothing(name: str, ablation: str) -> None:
    it = program(name)
    tokens, (_, other) = it.inputs(ROWS, seed=8), run(it.model, it.inputs(ROWS, seed=9))
    rest = set(edges_of(it.model)) - it.circuit(ablation)
    assert len(rest) > 3 * len(it.circuit(ablation))
    changed, _ = run(it.model, tokens, replacing(rest, ablation, other))
    torch.testing.assert_close(changed, it.model(tokens), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", NAMES)
def test_the_edges_there_are(name: str) -> None:
    it = program(name)
    assert Counter(it.edges) == Counter(edges_of(it.model))
    assert it.circuit("resample") <= it.circuit("zero") <= set(it.edges)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_spare_is_busy(name: str) -> None:
    it = program(name)
    _, wrote = run(it.model, it.inputs(64, seed=10))
    used = {writer for writer, _ in it.circuit("zero")}
    spare = set(wrote) - used
    assert sum("head" in writer for writer in spare) >= 3
    assert name in ("histogram", "brackets") or any("mlp" in writer for writer in spare)
    for writer in spare:
        assert wrote[writer].std(0).max() > 0.01, f"{writer} is the same on all inputs"


def test_programs_are_made_without_a_trace_and_alike() -> None:
    state = torch.get_rng_state()
    for name, make in PROGRAMS.items():
        it, again = make(), make()
        assert it.name == name
        assert not any(weight.requires_grad for weight in it.model.parameters())
        for weight, same in zip(it.model.state_dict().values(), again.model.state_dict().values(), strict=True):
            assert torch.equal(weight, same)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_ablation_that_no_circuit_is_stated_for() -> None:
    with pytest.raises(BadData, match="ablation='mean' is none that a circuit is stated for"):
        program("copy").circuit("mean")
