"""From prompts to rows of tokens: BOS and chat template exactly once, spans as token intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from assay.act.rows import Row
from assay.errors import BadData, EmptyData, NoSuchPosition
from assay.prompt import Prompt


def render(tokenizer: Any, prompt: Prompt) -> tuple[str, int]:
    """The text that is tokenised, and how many characters of it stand before the prompt's own text."""
    if prompt.turns is None:
        return prompt.text, 0
    if not getattr(tokenizer, "chat_template", None):
        raise BadData(
            "this model has no chat template, and the prompt is a chat",
            found=repr(prompt.text[:60]),
            hint="write the turns as plain text: Prompt('Question: … Answer:')",
        )
    text = _chat(tokenizer, prompt, prompt.text)
    if not prompt.spans:
        return text + prompt.prefix, 0
    # The message may be a word of the template too, so its place is found with another message in it.
    before = _chat(tokenizer, prompt, _ELSEWHERE).find(_ELSEWHERE)
    if before < 0 or not text.startswith(prompt.text, before):
        raise NoSuchPosition(
            "the chat template altered the message, so its spans cannot be found",
            found=repr(text[-80:]),
            hint="mark spans in plain prompts, or avoid leading and trailing blanks in the message",
        )
    return text + prompt.prefix, before


_ELSEWHERE = "⟨the message⟩"


def _chat(tokenizer: Any, prompt: Prompt, message: str) -> str:
    turns = [{"role": role, "content": content} for role, content in (*(prompt.turns or ()), ("user", message))]
    try:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise BadData(
            "the chat template refuses these turns",
            found=f"{' '.join(turn['role'] for turn in turns)}: {error}",
            hint="give turns that this model was trained on; many templates know no system turn",
        ) from error
    return text


def encode(tokenizer: Any, prompt: Prompt, name: str, answer: str = "", room: int = 0) -> Row:
    """A row of tokens. The answer's tokens are those that the text gains by it, so the boundary is tokenised as a whole.

    Raises `EmptyData` for a prompt of no tokens, `BadData` where prompt and answer melt into one token.
    """
    if prompt.tokens is not None:
        tokens = list(prompt.tokens)
        extra = continuation(tokenizer, prompt, tokens, answer) if answer else ()
        if not tokens:
            raise EmptyData(f"the prompt {name!r} has no tokens", hint="give at least one token id")
        spans = {mark: (start, end) for mark, start, end in prompt.spans}
        return Row(name, (*tokens, *extra), len(tokens), spans, room)
    text, shift = render(tokenizer, prompt)
    tokens, offsets = _tokens(tokenizer, text, chat=prompt.turns is not None)
    if not tokens or (offsets and all(start == end for start, end in offsets)):
        raise EmptyData(
            f"the prompt {name!r} tokenises to nothing",
            found=repr(text[:60]),
            hint="give a text with at least one token",
        )
    spans = {mark: _interval(offsets, start + shift, end + shift, mark) for mark, start, end in prompt.spans}
    if not answer:
        return Row(name, tuple(tokens), len(tokens), spans, room)
    return Row(name, (*tokens, *continuation(tokenizer, prompt, tokens, answer)), len(tokens), spans, room)


def continuation(tokenizer: Any, prompt: Prompt, tokens: list[int] | tuple[int, ...], answer: str) -> tuple[int, ...]:
    """The tokens of ``answer`` after ``prompt``. Raises `BadData` where the boundary falls inside a token or it has none."""
    if prompt.tokens is not None:
        text, whole = "", [*tokens, *tokenizer(answer, add_special_tokens=False)["input_ids"]]
    else:
        text, _ = render(tokenizer, prompt)
        whole, _ = _tokens(tokenizer, text + answer, chat=prompt.turns is not None)
    if list(whole[: len(tokens)]) != list(tokens) or len(whole) == len(tokens):
        shown = tokenizer.convert_ids_to_tokens(whole)[max(0, len(tokens) - 2) : len(tokens) + 1]
        raise BadData(
            f"the answer {answer!r} does not begin at a token of its own",
            found=f"after {text[-20:]!r} it tokenises as … {' '.join(map(str, shown))}",
            hint="move the blank from the end of the prompt to the front of the answer: ' Paris'",
        )
    return tuple(whole[len(tokens) :])


def _tokens(tokenizer: Any, text: str, chat: bool) -> tuple[list[int], list[tuple[int, int]]]:
    bos = getattr(tokenizer, "bos_token", None)
    special = not chat and not (bos and text.startswith(bos))
    fast = getattr(tokenizer, "is_fast", False)
    found = tokenizer(text, add_special_tokens=special, return_offsets_mapping=fast)
    tokens = list(found["input_ids"])
    # A tokenizer may close a text with EOS; a prompt goes on.
    eos = getattr(tokenizer, "eos_token_id", None)
    if special and len(tokens) > 1 and tokens[-1] == eos and not text.endswith(str(tokenizer.eos_token)):
        tokens = tokens[:-1]
    return tokens, list(found["offset_mapping"])[: len(tokens)] if fast else []


def _interval(offsets: list[tuple[int, int]], start: int, end: int, mark: str) -> tuple[int, int]:
    """The tokens that overlap the characters ``start:end``."""
    inside = [index for index, (a, b) in enumerate(offsets) if a < end and b > start and b > a]
    if not inside:
        raise NoSuchPosition(
            f"the span {mark!r} covers no token",
            found="the tokenizer gives no offsets" if not offsets else "the span is empty",
            hint="give the span at least one character, and use a fast tokenizer",
        )
    return inside[0], inside[-1] + 1


def answer_token(tokenizer: Any, prompt: Prompt, tokens: Sequence[int], answer: str) -> int:
    """The one token of an answer that is read at the prompt's last token. Raises `BadData` where there are several."""
    found = continuation(tokenizer, prompt, tuple(tokens), answer)
    if len(found) > 1:
        raise BadData(
            f"the answer {answer!r} has {len(found)} tokens; one is read, at the prompt's last",
            found=" | ".join(tokenizer.decode([token]) for token in found),
            nearest=repr(tokenizer.decode([found[0]])),
            hint="give its first token, or an answer that is one token",
        )
    return found[0]
