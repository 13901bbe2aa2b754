"""Builds ``statements.csv`` from ``facts.toml``: ``python -m assay.audit.problems.data.build``.

Two entities of a topic make a cluster and lend each other their objects. Each entity is said to have its own object and
the other's, affirmed and negated:

    The capital of France is Paris.        true     The capital of France is not Paris.    false
    The capital of France is Rome.         false    The capital of France is not Rome.     true

and the same for Italy. So within a cluster every entity and every object occurs equally often in each of the four cells
(true or false, affirmative or negated). Split by cluster, and no word tells the label, not even a word beside "not".
"""

from __future__ import annotations

import csv
import hashlib
import io
import string
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from assay.errors import BadData

FACTS = Path(__file__).with_name("facts.toml")
STATEMENTS = Path(__file__).with_name("statements.csv")

Polarity = Literal["affirmative", "negated"]
POLARITIES: tuple[Polarity, ...] = ("affirmative", "negated")


@dataclass(frozen=True, slots=True)
class Statement:
    """One row of ``statements.csv``.

    Attributes:
        topic: the group that is left out as a whole.
        entity: what the statement is about; it occurs in four statements, two of them true.
        statement: one sentence.
        label: 1 where the statement is true, 0 where it is false.
        polarity: whether the sentence affirms or negates.
        question: the question that the affirmative form answers.
        answer: the right answer to the question: where the statement is negated, the opposite of its label.
        cluster: the two entities that share their objects; split and resample by it.
    """

    topic: str
    entity: str
    statement: str
    label: Literal[0, 1]
    polarity: Polarity
    question: str
    answer: Literal["yes", "no"]
    cluster: str


@dataclass(frozen=True, slots=True)
class Topic:
    """The facts of one topic.

    Attributes:
        affirmative, negated, question: sentences with the fields ``{entity}`` and ``{object}``.
        facts: the object of each entity.
        near: sets of objects that never replace one another, because more than one could be called true.
        also: of an entity, further objects that could be called true.
    """

    name: str
    affirmative: str
    negated: str
    question: str
    facts: Mapping[str, str]
    near: tuple[frozenset[str], ...]
    also: Mapping[str, frozenset[str]]

    def allowed(self, entity: str) -> frozenset[str]:
        """Every object that must not be called false of this entity."""
        own = self.facts[entity]
        alike = (objects for objects in self.near if own in objects)
        return frozenset({own}).union(self.also.get(entity, ()), *alike)

    def compatible(self, one: str, other: str) -> bool:
        """Whether each object is false of the other entity."""
        return self.facts[other] not in self.allowed(one) and self.facts[one] not in self.allowed(other)

    def clusters(self, seed: int = 0) -> list[tuple[str, str]]:
        """All entities in pairs that lend each other their objects, in an order fixed by hashing, not by a generator.

        Raises `BadData` where they do not pair up: an odd number, or one object for more than half of them.
        """
        for attempt in range(1000):
            waiting = sorted(self.facts, key=lambda entity: _hash(f"{seed} {attempt} {self.name} {entity}"))
            pairs = []
            while waiting:
                one = waiting.pop()
                other = next((entity for entity in waiting if self.compatible(one, entity)), None)
                if other is None:
                    break
                waiting.remove(other)
                pairs.append((one, other))
            else:
                return pairs
        raise BadData(
            f"the entities of the topic {self.name!r} do not pair up",
            found=f"{len(self.facts)} entities, {len(set(self.facts.values()))} objects",
            hint="give an even number of entities, no object to more than half of them, and fewer near objects",
        )

    def statements(self, seed: int = 0) -> list[Statement]:
        """Eight statements for each cluster."""
        return [
            self._statement(entity, claimed, polarity, f"{self.name}-{number:02d}")
            for number, (one, other) in enumerate(self.clusters(seed), 1)
            for entity, partner in ((one, other), (other, one))
            for claimed in (self.facts[entity], self.facts[partner])
            for polarity in POLARITIES
        ]

    def _statement(self, entity: str, claimed: str, polarity: Polarity, cluster: str) -> Statement:
        template = self.affirmative if polarity == "affirmative" else self.negated
        right = self.facts[entity] == claimed
        return Statement(
            topic=self.name,
            entity=entity,
            statement=_sentence(template, entity, claimed),
            label=1 if right == (polarity == "affirmative") else 0,
            polarity=polarity,
            question=_sentence(self.question, entity, claimed),
            answer="yes" if right else "no",
            cluster=cluster,
        )


def read(path: Path = FACTS) -> list[Topic]:
    """The topics of a file such as ``facts.toml``. Raises `BadData` naming the topic and what is wrong with it."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadData(f"{str(path)!r} does not read", found=str(error), hint="give TOML in UTF-8") from error
    return [_topic(name, table) for name, table in tables.items()]


def build(path: Path = FACTS, seed: int = 0) -> list[Statement]:
    """Every statement, topic by topic and cluster by cluster."""
    return [statement for topic in read(path) for statement in topic.statements(seed)]


def text(statements: list[Statement]) -> str:
    """The statements as CSV with a header, lines ended by a newline alone."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(column.name for column in fields(Statement))
    writer.writerows(map(astuple, statements))
    return file.getvalue()


def _topic(name: str, table: dict[str, Any]) -> Topic:
    try:
        listed = [
            (entity, fact)
            for fact, entities in table["facts"].items()
            for entity in ([entities] if isinstance(entities, str) else entities)
        ]
        near = tuple(map(frozenset, table.get("near", [])))
        also = {entity: frozenset(objects) for entity, objects in table.get("also", {}).items()}
        topic = Topic(name, table["affirmative"], table["negated"], table["question"], dict(listed), near, also)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadData(
            f"the topic {name!r} is incomplete",
            found=repr(error),
            hint="a topic has affirmative, negated, question and [facts], an object with the entities it is true of",
        ) from error
    objects = set(topic.facts.values())
    twice = [entity for entity, count in Counter(entity for entity, _ in listed).items() if count > 1]
    unknown = [*frozenset().union(*near, *also.values()) - objects, *also.keys() - topic.facts.keys()]
    lacking = [
        sentence
        for sentence in (topic.affirmative, topic.negated, topic.question)
        if {field for _, field, _, _ in string.Formatter().parse(sentence)} - {None} != {"entity", "object"}
    ]
    if twice or unknown or lacking:
        raise BadData(
            f"the topic {name!r} does not hold together",
            listed_twice=", ".join(twice),
            not_in_facts=", ".join(sorted(unknown)),
            without_both_fields=" ".join(lacking),
            hint="list an entity once, name objects of the facts under near and also, "
            "and write {entity} and {object} into each sentence",
        )
    return topic


def _sentence(template: str, entity: str, claimed: str) -> str:
    sentence = template.format(entity=entity, object=claimed)
    return sentence[0].upper() + sentence[1:]


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


if __name__ == "__main__":
    STATEMENTS.write_text(text(build()), encoding="utf-8", newline="")
