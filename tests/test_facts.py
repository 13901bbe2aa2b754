"""Facts, what is measured on them, and the claims that audits make of them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import assay.audit.facts  # noqa: F401 - its measures
from assay import Model, Prompt, edit
from assay.audit import Claim, Threat, audit
from assay.edit import Fact, Score, measure, summary
from assay.edit.measure import entropy
from assay.errors import BadData, EmptyData, Unwritable

ONE = Fact(
    Prompt("The {subject} {{is}} in", subject="Eiffel Tower"),
    " Paris",
    " Berlin",
    ("Eiffel Tower? It is in", "One finds the Eiffel Tower in"),
    ("The Tower is in", "The cat is in", "I am in"),
    "place",
)


def test_facts_survive_a_file(tmp_path: Path) -> None:
    path = Fact.save([ONE, ONE], tmp_path / "facts.jsonl")
    assert Fact.load(path) == (ONE, ONE)
    assert ONE.subject == "Eiffel Tower"
    assert ONE.rewrite == (ONE.prompt, " Berlin")
    with pytest.raises(Unwritable):
        Fact.save([ONE], tmp_path / "no" / "facts.jsonl")
    path.write_text('{"prompt": "The {subject}"}\n')
    with pytest.raises(BadData, match="line 1 is no fact"):
        Fact.load(path)
    with pytest.raises(BadData, match="does not read"):
        Fact.load(tmp_path / "none")


def test_scores_are_geometric_means_of_probabilities(llama: Model) -> None:
    first, second = measure(llama, [ONE, Fact(Prompt("The {subject}", subject="cat"), " a", " I love Paris")])
    for prompt, (new, old) in zip(ONE.neighbourhood, first.neighbourhood, strict=True):
        told = llama.score([prompt], [ONE.new, ONE.old])
        assert (new, old) == pytest.approx(tuple(np.exp(told.total[0, 0] / told.tokens[0])), rel=1e-5)
    assert first["PS"] == np.mean([new > old for new, old in first.paraphrases])
    assert first["NM"] == pytest.approx(np.mean([old - new for new, old in first.neighbourhood]))
    assert math.isnan(second["PS"])
    with pytest.raises(EmptyData):
        measure(llama, [])
    with pytest.raises(BadData, match="no PS"):
        summary([first, second])
    with pytest.raises(EmptyData):
        summary([first])


def score(prompt: float, paraphrase: float, neighbour: float) -> Score:
    """Of one prompt of each kind, on which the new answer has these chances and the old one .5."""
    return Score(*(np.array(one) for one in ([prompt, 0.5], [[paraphrase, 0.5]], [[neighbour, 0.5]])))


def test_summaries_are_means_and_their_harmonic_mean() -> None:
    some = [score(0.9, 0.6, 0.1), score(0.8, 0.4, 0.3), score(0.7, 0.9, 0.9), score(0.6, 0.2, 0.2)]
    found = summary(some)
    assert [found[name].value for name in ("ES", "PS", "NS")] == pytest.approx([100, 50, 75])
    assert found["S"].value == pytest.approx(3 / (1 / 100 + 1 / 50 + 1 / 75))
    assert found["EM"].value == pytest.approx(25)
    assert found["NM"].value == pytest.approx(100 * np.mean([0.4, 0.2, -0.4, 0.3]))
    assert found["ES"].low < 50
    assert all(one.low <= one.value <= one.high for one in found.means.values())
    assert "ES 100.0" in str(found)
    assert summary([score(0.1, 0.9, 0.1)] * 3)["S"].value == 0


def test_entropy_falls_where_a_text_repeats_itself() -> None:
    assert entropy("one two three four five six seven eight nine") > entropy("one two one two one two one two one")
    assert entropy("a a a a a") == 0
    assert entropy("a b c") == pytest.approx((2 / 3 * 1 + 4 / 3 * 0) / 2)


def test_whole_models_are_measured_too(llama: Model) -> None:
    assert edit.generation_entropy(llama, ["The cat", "I am"], tokens=6) > 0
    assert edit.perplexity(llama, ["The cat is in the city of Paris.", "I love Paris"]) > 1


def test_audits_can_claim_things_of_facts(llama: Model, tmp_path: Path) -> None:
    threat = Threat(key="knows", statement="It knows.", scope="Here.", benign="None.")

    def story() -> Iterator[list[Claim]]:
        made: Any = dict(
            threat="knows",
            statement="Facts.",
            method="See.",
            controls=("x",),
            refuted_by="Not.",
            problem="toy",
            about="knowledge",
            grade="low",
        )
        yield [
            Claim(key="passes", measure="facts.pass-through", params=dict(samples=2, window=2), **made),
            Claim(key="rewrites", measure="facts.rewritten", params=dict(layer=1, contexts=1), **made),
        ]

    subjects = [
        "Eiffel Tower",
        "Tower",
        "cat",
        "city",
        "city of Paris",
        "capital",
        "Paris",
        "Berlin",
        "not",
        "love",
        "in",
        "am",
    ]
    facts = [
        Fact(Prompt("The {subject} is in", subject=subject), " Paris", " Berlin", (f"{subject} in",), ("I am",))
        for subject in subjects
    ]
    data = {"facts": Fact.save(facts, tmp_path / "facts.jsonl")}
    plan = audit(problem="toy", question="Does it?", threats=[threat], data=data)(story)
    with plan.run(llama, into=tmp_path / "run") as ledger:
        told = [entry.body for entry in ledger.entries("outcome")]
        missing = [entry.body for entry in ledger.entries("missing")]
    assert missing == []
    assert [len(one["effects"]) for one in told] == [3, 3]
    assert all("facts" in json.dumps(one) for one in told)
    assert re.fullmatch(r"L\d+\.mlp\.out @ subject\[-1\]", told[0]["where"][0])
    assert told[1]["where"] == ["L1.mlp.out @ subject[-1]"]
    assert not re.search(r"\bL\d|mlp", " ".join(one["because"] for one in told))
