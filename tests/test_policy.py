"""Policies only ever grant; what nobody thought of stays closed; a place in a sentence closes it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.disclose import in_words, load_policy, read_policy, shipped_policies
from assay.disclose.policy import mentions_place, shows
from assay.errors import BadData, CorruptFile
from assay.evidence import Grant, Policy
from assay.evidence.entry import About, Grade, Part

parts, subjects, grades = (st.sampled_from(get_args(kind)) for kind in (Part, About, Grade))
problems = st.sampled_from(["deception", "tampering"])
grants = st.builds(
    Grant,
    parts=st.lists(parts, min_size=1, max_size=4).map(tuple),
    about=st.none() | st.lists(subjects, max_size=3).map(tuple),
    problems=st.none() | st.lists(problems, max_size=2).map(tuple),
    up_to=grades,
)
policies = st.builds(Policy, name=st.just("ours"), says=st.just("Us."), show=st.lists(grants, max_size=4).map(tuple))
asked = st.fixed_dictionaries(
    {
        "about": st.none() | subjects,
        "problem": problems,
        "grade": st.none() | grades,
        "parts": st.sets(parts, min_size=1),
    }
)


@given(policies, grants, asked)
def test_a_further_grant_never_hides_anything(policy, grant, question):
    wider = policy.model_copy(update=dict(show=(*policy.show, grant)))
    wanted = question.pop("parts")
    assert shows(wider, wanted, **question) >= shows(policy, wanted, **question)


@given(asked)
def test_each_shipped_policy_shows_what_the_one_before_it_shows(question):
    wanted = question.pop("parts")
    shown = [shows(policy, wanted, **question) for policy in shipped_policies()]
    assert shown == sorted(shown)


def test_internal_shows_everything_and_an_empty_policy_nothing():
    empty = Policy(name="none", says="Nobody.", show=())
    for part in get_args(Part):
        for about in (None, *get_args(About)):
            question = dict(about=about, problem="any", grade=None if about is None else "high")
            assert shows(load_policy("internal"), [part], **question)
            assert not shows(empty, [part], **question)


@pytest.mark.parametrize("about", ["circuit", "feature", "optimiser"])
@pytest.mark.parametrize("part", ["claim", "outcome", "effects", "figure", "table", "controls"])
def test_the_public_sees_nothing_of_circuits_features_and_optimisers(about, part):
    assert not shows(load_policy("public"), [part], about=about, problem="deception", grade="low")


@pytest.mark.parametrize("part", ["places", "parameters", "results", "examples"])
def test_the_public_sees_no_places_vectors_settings_or_steered_text(part):
    for about in (None, *get_args(About)):
        assert not shows(load_policy("public"), [part], about=about, problem="deception", grade="low")


def test_a_high_grade_keeps_a_claim_from_the_public_but_not_the_verdict_on_its_threat():
    public = load_policy("public")
    assert not shows(public, ["claim"], about="behaviour", problem="deception", grade="high")
    assert shows(public, ["verdict"], about=None, problem="deception", grade=None)


@pytest.mark.parametrize(
    "text",
    [
        "L13.resid @ last:", "at L5", "layer 13", "Layers 8 to 24", "head 3", "L3H5", "heads[2]", "neuron 512",
        "block 4", "feature #77", "the mlp.out there", "resid", "model.layers.3", "h.11", "@ last", "layer no. 4",
    ],
)  # fmt: skip
def test_a_place_is_found_in_text(text):
    assert mentions_place(text)


@pytest.mark.parametrize(
    "text",
    [
        "AUROC on topics left out", "19 random, 19 covariance, 19 shuffled directions", "the last third of the layers",
        "told to lie", "attention and MLP add up to the stream", "the heads sum to the output", "at most 16 depths",
        "of 1000 blocks", "a clear lead over the blockade", "paid £13", "SmolLM2-135M",
    ],
)  # fmt: skip
def test_a_sentence_without_a_place_is_none(text):
    assert not mentions_place(text)


def test_a_policy_of_ones_own_takes_over_what_it_extends(tmp_path: Path):
    path = tmp_path / "ours.toml"
    path.write_text(
        'name = "ours"\nsays = "The board."\nextends = "public"\n'
        '[[show]]\nparts = ["examples"]\nproblems = ["deception"]\n[why]\nresults = "not asked for"\n'
    )
    ours, public = load_policy(path), load_policy("public")
    assert ours.show[: len(public.show)] == public.show
    assert ours.why == {**public.why, "results": "not asked for"}
    assert ours.digest != public.digest
    words = in_words(ours)
    assert any(line.startswith("prompts with") for line in words["shows"])
    assert any(line.endswith("– not asked for") for line in words["withholds"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name = ", "no TOML"),
        ('name = "a"\nsays = "b"\nshow = 3', "no Policy"),
        ('name = "a"\nsays = "b"\nextends = "mine"\nshow = []', "extends no policy"),
        ('name = "a"\nsays = "b"\nextends = "public"\nshow = 3', "no policy"),
        ('name = "A b"\nsays = "b"\nshow = []', "no Policy"),
        ('name = "a"\nsays = "b"\n[[show]]\nparts = ["secrets"]', "no Grant"),
        ('name = "a"\nsays = "b"\nhide = ["verdict"]\nshow = []', "no Policy"),
        ("\ufeff\x00", "no TOML"),
    ],
)
def test_what_is_no_policy_is_one_error(text, found):
    with pytest.raises(BadData, match=found):
        read_policy(text.encode())


def test_a_policy_that_is_not_there(tmp_path: Path):
    with pytest.raises(BadData, match="there is no policy 'publik'") as error:
        load_policy("publik")
    assert "public" in error.value.fields["nearest"]
    with pytest.raises(CorruptFile):
        load_policy(tmp_path / "none.toml")


def test_each_policy_says_in_words_what_it_withholds_and_why():
    public, named, internal = map(in_words, shipped_policies())
    assert any("circuits" in line and "building models" in line for line in public["withholds"])
    assert [line.partition(" – ")[0][:11] for line in named["withholds"]] == ["raw results"]
    assert internal["withholds"] == []
    for words in (public, named, internal):
        assert len(words["shows"]) + len(words["withholds"]) >= 19
