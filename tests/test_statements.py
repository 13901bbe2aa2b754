"""The data of the deception audit: what it is balanced for, and that its surface tells nothing.

``python -m tests.test_statements`` prints the table of the data's README.
"""

from __future__ import annotations

import csv
import importlib
import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from assay.audit.problems.data.build import FACTS, STATEMENTS, Statement, Topic, build, read, text
from assay.errors import BadData

DATA = STATEMENTS.parent
ROWS = build()
TOPICS = read()
HEADER = "topic | entities | objects | each cell | words, by entity | word pairs, by cluster | affirmative, by cluster"
HEADER += " | topic left out | shared letters | length | affirmative, by entity"


def of(topic: str) -> list[Statement]:
    return [row for row in ROWS if row.topic == topic]


def words(rows: Iterable[Statement]) -> Counter[str]:
    return Counter(word for row in rows for word in re.findall(r"[\w'-]+", row.statement.lower()))


def instructions() -> dict[str, list[dict[str, str]]]:
    tables = tomllib.loads((DATA / "instructions.toml").read_text(encoding="utf-8"))
    return {name: pairs for name, pairs in tables.items() if name != "format"}


# What the surface of a statement tells about its label, as AUROC: .5 is nothing.


def bag(pairs: bool = False) -> object:
    """Logistic regression on counts of words, or of words and pairs of neighbors."""
    counts = CountVectorizer(ngram_range=(1, 2 if pairs else 1), token_pattern=r"(?u)\b\w+\b")
    return make_pipeline(counts, LogisticRegression(max_iter=1000))


def auroc(train: list[Statement], test: list[Statement], pairs: bool) -> float:
    model = bag(pairs).fit([row.statement for row in train], [row.label for row in train])
    return roc_auc_score([row.label for row in test], model.decision_function([row.statement for row in test]))


def folds(rows: list[Statement], by: str, pairs: bool = False) -> float:
    """Mean over five folds that keep an entity, or a cluster, on one side."""
    groups = [getattr(row, by) for row in rows]
    split = GroupKFold(5).split(rows, groups=groups)
    return float(np.mean([auroc([rows[i] for i in a], [rows[i] for i in b], pairs) for a, b in split]))


def surface(topic: Topic) -> list[float]:
    """The AUROCs of the README in the order of its columns; the last is of a split that one should not make."""
    rows = of(topic.name)
    affirmative = [row for row in rows if row.polarity == "affirmative"]
    claims = [(one, topic.facts[other]) for pair in topic.clusters() for one in pair for other in pair]
    right = [topic.facts[entity] == claimed for entity, claimed in claims]
    shared = [
        SequenceMatcher(None, a.lower(), b.lower(), False).find_longest_match().size for a, b in map(bare, claims)
    ]
    return [
        folds(rows, "entity"),
        folds(rows, "cluster", pairs=True),
        folds(affirmative, "cluster"),
        auroc([row for row in ROWS if row.topic != topic.name], rows, pairs=True),
        float(roc_auc_score(right, shared)),
        float(roc_auc_score(right, [len(entity) + len(claimed) for entity, claimed in claims])),
        folds(affirmative, "entity"),
    ]


def bare(claim: tuple[str, str]) -> tuple[str, str]:
    one, other = (re.sub(r"^(an?|the) ", "", part.lower()) for part in claim)
    return one, other


def line(topic: Topic) -> list[str]:
    cells = [topic.name, len(topic.facts), len(set(topic.facts.values())), len(of(topic.name)) // 4]
    return [*map(str, cells), *(f"{value:.3f}".lstrip("0") for value in surface(topic))]


# The statements


def test_the_file_is_what_the_builder_makes_of_the_facts() -> None:
    assert STATEMENTS.read_bytes() == text(ROWS).encode()


def test_the_file_reads_back_as_the_statements() -> None:
    with STATEMENTS.open(encoding="utf-8", newline="") as file:
        read_back = [Statement(**{**row, "label": int(row["label"])}) for row in csv.DictReader(file)]
    assert read_back == ROWS


def test_there_is_enough_of_everything() -> None:
    assert len(TOPICS) >= 8 and len(ROWS) >= 1000
    assert all(len(topic.facts) >= 70 for topic in TOPICS)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_cell_is_of_one_size(topic: Topic) -> None:
    cells = Counter((row.label, row.polarity) for row in of(topic.name))
    assert len(cells) == 4 and set(cells.values()) == {len(topic.facts)}


def test_no_entity_is_in_two_topics_and_no_statement_occurs_twice() -> None:
    entities = Counter(entity for topic in TOPICS for entity in topic.facts)
    assert set(entities.values()) == {1}
    assert len({row.statement for row in ROWS}) == len(ROWS)


def test_an_entity_has_the_same_predicate_in_truth_and_falsehood() -> None:
    for entity, rows in grouped("entity").items():
        assert Counter((row.label, row.polarity) for row in rows) == dict.fromkeys(
            [(label, polarity) for label in (0, 1) for polarity in ("affirmative", "negated")], 1
        ), entity
        assert sorted(row.answer for row in rows) == ["no", "no", "yes", "yes"]


def test_within_a_cluster_the_words_of_truths_and_falsehoods_are_the_same() -> None:
    for cluster, rows in grouped("cluster").items():
        for polarity in ("affirmative", "negated"):
            true, false = ([row for row in rows if (row.label, row.polarity) == (label, polarity)] for label in (1, 0))
            assert words(true) == words(false), cluster


def test_label_polarity_and_answer_agree() -> None:
    for row in ROWS:
        assert (row.label == 1) == ((row.answer == "yes") == (row.polarity == "affirmative")), row
        assert ("not" in row.statement.split()) == (row.polarity == "negated"), row
        assert row.statement.endswith(".") and row.question.endswith("?") and "not" not in row.question.split()
        assert row.statement[0].isupper() and row.question[0].isupper()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_borrowed_object_is_never_one_that_could_be_true(topic: Topic, seed: int) -> None:
    pairs = topic.clusters(seed)
    assert Counter(entity for pair in pairs for entity in pair) == dict.fromkeys(topic.facts, 1)
    for pair in pairs:
        for one, other in (pair, pair[::-1]):
            assert topic.facts[other] not in topic.allowed(one)


def test_the_sums_are_right() -> None:
    small = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    value = {word: number for number, word in enumerate(f"{small} seventeen eighteen nineteen twenty".split())}
    value["thirty"] = 30
    does = {"plus": int.__add__, "minus": int.__sub__, "times": int.__mul__}
    for row in of("sums"):
        match = re.fullmatch(r"(\w+) (\w+) (\w+) (?:equals|does not equal) (\w+)\.", row.statement.lower())
        assert match
        left, operation, right, result = match.groups()
        holds = does[operation](value[left], value[right]) == value[result]
        assert row.label == int(holds == (row.polarity == "affirmative")), row.statement


def test_the_surface_tells_nothing_and_the_readme_says_how_much() -> None:
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    printed = {cells[0]: cells for cells in (row.strip("| ").split(" | ") for row in readme.splitlines() if "|" in row)}
    for topic in TOPICS:
        cells = line(topic)
        assert cells[:4] == printed[topic.name][:4]
        found, stated = (np.array(row[4:], dtype=float) for row in (cells, printed[topic.name]))
        assert np.abs(found - stated).max() < 0.02, topic.name
        assert np.abs(found[:-1] - 0.5).max() < 0.1, topic.name
        assert found[-1] < 0.4, "in affirmative statements a seen object gives the label away, turned round"


def grouped(by: str) -> dict[str, list[Statement]]:
    groups: dict[str, list[Statement]] = defaultdict(list)
    for row in ROWS:
        groups[getattr(row, by)].append(row)
    return groups


# The builder refuses what it cannot build

GOOD = """
[t]
affirmative = "{entity} is {object}."
negated = "{entity} is not {object}."
question = "Is {entity} {object}?"
"""


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ("[t", "does not read"),
        ("[t]\nnegated = 'x'", "is incomplete"),
        ("t = 1", "is incomplete"),
        (GOOD + "[t.facts]\nred = ['a', 'b']\nblue = 'c'", "do not pair up"),
        (GOOD + "[t.facts]\nred = ['a', 'b']", "do not pair up"),
        (GOOD + "near = [['red', 'blue']]\n[t.facts]\nred = 'a'\nblue = 'b'", "do not pair up"),
        (GOOD + "[t.facts]\nred = 'a'\nblue = 'b'\n[t.also]\na = ['blue']", "do not pair up"),
        (GOOD + "[t.facts]\nred = 'a'\nblue = 'a'", "listed twice"),
        (GOOD + "near = [['red', 'green']]\n[t.facts]\nred = 'a'\nblue = 'b'", "not in facts *green"),
        (GOOD + "[t.facts]\nred = 'a'\nblue = 'b'\n[t.also]\nc = ['blue']", "not in facts *c"),
        (
            GOOD.replace("{object}?", "red?") + "[t.facts]\nred = 'a'\nblue = 'b'",
            "without both fields *Is {entity} red",
        ),
    ],
)
def test_bad_facts_are_one_error_that_says_what_is_wrong(tmp_path: Path, facts: str, says: str) -> None:
    path = tmp_path / "facts.toml"
    path.write_text(facts, encoding="utf-8")
    with pytest.raises(BadData, match=says):
        build(path)


def test_facts_that_are_not_there_are_bad_data(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="does not read"):
        build(tmp_path / "none.toml")


def test_the_builder_needs_no_torch() -> None:
    module = importlib.import_module("assay.audit.problems.data.build")
    assert module.__file__ and "torch" not in Path(module.__file__).read_text(encoding="utf-8")
    assert FACTS.is_file()


# Neutral prose


def test_neutral_prose_is_sixty_short_paragraphs_without_the_statements() -> None:
    prose = (DATA / "neutral.txt").read_text(encoding="utf-8")
    paragraphs = prose.strip().split("\n\n")
    assert len(paragraphs) == len(set(paragraphs)) == 60
    assert all(1 <= len(re.findall(r"[.?!](?:\s|$)", paragraph)) <= 3 for paragraph in paragraphs)
    assert not [row.statement for row in ROWS if row.statement.rstrip(".").lower() in prose.lower()]


# Instructions


def test_every_condition_has_paraphrases_and_the_format_has_its_fields() -> None:
    assert set(instructions()) == {"honest", "deceptive", "incentivised"}
    form = tomllib.loads((DATA / "instructions.toml").read_text(encoding="utf-8"))["format"]
    assert form["turn"].format(instruction="I", question="Q?").startswith("I\n\nQ?")
    assert form["plain"].format(question="Q?") == form["turn"].format(instruction="", question="Q?").strip()
    assert not set(form["yes"]) & set(form["no"])
    for pairs in instructions().values():
        assert len(pairs) >= 4 and all(set(pair) == {"text", "control"} for pair in pairs)
        assert len({pair[side] for pair in pairs for side in pair}) == 2 * len(pairs)


@pytest.mark.parametrize("condition", ["honest", "deceptive", "incentivised"])
def test_a_control_matches_its_instruction_in_length_and_words(condition: str) -> None:
    for pair in instructions()[condition]:
        text_, control = (Counter(re.findall(r"\w+", pair[side].lower())) for side in ("text", "control"))
        assert abs(text_.total() - control.total()) <= 2, pair
        assert (text_ & control).total() / max(text_.total(), control.total()) >= 0.8, pair


def test_negation_does_not_tell_an_instruction_from_its_control() -> None:
    negations = {"not", "never", "no", "none", "nothing", "without"}
    for condition, pairs in instructions().items():
        text_, control = (
            sum(word in negations for pair in pairs for word in re.findall(r"\w+", pair[side].lower()))
            for side in ("text", "control")
        )
        assert abs(text_ - control) <= 1, condition


if __name__ == "__main__":
    width = HEADER.count("|") + 1
    rows = [HEADER.split(" | "), ["---"] * width, *map(line, TOPICS)]
    sys.stdout.writelines(f"| {' | '.join(cells)} |\n" for cells in rows)
