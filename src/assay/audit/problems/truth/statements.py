"""Statements that are true or false: read from a CSV, sampled and split by cluster, coupled, and made into prompts."""

from __future__ import annotations

import csv
import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from assay.audit.problems.data.build import POLARITIES, Polarity, Statement
from assay.errors import BadData, EmptyData, OneClass, nearest
from assay.model.core import Core
from assay.prompt import Prompt

Part = Literal["fit", "tune", "test"]
SHARES: dict[Part, float] = {"fit": 0.5, "tune": 0.2, "test": 0.3}
"""How a topic's clusters are divided. No cluster is in two parts."""

ASK = "Make one statement about {entity}."
_LABELS = {"1": 1, "true": 1, "0": 0, "false": 0}


@dataclass(frozen=True)
class Couple:
    """A true and a false statement about one entity, in one polarity, that differ in what is said of it."""

    topic: str
    cluster: str
    entity: str
    polarity: Polarity
    true: str
    false: str
    asks: tuple[str, str] = ("", "")
    """The question that the true statement answers with yes, and the one that the false statement would."""

    @property
    def parted(self) -> tuple[str, str, str]:
        """What both begin with, up to a blank, and the two ways to go on: ``("Paris is in", " France.", " Peru.")``."""
        same = [one == other for one, other in zip(self.true, self.false, strict=False)]
        end = self.true.rfind(" ", 0, [*same, False].index(False))
        return (self.true[:end], self.true[end:], self.false[end:]) if end > 0 else ("", self.true, self.false)


def read(path: Path) -> list[Statement]:
    """The statements of a CSV with the columns ``statement`` and ``label`` (1 or 0, true or false) and, where it has
    them, ``topic, entity, polarity, question, cluster``. Without clusters an entity is one, without entities a line.

    Raises `BadData` naming the line, `EmptyData`, `OneClass`.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns, lines = list(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{path.name!r} does not read", found=str(error), hint="give a CSV in UTF-8") from error
    missing = {"statement", "label"} - set(columns)
    if missing:
        raise BadData(
            f"{path.name!r} has no column {' and no '.join(sorted(missing))}",
            found=", ".join(columns) or "no columns",
            nearest=nearest(min(missing), columns),
            hint="the first line names the columns: statement,label or statement,label,topic,entity,cluster",
        )
    found = [_statement(line, f"{path.name}, line {number}") for number, line in enumerate(lines, 2)]
    if not found:
        raise EmptyData(f"{path.name!r} holds no statements", hint="write one on each line below the columns' names")
    if len({one.label for one in found}) < 2:
        raise OneClass(
            f"all {len(found)} statements are labelled {found[0].label}", hint="give true ones and false ones"
        )
    return found


def sample(statements: Sequence[Statement], clusters: int, seed: int) -> dict[Part, list[Statement]]:
    """``clusters`` in all, evenly over the topics, in an order fixed by hashing; fit, tune and test by `SHARES`."""
    parts: dict[Part, list[Statement]] = {"fit": [], "tune": [], "test": []}
    home: dict[str, Part] = {}
    topics = list(dict.fromkeys(one.topic for one in statements))
    for topic in topics:
        names = sorted(
            {one.cluster for one in statements if one.topic == topic}, key=lambda name: _hash(f"{seed} {name}")
        )
        chosen = names[: max(1, clusters // len(topics))]
        ends = round(SHARES["fit"] * len(chosen)), round((SHARES["fit"] + SHARES["tune"]) * len(chosen))
        for place, name in enumerate(chosen):
            home[name] = "fit" if place < ends[0] else "tune" if place < ends[1] else "test"
    for one in statements:
        if one.cluster in home:
            parts[home[one.cluster]].append(one)
    return parts


def couples(statements: Iterable[Statement]) -> list[Couple]:
    """Every true and false statement of one entity and polarity, where there is exactly one of each."""
    grouped: dict[tuple[str, str, str, Polarity], dict[int, list[Statement]]] = {}
    for one in statements:
        key = one.topic, one.cluster, one.entity, one.polarity
        grouped.setdefault(key, {0: [], 1: []})[one.label].append(one)
    return [
        Couple(*key, true.statement, false.statement, (true.question, false.question))
        for key, said in grouped.items()
        if len(said[0]) == len(said[1]) == 1 and key[2]
        for true, false in zip(said[1], said[0], strict=True)
    ]


def one_each(every: Sequence[Couple], polarity: Polarity, clusters: int) -> list[Couple]:
    """One couple of a polarity from each cluster, from ``clusters`` clusters that are spread over the topics.

    Raises `EmptyData` where there are fewer than two.
    """
    firsts: dict[str, Couple] = {}
    for couple in every:
        if couple.polarity == polarity:
            firsts.setdefault(couple.cluster, couple)
    before: Counter[str] = Counter()
    turns: list[tuple[int, Couple]] = []
    for couple in firsts.values():
        turns.append((before[couple.topic], couple))
        before[couple.topic] += 1
    chosen = [couple for _, couple in sorted(turns, key=lambda turn: turn[0])][:clusters]
    if len(chosen) < 2:
        raise EmptyData(
            f"{len(chosen)} clusters hold a true and a false {polarity} statement about one entity",
            found=f"{len(every)} couples in all",
            hint="give the columns entity and cluster, and a true and a false statement about each entity",
        )
    return chosen


def asked(core: Core, entity: str, instruction: str = "", begun: str = "") -> Prompt:
    """The request to make a statement about an entity, after an instruction; ``begun`` is how the reply begins.

    A chat turn of the user where the model has a chat template, plain text where it has none.
    """
    text = "\n\n".join(filter(None, [instruction, ASK.format(entity=entity)]))
    return turn(core, text, begun)


def turn(core: Core, text: str, begun: str = "") -> Prompt:
    """One turn of the user, after which the reply begins."""
    if getattr(core.tokenizer, "chat_template", None):
        return Prompt.chat(text, prefix=begun)
    return Prompt(f"{text}\nAnswer:{' ' if begun else ''}{begun}")


def reply(core: Core, text: str) -> str:
    """A whole reply as it follows such a prompt."""
    return text if getattr(core.tokenizer, "chat_template", None) else f" {text}"


def instructions(path: Path) -> dict[str, list[dict[str, str]]]:
    """The conditions of an ``instructions.toml``: of each, paraphrases with ``text`` and ``control``."""
    with path.open("rb") as file:
        return {name: table for name, table in tomllib.load(file).items() if name != "format"}


def neutral(path: Path, most: int) -> list[str]:
    """The first ``most`` paragraphs of plain prose."""
    paragraphs = [" ".join(block.split()) for block in path.read_text(encoding="utf-8").split("\n\n")]
    return [paragraph for paragraph in paragraphs if paragraph][:most]


def _statement(line: dict[str, Any], where: str) -> Statement:
    text, label = (line.get("statement") or "").strip(), str(line.get("label") or "").strip().lower()
    polarity = line.get("polarity") or "affirmative"
    if label not in _LABELS or " " not in text or polarity not in POLARITIES:
        raise BadData(
            f"{where} is no statement with a label",
            found=f"{text[:60]!r}, label {label!r}, polarity {polarity!r}",
            hint="a statement of two words or more; a label 1 or 0; polarity affirmative or negated, where given",
        )
    entity = line.get("entity") or ""
    return Statement(
        topic=line.get("topic") or "",
        entity=entity,
        statement=text,
        label=1 if _LABELS[label] else 0,
        polarity=polarity,
        question=line.get("question") or "",
        answer="yes" if (_LABELS[label] == 1) == (polarity == "affirmative") else "no",
        cluster=line.get("cluster") or entity or where,
    )


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
