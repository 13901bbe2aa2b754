"""Conversations of one's own, JSON lines; of each the last message is the assistant's reply that is scored.

=============  =========================================================================================================
`Transcript`   labelled: ``{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}],
               "label": 1, "scenario": "sales", "cluster": "sales-3"}``
`Chat`         neutral: the same without ``label`` and ``scenario``
=============  =========================================================================================================

``label`` is 1 where the last reply is deceptive. A deceptive reply is compared with the honest ones of its ``scenario``.
Rows that share a situation, a wording or an author share a ``cluster``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from assay.audit.problems.given.rows import Label, Row, read_rows
from assay.errors import BadData


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, str_strip_whitespace=True)

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class Chat(Row):
    """A conversation that ends with a user's message and the reply to it."""

    messages: list[Message] = Field(min_length=2)

    @model_validator(mode="after")
    def _replied(self) -> Chat:
        roles = [one.role for one in self.messages]
        if roles[-2:] != ["user", "assistant"]:
            raise ValueError(f"the last two messages are of {' and '.join(roles[-2:])}, not of user and assistant")
        if "system" in roles[1:]:
            raise ValueError("a system message stands after the first message")
        return self

    @property
    def before(self) -> list[Message]:
        """All but the reply."""
        return self.messages[:-1]

    @property
    def reply(self) -> str:
        """What is scored."""
        return self.messages[-1].content


class Transcript(Chat):
    """A conversation whose last reply is deceptive (1) or honest (0)."""

    label: Label
    scenario: str = ""


def read_transcripts(path: Path) -> list[Transcript]:
    """All labelled conversations of a file. Raises what `read_rows` does, and `BadData` where no scenario has both kinds,
    or where there are fewer than two clusters.
    """
    rows = read_rows(path, Transcript)
    if not matched(rows):
        raise BadData(
            f"no scenario of {path.name!r} has both deceptive and honest replies",
            found=", ".join(sorted({one.scenario or "(none)" for one in rows}))[:200],
            hint="give honest replies in the same scenario: against others a read-out may tell scenarios apart",
        )
    if len({one.cluster for one in rows}) < 2:
        raise BadData(
            f"all {len(rows)} rows of {path.name!r} are of one cluster",
            found=rows[0].cluster,
            hint="give each situation a cluster of its own",
        )
    return rows


def matched(rows: list[Transcript]) -> set[str]:
    """The scenarios that have both deceptive and honest replies."""
    return {one.scenario for one in rows if one.label} & {one.scenario for one in rows if not one.label}
