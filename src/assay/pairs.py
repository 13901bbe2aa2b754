"""Contrast pairs, whose splits cannot leak into one another."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from assay.errors import BadData, EmptyData, LeakedData
from assay.files import parse_json
from assay.prompt import Prompt


@dataclass(frozen=True)
class Pair:
    """One contrast: a positive and a negative prompt, and optionally the question on which a direction is judged.

    Attributes:
        positive, negative: the two prompts; they differ in the behaviour only.
        question: a prompt that takes no side; scored under interventions.
        answers: ``(matching, other)`` continuations of the question; the score is log P(matching) − log P(other).
        cluster: items that share an entity, a fact or a scenario; they are split and resampled together.
        topic: a coarser group, for leaving whole topics out.
    """

    positive: Prompt
    negative: Prompt
    question: Prompt | None = None
    answers: tuple[str, str] | None = None
    cluster: str = ""
    topic: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 over the prompts that it is made of."""
        parts = [
            self.positive.digest,
            self.negative.digest,
            self.question.digest if self.question else "",
            self.answers,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def swapped(self) -> Pair:
        """The same pair with its sides exchanged."""
        return replace(self, positive=self.negative, negative=self.positive)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Pair:
        """The inverse of `to_json`."""
        question, answers = state["question"], state["answers"]
        return cls(
            Prompt.from_json(state["positive"]),
            Prompt.from_json(state["negative"]),
            None if question is None else Prompt.from_json(question),
            None if answers is None else (answers[0], answers[1]),
            state["cluster"],
            state["topic"],
        )


@dataclass(frozen=True)
class Split:
    """Three disjoint parts of one set of pairs: to find, to choose, and to judge."""

    fit: Pairs
    tune: Pairs
    test: Pairs


@dataclass(frozen=True)
class Pairs(Sequence[Pair]):
    """Contrast pairs. Splits go by cluster, so that no entity is on two sides."""

    items: tuple[Pair, ...] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(self.items))
        if not self.items:
            raise EmptyData(
                "there are no pairs", found="0 pairs", hint="give at least one positive and one negative prompt"
            )

    @classmethod
    def of(
        cls, positives: Iterable[str | Prompt], negatives: Iterable[str | Prompt], clusters: Iterable[str] = ()
    ) -> Pairs:
        """Pairs from two lists of equal length."""
        plus, minus, names = list(positives), list(negatives), list(clusters)
        if len(plus) != len(minus) or (names and len(names) != len(plus)):
            raise BadData(
                "positives and negatives do not pair up",
                found=f"{len(plus)} positives, {len(minus)} negatives, {len(names)} clusters",
                hint="give lists of equal length, item i of one beside item i of the other",
            )
        names = names or [""] * len(plus)
        return cls(
            tuple(Pair(Prompt.of(a), Prompt.of(b), cluster=c) for a, b, c in zip(plus, minus, names, strict=True))
        )

    @classmethod
    def load(cls, path: str | Path) -> Pairs:
        """Read JSON lines ``{"positive", "negative", "question"?, "answers"?, "cluster"?, "topic"?}``, a CSV of the same
        columns, or the A/B items of contrastive activation addition (a JSON list of ``question``,
        ``answer_matching_behavior``, ``answer_not_matching_behavior``). Raises `BadData` naming the line.
        """
        path = Path(path)
        try:
            if path.suffix == ".csv":
                with path.open(encoding="utf-8-sig", newline="") as file:
                    rows: list[dict[str, Any]] = list(csv.DictReader(file))
            elif path.suffix == ".json":
                rows = parse_json(path.read_text(encoding="utf-8-sig"))
                if not isinstance(rows, list):
                    raise ValueError("it is no list")
            else:
                lines = path.read_text(encoding="utf-8-sig").split("\n")  # other line ends may stand inside a text
                rows = [_line(line, number, path) for number, line in enumerate(lines, 1) if line.strip()]
        except (OSError, ValueError) as error:
            raise BadData(
                f"{str(path)!r} does not read", found=str(error), hint="give .jsonl, .csv or .json in UTF-8"
            ) from error
        return cls(tuple(_pair(row, f"{path.name}, item {number}") for number, row in enumerate(rows, 1)))

    @classmethod
    def answers_ab(cls, questions: Iterable[tuple[str, str, str]]) -> Pairs:
        """The answer-letter protocol of CAA (Panickssery et al. 2024, §3): ``(question, matching, other)`` with answers
        such as ``"(A)"``. Both prompts are the chat turn with the answer's letter as the last token read.
        """
        return cls(tuple(_ab(*item) for item in questions))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return Pairs(self.items[index]) if isinstance(index, slice) else self.items[index]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.items)

    def __repr__(self) -> str:
        return f"Pairs({len(self)} pairs, {len(self.clusters)} clusters)"

    @property
    def clusters(self) -> list[str]:
        """The distinct clusters in order of appearance; an item without a name is a cluster of its own."""
        return list(dict.fromkeys(_cluster(pair) for pair in self.items))

    @property
    def digests(self) -> frozenset[str]:
        """Content hashes of every prompt in the set: what `LeakedData` compares."""
        prompts = (prompt for pair in self.items for prompt in (pair.positive, pair.negative, pair.question) if prompt)
        return frozenset(prompt.digest for prompt in prompts)

    @property
    def digest(self) -> str:
        """SHA-256 of the whole set, independent of its order."""
        return hashlib.sha256("".join(sorted(pair.digest for pair in self.items)).encode()).hexdigest()

    def split(self, fit: float = 0.5, tune: float = 0.2, seed: int = 0) -> Split:
        """Split by cluster into fit, tune and test (what remains). Raises `EmptyData` where a part would be empty.

        A prompt that occurs in several clusters ties them together, so no content is on two sides.
        """
        groups = _tied(self.items)
        random.Random(seed).shuffle(groups)
        bounds = round(fit * len(groups)), round((fit + tune) * len(groups))
        parts = groups[: bounds[0]], groups[bounds[0] : bounds[1]], groups[bounds[1] :]
        if not all(parts):
            raise EmptyData(
                f"a split of {len(groups)} clusters into fit={fit}, tune={tune} leaves a part empty",
                found=" / ".join(str(len(part)) for part in parts) + " clusters",
                hint="give more clusters, or other fractions whose sum is below 1",
            )
        return Split(*(Pairs(tuple(pair for group in part for pair in group)) for part in parts))

    def where(self, topics: Iterable[str]) -> Pairs:
        """The pairs of these topics."""
        wanted = set(topics)
        return Pairs(tuple(pair for pair in self.items if pair.topic in wanted))

    def to_json(self) -> list[dict[str, Any]]:
        """A JSON value that `from_json` reads back."""
        return [pair.to_json() for pair in self.items]

    @classmethod
    def from_json(cls, state: Iterable[Mapping[str, Any]]) -> Pairs:
        """The inverse of `to_json`."""
        return cls(tuple(Pair.from_json(pair) for pair in state))


def refuse_leak(used: frozenset[str], fresh: Iterable[Prompt], what: str) -> None:
    """Raise `LeakedData` when a prompt that found or tuned a direction comes back at its test."""
    leaked = [prompt for prompt in fresh if prompt.digest in used]
    if leaked:
        raise LeakedData(
            f"{len(leaked)} test prompts were used to find or tune {what}",
            found=repr(leaked[0].text[:80]),
            hint="test on items that nobody has looked at: pairs.split(...).test",
        )


def _cluster(pair: Pair) -> str:
    return pair.cluster or pair.digest


def _tied(items: Sequence[Pair]) -> list[list[Pair]]:
    """Group pairs that share a cluster or a prompt (connected components)."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for pair in items:
        keys = ["cluster:" + _cluster(pair), pair.positive.digest, pair.negative.digest]
        keys += [pair.question.digest] if pair.question else []
        for key in keys[1:]:
            parent[root(key)] = root(keys[0])
    groups: dict[str, list[Pair]] = {}
    for pair in items:
        groups.setdefault(root("cluster:" + _cluster(pair)), []).append(pair)
    return list(groups.values())


def _line(text: str, number: int, path: Path) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise BadData(
            f"{path.name}, line {number} is no JSON",
            found=f"{text[:60]!r}: {error.msg if isinstance(error, json.JSONDecodeError) else error}",
            hint="give one JSON object a line",
        ) from error


def _pair(row: Any, where: str) -> Pair:
    if not isinstance(row, dict):
        raise BadData(
            f"{where} is no object", found=repr(row)[:80], hint="each item is an object with positive and negative"
        )
    if "answer_matching_behavior" in row and "question" in row:
        item = [
            str(row.get(name) or "")
            for name in ("question", "answer_matching_behavior", "answer_not_matching_behavior")
        ]
        return _ab(item[0], item[1], item[2])
    missing = [name for name in ("positive", "negative") if not isinstance(row.get(name), str) or not row[name]]
    if missing:
        raise BadData(
            f"{where} has no {' and no '.join(missing)}",
            found=", ".join(map(str, row)),
            hint="each item needs the texts positive and negative",
        )
    answers = row.get("answers") or None
    if isinstance(answers, str):
        answers = answers.split("|")
    if answers is not None and (not isinstance(answers, list) or not all(isinstance(text, str) for text in answers)):
        raise BadData(
            f"the answers of {where} are no texts", found=repr(answers)[:80], hint="answers are (matching, other)"
        )
    if answers is not None and len(answers) != 2:
        raise BadData(f"{where} has {len(answers)} answers", found=repr(answers), hint="answers are (matching, other)")
    if not isinstance(row.get("question") or "", str):
        raise BadData(
            f"the question of {where} is no text", found=repr(row["question"])[:80], hint="give a text, or leave it out"
        )
    return Pair(
        Prompt(row["positive"]),
        Prompt(row["negative"]),
        Prompt(row["question"]) if row.get("question") else None,
        (answers[0], answers[1]) if answers else None,
        *("" if row.get(name) is None else str(row[name]) for name in ("cluster", "topic")),
    )


def _ab(question: str, matching: str, other: str) -> Pair:
    letters = [answer.strip().strip("()")[:1] for answer in (matching, other)]
    if len(set(letters)) != 2 or not all(letters):
        raise BadData(
            "an A/B item needs two different answer letters",
            found=f"{matching!r} and {other!r}",
            hint='write "(A)" and "(B)"',
        )
    sides = [Prompt.chat(question.strip(), prefix=f"({letter}") for letter in letters]
    ask = Prompt.chat(question.strip(), prefix="(")
    return Pair(
        sides[0], sides[1], ask, (letters[0], letters[1]), cluster=hashlib.sha256(question.encode()).hexdigest()[:12]
    )
