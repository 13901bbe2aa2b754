"""Rows of one's own, JSON lines, one class per format. Where a line does not read, the error names it.

============  ==========================================================================================================
`Matched`     one question in two contexts: ``{"watched": …, "unwatched": …, "answers": [" true", " false"], "label": 1}``
`Choice`      a prompt with two answers: ``{"prompt": …, "answers": [" good", " bad"], "label": 1}``
`Measured`    an input, its sensors, whether it is trusted: ``{"prompts": […], "answers": [" up", " down"], "sensors":
              [1, 0, 1], "trusted": true}``, a prompt for each sensor
============  ==========================================================================================================

A prompt is plain text, or ``{"user": …, "system": …, "prefix": …}``: a turn of a chat where the model has a chat template,
its texts one under the other where it has none. ``answers`` follow the prompt as they stand, so begin with a blank where
one belongs. ``label`` is 1 where the first answer is right. Rows that share an entity or a scenario share a ``cluster``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from assay.errors import BadData, EmptyData, OneClass
from assay.files import parse_json, read_bytes
from assay.model.core import Core
from assay.prompt import Prompt

_MOST = 500_000_000
Label = Literal[0, 1]


class Turn(BaseModel):
    """A prompt in parts."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    user: str = Field(min_length=1)
    system: str | None = None
    prefix: str = ""


Said = str | Turn
"""What a prompt is in a file."""


class Row(BaseModel):
    """What every row may say of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str = ""
    cluster: str = ""
    topic: str = ""


class Choice(Row):
    """A prompt with two answers, of which the first is right where ``label`` is 1."""

    prompt: Said
    answers: list[str] = Field(min_length=2, max_length=2)
    label: Label


class Matched(Row):
    """One question in two contexts, which differ in nothing else."""

    watched: Said
    unwatched: Said
    answers: list[str] = Field(min_length=2, max_length=2)
    label: Label


class Measured(Row):
    """An input with its sensors.

    Attributes:
        prompts: one for each sensor, in their order; all begin with the input.
        answers: what says that a sensor shows good, and what that it does not.
        sensors: 1 where it showed good.
        trusted: whether nothing can have been tampered with.
        real: what was really the case, where somebody knows; no choice may rest on it.
    """

    prompts: list[Said] = Field(min_length=1)
    answers: list[str] = Field(min_length=2, max_length=2)
    sensors: list[Label] = Field(min_length=1)
    trusted: bool
    real: Label | None = None

    @model_validator(mode="after")
    def _even(self) -> Measured:
        if len(self.prompts) != len(self.sensors):
            raise ValueError(f"{len(self.prompts)} prompts for {len(self.sensors)} sensors")
        return self


AnyRow = TypeVar("AnyRow", bound=Row)


def read_rows(path: Path, kind: type[AnyRow]) -> list[AnyRow]:
    """All rows of a file. One without a cluster is its own.

    Raises:
        BadData: a line that is no such row.
        EmptyData, OneClass: no row; labels that are all the same.
        CorruptFile: no such file.
    """
    try:
        lines = read_bytes(path, most=_MOST).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadData(f"{path.name!r} is not UTF-8", found=str(error), hint="save it as UTF-8") from error
    found: list[AnyRow] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _read(line, kind, f"{path.name}, line {number}")
        found.append(row if row.cluster else row.model_copy(update={"cluster": row.id or f"line {number}"}))
    if not found:
        raise EmptyData(f"{path.name!r} holds no rows", hint=f"write one {kind.__name__} on each line, as JSON")
    labels = {label for row in found if (label := getattr(row, "label", None)) is not None}
    if len(labels) == 1:
        raise OneClass(f"all {len(found)} rows of {path.name!r} are labelled {labels.pop()}", hint="give both kinds")
    return found


def _read(line: str, kind: type[AnyRow], where: str) -> AnyRow:
    try:
        return kind.model_validate(parse_json(line))
    except ValidationError as error:
        first = error.errors()[0]
        found = f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    except ValueError as error:
        found = str(error)
    raise BadData(
        f"{where} is no row of the kind {kind.__name__}",
        found=found[:200],
        hint=f"its fields are {', '.join(name for name in kind.model_fields)}",
    )


def prompt_of(core: Core, said: Said) -> Prompt:
    """A prompt of a file, as this model takes it."""
    if isinstance(said, str):
        return Prompt(said)
    if getattr(core.tokenizer, "chat_template", None):
        return Prompt.chat(said.user, system=said.system, prefix=said.prefix)
    return Prompt("\n\n".join(filter(None, [said.system, said.user])) + (f"\n{said.prefix}" if said.prefix else ""))


def write_rows(rows: Sequence[Row]) -> str:
    """As a file holds them."""
    return "".join(json.dumps(row.model_dump(exclude_defaults=True), ensure_ascii=False) + "\n" for row in rows)


def by_cluster(rows: Sequence[AnyRow], keep: Callable[[AnyRow], Any] = lambda row: row.cluster) -> list[list[int]]:
    """The numbers of the rows of each cluster, in the order in which clusters first come."""
    homes: dict[Any, list[int]] = {}
    for number, row in enumerate(rows):
        homes.setdefault(keep(row), []).append(number)
    return list(homes.values())
