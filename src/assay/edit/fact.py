"""A fact to rewrite, with what is asked to see whether it was, and whether anything else was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.edit.descent import SUBJECT, Rewrite
from assay.errors import BadData, Unwritable
from assay.files import parse_json
from assay.prompt import Prompt

_HINT = (
    'write JSON lines: {"prompt": "{subject} is in", "subject": "Nara", "old": " Japan", "new": " Peru", '
    '"paraphrases": […], "neighbourhood": […]}'
)


@dataclass(frozen=True)
class Fact:
    """What a model says, and what it shall say instead.

    Attributes:
        prompt: with the span ``subject``.
        old, new: the two answers, blank included.
        paraphrases: prompts that ask the same in other words.
        neighbourhood: prompts about other subjects, of which ``old`` is true as well and shall stay so.
        relation: which kind of fact it is, for grouping.
    """

    prompt: Prompt
    old: str
    new: str
    paraphrases: tuple[str, ...] = ()
    neighbourhood: tuple[str, ...] = ()
    relation: str = ""

    @property
    def rewrite(self) -> Rewrite:
        """What is asked of an edit."""
        return self.prompt, self.new

    @property
    def subject(self) -> str:
        """What it is about."""
        return next(self.prompt.text[start:end] for name, start, end in self.prompt.spans if name == SUBJECT)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        (start, end) = next((start, end) for name, start, end in self.prompt.spans if name == SUBJECT)
        text = self.prompt.text
        before, after = (part.replace("{", "{{").replace("}", "}}") for part in (text[:start], text[end:]))
        return {
            "relation": self.relation,
            "prompt": before + "{subject}" + after,
            "subject": text[start:end],
            "old": self.old,
            "new": self.new,
            "paraphrases": list(self.paraphrases),
            "neighbourhood": list(self.neighbourhood),
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Fact:
        """The inverse of `to_json`."""
        return cls(
            Prompt(state["prompt"], subject=state["subject"]),
            state["old"],
            state["new"],
            tuple(state.get("paraphrases", ())),
            tuple(state.get("neighbourhood", ())),
            state.get("relation", ""),
        )

    @classmethod
    def load(cls, path: str | Path) -> tuple[Fact, ...]:
        """Read JSON lines. Raises `BadData` naming the line."""
        path, found = Path(path), []
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BadData(f"{str(path)!r} does not read", found=str(error), hint=_HINT) from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    found.append(cls.from_json(parse_json(line)))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise BadData(f"{path.name}, line {number} is no fact", found=repr(error), hint=_HINT) from error
        return tuple(found)

    @staticmethod
    def save(facts: Iterable[Fact], path: str | Path) -> Path:
        """Write JSON lines. Raises `Unwritable`."""
        path = Path(path)
        lines = [json.dumps(fact.to_json(), ensure_ascii=False) for fact in facts]
        try:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except OSError as error:
            raise Unwritable(
                f"{str(path)!r} cannot be written", found=str(error), hint="give a folder that exists and is writable"
            ) from error
        return path
