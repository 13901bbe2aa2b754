"""The stream over the tokens of replies. What all rows begin with is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from assay.act.rows import Row
from assay.audit.problems.truth.replies import Tokens, batches, common, forward, prefix_of
from assay.model.core import Core
from assay.run.plan import token_budget

Stream = NDArray[np.float32]


def streams(
    core: Core, rows: Sequence[Row], layers: Sequence[int], progress: Callable[[int, int], None] = lambda done, of: None
) -> Iterator[tuple[int, Stream]]:
    """The number of each row, and the stream after each layer at each token of its reply, ``[layer, token, d_model]``.
    Rows come in order of length, each as soon as it is computed.
    """
    sites = [core.shape.expand(f"L{layer}.resid")[0] for layer in layers]
    shared = _shared(rows)
    homes: dict[Tokens, list[int]] = {}
    for number, row in enumerate(rows):
        homes.setdefault(row.tokens, []).append(number)
    prefix, done = prefix_of(core, rows[0].tokens[:shared]), 0
    for batch in batches(homes, shared, token_budget(core, None)):
        _, seen = forward(core, batch, shared, prefix, sites)
        for place, tokens in enumerate(batch):
            for number in homes[tokens]:
                said = slice(rows[number].prompt - shared, len(tokens) - shared)
                yield number, np.stack([seen[site][place, said].float().cpu().numpy() for site in sites])
                done += 1
        progress(done, len(rows))


def mean_streams(
    core: Core, rows: Sequence[Row], layers: Sequence[int], progress: Callable[[int, int], None] = lambda done, of: None
) -> Stream:
    """The mean over each reply's tokens, ``[row, layer, d_model]``. A linear read-out's mean score is its score of it."""
    found = np.zeros((len(rows), len(layers), core.shape.d_model), np.float32)
    for number, stream in streams(core, rows, layers, progress):
        found[number] = stream.mean(axis=1, dtype=np.float64)
    return found


def tokens_of(rows: Sequence[Row]) -> int:
    """How many tokens `streams` computes."""
    shared = _shared(rows)
    return shared + sum(len(tokens) - shared for tokens in {row.tokens for row in rows})


def _shared(rows: Sequence[Row]) -> int:
    return common([row.tokens[: row.prompt] for row in rows])
