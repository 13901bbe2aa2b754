"""Circuit search: edges mean what they say, and programs whose circuit is written down are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from assay import Model, circuits
from assay.circuits.search import Task, feeds, pruned, searched
from assay.errors import BadData, BadDose, NoSuchSite, OneClass
from assay.graph import CausalGraph, Edges
from assay.organisms import PROGRAMS, Program
from tests.test_trace import pairs_of

ABLATIONS: list[Any] = ["resample", "zero"]


def task_of(program: Program, ablation: Any, count: int = 64) -> Task:
    source = program.inputs(count, seed=1) if ablation == "resample" else None
    return Task(program.model.graph(), program.inputs(count, seed=0), source, ablation=ablation)


@pytest.mark.parametrize("name", PROGRAMS)
def test_edges_are_the_programs(name: str) -> None:
    program = PROGRAMS[name]()
    task = task_of(program, "zero", 4)
    assert set(task.edges.all) == set(program.edges)


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_acdc_finds_what_is_written_down(name: str, ablation: Any) -> None:
    program = PROGRAMS[name]()
    task = task_of(program, ablation)
    truth = program.circuit(ablation)
    assert searched(task, 1e-4) == truth
    assert task.value(truth) == pytest.approx(0, abs=1e-6)
    ranking = circuits.acdc(task, [1e-5, 1e-3])
    assert circuits.roc(ranking, truth) == 1
    assert ranking.circuit(len(truth)) == truth


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_estimate_is_exact_for_edges_into_the_scores(name: str) -> None:
    """Scores are a linear function of what they read, so a first-order effect is the effect."""
    program = PROGRAMS[name]()
    weights = torch.randn(program.model.sizes.outputs, generator=torch.Generator().manual_seed(0))
    measure = lambda scores: (scores @ weights).sum(-1)
    task = Task(program.model.graph(), program.inputs(16, 0), program.inputs(16, 1), measure=measure)
    ranking = circuits.estimate(task)
    whole = task.value(task.edges.all)
    for edge, score in zip(ranking.edges, ranking.scores, strict=True):
        if edge[1] == "logits":
            exact = abs(task.value(set(task.edges.all) - {edge}) - whole)
            assert score == pytest.approx(exact, abs=1e-4)


def test_a_curve_ends_at_the_whole_model() -> None:
    program = PROGRAMS["brackets"]()
    task = task_of(program, "resample")
    ranking = circuits.acdc(task, [1e-4])
    found = circuits.curve(task, ranking)
    assert found.faithfulness[-1] == pytest.approx(1)
    assert found.cpr > 0.9
    assert found.cmd < 0.1
    worst = circuits.Ranking(ranking.edges, -ranking.scores, "upside down")
    assert circuits.curve(task, worst).cpr < found.cpr
    steps = circuits.estimate(task, steps=5)
    assert steps.method == "EAP-IG, 5 steps"
    assert circuits.roc(steps, program.circuit("resample")) > 0.5


def test_circuits_are_searched_on_language_models(model: Model) -> None:
    clean, other = pairs_of(model)
    task = Task(model, clean, other)
    ranking = circuits.estimate(task, steps=3)
    whole, empty = task.value(task.edges.all), task.value(())
    assert whole == pytest.approx(0, abs=1e-6)
    assert empty > 1e-3
    source = task.graph.forward(task.graph.inputs(other), range(len(other)), {})
    seen = task.edges.patched(task.inputs, task.ids, task.edges.all, task.source)
    assert source is not None
    torch.testing.assert_close(seen, source, atol=2e-4, rtol=1e-3)
    best, worst = ranking.circuit(len(ranking.edges) // 2, prune=False), set(ranking.edges)
    worst -= best
    assert task.value(best) < task.value(worst)


def test_mean_ablation_takes_the_mean(llama: Model) -> None:
    task = Task(llama, ["the cat is", "the dog is", "the red is"], ablation="mean")
    key = task.edges.writers["embed"].key
    torch.testing.assert_close(task.source[key][0], task.written[key].mean(0))


def test_what_leads_nowhere_is_pruned() -> None:
    chain = {("embed", "L0.head[1].v"), ("L0.head[1].out", "L1.mlp"), ("L1.mlp.out", "logits")}
    loose = {("L0.head[0].out", "logits"), ("embed", "L1.head[0].q"), ("L0.mlp.out", "L1.mlp")}
    assert pruned(chain | loose) == chain
    assert pruned(chain - {("embed", "L0.head[1].v")}) == frozenset()
    assert feeds("L3.attn", "L3.head[2].z") and feeds("L3.attn", "L3.attn.out") and not feeds("L3.attn", "L3.mlp.out")
    assert feeds("L3.head[2].k", "L3.head[2].z") and not feeds("L3.head[2].k", "L3.head[12].z")


def test_what_is_no_search_is_refused(llama: Model) -> None:
    program = PROGRAMS["copy"]()
    graph, rows = program.model.graph(), program.inputs(4, 0)
    with pytest.raises(BadData, match="needs inputs to resample from"):
        Task(graph, rows)
    with pytest.raises(BadData, match="takes no source"):
        Task(graph, rows, rows, ablation="zero")
    with pytest.raises(BadData, match="2 sources for 4 inputs"):
        Task(graph, rows, rows[:2])
    with pytest.raises(BadData, match="other lengths"):
        Task(llama, ["the cat"], ["the cat is in"])
    task = Task(graph, rows, ablation="zero")
    with pytest.raises(BadDose):
        circuits.acdc(task, [0.0])
    with pytest.raises(BadDose):
        circuits.estimate(task, steps=0)
    with pytest.raises(BadData, match="no slope"):
        circuits.estimate(task)
    ranking = circuits.Ranking(task.edges.all, np.zeros(len(task.edges.all)), "none")
    with pytest.raises(OneClass):
        circuits.roc(ranking, set())
    with pytest.raises(BadData, match="not one of the graph's"):
        circuits.roc(ranking, {("embed", "nowhere")})
    with pytest.raises(BadData, match="measure alike"):
        circuits.curve(Task(graph, rows, rows), ranking)
    with pytest.raises(NoSuchSite, match="has no end 'L9.mlp'"):
        Edges(CausalGraph(llama)).check([("embed", "L9.mlp")])
    with pytest.raises(NoSuchSite, match="an edge goes up|does not read"):
        Edges(CausalGraph(llama)).check([("L1.mlp.out", "L0.mlp")])
