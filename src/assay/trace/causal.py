"""Causal tracing: which states carry a fact to the answer (Meng et al. 2022, §2 and appendix B).

The subject's embeddings are corrupted by noise; then single states of the corrupted run are put back to what they were in
the clean run. Where that brings the answer back, the fact passes through::

    total effect     TE      = P[o] − P*[o]
    indirect effect  IE(t,l) = P*, clean h(t,l) [o] − P*[o]

``resid`` restores one state; ``mlp.out`` and ``attn.out`` restore what ten consecutive modules add. With ``severed`` the
later MLPs (or attentions) at the token are held at their corrupted outputs: what is left does not pass through them.

It misleads where noise of three deviations is no likely input (it may break more than the fact), and a large effect says
where information passes, not where an edit works best (Hase et al. 2023). What a token before the subject holds is
untouched by the corruption, so its effect is 0 by construction; such cells are not computed, nor are those of the last
block before the last token, which nothing reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from assay.act.program import Place
from assay.act.rows import Row
from assay.errors import BadData, BadDose, BadVector, NoSuchPosition, NoSuchSite
from assay.model.core import NEUTRAL
from assay.model.encode import answer_token
from assay.prompt import Prompt
from assay.run.branch import Branch, Change, Trunks, grown, trunks
from assay.run.model import Model
from assay.run.plan import token_budget
from assay.trace.traced import Array, CausalTrace

Part = Literal["resid", "mlp.out", "attn.out"]
PARTS: tuple[Part, ...] = ("resid", "mlp.out", "attn.out")
Preset = Literal["code", "paper"]


def causal(
    model: Model,
    prompt: Prompt,
    *,
    answer: str | None = None,
    restore: Part | Sequence[Part] = PARTS,
    samples: int = 10,
    noise: float | Tensor = 3.0,
    window: int = 10,
    severed: Literal["mlp.out", "attn.out"] | None = None,
    preset: Preset = "code",
    subjects: Sequence[str] = (),
    subject: str = "subject",
    insist: bool = False,
    seed: int = 0,
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CausalTrace:
    """Restore every state, and every window of modules, at every token.

    Args:
        prompt: with the span ``subject``, which is corrupted.
        answer: one token; None for the likeliest. One that is not the likeliest is refused, unless you ``insist``.
        restore: what is restored.
        samples: of noise; the same for all cells of a prompt, others for other prompts.
        noise: standard deviations of embeddings; or the noise itself, ``[sample, pos, d_model]`` over the subject.
        window: how many modules' outputs are restored together; 1 for single ones.
        severed: what is held at its corrupted output after a restored state.
        preset: where paper and published code differ. ``code``: deviation over the embeddings of ``subjects`` (this
            prompt's, if none are given), windows of layers l−5 to l+4. ``paper``: over a body of text, l−4 to l+5.
        memory: bytes that a batch's activations may take.
        progress: called with cells done and cells in all.

    Raises `NoSuchPosition` without the span, `BadData` for answers of several tokens or that it does not give, `BadDose`.
    """
    parts: tuple[Part, ...] = (restore,) if isinstance(restore, str) else tuple(restore)
    row = model.row(prompt)
    samples = noise.shape[0] if isinstance(noise, Tensor) else samples
    _refuse(model, row, parts, subject, samples, noise, window)
    start, stop = row.spans[subject]
    places: list[Place] = [(layer, part) for layer in range(model.shape.layers) for part in parts]
    places += [(layer, severed) for layer in range(model.shape.layers) if severed]
    clean = trunks(model, torch.tensor([row.tokens]), places)
    likely = model.engine.unembed(clean.final)[0].float().softmax(dim=0)
    token = _answer(model, prompt, row, answer, likely, insist)
    if isinstance(noise, Tensor):
        deviation = float(noise.std())
    else:
        marked = [prompt.text[a:b] for name, a, b in prompt.spans if name == subject and prompt.tokens is None]
        spelled = list(subjects) or marked or [model.decode(row.tokens[start:stop])]
        deviation = noise * _spread(model, clean, spelled, preset)
        noise = deviation * _drawn(row, seed, (samples, stop - start, model.shape.d_model))
    embed = clean.below(0).repeat(samples, 1, 1)
    embed[:, start:stop] += noise.to(embed)
    corrupted = trunks(model, torch.tensor([row.tokens] * samples), places, embed)

    def probability(final: Tensor) -> Tensor:
        rows = final.flatten(0, -2)
        found = model.engine.log_p(rows, torch.arange(len(rows)), torch.full((len(rows),), token))
        return found.exp().view(final.shape[:-1]).cpu()

    floor = probability(corrupted.final).numpy()
    cells, branches = _branches(model, clean, corrupted, parts, start, window, severed, preset)
    found: dict[str, Array] = {part: np.tile(floor, (len(row.tokens), model.shape.layers, 1)) for part in parts}
    done = 0
    for indices, final in grown(model, corrupted, branches, token_budget(model, memory)):
        for index, values in zip(indices, probability(final).numpy(), strict=True):
            part, at, layer = cells[index]
            found[part][at, layer] = values
        done += len(indices)
        if progress:
            progress(done, len(branches))
    return CausalTrace(
        tokens=tuple(model.decode([one]) for one in row.tokens),
        subject=(start, stop),
        answer=model.decode([token]),
        clean=float(likely[token]),
        corrupted=floor,
        restored=found,
        deviation=deviation,
        window=window,
        severed=severed,
        preset=preset,
        seed=seed,
        model=model.fingerprint,
    )


def _branches(
    model: Model,
    clean: Trunks,
    corrupted: Trunks,
    parts: Sequence[Part],
    start: int,
    window: int,
    severed: str | None,
    preset: Preset,
) -> tuple[list[tuple[Part, int, int]], list[Branch]]:
    """Every cell ``(part, token, layer)`` whose effect can differ from 0, and the branch that computes it."""
    layers, length = model.shape.layers, clean.tokens.shape[1]
    samples = corrupted.tokens.shape[0]
    cells: list[tuple[Part, int, int]] = []
    branches: list[Branch] = []

    def was(place: Place, at: int) -> Tensor:
        return clean.values[place][:, at : at + 1].expand(samples, -1, -1)

    for part in parts:
        for at in range(start, length):
            for layer in range(layers):
                if part == "resid":
                    if layer == layers - 1 and at < length - 1:
                        continue
                    held = [(later, severed) for later in range(layer + 1, layers) if severed]
                    changes = [Change(place, corrupted.values[place][:, at : at + 1]) for place in held]
                    changes.append(Change((layer, part), was((layer, part), at)))
                else:
                    near = range(*_window(layer, layers, window, preset))
                    changes = [Change((one, part), was((one, part), at)) for one in near]
                cells.append((part, at, layer))
                branches.append(Branch.of(at, *changes))
    return cells, branches


def _window(layer: int, layers: int, window: int, preset: Preset) -> tuple[int, int]:
    """The layers that are restored around a layer, clipped at the ends."""
    low = layer - (window // 2 if preset == "code" else (window - 1) // 2)
    return max(0, low), min(layers, low + window)


def _drawn(row: Row, seed: int, size: tuple[int, int, int]) -> Tensor:
    """Standard normal noise ``[sample, pos, d_model]`` that the prompt and the seed determine."""
    key = hashlib.sha256(f"{seed}|{row.digest}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
    return torch.randn(size, generator=generator)


def _spread(model: Model, clean: Trunks, subjects: Sequence[str], preset: Preset) -> float:
    """The standard deviation over all scalars of token embeddings, as block 0 receives them."""
    texts = NEUTRAL if preset == "paper" else subjects
    ids = [token for text in texts for token in model.tokenizer(text, add_special_tokens=False)["input_ids"]]
    table = model.hf.get_input_embeddings()
    with torch.no_grad():
        embedded = table(torch.tensor(ids, device=model.engine.device)).float()
        mine, received = table(clean.tokens.to(model.engine.device))[0].float(), clean.below(0)[0].float()
    # Some families scale embeddings on the way to block 0; others add positions, which are no part of this.
    scale = float((mine * received).sum() / mine.square().sum())
    scaled = bool((received - scale * mine).norm() < 1e-2 * received.norm())
    return float(embedded.std()) * (scale if scaled else 1.0)


def _answer(model: Model, prompt: Prompt, row: Row, answer: str | None, likely: Tensor, insist: bool) -> int:
    best = int(likely.argmax())
    if answer is None:
        return best
    token = answer_token(model.tokenizer, prompt, row.tokens, answer)
    if token != best and not insist:
        raise BadData(
            f"the model does not answer {answer!r}",
            found=f"{model.decode([best])!r} with probability {float(likely[best]):.2f}; "
            f"{answer!r} has {float(likely[token]):.2f}",
            hint="trace a fact that the model knows; insist=True traces the answer all the same",
        )
    return token


def _refuse(
    model: Model,
    row: Row,
    parts: Sequence[Part],
    subject: str,
    samples: int,
    noise: float | Tensor,
    window: int,
) -> None:
    if subject not in row.spans:
        raise NoSuchPosition(
            f"the prompt has no span {subject!r} to corrupt",
            found=", ".join(row.spans) or "no spans",
            hint='mark it: Prompt("The {subject} is in the city of", subject="Eiffel Tower")',
        )
    for part in parts:
        if part not in PARTS:
            raise NoSuchSite(
                f"tracing restores no {part!r}", found=", ".join(PARTS), hint="name one of these, or several"
            )
        model.shape.expand(f"L0.{part}")
    start, stop = row.spans[subject]
    if isinstance(noise, Tensor):
        wanted = (stop - start, model.shape.d_model)
        if noise.dim() != 3 or noise.shape[1:] != wanted or not noise.isfinite().all():
            raise BadVector(
                f"noise of shape {tuple(noise.shape)} does not fit",
                found=f"a subject of {wanted[0]} tokens, a model of width {wanted[1]}",
                hint="give finite noise [sample, pos, d_model], or a number of deviations",
            )
    elif not 0 < noise < float("inf"):
        raise BadDose(f"noise={noise} corrupts nothing", hint="give a positive number of deviations")
    if samples < 1 or window < 1:
        raise BadDose(f"samples={samples}, window={window} cannot be traced", hint="both are at least 1")
