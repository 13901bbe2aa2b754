"""What heads do on random tokens, by the published definitions. Each is 1 for a head that does nothing else.

==============  ====================================================================================================
``induction``   prefix matching (Olsson et al. 2022): 25 random tokens, four times; the attention from a token to the
                tokens that *followed* its earlier occurrences, mean over all tokens that have one
``previous``    the attention from a token to the one before it, mean over tokens
``duplicate``   on the same sequences, the attention from a token to its earlier occurrences
``copying``     25 random tokens, once: what the head itself adds to their 25 logits, less its mean, below 0 cut off;
                the share that goes to the token it looks at most, mean over tokens, from [0, 1] stretched to [−1, 1]
==============  ====================================================================================================

Tokens are drawn without the most and the least common 4 % of the vocabulary (Bansal et al. 2023), and without repetition, so
that a match has one meaning. What the tokenizer puts before a text (BOS) stands before them; where it puts nothing, the
first token is the one that idle heads look at. That first one, BOS or not, is never what a head copies from.

All layers are scored in one pass of each batch, and a layer's patterns are let go before the next one's are made.

It misleads: a pattern says where a head looks and nothing about what it moves; a head that matches prefixes may matter to
nothing. `circuits.ablation` says what the model loses without it. Random tokens are far from what the model was trained on,
and among tokens that come once a head that copies repetitions is idle, so ``copying`` is low for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from assay.act.intervention import Condition, flat
from assay.act.program import Place
from assay.circuits.norms import behind_attention, final_norm, unembedding
from assay.circuits.scored import HeadScores
from assay.circuits.tokens import sequences
from assay.errors import BadData, nearest
from assay.model.anatomy import matrix, module_at
from assay.model.taps import Tap
from assay.prompt import Prompt
from assay.run.model import Model
from assay.run.passes import by_row
from assay.run.plan import refuse, token_budget

Score = Literal["induction", "previous", "duplicate", "copying"]


def heads(
    model: Model,
    score: Score = "induction",
    *,
    count: int = 16,
    length: int = 25,
    repeats: int = 4,
    seed: int = 0,
    bos: bool | None = None,
    under: Condition | None = None,
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> HeadScores:
    """Score every head.

    Args:
        score: see above.
        count: sequences, over which intervals are made.
        length, repeats: random tokens, and how often they come (for ``copying`` once, whatever is asked).
        seed: of the tokens.
        bos: whether BOS stands first; None for what the tokenizer does.
        under: interventions.
        memory: bytes that a batch's activations may take.
        progress: called with sequences done and sequences in all.

    Raises `BadData` for a score or sizes that there are not, `EmptyData`, and what does not fit of ``under``.
    """
    if score not in get_args(Score):
        raise BadData(
            f"there is no score {score!r}",
            found=", ".join(get_args(Score)),
            nearest=nearest(score, get_args(Score)),
            hint="copying by weights is circuits.copying(model)",
        )
    repeats = 1 if score == "copying" else repeats
    if score in ("induction", "duplicate") and repeats < 2:
        raise BadData(f"repeats={repeats}", hint=f"{score} looks back at an earlier occurrence: repeat at least twice")
    tokens, first = sequences(model, count, length, repeats, seed, bos)
    shape, size = model.shape, tokens.shape[1]
    values = torch.zeros(count, shape.layers, shape.heads, dtype=torch.float64)
    scorer = _Copying(model, first) if score == "copying" else _Looking(score, first, length, repeats)
    rows = model.rows([Prompt.tokenized(row) for row in tokens.tolist()])
    refuse(model, [[row] for row in rows], [flat(under)])
    most = max(1, token_budget(model, memory) // size)
    for start in range(0, count, most):
        batch, mine = tokens[start : start + most], rows[start : start + most]
        program = model.program(mine, [flat(under)] * len(mine))
        reads = scorer.taps(batch, values[start : start + most])
        model.engine.forward(batch, torch.arange(size).expand(batch.shape), program=program, reads=reads)
        by_row(program, len(mine), [size] * len(mine))
        if progress:
            progress(min(start + most, count), count)
    settings = dict(length=length, repeats=repeats, seed=seed, leading=tokens[0, :first].tolist())
    return HeadScores(score, values.numpy(), settings, model.fingerprint)


class _Looking:
    """Scores that are attention at given places."""

    def __init__(self, score: Score, first: int, length: int, repeats: int) -> None:
        self.weights = _places(score, first, length, repeats)

    def taps(self, tokens: Tensor, into: Tensor) -> dict[Place, Tap]:
        """Taps that fill ``into [row, layer, head]``."""

        def at(layer: int) -> Tap:
            def tap(pattern: Tensor) -> None:
                into[:, layer] = torch.einsum("rqhk,qk->rh", pattern.float(), self.weights.to(pattern.device)).cpu()

            return tap

        return {(layer, "head.pattern"): at(layer) for layer in range(into.shape[1])}


def _places(score: Score, first: int, length: int, repeats: int) -> Tensor:
    """How much each entry of a pattern counts, ``[query, key]``: attention at the places of a score, mean over queries."""
    size = first + length * repeats
    wanted = torch.zeros(size, size)
    if score == "previous":
        queries = torch.arange(first + 1, size)
        wanted[queries, queries - 1] = 1
    else:
        ahead = 1 if score == "induction" else 0
        for query in range(first + length, size):
            wanted[query, torch.arange(query - length, first - 1, -length) + ahead] = 1
    return wanted / wanted.any(dim=1).sum()


class _Copying:
    """What a head writes, as the logits of the tokens it could have read."""

    def __init__(self, model: Model, first: int) -> None:
        self.model, self.first = model, max(first, 1)
        W_U, _ = unembedding(model)
        self.W_U, self.norm = W_U, final_norm(model)

    def taps(self, tokens: Tensor, into: Tensor) -> dict[Place, Tap]:
        """Taps that fill ``into [row, layer, head]``."""
        model, first = self.model, self.first
        readers = self.norm.folded(self.W_U[tokens[:, first:].to(self.W_U.device)])
        looked: dict[int, Tensor] = {}

        def look(layer: int) -> Tap:
            def tap(pattern: Tensor) -> None:
                looked[layer] = pattern[:, first:, :, first:].argmax(dim=-1)

            return tap

        def write(layer: int) -> Tap:
            def tap(z: Tensor) -> None:
                W_O = matrix(module_at(model.engine.hooks.blocks[layer], model.engine.anatomy.o_proj)).double().cpu()
                mine = behind_attention(model, layer).folded(readers) @ W_O
                mine = mine.unflatten(-1, (model.shape.heads, -1)).to(z.device, torch.float32)
                logits = torch.einsum("rqhz,rthz->rqht", z[:, first:].float(), mine)
                raised = (logits - logits.mean(dim=-1, keepdim=True)).relu()
                share = raised.gather(-1, looked.pop(layer)[..., None])[..., 0] / raised.sum(-1).clamp_min(1e-30)
                into[:, layer] = (2 * share - 1).mean(dim=1).double().cpu()

            return tap

        taps: dict[Place, Tap] = {}
        for layer in range(into.shape[1]):
            taps |= {(layer, "head.pattern"): look(layer), (layer, "head.z"): write(layer)}
        return taps
