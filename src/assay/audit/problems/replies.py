"""What a model makes of given replies: how likely each is, and the activation at its end, in one pass.

Prompts of one instruction begin with the same tokens. These are computed once, and every reply goes on from there, so
that ten words of instruction cost ten tokens and not ten for each reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from assay.act.program import Place
from assay.model.clock import SlotCache, right_padded
from assay.model.core import Core
from assay.model.encode import continuation, encode
from assay.prompt import Prompt
from assay.run.plan import token_budget
from assay.run.score import logprobs
from assay.site import Site


@dataclass(frozen=True)
class Replies:
    """One number and one activation per reply.

    Attributes:
        logprob: log-probability of the reply, every token counted, ``[prompt, reply]``.
        ends: the activation at the reply's last token by place, ``[prompt, reply, d]``.
        tokens: how many tokens were computed.
    """

    logprob: np.ndarray
    ends: dict[Site, np.ndarray]
    tokens: int


@dataclass(frozen=True)
class _Row:
    prompt: int
    reply: int
    tokens: tuple[int, ...]
    given: int


def replies(core: Core, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], sites: Sequence[str | Site] = ()) -> Replies:
    """Score every prompt's replies, and read the stream where each ends.

    Args:
        prompts: best those of one instruction; what all begin with is computed once.
        texts: for each prompt as many replies as for the others.
        sites: places without positions, such as ``"L17.resid"``.

    Raises `BadData` where a reply does not begin at a token of its own.
    """
    rows = [
        _Row(number, choice, (*row.tokens, *continuation(core.tokenizer, prompt, row.tokens, text)), len(row.tokens))
        for number, (prompt, options) in enumerate(zip(prompts, texts, strict=True))
        for row in [encode(core.tokenizer, prompt, str(number))]
        for choice, text in enumerate(options)
    ]
    places = [site for text in sites for site in core.shape.expand(text)]
    shared = _common([row.tokens[: row.given - 1] for row in rows])
    prefix = _prefix(core, rows[0].tokens[:shared])
    logprob = np.zeros((len(prompts), len(texts[0])))
    ends = {site: np.empty((*logprob.shape, core.shape.width(site.part) or 0), np.float32) for site in places}
    spent = shared
    for batch in _batches(rows, token_budget(core, None)):
        final, seen = _resume(core, batch, shared, prefix, places)
        index = [(place, at - 1 - shared) for place, row in enumerate(batch) for at in range(row.given, len(row.tokens))]
        wanted = [token for row in batch for token in row.tokens[row.given :]]
        found = logprobs(core, final, index, wanted)
        into = np.array([(row.prompt, row.reply) for row in batch for _ in row.tokens[row.given :]]).T
        np.add.at(logprob, tuple(into), found)
        for place, row in enumerate(batch):
            for site in places:
                ends[site][row.prompt, row.reply] = seen[site][place, len(row.tokens) - 1 - shared].float().cpu().numpy()
        spent += sum(len(row.tokens) - shared for row in batch)
    return Replies(logprob, ends, spent)


def _prefix(core: Core, tokens: Sequence[int]) -> SlotCache | None:
    if not tokens:
        return None
    cache = core.engine.empty_cache(1, len(tokens))
    core.engine.forward(*right_padded([tokens]), cache=cache)
    return cache


def _resume(
    core: Core, batch: Sequence[_Row], shared: int, prefix: SlotCache | None, places: Sequence[Site]
) -> tuple[Tensor, dict[Site, Tensor]]:
    """The normed final stream of the tokens after the shared ones, and the streams at the places."""
    seen: dict[Site, Tensor] = {}

    def keep(site: Site) -> Callable[[Tensor], None]:
        return lambda h: seen.__setitem__(site, h)

    reads: dict[Place, Callable[[Tensor], None]] = {(site.layer, site.part): keep(site) for site in places}
    cache = None
    if prefix is not None:
        cache = core.engine.empty_cache(len(batch), max(len(row.tokens) for row in batch))
        cache.copy_from(prefix, torch.zeros(len(batch), dtype=torch.long), shared)
    tokens, positions = right_padded([row.tokens[shared:] for row in batch], [shared] * len(batch))
    return core.engine.forward(tokens, positions, reads=reads, cache=cache), seen


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    first, last = min(rows), max(rows)
    differ = (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return next(differ, min(len(first), len(last)))


def _batches(rows: Sequence[_Row], budget: int) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    for row in sorted(rows, key=lambda row: len(row.tokens)):
        if batch and (len(batch) + 1) * len(row.tokens) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
