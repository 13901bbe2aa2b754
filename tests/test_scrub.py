"""Causal scrubbing: its ends are exact, it equals the plain recursion, and its pitfalls are seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import assay.audit.mechanism  # noqa: F401 - its measures
from assay import Model, Prompt, scrub
from assay.audit import Claim, Threat, audit
from assay.errors import BadData, BadHypothesis, CorruptFile, EmptyData, NeverFired, NoSuchSite
from assay.graph import CausalGraph, Edges, Graph, ModuleGraph, made
from assay.graph import given as taken
from assay.organisms import PROGRAMS, Sizes, SmallTransformer
from assay.scrub.data import Items
from assay.scrub.evaluate import Evaluation
from assay.scrub.tree import bind, draw
from benchmarks.scrub import Plain

node = scrub.node
WORDS = [" Paris", " Berlin", " in", " city"]
SIZES = Sizes(layers=3, heads=2, d_model=16, d_head=8, d_mlp=16, vocab=5, length=6, outputs=2, padding=1, first=True)


def checker(sizes: Sizes = SIZES) -> SmallTransformer:
    """Random weights, enlarged so that inputs matter."""
    torch.manual_seed(0)
    module = SmallTransformer(sizes).eval()
    for weight in module.parameters():
        weight.data.mul_(3 if weight.dim() > 1 else 1)
    return module.requires_grad_(False)


@pytest.fixture(scope="module")
def graph() -> ModuleGraph:
    """Of a small bidirectional classifier."""
    return checker().graph()


@pytest.fixture(scope="module")
def data(graph: ModuleGraph) -> scrub.Data:
    """What that classifier says is what is right."""
    rows = torch.randint(2, 5, (60, 6), generator=torch.Generator().manual_seed(0))
    said = graph.module(rows)[:, 0].argmax(-1)
    features = {"first": rows[:, 0].numpy(), "sum": (rows.sum(1) % 3).numpy(), "token": rows.numpy()}
    return scrub.Data(rows, said, features, {"phi": torch.randn(60, 16, generator=torch.Generator().manual_seed(1))})


def facts(model: Model) -> scrub.Data:
    """Twelve prompts: two frames, six subjects of three kinds, and any answers of one token."""
    frames, names = (
        ("the {subject} is in", "one {subject} am not in"),
        ("cat", "city", "capital", "love", "Paris", "Berlin"),
    )
    prompts = [Prompt(frame, subject=name) for frame in frames for name in names]
    answers = [" Paris", " Berlin", " in"] * 4
    return scrub.Data(prompts, answers, {"kind": [i // 2 for i in range(6)] * 2})


# Its two ends


WHOLE = [
    node("input"),
    node("input", parts=[node("input", at="L1.head[0].out"), node("input", at="L2.resid")]),
    node("input", parts=[node("input", at="L2.resid", parts=[node("input", at="L1.resid")])]),
    node("input", parts=[node("input", at="L2.resid", along=np.eye(16))]),
    node("input", parts=[node("input", at="embed", parts=[])]),
    node("input", parts=[node("input", at="L2.resid", parts=scrub.split("token", "embed", range(6)))]),
]


@pytest.mark.parametrize("hypothesis", WHOLE, ids=str)
def test_the_whole_model_recovers_all(graph: ModuleGraph, data: scrub.Data, hypothesis: scrub.Node) -> None:
    found = scrub.recovered(graph, hypothesis, on=data)
    assert found.share.value == pytest.approx(1, abs=1e-5)
    assert found.accuracy == found.was_right.mean() == 1
    assert found.kl.max() < 1e-6
    assert not found.warnings or "fine" in found.warnings[0] or "told apart" in found.warnings[0]


def test_the_empty_hypothesis_recovers_nothing(graph: ModuleGraph, data: scrub.Data) -> None:
    found = scrub.recovered(graph, node("anything"), on=data, references=600)
    assert found.share.low < 0 < found.share.high
    untouched = node("input", parts=[node("anything", at="L0.head[0].out")])
    assert abs(scrub.recovered(graph, untouched, on=data, references=600).share.value) < 0.3


def test_direct_paths_of_all_that_writes_make_the_model(model: Model) -> None:
    """The stream is the sum of what is written to it, so nothing of the other input is left but attention's own biases."""
    graph = CausalGraph(model)
    items, known = Items(graph, facts(model)), Edges(graph)
    story = node("input", parts=[node("input", at=f"{name} -> logits") for name in known.writers], others="length")
    bound = bind(graph, items, story)
    draws = draw(bound, items, np.arange(len(items)), 0)
    assert (draws.others[()] != draws.given[()]).any()
    plain = graph.forward(items.inputs, range(len(items)), {})
    assert plain is not None
    torch.testing.assert_close(scores_of(graph, items, bound, draws), plain, atol=3e-4, rtol=1e-3)


# The plain recursion


def scores_of(graph: Graph, items: Items, bound: Any, draws: Any, **how: Any) -> Tensor:
    seen: dict[int, Tensor] = {}

    def sink(rows: Any, scores: Tensor) -> None:
        seen.update({int(row): one for row, one in zip(rows, scores, strict=True)})

    Evaluation(graph, items, draws, **{"batch": 7, **how}).scores(bound, sink)
    return torch.stack([seen[row] for row in range(len(seen))])


FEATURES = st.sampled_from(["first", "sum", "first & sum", "token[2]", "input", "anything"])
PLACES = ["embed", "L0.head[1].out", "L0.mlp.out", "L0.resid @ 2", "L0.resid", "L1.head[0].q", "L1.head[0].z @ 1:4"]
PLACES += ["L1.mlp.out", "L1.resid", "L2.head[0].v", "L2.head[1].out", "L2.mlp.out", "L2.resid @ 0"]
WRITERS = ["embed", "L0.head[0].out", "L0.mlp.out @ 1", "L1.head[1].out", "L1.mlp.out", "L2.head[0].out", "L2.mlp.out"]


@st.composite
def trees(draw_: Any) -> scrub.Node:
    """Trees of at most two levels below the root; what cannot be bound is thrown away by the test."""

    def leaf(depth: int) -> scrub.Node:
        kind = draw_(st.sampled_from(["place", "path", "along", "estimate"]))
        feature, others = draw_(FEATURES), draw_(st.sampled_from(["anything", "sum"]))
        if kind == "path":
            return node(
                feature,
                at=f"{draw_(st.sampled_from(WRITERS))} -> {draw_(st.sampled_from(['logits', 'L2.attn', 'L2.mlp']))}",
            )
        if kind == "along":
            return node(feature, at="L1.resid @ 0:2", along=np.eye(16)[:5])
        if kind == "estimate":
            return node(feature, at="L1.head[0].out @ 3", estimate="phi")
        parts = [leaf(depth - 1) for _ in range(draw_(st.integers(0, 2)))] if depth else []
        pool = draw_(st.sampled_from([None, None, 1, 3]))
        return node(feature, at=draw_(st.sampled_from(PLACES)), parts=parts, others=others, pool=pool)

    return node(draw_(st.sampled_from(["input", "first"])), parts=[leaf(1) for _ in range(draw_(st.integers(1, 3)))])


@settings(max_examples=80)
@given(hypothesis=trees(), seed=st.integers(0, 5))
def test_it_equals_the_plain_recursion(graph: ModuleGraph, data: scrub.Data, hypothesis: scrub.Node, seed: int) -> None:
    items = Items(graph, data)
    try:
        bound = bind(graph, items, hypothesis)
    except BadHypothesis:
        return
    draws = draw(bound, items, np.arange(12), seed)
    plain = Plain(graph, items, draws)
    wanted = torch.cat([plain.scores(bound, row) for row in range(12)])
    for restart in (True, False):
        torch.testing.assert_close(scores_of(graph, items, bound, draws, restart=restart), wanted, atol=1e-5, rtol=1e-5)


def test_it_equals_the_plain_recursion_on_language_models(model: Model) -> None:
    graph, items = CausalGraph(model), Items(CausalGraph(model), facts(model))
    heads = "L1.head[1].z" if model.engine.anatomy.heads_add else "L1.attn.out"
    below = node("kind", at="L0.mlp.out @ subject[-1]", parts=[node("subject", at="embed @ subject[-1]")])
    hypothesis = node(
        "input",
        parts=[
            node("kind", at="L1.mlp.out @ last", parts=[below], others="length"),
            node("kind", at=f"{heads} @ last -> logits"),
            node("kind & length", at="L0.head[0].z"),
        ],
        others="length",
    )
    bound = bind(graph, items, hypothesis)
    draws = draw(bound, items, np.arange(12), 0)
    plain = Plain(graph, items, draws)
    wanted = torch.cat([plain.scores(bound, row) for row in range(12)])
    torch.testing.assert_close(scores_of(graph, items, bound, draws, batch=3), wanted, atol=2e-5, rtol=1e-4)


def test_equal_subtrees_on_equal_inputs_are_run_once(graph: ModuleGraph, data: scrub.Data) -> None:
    hypothesis = node("input", parts=[node("first", at="L2.resid", parts=[node("first", at="L1.resid")])])
    found = scrub.recovered(graph, hypothesis, on=data, references=2000)
    assert found.rows < 2000 * 3  # a pass each for the root; the leaves are 60 inputs, the middle at most 60 × 60 pairs
    plain = 2000 * 3
    assert found.rows < plain


# What is drawn


def test_draws_agree_in_the_feature_and_share_the_rest(graph: ModuleGraph, data: scrub.Data) -> None:
    items = Items(graph, data)
    parts = [
        node("sum", at="L1.resid", others="first", parts=[node("first & sum", at="L0.resid")]),
        node("sum", at="L2.mlp.out"),
    ]
    bound = bind(graph, items, node("first", parts=parts))
    draws = draw(bound, items, np.arange(60), 3)
    first, total = items.features["first"], items.features["sum"]
    assert (first[draws.given[()]] == first[draws.references]).all()
    assert (total[draws.given[0,]] == total[draws.given[()]]).all()
    assert (first[draws.others[0,]] == first[draws.given[0,]]).all()
    both = draws.given[0, 0]
    assert (first[both] == first[draws.given[0,]]).all() and (total[both] == total[draws.given[0,]]).all()
    assert set(draws.others) == {(), (0,)}  # one for each node that has parts
    assert (draws.given[0,] != draws.given[1,]).any()
    again = draw(bound, items, np.arange(60), 3)
    assert all((again.given[path] == ids).all() for path, ids in draws.given.items())


def test_a_pool_draws_what_lies_below_so_often(graph: ModuleGraph, data: scrub.Data) -> None:
    def story(pool: int | None) -> scrub.Node:
        return node("input", parts=[node("first", at="L2.resid", pool=pool, parts=[node("sum", at="L1.resid")])])

    items, references = Items(graph, data), np.arange(600) % 60
    bound = bind(graph, items, story(2))
    draws = draw(bound, items, references, 0)
    below = {
        (int(x), int(other), int(leaf))
        for x, other, leaf in zip(draws.given[0,], draws.others[0,], draws.given[0, 0], strict=True)
    }
    assert len(below) <= 2 * 60
    assert len({x for x, _, _ in below}) == 60
    pooled, free = (scrub.recovered(graph, story(pool), on=data, references=600) for pool in (2, None))
    assert pooled.rows < free.rows
    assert pooled.share.value == pytest.approx(free.share.value, abs=0.3)


def test_a_class_is_drawn_from_evenly(graph: ModuleGraph, data: scrub.Data) -> None:
    classes = Items(graph, data).classes("first")
    drawn = classes.draw(np.zeros(20_000, dtype=np.int64), np.random.default_rng(0))
    members, counts = np.unique(drawn, return_counts=True)
    assert set(members) == set(np.flatnonzero(classes.codes == classes.codes[0]))
    assert counts.min() > 0.85 * 20_000 / len(members)


def test_drawing_the_rest_apart_is_another_thing(graph: ModuleGraph, data: scrub.Data) -> None:
    shared = node("input", parts=[node("first", at="L2.head[0].out")])
    apart = scrub.independent(graph, shared, on=data)
    assert len(apart) == len(shared) + 9  # embed, five heads, three MLPs
    one, other = (scrub.recovered(graph, some, on=data, references=500) for some in (shared, apart))
    assert one.scrubbed.mean() != pytest.approx(other.scrubbed.mean(), abs=1e-3)
    with pytest.raises(BadHypothesis, match="is claimed, so nothing"):
        scrub.independent(graph, node("input", parts=[node("first", at="L2.resid")]), on=data)


# Pitfalls


class Cancelling(nn.Module):
    """Scores y (2 y + b) for inputs (y, b) of ±1: b moves single losses by as much up as down."""

    def __init__(self) -> None:
        super().__init__()
        self.signal, self.noise = nn.Identity(), nn.Identity()

    def forward(self, rows: Tensor) -> Tensor:
        both = self.signal(2 * rows[:, :1, None]) + self.noise(rows[:, 1:, None])
        return torch.cat([-both, both], dim=-1)


def test_a_false_hypothesis_that_cancels_is_seen_input_by_input() -> None:
    rows = torch.tensor([[y, b] for y in (-1.0, 1.0) for b in (-1.0, 1.0)] * 100)
    module = Cancelling()
    graph = ModuleGraph(module, sites={"signal": made(module.signal), "noise": made(module.noise)})
    right = (rows[:, 0] > 0).long()
    on = scrub.Data(rows, right, {"y": rows[:, 0].numpy()})
    loss = lambda scores, targets: -(scores[:, 0, 1] * (2 * targets[:, 0] - 1)).float()
    found = scrub.recovered(graph, node("input", parts=[node("y", at="signal")]), on=on, references=4000, loss=loss)
    assert found.share.value > 0.95
    assert found.uncancelled < 0.7
    assert any(warning.startswith("cancellation") for warning in found.warnings)
    true = node("input", parts=[node("y", at="signal"), node("input", at="noise")])
    assert not [one for one in scrub.recovered(graph, true, on=on, loss=loss).warnings if "cancel" in one]


def test_features_that_are_too_fine_or_alike_are_said(graph: ModuleGraph, data: scrub.Data) -> None:
    fine = np.arange(60) // 2 % 29
    twin = np.asarray(data.features["first"]) * 7
    on = scrub.Data(
        data.inputs,
        data.targets,
        {**data.features, "fine": np.where(np.arange(60) < 4, 0, fine + 1 + np.arange(60) % 2 * 50), "twin": twin},
    )
    found = scrub.recovered(
        graph, node("input", parts=[node("fine", at="L2.resid"), node("first", at="L1.mlp.out")]), on=on
    )
    assert any(one.startswith("too fine") for one in found.warnings)
    assert any("first is the same as twin" in one for one in found.warnings)


def test_the_truth_beats_random_hypotheses_and_noise_does_not() -> None:
    program = PROGRAMS["brackets"]()
    rows = program.inputs(200, seed=0)
    graph, right = program.model.graph(), program.targets(rows)
    on = scrub.Data(rows, right, {"right": [tuple(row) for row in right.tolist()], "first": rows[:, 1].numpy()})
    truth = scrub.null(graph, node("input", parts=[node("input", at="L1.mlp.out -> logits")]), on=on)
    assert truth.observed == pytest.approx(1, abs=1e-4)
    assert truth.p == 0.05
    assert {one.parts[0].at for one in truth.hypotheses} == {"L0.mlp.out -> logits"}
    spare = scrub.null(graph, node("input", parts=[node("input", at="L1.head[1].out -> logits")]), on=on)
    assert spare.p > 0.2
    dealt = scrub.null(graph, node("input", parts=[node("right", at="L1.mlp.out -> logits")]), on=on, kind="features")
    assert dealt.observed > 0.9
    assert "p 0.05" in str(dealt)


def test_a_ladder_has_the_steps_that_its_rungs_make(graph: ModuleGraph, data: scrub.Data) -> None:
    one = node("first", at="L1.head[0].out")
    rungs = {
        "one": node("input", parts=[one, node("input", at="L2.mlp.out")]),
        "both": node("input", parts=[one, node("sum", at="L2.mlp.out")]),
    }
    found = scrub.ladder(graph, rungs, on=data, references=300)
    shares = [rung.share.value for rung in found.rungs.values()]
    assert found.steps["one"].value == pytest.approx(1 - shares[0])
    assert found.steps["both"].value == pytest.approx(shares[0] - shares[1])
    assert "both" in str(found)


# The written form


@settings(max_examples=30)
@given(hypothesis=trees())
def test_the_written_form_reads_back(tmp_path_factory: Any, hypothesis: scrub.Node) -> None:
    path = tmp_path_factory.mktemp("h") / "h.json"
    assert scrub.Node.load(hypothesis.save(path)) == hypothesis
    assert str(hypothesis).count("\n") <= len(hypothesis)


def test_a_picture_draws_long_runs_as_a_line() -> None:
    drawn = str(node("input", parts=scrub.split("p", "L1.resid", range(42))))
    assert drawn == ("output: input\n├─ L1.resid @ 0: p[0]\n├─ ⋮ 40 more of this form\n└─ L1.resid @ 41: p[41]")


BAD: list[tuple[Callable[[], scrub.Node], str]] = [
    (lambda: node("input", at="L1.resid"), "the root has a place"),
    (lambda: node("input", parts=[node("first", at="L9.resid")]), "no place 'L9.resid'"),
    (lambda: node("input", parts=[node("first", at="L1.head[7].out")]), r"no place 'L1.head\[7\].out'"),
    (lambda: node("input", parts=[node("first", at="L1.resid @ 99")]), "names no token"),
    (lambda: node("input", parts=[node("firts", at="L1.resid")]), "no feature 'firts'"),
    (lambda: node("input", parts=[node("token[9]", at="L1.resid")]), "no column 9"),
    (lambda: node("input", parts=[node("first", at="L1.resid", others="nothing")]), "no feature 'nothing'"),
    (
        lambda: node("input", parts=[node("first", at="L0.resid", parts=[node("sum", at="L1.resid")])]),
        "does not run before",
    ),
    (lambda: node("input", parts=[node("first", at="L1.resid"), node("sum", at="L1.resid @ 2")]), "claimed already"),
    (lambda: node("input", parts=[node("first", at="L1.resid -> logits")]), "not added to the stream"),
    (lambda: node("input", parts=[node("first", at="L2.mlp.out -> L1.attn")]), "does not lie between"),
    (lambda: node("input", parts=[node("first", at="L1.mlp.out -> nowhere")]), "nothing named 'nowhere'"),
    (lambda: node("input", parts=[node("first", at="L1.mlp.out", estimate="psi")]), "no estimate 'psi'"),
    (lambda: node("input", parts=[node("own", at="L1.mlp.out")]), "no two inputs agree"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_what_is_no_hypothesis_is_refused_with_a_picture(
    graph: ModuleGraph, data: scrub.Data, make: Callable[[], scrub.Node], message: str
) -> None:
    on = scrub.Data(data.inputs, data.targets, {**data.features, "own": np.arange(60)})
    with pytest.raises(BadHypothesis, match=message) as caught:
        scrub.recovered(graph, make(), on=on)
    assert "◄ here" in str(caught.value)


def test_what_can_be_no_node_of_any_model_is_refused(tmp_path: Path) -> None:
    for make in (
        lambda: node(""),
        lambda: node("a", at="L1.resid", pool=0),
        lambda: node("a", at=3),  # type: ignore[arg-type]
        lambda: node("a", at="L1.resid", along=[[1.0], [1.0, 2.0]]),
        lambda: node("a", at="L1.resid", along=7),
        lambda: node("a", at="L1.resid", estimate="phi", parts=[node("b", at="embed")]),
        lambda: scrub.Node.from_json({"at": "L1.resid"}),
        lambda: scrub.Node.from_json({"feature": "a", "site": "L1.resid"}),
    ):
        with pytest.raises(BadHypothesis):
            make()
    for text in ("{", "[]", '{"format": "other"}'):
        (tmp_path / "h.json").write_text(text)
        with pytest.raises(CorruptFile):
            scrub.Node.load(tmp_path / "h.json")


def test_bad_data_are_refused(graph: ModuleGraph, data: scrub.Data) -> None:
    rows, right = data.inputs, data.targets
    with pytest.raises(BadData, match="column 'short'"):
        scrub.recovered(graph, node("input"), on=scrub.Data(rows, right, {"short": [1]}))
    with pytest.raises(BadData, match="no classes"):
        scrub.recovered(graph, node("input"), on=scrub.Data(rows, right.float()))
    with pytest.raises(BadData, match="loses no more"):
        scrub.recovered(graph, node("input"), on=scrub.Data(rows, right), baseline=node("input"))
    with pytest.raises(EmptyData):
        scrub.recovered(graph, node("input"), on=scrub.Data(rows[:1], right[:1]))
    with pytest.raises(EmptyData):
        scrub.recovered(graph, node("input"), on=data, references=1)


def test_places_of_unequal_length_are_refused(llama: Model) -> None:
    prompts = [Prompt("the {subject} is in", subject=name) for name in ("cat", "a b c d e f")]
    answers = [llama.decode([9])] * 2
    with pytest.raises((BadHypothesis, BadData), match="tokens in one input|loses no more|tokens; one is read"):
        scrub.recovered(llama, node("input", parts=[node("anything", at="L0.resid")]), on=scrub.Data(prompts, answers))


# A module of one's own


def test_a_module_whose_places_do_not_run_is_refused() -> None:
    module = Cancelling()
    graph = ModuleGraph(module, sites={"x": made(nn.Identity())})
    with pytest.raises(NeverFired):
        graph.inputs(torch.ones(2, 2))
    with pytest.raises(BadData):
        graph.inputs(torch.ones(0, 2))
    with pytest.raises(NoSuchSite):
        ModuleGraph(module, sites={"noise": taken(module.noise)}).port("nose")


def test_the_module_is_left_as_it_was(data: scrub.Data) -> None:
    module = checker()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    graph = module.graph()
    scrub.recovered(
        graph, node("input", parts=[node("first", at="L1.head[0].out -> logits"), node("sum", at="L2.resid")]), on=data
    )
    with pytest.raises(RuntimeError):
        graph.forward(Items(graph, data).inputs, [0], {"L1.resid": lambda h: h[:, :, :3]})
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(one._forward_hooks or one._forward_pre_hooks or "forward" in vars(one) for one in module.modules())


# In an audit


def test_audits_can_claim_that_a_hypothesis_explains(llama: Model, tmp_path: Path) -> None:
    """Answers are those that the model likes best, so that it has a loss to recover."""
    prompts = [f"{frame} {{subject}} {end}" for frame in ("the", "I love the", "a") for end in ("is in", "am")]
    rows = []
    for prompt in prompts:
        for name in ("cat", "city", "capital"):
            likeliest = int(llama.score([Prompt(prompt, subject=name)], WORDS).total[0, 0].argmax())
            rows.append({"prompt": prompt, "subject": name, "answer": WORDS[likeliest]})
    data = tmp_path / "prompts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    threat = Threat(key="whole", statement="It does.", scope="Here.", benign="None.")
    made: Any = dict(
        threat="whole",
        statement="A.",
        method="B.",
        controls=("x",),
        refuted_by="C.",
        problem="toy",
        about="circuit",
        grade="low",
    )
    verdicts = {}
    for name, story in (
        ("whole", node("input", parts=[node("input", at="L2.resid @ last")])),
        ("nothing", node("input", parts=[node("anything", at="L2.resid @ last")])),
    ):

        def claims() -> Iterator[list[Claim]]:
            yield [Claim(key="explains", measure="mechanism.explains", params=dict(draws=1, least=0.4), **made)]

        files = {"hypothesis": story.save(tmp_path / f"{name}.json"), "prompts": data}
        plan = audit(problem="toy", question="Does it?", threats=[threat], data=files)(claims)
        with plan.run(llama, into=tmp_path / name) as ledger:
            assert [entry.body for entry in ledger.entries("missing")] == []
            (outcome,) = [entry.body for entry in ledger.entries("outcome")]
        verdicts[name] = outcome["effects"][0]["value"]
        assert outcome["where"] == ["L2.resid @ last"]
    assert verdicts["whole"] == pytest.approx(1, abs=1e-5)
    assert verdicts["nothing"] < 0.5


def test_audits_can_claim_that_heads_copy(llama: Model, tmp_path: Path) -> None:
    threat = Threat(key="copies", statement="It does.", scope="Here.", benign="None.")
    made: Any = dict(
        threat="copies",
        statement="A.",
        method="B.",
        controls=("x",),
        refuted_by="C.",
        problem="toy",
        about="circuit",
        grade="low",
    )
    params = dict(heads=["L1.head[0].z", "L1.head[2].z"], count=3, draws=2)

    def claims() -> Iterator[list[Claim]]:
        yield [Claim(key="heads", measure="mechanism.copies", params=params, **made)]

    with audit(problem="toy", question="Does it?", threats=[threat])(claims).run(llama, into=tmp_path) as ledger:
        assert [entry.body for entry in ledger.entries("missing")] == []
        (outcome,) = [entry.body for entry in ledger.entries("outcome")]
    assert outcome["verdict"] == "not supported"  # two draws cannot reach .05
    assert len(outcome["controls"][0]["values"]) == 2
    assert outcome["where"] == params["heads"]
    assert "L1" not in outcome["because"]
