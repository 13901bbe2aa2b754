"""Bad input gives one typed error, in one form, before any compute is spent, and leaves everything as it was."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from assay import Direction, Intervention, Model, Prompt, Sampling, Site, ablate, add, clamp, freeze, noise, patch
from assay.errors import (
    AssayError,
    BadData,
    BadDose,
    BadSite,
    BadVector,
    EmptyData,
    NeverFired,
    NoSuchPosition,
    NoSuchRow,
    NoSuchSite,
)
from tests.tiny import tiny as fresh

FACT = Prompt("The {subject} is in the city of", subject="Eiffel Tower")  # 11 tokens
GOOD = add(torch.ones(32), dose=1, at="L0.resid")
V = torch.ones(32)


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> Model:
    return Model.load(fresh("llama"), tokenizer=tokenizer, selftest=False)


@pytest.fixture
def forwards(model: Model) -> Iterator[list[int]]:
    """Grows by one whenever a block of the model runs. Units of dose are not known yet, so measuring them would show."""
    ran: list[int] = []
    model.__dict__.pop("_scales", None)
    handle = model.hf.model.layers[0].register_forward_hook(lambda *_: ran.append(1))
    yield ran
    handle.remove()


CALLS: dict[str, Callable[[Model, Any], object]] = {
    "run": lambda m, act: m.run(FACT, under=[GOOD, act]),
    "score": lambda m, act: m.score([FACT, "a"], [" Rome", " Paris and Rome"], under=[GOOD, act]),
    "sweep": lambda m, act: m.sweep(["I love the city", FACT], [(), GOOD, act], score=" Rome", memory=1),
    "generate": lambda m, act: m.generate(["I love the city", FACT], tokens=3, under=[GOOD, act], memory=1),
    "sweep of texts": lambda m, act: m.sweep(["I love the city", FACT], [(), GOOD, act], generate=3, memory=1),
    "capture": lambda m, act: m.capture(["I love the city", FACT], "L2.resid @ last", under=[GOOD, act], memory=1),
    "moments": lambda m, act: m.moments([FACT, "I love the city"], "L2.resid", under=[GOOD, act], memory=1),
    "drift": lambda m, act: m.drift(["I love the city", "true or false"], [GOOD, act], memory=1),
}


def _formed(error: AssayError) -> bool:
    """What happened, fields, one hint, one page."""
    return (
        re.fullmatch(r"[^\n]+\n\n(  [a-z ]+ [^\n]+\n)*\n?  hint: [^\n]+\n  see:  docs/errors/[a-z-]+\.md", str(error))
        is not None
    )


WRONG: dict[str, tuple[Intervention, type[AssayError], str]] = {
    "layer": (add(V, dose=1, at="L3.resid"), NoSuchSite, "this model has no L3.resid"),
    "layers": (noise("L0:4.resid", dose=1), NoSuchSite, "this model has no L0:4.resid"),
    "head": (add(torch.ones(8), dose=1, at="L1.head[4].z"), NoSuchSite, "this model has no L1.head[4].z"),
    "idle layer": (add(V, dose=0, at="L3.resid"), NoSuchSite, "this model has no L3.resid"),
    "width": (add(torch.ones(31), dose=1, at="L1.resid"), BadVector, "'tensor' does not fit L1.resid"),
    "idle width": (add(torch.ones(31), dose=0, at="L1.resid"), BadVector, "'tensor' does not fit L1.resid"),
    "head's width": (add(V, times=1, at="L1.head[:].z"), BadVector, "'tensor' does not fit L1.head[0].z"),
    "everywhere": (ablate(torch.ones(8), at="everywhere"), BadVector, "'tensor' does not fit embed"),
    "zero": (add(torch.zeros(32), dose=1, at="L1.resid"), BadVector, "'tensor' is the zero vector"),
    "zero to ablate": (ablate(V, torch.zeros(32), at="L1.resid"), BadVector, "'tensor' is the zero vector"),
    "pattern": (add(V, times=1, at="L1.head[0].pattern"), BadSite, "add does not act on L1.head[0].pattern"),
    "values": (patch("L1.resid @ 2:4", source=torch.ones(3, 32)), BadVector, "got values that do not fit"),
    "values' width": (patch("L1.resid @ last", source=torch.ones(1, 31)), BadVector, "got values that do not fit"),
    "NaN": (
        patch("L1.resid @ last", source=torch.full((1, 32), math.nan)),
        BadVector,
        "got values that are not finite",
    ),
    "position": (
        add(V, dose=1, at="L1.resid @ -40"),
        NeverFired,
        "add(tensor, dose=1) at L1.resid @ -40 touched no activation",
    ),
    "empty range": (
        ablate(V, at="L1.resid @ 4:4"),
        NeverFired,
        "ablate(tensor) at L1.resid @ 4:4 touched no activation",
    ),
    "far position": (clamp(V, 1, at="L1.resid @ 99"), NeverFired, "touched no activation"),
    "far range": (noise("L1.resid @ 99:", dose=1), NeverFired, "touched no activation"),
    "span": (add(V, dose=1, at="L1.resid @ subjekt"), NeverFired, "touched no activation"),
    "index of a span": (add(V, dose=1, at="L1.resid @ subject[9]"), NeverFired, "touched no activation"),
    "row": (add(V, dose=1, at="L1.resid", into="hurt"), NoSuchRow, "names "),
    "source": (patch("L1.resid", source="clean"), NoSuchRow, "names "),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_is_refused_before_anything_runs(
    model: Model, forwards: list[int], call: str, wrong: str
) -> None:
    """Also behind a good intervention, in the last of several batches, and in the last of several conditions."""
    act, kind, what = WRONG[wrong]
    with pytest.raises(kind) as caught:
        CALLS[call](model, act)
    assert not forwards
    assert what in caught.value.what
    assert _formed(caught.value), str(caught.value)


@pytest.mark.parametrize("wrong", [name for name in WRONG if name not in ("row", "source")])
def test_what_does_not_fit_is_refused_by_a_block(model: Model, forwards: list[int], wrong: str) -> None:
    """What no row could change, before the block is entered; the rest, when a row is known, before its first block runs."""
    act, kind, what = WRONG[wrong]
    entered = []
    with pytest.raises(kind) as caught, model.under(GOOD, act):
        entered.append(1)
        model.hf(torch.tensor([model.row(FACT).tokens]))
    assert what in caught.value.what
    assert bool(entered) == (kind is NeverFired or "values" in caught.value.what)
    if wrong not in ("far position", "far range"):  # a sequence that somebody else generates may still get there
        assert not forwards


# Tokens that never go through the model.


def test_an_answer_of_one_token_has_no_response_to_steer(model: Model, forwards: list[int]) -> None:
    """Its token is scored, but nothing is computed at it: the score would silently be that of the plain model."""
    act = add(V, dose=1, at="L1.resid @ response")
    for call in (
        lambda: model.score(FACT, [" Rome", " Paris"], under=act),
        lambda: model.sweep(["a", FACT], [(), act], score=[[" Paris and Rome"], [" Rome"]]),
        lambda: model.generate(FACT, tokens=1, under=act),
        lambda: model.generate(FACT, tokens=5, under=noise("L1.resid @ response", dose=1)),
        lambda: model.capture([FACT], "L1.resid @ last", under=act),
        lambda: model.run(FACT, under=act),
    ):
        with pytest.raises(NeverFired, match="touched no activation"):
            call()
    assert not forwards
    assert model.score(FACT, [" Rome", " Paris and Rome"], under=act).receipts[0, 0][-1].touched == 2


def test_the_text_of_never_fired(model: Model) -> None:
    honest = Direction(V, Site.parse("L1.resid"), name="honest")
    with pytest.raises(NeverFired) as caught:
        model.run(clean="The Eiffel Tower", under=add(honest, dose=3, at="L1.resid @ subject"))
    assert str(caught.value) == (
        "add(honest, dose=3) at L1.resid @ subject touched no activation\n\n"
        "  rows      clean (6 tokens)\n"
        "  spans     clean: none\n"
        "  found     the row has no span named 'subject'\n"
        "  nearest   @ last, @ -1, @ 0:6\n\n"
        '  hint: the prompt was a plain string; mark the span: Prompt("The {subject} is in", subject=...)\n'
        "  see:  docs/errors/never-fired.md"
    )


def test_the_text_of_bad_vector(model: Model) -> None:
    with pytest.raises(BadVector) as caught:
        model.run(FACT, under=add(torch.ones(31), dose=1, at="L1.resid"))
    assert str(caught.value) == (
        "'tensor' does not fit L1.resid\n\n"
        "  found     a vector of width 31; the site has 32\n\n"
        "  hint: use a direction found at a site of this kind\n"
        "  see:  docs/errors/bad-vector.md"
    )
    with pytest.raises(
        BadVector, match=r"found     \(3, 32\) for 2 tokens of width 32\n\n  hint: give one value per position"
    ):
        model.run(FACT, under=patch("L1.resid @ 2:4", source=torch.ones(3, 32)))


# Interventions that cannot be made.


@pytest.mark.parametrize(
    ("make", "kind", "what"),
    [
        (lambda: add(V, at="L1.resid"), BadDose, "add() takes one strength, dose or times; neither given"),
        (lambda: add(V, dose=1, times=1, at="L1.resid"), BadDose, "add() takes one strength, dose or times; both given"),
        (lambda: add(V, dose=math.nan, at="L1.resid"), BadDose, "the strength nan is no finite number"),
        (lambda: add(V, times=math.inf, at="L1.resid"), BadDose, "the strength inf is no finite number"),
        (lambda: noise("embed", dose=-math.inf), BadDose, "the strength -inf is no finite number"),
        (lambda: noise("embed", dose=None), BadDose, "noise() got no dose"),
        (lambda: clamp(V, math.nan, at="L1.resid"), BadDose, "the strength nan is no finite number"),
        (lambda: clamp(V, None, at="L1.resid"), BadDose, "clamp() got no value"),
        (lambda: add(torch.full((32,), math.nan), dose=1, at="L1.resid"), BadVector, "the vector of 'tensor' is not finite"),
        (lambda: ablate(), BadVector, "ablate() got no direction"),
        (lambda: ablate(torch.ones(2, 32), at="L1.resid"), BadVector, "ablate() takes single vectors, not positional ones"),
        (lambda: ablate(torch.ones(2, 32), at="everywhere"), BadVector, "ablate() takes single vectors, not positional ones"),
        (lambda: clamp(torch.ones(2, 32), 1, at="L1.resid"), BadVector, "clamp() takes single vectors, not positional ones"),
        (lambda: ablate(Direction(V, "L1.resid"), Direction(V, "L2.resid")), BadSite, "ablate() got directions of several sites"),  # type: ignore[arg-type]
        (lambda: add(V, dose=1), BadSite, "a bare tensor has no site"),
        (lambda: add(V, dose=1, at="L1.residual"), BadSite, "'L1.residual' is no site"),
        (lambda: freeze([]), BadSite, "the selection of sites is empty"),
        (lambda: patch([], source="clean"), BadSite, "the selection of sites is empty"),
        (lambda: add(V, dose=1, at="L1.resid", into=[]), NoSuchRow, "into=[] names no row"),
        (lambda: Sampling(temperature=0), BadDose, "temperature 0 is not positive"),
        (lambda: Sampling(temperature=math.nan), BadDose, "temperature nan is not positive"),
        (lambda: Sampling(temperature=math.inf), BadDose, "temperature inf is not positive"),
        (lambda: Sampling(top_k=0), BadDose, "top_k 0 keeps no token"),
        (lambda: Sampling(top_p=0), BadDose, "top_p 0 is no probability"),
        (lambda: Sampling(top_p=1.5), BadDose, "top_p 1.5 is no probability"),
    ],
)  # fmt: skip
def test_interventions_that_cannot_be_made(make: Callable[[], object], kind: type[AssayError], what: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert caught.value.what == what
    assert _formed(caught.value), str(caught.value)


def test_zero_is_a_strength_and_an_index() -> None:
    assert add(V, dose=0, at="L0.resid @ 0").idle
    assert clamp(V, 0, at="L0.resid @ 0").value == 0
    assert not clamp(V, 0, at="L0.resid").idle
    assert str(add(V, dose=0, at="L0.resid @ 0")) == "add(tensor, dose=0) at L0.resid @ 0"
    assert Intervention.from_json(noise("L0.resid", dose=0, seed=0).to_json()).seed == 0


# Calls that cannot be made.


@pytest.mark.parametrize(
    ("call", "kind", "what"),
    [
        (lambda m: m.run(), EmptyData, "there are no rows"),
        (lambda m: m.run(""), EmptyData, "the prompt 'row' tokenises to nothing"),
        (lambda m: m.run(clean=FACT, hurt=""), EmptyData, "the prompt 'hurt' tokenises to nothing"),
        (lambda m: m.run(FACT, row=FACT), BadData, "two rows are named 'row'"),
        (lambda m: m.run(7), BadData, "a prompt is text, not 7"),
        (lambda m: m.run(Prompt.tokenized([1, 369])), BadData, "the prompt 'row' has tokens that this model does not know"),
        (lambda m: m.run(Prompt.tokenized([-1])), BadData, "the prompt 'row' has tokens that this model does not know"),
        (lambda m: m.run(FACT, read=["L3.resid"], under=GOOD), NoSuchSite, "this model has no L3.resid"),
        (lambda m: m.run(FACT, read=["L1.resid @ object"]), NoSuchPosition, "the row has no span named 'object'"),
        (lambda m: m.run(FACT, read=["L1.resid @ 11"]), NoSuchPosition, "@ 11 names no token"),
        (lambda m: m.run(FACT, read=["L1.resid @ 11:"], under=GOOD), NoSuchPosition, "L1.resid @ 11: names no token of the row 'row'"),
        (lambda m: m.run(FACT, read=["L1.resid @ response"]), NoSuchPosition, "L1.resid @ response names no token of the row 'row'"),
        (lambda m: m.run(FACT, read=["L1.residual"]), BadSite, "'L1.residual' is no site"),
        (lambda m: m.score([], " Rome"), EmptyData, "there are no prompts"),
        (lambda m: m.score(FACT, []), BadData, "the answers do not match the prompts"),
        (lambda m: m.score([FACT] * 2, [[" Rome"], []]), BadData, "the answers do not match the prompts"),
        (lambda m: m.score([FACT] * 2, [" Rome", [" Rome"]]), BadData, "the answers do not match the prompts"),
        (lambda m: m.score([FACT] * 2, [[" Rome"]] * 3), BadData, "the answers do not match the prompts"),
        (lambda m: m.score(FACT, ""), BadData, "the answer '' does not begin at a token of its own"),
        (lambda m: m.score([FACT, "a "], "Rome"), BadData, "the answer 'Rome' does not begin at a token of its own"),
        (lambda m: m.generate([]), EmptyData, "there are no prompts"),
        (lambda m: m.generate([FACT, ""]), EmptyData, "the prompt '1' tokenises to nothing"),
        (lambda m: m.generate(FACT, tokens=0), BadData, "0 tokens cannot be generated"),
        (lambda m: m.generate(FACT, tokens=-1), BadData, "-1 tokens cannot be generated"),
        (lambda m: m.generate(FACT, under=freeze("L1.resid")), NeverFired, "freeze() at L1.resid touched no activation"),
        (lambda m: m.generate(FACT, under=add(torch.ones(369), times=1, at="logits")), NeverFired, "add(tensor, times=1) at logits touched no activation"),
        (lambda m: m.score(FACT, " Rome", under=add(torch.ones(369), times=1, at="logits")), NeverFired, "add(tensor, times=1) at logits touched no activation"),
        (lambda m: m.score(FACT, " Rome", under=freeze("L1.resid")), NeverFired, "freeze() at L1.resid touched no activation"),
        (lambda m: m.sweep(FACT, []), BadData, "a sweep takes either score= or generate=; neither given"),
        (lambda m: m.sweep(FACT, [()], score=" Rome", generate=3), BadData, "a sweep takes either score= or generate=; both given"),
        (lambda m: m.sweep(FACT, [], score=" Rome"), BadData, "a sweep without conditions"),
        (lambda m: m.sweep([], [()], score=" Rome"), EmptyData, "there are no prompts"),
        (lambda m: m.sweep([], [()], generate=3), EmptyData, "there are no prompts"),
        (lambda m: m.sweep(FACT, [()], generate=0), BadData, "0 tokens cannot be generated"),
        (lambda m: m.drift([], [()]), EmptyData, "there are no prompts"),
        (lambda m: m.sites("L1.resid", "L9.resid"), NoSuchSite, "this model has no L9.resid"),
    ],
)  # fmt: skip
def test_calls_that_cannot_be_made(
    model: Model, forwards: list[int], call: Callable[[Model], object], kind: type[AssayError], what: str
) -> None:
    with pytest.raises(kind) as caught:
        call(model)
    assert caught.value.what == what
    assert not forwards
    assert _formed(caught.value), str(caught.value)


def test_patches_between_rows_that_do_not_match(model: Model, forwards: list[int]) -> None:
    short = Prompt("A {subject} is", subject="Tower")
    for act, found in [
        (patch("L1.resid", source="clean", into="hurt"), "found     4 tokens in 'hurt', 11 in 'clean'"),
        (patch("L1.resid @ subject", source="clean", into="hurt"), "found     1 tokens in 'hurt', 2 in 'clean'"),
        (patch("L1.resid @ 2:6", source="clean", into="hurt"), "found     2 tokens in 'hurt', 4 in 'clean'"),
    ]:
        with pytest.raises(NeverFired) as caught:
            model.run(clean=FACT, hurt=short, under=act)
        assert found in str(caught.value)
        assert "rows      hurt (4 tokens), clean (11 tokens)" in str(caught.value)
    with pytest.raises(NeverFired, match=r"rows      plain \(6 tokens\)\n  spans     plain: none"):
        model.run(clean=FACT, plain="The Eiffel Tower", under=patch("L1.resid @ subject", source="clean"))
    assert not forwards


def test_what_was_not_asked_for_is_not_there(model: Model) -> None:
    run = model.run(clean=FACT, read=["L1.resid"])
    with pytest.raises(NoSuchRow, match=r"the run has no row 'cleen'\n\n  found     clean\n  nearest   clean"):
        run["cleen"]
    with pytest.raises(NoSuchSite, match=r"L0\.resid was not read\n\n  found     L1\.resid"):
        run["clean"]["L0.resid"]
    with pytest.raises(BadSite):
        run["clean"]["resid"]
    with pytest.raises(NoSuchRow, match=r"the run has several rows\n\n  found     clean, hurt"):
        _ = model.run(clean=FACT, hurt=FACT).logits


def test_an_error_leaves_the_model_as_it_was(model: Model, tiny: Callable[[str], PreTrainedModel]) -> None:
    before = model.run(FACT).logits
    for call in CALLS.values():
        for act, _, _ in WRONG.values():
            with pytest.raises(AssayError):
                call(model, act)
    assert not model.active
    assert model.run(FACT).logits.numpy().tobytes() == before.numpy().tobytes()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_a_prompt_longer_than_the_positions_that_were_learned(family: str, tokenizer: PreTrainedTokenizerFast) -> None:
    learned = Model.load(fresh(family), tokenizer=tokenizer, selftest=False)
    learned.run(Prompt.tokenized([5] * 256))
    for call in (
        lambda: learned.run(Prompt.tokenized([5] * 257)),
        lambda: learned.generate(Prompt.tokenized([5] * 250), tokens=8),
        lambda: learned.score(Prompt.tokenized([5] * 256), "abc"),
    ):
        with pytest.raises(
            BadData, match="longer than this model can read\n\n  found     25[0-9] tokens with its answer"
        ):
            call()


def test_a_prompt_of_any_length_where_positions_are_computed(model: Model) -> None:
    model.run(Prompt.tokenized([5] * 300))
