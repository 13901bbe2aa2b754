"""What goes into a model: a text or a chat with named spans."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from assay.errors import BadData, BadSite
from assay.site import Positions

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, init=False)
class Prompt:
    """A text, or a chat, with named spans.

    ``Prompt("The {subject} is in the city of", subject="Eiffel Tower")`` marks the span ``subject``. A literal brace is
    written twice. ``Prompt.chat(user="…")`` is rendered once, with the model's own chat template; ``prefix`` is how the
    assistant's answer begins. Spans in a chat are marked in the user's message.

    Attributes:
        text: what is said, with the spans filled in (of a chat: the user's message).
        spans: ``(name, start, end)`` in characters of ``text``; of a tokenised prompt, in tokens.
        turns: earlier turns of a chat as ``(role, content)``; None for plain text.
        prefix: the first characters of the assistant's answer; only in a chat.
        tokens: token ids to use as they are, instead of the text; see `tokenized`.
    """

    text: str
    spans: tuple[tuple[str, int, int], ...] = ()
    turns: tuple[tuple[str, str], ...] | None = None
    prefix: str = ""
    tokens: tuple[int, ...] | None = None

    def __init__(self, template: str, /, **spans: str) -> None:
        if not isinstance(template, str):
            raise BadData(f"a prompt is text, not {template!r}", hint="for token ids use Prompt.tokenized([...])")
        text, marks = _fill(template, spans) if spans else (template, ())
        self._set(text, marks, None, "", None)

    def _set(self, *values: Any) -> None:
        for one, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, one.name, value)

    @classmethod
    def tokenized(cls, tokens: Sequence[int], **spans: tuple[int, int]) -> Prompt:
        """A prompt given as token ids: nothing is tokenised and no BOS is added. Spans are half-open intervals of tokens."""
        ids = tuple(int(token) for token in tokens)
        for name, (start, end) in spans.items():
            if not 0 <= start < end <= len(ids) or not _addressable(name):
                raise BadData(
                    f"a prompt of {len(ids)} tokens cannot have a span {name!r} from {start} to {end}",
                    hint="spans are half-open intervals of tokens, with plain names: subject=(1, 3)",
                )
        prompt = cls.__new__(cls)
        prompt._set(" ".join(map(str, ids)), tuple((name, *ends) for name, ends in spans.items()), None, "", ids)
        return prompt

    @classmethod
    def chat(
        cls,
        user: str,
        *,
        system: str | None = None,
        before: Sequence[tuple[Role, str]] = (),
        prefix: str = "",
        **spans: str,
    ) -> Prompt:
        """A chat that ends with the user's message, so that the assistant speaks next."""
        text, marks = _fill(user, spans) if spans else (user, ())
        turns = (*([("system", system)] if system is not None else []), *before)
        prompt = cls.__new__(cls)
        prompt._set(text, marks, turns, prefix, None)
        return prompt

    @classmethod
    def of(cls, value: str | Prompt) -> Prompt:
        """A plain string becomes a prompt without spans."""
        return value if isinstance(value, Prompt) else cls(value)

    def after(self, text: str) -> Prompt:
        """The same prompt with a text before it, in a chat before the user's message; spans move along.

        Raises `BadData` for a prompt given as tokens.
        """
        if self.tokens is not None:
            raise BadData(
                f"no text can stand before a prompt given as tokens: {text.strip()[:60]!r}",
                hint="give the prompt as text",
            )
        prompt = type(self).__new__(type(self))
        spans = tuple((name, start + len(text), end + len(text)) for name, start, end in self.spans)
        prompt._set(text + self.text, spans, self.turns, self.prefix, self.tokens)
        return prompt

    @property
    def digest(self) -> str:
        """SHA-256 of the content, the identity used against leaks between splits."""
        content = [self.text, self.turns, self.prefix, *([self.tokens] if self.tokens is not None else [])]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Prompt:
        """The inverse of `to_json`."""
        turns, tokens = state["turns"], state["tokens"]
        prompt = cls.__new__(cls)
        prompt._set(
            state["text"],
            tuple((name, start, end) for name, start, end in state["spans"]),
            None if turns is None else tuple((role, content) for role, content in turns),
            state["prefix"],
            None if tokens is None else tuple(tokens),
        )
        return prompt

    def __str__(self) -> str:
        return self.text


def _fill(template: str, spans: dict[str, str]) -> tuple[str, tuple[tuple[str, int, int], ...]]:
    text = ""
    marks: list[tuple[str, int, int]] = []
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise BadData(
            f"the prompt {template!r} does not read", found=str(error), hint="write a literal brace twice: {{ and }}"
        ) from error
    for literal, name, spec, conversion in pieces:
        text += literal
        if name is None:
            continue
        if name not in spans or spec or conversion:
            raise BadData(
                f"the prompt {template!r} uses {{{name}}}, which is not given",
                found=", ".join(spans) or "no spans",
                hint=f'give it by name, Prompt("…", {name or "name"}="…"), or write a literal brace twice',
            )
        twice = name in {mark[0] for mark in marks}
        if twice or not _addressable(name):
            raise BadData(
                f"the prompt {template!r} cannot have a span {name!r}",
                found="it has one already" if twice else "positions do not read that word as the name of a span",
                hint="give each span a plain name of its own, other than all, last and response",
            )
        marks.append((name, len(text), len(text) + len(spans[name])))
        text += spans[name]
    unused = [name for name in spans if name not in {mark[0] for mark in marks}]
    if unused:
        raise BadData(
            f"the prompt {template!r} has no place for {', '.join(unused)}",
            hint="write {" + unused[0] + "} where it belongs",
        )
    return text, tuple(marks)


def _addressable(name: str) -> bool:
    try:
        return Positions.parse(name) == Positions(span=name)
    except BadSite:
        return False
