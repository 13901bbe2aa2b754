"""Activation patching: what single activations of one run do in another (Wang et al. 2023; Heimersheim and Nanda 2024).

``denoise`` puts activations of the clean run into the corrupted one: what suffices to bring the behaviour back. ``noise``
puts corrupted ones into the clean run: what it cannot do without. The two differ: an AND of two places shows under noise
only, an OR under denoising only. The share of the effect that one place restores::

    share = (metric with the activation patched − metric of the run it is patched into) / (metric of the other run − the same)

Prompts of a pair have equally many tokens, so that positions correspond. Before the first token that differs all
activations are equal, so those cells are 0 by construction and are not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from assay.run.branch import Branch, Change, Trunks, grown
from assay.run.model import Model
from assay.run.plan import token_budget
from assay.site import Site
from assay.trace.contrast import Metric, Mode, Patched, Prompts, contrasted


def patching(
    model: Model,
    clean: Prompts,
    corrupted: Prompts,
    *,
    at: str | Site | Sequence[str | Site] = "L:.resid",
    metric: Metric | None = None,
    answers: tuple[str, str] | None = None,
    mode: Mode = "denoise",
    whole_rows: bool = False,
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Patched:
    """Patch every site at every token, or at all tokens at once.

    Args:
        clean, corrupted: prompts that pair up, all of one length.
        at: sites, ranges expanded; their positions are not looked at.
        metric: of the last token's logits; or
        answers: of one token each: the metric is the logit of the first minus that of the second.
        mode: which run is patched into which.
        whole_rows: patch all tokens of a site together, as is usual for heads.
        memory: bytes that a batch's activations may take.
        progress: called with cells done and cells in all.

    Raises `BadData` for prompts that do not pair up, `NoSuchSite`, `EmptyData`.
    """
    pair = contrasted(model, clean, corrupted, at, metric, answers, mode)
    length, first = len(pair.tokens), pair.first
    tokens = [first] if whole_rows else range(first, length)
    cells = [(index, token) for index in range(len(pair.sites)) for token in tokens]
    branches = [
        Branch.of(token, _change(pair.sites[index], pair.source, token, length if whole_rows else token + 1))
        for index, token in cells
    ]
    plain, target = pair.scored(model, pair.base.final), pair.scored(model, pair.source.final)
    values = np.tile(plain, (len(pair.sites), 1 if whole_rows else length, 1))
    done = 0
    for indices, final in grown(model, pair.base, branches, token_budget(model, memory)):
        found = pair.scored(model, final.flatten(0, 1)).reshape(final.shape[:2])
        for index, value in zip(indices, found, strict=True):
            site, token = cells[index]
            values[site, 0 if whole_rows else token] = value
        done += len(indices)
        if progress:
            progress(done, len(branches))
    return Patched(pair.sites, ("all",) if whole_rows else pair.tokens, plain, target, values, mode)


def _change(site: Site, source: Trunks, start: int, stop: int) -> Change:
    value = source.values[site.address][:, start:stop]
    head = site.index if value.dim() == 4 else None
    return Change(site.address, value if head is None else value[:, :, head], head)
