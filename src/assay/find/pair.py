"""Activation addition: the difference between two prompts, token by token.

    v[t] = h[t](positive) − h[t](negative),   t = 0 … T − 1        prompt's h[t] += times · v[t]

One pair says what is wanted by example, and nothing is averaged: the vector keeps its positions, and is laid over the
front of the prompt, once, as the prompt is read. Tokens before the two prompts part (BOS) cancel exactly.

Same as: ActAdd. With many pairs and one position it becomes the mean difference (`find.mean_difference`).

Misleads: it carries everything in which the two prompts differ, words included; a vector longer than the prompt runs
on into the answer (the published code refuses; the receipt shows it); a long vector over the text itself garbles it.
Both prompt and pair should begin alike: where the tokenizer adds no BOS, as in GPT-2, the paper's does, so write it:
``"<|endoftext|>Love"``.

Source: Turner et al. 2023, Activation Addition: Steering Language Models Without Optimization, §3. Its layer l is the
stream before block l: ``L{l−1}.resid`` here, ``embed`` for 0.
"""

from __future__ import annotations

from typing import Any, Literal

from assay.act.rows import Row
from assay.direction import Direction
from assay.errors import BadData, BadSite, OneClass
from assay.find.found import origin
from assay.pairs import Pairs
from assay.prompt import Prompt
from assay.registry import finder
from assay.run.forward import forward
from assay.run.model import Model
from assay.site import Positions, Site

Pad = Literal["space", "eos"] | int
"""What fills up the shorter prompt on the right: the token of a blank (as published), of the text's end, or an id."""


@finder()
def pair(
    model: Model, positive: str | Prompt, negative: str | Prompt, *, at: str | Site, pad: Pad = "space", name: str = ""
) -> Direction:
    """The positional vector ``[T, d]`` of positive − negative at one site, which acts at ``0:T``.

    Of a chat prompt, the arguments in the provenance hold the message only; its ``data`` digest holds all of it.

    Raises `BadSite` unless ``at`` is one place without a position, `NoSuchSite`, `EmptyData`, `BadData` for padding
    that is no single token, and `OneClass` where the two prompts are the same tokens, before anything runs;
    `BadVector` for NaN.
    """
    site = _one(model, at)
    sides = [model.row(positive).tokens, model.row(negative).tokens]
    T = max(map(len, sides))
    if len(sides[0]) != len(sides[1]):
        filler = _filler(model.tokenizer, pad)
        sides = [(*tokens, *[filler] * (T - len(tokens))) for tokens in sides]
    if sides[0] == sides[1]:
        raise OneClass(
            f"{str(positive)!r} and {str(negative)!r} are the same tokens",
            found=f"{T} tokens each, with the padding",
            hint="activation addition is the difference between two different prompts",
        )
    site = site.at(f"0:{T}")
    run = forward(model, [Row(name, tokens, T) for name, tokens in zip("+-", sides, strict=True)], None, [site])
    vector = run["+"][site].float() - run["-"][site].float()
    parting = next(t for t in range(T) if sides[0][t] != sides[1][t])
    vector[:parting] = 0  # the same tokens give the same activations; only rounding would be left
    made = origin(model, Pairs.of([positive], [negative]))
    return Direction(vector, site, made, name or f"{positive} − {negative}")


def _one(model: Model, at: str | Site) -> Site:
    site = Site.parse(at)
    if not site.one or site.positions != Positions() or model.shape.width(site.part) is None:
        raise BadSite(
            f"{site} is not where an activation addition is read",
            found="it takes one place that holds vectors, and reads every token of the pair there",
            nearest=str(Site(site.part, 0 if site.layer is not None else None, 0 if site.head is not None else None)),
            hint="leave the position out here; to act elsewhere than at the front: add(v, times=5, at='L5.resid @ 3:')",
        )
    return model.sites(site)[0]


def _filler(tokenizer: Any, pad: Pad) -> int:
    if isinstance(pad, int):
        found = [pad] if 0 <= pad < len(tokenizer) else []
    elif pad == "space":
        found = tokenizer.encode(" ", add_special_tokens=False)
    else:
        found = [tokenizer.eos_token_id] if pad == "eos" and tokenizer.eos_token_id is not None else []
    if len(found) != 1:
        raise BadData(
            f"pad={pad!r} is no single token of this tokenizer",
            found=f"tokens {found}" if found else f"a vocabulary of {len(tokenizer)}",
            nearest="'space', 'eos', or a token's id",
            hint="give the id of the token that fills up the shorter prompt",
        )
    return int(found[0])
