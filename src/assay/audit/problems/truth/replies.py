"""What a model makes of given replies: how likely each is, and the stream where it ends, in one pass.

Prompts of one instruction begin with the same tokens. Those are computed once and every reply goes on from there, so
that an instruction of twenty tokens costs twenty, not twenty for each reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from assay.act.program import Place
from assay.model.clock import SlotCache, right_padded
from assay.model.core import Core
from assay.model.encode import continuation, encode
from assay.prompt import Prompt
from assay.run.plan import token_budget
from assay.site import Site, Span

Tokens = tuple[int, ...]

_HEAD = 256
"""Positions over the whole vocabulary that are held at once."""


@dataclass(frozen=True)
class Replies:
    """What was found of every reply.

    Attributes:
        logprob: log-probability in nats, all of its tokens, ``[prompt, reply]``.
        ends: the stream at its last token, by place, ``[prompt, reply, d]``; empty where no place was asked for.
        tokens: how many tokens were computed.
    """

    logprob: np.ndarray
    ends: Mapping[Site, np.ndarray]
    tokens: int


class _Asked(NamedTuple):
    """A reply: its prompt and number, the tokens that go through the model, and where it begins and what it is."""

    prompt: int
    reply: int
    fed: Tokens
    first: int
    said: Tokens


def replies(
    core: Core, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], sites: Sequence[str | Site] = ()
) -> Replies:
    """Score every prompt's replies, and read the stream where each ends, in the model as it is.

    Args:
        core: the model.
        prompts: best those of one instruction: what all of them begin with is computed once.
        texts: for each prompt its replies, equally many for all.
        sites: places without positions, ``"L17.resid"``.

    Raises `BadData` where a reply does not begin at a token of its own, `NoSuchSite`.
    """
    places = [site for text in sites for site in core.shape.expand(text)]
    asked = list(_asked(core, prompts, texts, bool(places)))
    rows: dict[Tokens, list[_Asked]] = {}
    for one in asked:
        rows.setdefault(one.fed, []).append(one)
    shared = common([one.fed[: one.first - 1] for one in asked])
    prefix = prefix_of(core, asked[0].fed[:shared])
    logprob = np.zeros((len(prompts), len(texts[0])))
    ends = {site: np.zeros((*logprob.shape, core.shape.width(site.part) or 0), np.float32) for site in places}
    for batch in batches(rows, shared, token_budget(core, None)):
        final, seen = forward(core, batch, shared, prefix, places)
        reads = [(place, one) for place, fed in enumerate(batch) for one in rows[fed]]
        into = [(one.prompt, one.reply) for _, one in reads for _ in one.said]
        at = [(place, one.first - 1 - shared + step) for place, one in reads for step in range(len(one.said))]
        np.add.at(
            logprob,
            tuple(np.array(into).T),
            _logprobs(core, final, at, [token for _, one in reads for token in one.said]),
        )
        for place, one in reads:
            for site in places:
                ends[site][one.prompt, one.reply] = seen[site][place, len(one.fed) - 1 - shared].float().cpu().numpy()
    return Replies(logprob, ends, shared + sum(len(fed) - shared for fed in rows))


def cost(core: Core, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> int:
    """How many tokens `replies` would compute."""
    asked = list(_asked(core, prompts, texts, True))
    shared = common([one.fed[: one.first - 1] for one in asked])
    return shared + sum(len(fed) - shared for fed in {one.fed for one in asked})


def _asked(core: Core, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], whole: bool) -> Iterator[_Asked]:
    for number, (prompt, options) in enumerate(zip(prompts, texts, strict=True)):
        given = encode(core.tokenizer, prompt, str(number)).tokens
        for choice, text in enumerate(options):
            said = continuation(core.tokenizer, prompt, given, text)
            # The last token is read from the one before it; it goes through the model only where its stream is wanted.
            yield _Asked(number, choice, (*given, *(said if whole else said[:-1])), len(given), said)


def common(rows: Sequence[Tokens]) -> int:
    """How many tokens all rows begin with."""
    first, last = min(rows), max(rows)
    return next(
        (place for place, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1),
        min(len(first), len(last)),
    )


def prefix_of(core: Core, tokens: Tokens) -> SlotCache | None:
    """The keys and values of one row."""
    if not tokens:
        return None
    cache = core.engine.empty_cache(1, len(tokens))
    core.engine.forward(*right_padded([tokens]), cache=cache)
    return cache


def batches(rows: Mapping[Tokens, object], shared: int, budget: int) -> Iterator[list[Tokens]]:
    """Rows of like length, by how many tokens of theirs are left to compute."""
    batch: list[Tokens] = []
    for fed in sorted(rows, key=len):
        if batch and (len(batch) + 1) * (len(fed) - shared) > budget:
            yield batch
            batch = []
        batch.append(fed)
    yield batch


def forward(
    core: Core, batch: Sequence[Tokens], shared: int, prefix: SlotCache | None, places: Sequence[Site]
) -> tuple[Tensor, dict[Site, Tensor]]:
    """The normed final stream of what follows the shared tokens, and the streams at the places."""
    seen: dict[Site, Tensor] = {}

    def keep(site: Site) -> Callable[[Tensor], None]:
        return lambda h: seen.__setitem__(site, h)

    reads: dict[Place, Callable[[Tensor], None]] = {_place(site): keep(site) for site in places}
    cache = None
    if prefix is not None:
        cache = core.engine.empty_cache(len(batch), max(map(len, batch)))
        cache.copy_from(prefix, torch.zeros(len(batch), dtype=torch.long), shared)
    tokens, positions = right_padded([fed[shared:] for fed in batch], [shared] * len(batch))
    return core.engine.forward(tokens, positions, reads=reads, cache=cache), seen


def _logprobs(core: Core, final: Tensor, at: Sequence[tuple[int, int]], tokens: Sequence[int]) -> np.ndarray:
    """Log-probabilities of ``tokens`` at ``at`` (row, column) of a final stream; the head runs once for each place."""
    places, home = torch.unique(torch.tensor(at, device=final.device), dim=0, return_inverse=True)
    wanted, found = torch.tensor(tokens, device=final.device), torch.empty(len(tokens), dtype=torch.float64)
    for start in range(0, len(places), _HEAD):
        rows, columns = places[start : start + _HEAD].T
        mine = ((home >= start) & (home < start + _HEAD)).nonzero()[:, 0]
        read = core.engine.log_p(final[rows, columns], home[mine] - start, wanted[mine])
        found[mine.cpu()] = read.double().cpu()
    return found.numpy()


def _place(site: Site) -> Place:
    assert not isinstance(site.layer, Span)  # ranges are expanded before
    return site.layer, site.part
