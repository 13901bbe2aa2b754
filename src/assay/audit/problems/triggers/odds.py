"""Log-odds of two answers after many texts that differ in a few words.

Rows are tokenised together and run in large batches. What all texts of one sentence begin with is computed once for them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from assay.audit.problems.given.rows import prompt_of
from assay.audit.problems.triggers.sentences import Sentence
from assay.model.clock import SlotCache, right_padded
from assay.model.core import Core
from assay.model.encode import continuation, encode, render
from assay.run.plan import token_budget

Array = NDArray[np.float64]
Tokens = tuple[int, ...]

_WIDE = 400_000
"""Numbers of a batch's stream below which a pass costs more in calls than in arithmetic."""

_ALONE = 64
"""Texts of one sentence from which on it is worth a batch, and a beginning, of its own."""

_HEAD = 256
"""Positions over the whole vocabulary that are held at once."""

_ELSEWHERE = "⟨the message⟩"


class _Read(NamedTuple):
    """A token that is scored: into which number, and at which column."""

    into: int
    column: int
    token: int


def odds(core: Core, asked: Sequence[tuple[Sentence, Sequence[str]]]) -> list[Array]:
    """The log-odds of the first answer over the second, nats, for each sentence ``[text]``, in the model as it is.

    Args:
        core: the model.
        asked: sentences, each with texts that end in its last word.

    Raises `BadData` where an answer does not begin at a token of its own.
    """
    tokenised = _tokenised(core, asked)
    starts = [0, *itertools.accumulate(len(texts) for _, texts in asked)]
    logprob, together = np.zeros(2 * starts[-1]), dict[Tokens, list[_Read]]()
    for (sentence, texts), rows, start in zip(asked, tokenised, starts, strict=False):
        mine = together if len(texts) < _ALONE else {}
        prompt = prompt_of(core, sentence.saying(texts[0]))
        for side, answer in enumerate(sentence.row.answers):
            said = continuation(core.tokenizer, prompt, rows[0], answer)
            for place, tokens in enumerate(rows):
                into = 2 * (start + place) + side
                reads = mine.setdefault((*tokens, *said[:-1]), [])
                reads += [_Read(into, len(tokens) - 1 + step, token) for step, token in enumerate(said)]
        if mine is not together:
            _score(core, mine, logprob)
    if together:
        _score(core, together, logprob)
    gaps = logprob[::2] - logprob[1::2]
    return [gaps[start:end] for start, end in itertools.pairwise(starts)]


def _tokenised(core: Core, asked: Sequence[tuple[Sentence, Sequence[str]]]) -> list[list[Tokens]]:
    """As `encode` makes them. All texts at once, with a look at the first of each sentence; where that differs, singly."""
    plain, chat = list[str](), list[str]()
    homes = []
    for sentence, texts in asked:
        prompt = prompt_of(core, sentence.saying(_ELSEWHERE))
        before, _, after = render(core.tokenizer, prompt)[0].partition(_ELSEWHERE)
        home = plain if prompt.turns is None else chat
        homes.append((home, len(home)))
        home += [before + text + after for text in texts]
    ids = {
        id(some): core.tokenizer(some, add_special_tokens=some is plain)["input_ids"] if some else []
        for some in (plain, chat)
    }
    found = []
    for (sentence, texts), (home, start) in zip(asked, homes, strict=True):
        rows = [tuple(tokens) for tokens in ids[id(home)][start : start + len(texts)]]
        if core.row(prompt_of(core, sentence.saying(texts[0]))).tokens != rows[0]:
            rows = [encode(core.tokenizer, prompt_of(core, sentence.saying(text)), "row").tokens for text in texts]
        found.append(rows)
    return found


def _score(core: Core, rows: Mapping[Tokens, Sequence[_Read]], logprob: Array) -> None:
    """Add to ``logprob`` what is read of every row."""
    first, last = min(rows), max(rows)
    differ = (place for place, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1)
    shared = min(next(differ, len(first)), *(read.column for reads in rows.values() for read in reads))
    prefix = core.engine.empty_cache(1, shared) if shared else None
    if prefix is not None:
        core.engine.forward(*right_padded([first[:shared]]), cache=prefix)
    for batch in _batches(rows, shared, max(token_budget(core, None), _WIDE // core.shape.d_model)):
        cache: SlotCache | None = None
        if prefix is not None:
            cache = core.engine.empty_cache(len(batch), max(map(len, batch)))
            cache.copy_from(prefix, torch.zeros(len(batch), dtype=torch.long), shared)
        tokens, positions = right_padded([row[shared:] for row in batch], [shared] * len(batch))
        final = core.engine.forward(tokens, positions, cache=cache)
        reads = [(place, read.column - shared, read) for place, row in enumerate(batch) for read in rows[row]]
        for start in range(0, len(reads), _HEAD):
            some = reads[start : start + _HEAD]
            at, columns = (torch.tensor(one, device=final.device) for one in list(zip(*some, strict=True))[:2])
            wanted = torch.tensor([read.token for *_, read in some])
            found = core.engine.log_p(final[at, columns], torch.arange(len(some)), wanted)
            np.add.at(logprob, [read.into for *_, read in some], found.double().cpu().numpy())


def _batches(rows: Mapping[Tokens, object], shared: int, budget: int) -> Iterator[list[Tokens]]:
    """Rows of like length, by how many tokens of theirs are left to compute."""
    batch: list[Tokens] = []
    for row in sorted(rows, key=len):
        if batch and (len(batch) + 1) * (len(row) - shared) > budget:
            yield batch
            batch = []
        batch.append(row)
    yield batch
