"""The facts of the editing tables are what they are said to be; and what makes the other tables still loads."""

from __future__ import annotations

from importlib import import_module

import pytest

from assay import Model
from assay.edit import Fact
from evaluation.editing.select import FACTS, NEIGHBOURS, TUNE, candidates, known
from evaluation.markdown import table


def test_facts_are_complete_and_come_from_the_candidates() -> None:
    facts, every = Fact.load(FACTS), candidates()
    assert len(facts) - TUNE >= 200
    assert all(fact in every for fact in facts)
    assert len({(fact.relation, fact.subject) for fact in facts}) == len(facts)
    for fact in every:
        assert len(fact.paraphrases) == 2
        assert len(set(fact.neighbourhood)) == NEIGHBOURS
        assert fact.old != fact.new
        assert fact.prompt.text not in fact.neighbourhood
        assert all(fact.subject in way for way in fact.paraphrases)


def test_the_model_knows_them(smollm2: Model) -> None:
    facts = list(Fact.load(FACTS))[::10]
    assert known(smollm2, facts) == facts


def test_tables_are_aligned() -> None:
    lines = table(["a", "bc"], [["ddd", "e"]]).splitlines()
    assert lines == ["| a   | bc |", "|-----|----|", "| ddd | e  |"]


@pytest.mark.parametrize(
    "name",
    [
        "benchmarks.run",
        "benchmarks.scrub",
        "calibration.run",
        "evaluation.circuits.__main__",
        "evaluation.editing.average",
        "evaluation.editing.localise",
        "evaluation.editing.table",
        "evaluation.scrubbing.brackets.ladder",
        "evaluation.scrubbing.induction.ladder",
    ],
)
def test_what_makes_tables_still_loads(name: str) -> None:
    assert import_module(name).main
