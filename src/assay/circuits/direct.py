"""Direct logit attribution: what each component itself says for an answer (Elhage et al. 2021; Nanda 2022).

The last stream is a sum of what components added, and the scores read it through one norm. With the norm's σ (and in
LayerNorm the mean) held at the value that the whole stream has, every component's part of a logit is its own::

    part(c) = 1/σ · (g ⊙ centre(c)) · (W_U[:, answer] − W_U[:, against])        logit = Σ_c part(c) + bias

``bias`` is what the final norm and the scores add by themselves. The parts sum to the logit, to rounding. Where a family has
a norm behind its attention (Gemma, OLMo 2), each head's part goes through that norm with its σ held, too. Where logits are
capped (Gemma 2), the logit that is taken apart is the one before the cap.

It misleads as to causes: a component may say nothing itself and decide what later ones say, another may be made up for by
those above it. And σ is everybody's: what a component does to it is counted as the others'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.act.intervention import Condition
from assay.circuits.norms import behind_attention, final_norm, normed, unembedding
from assay.errors import BadData, EmptyData, NoSuchSite, nearest
from assay.model.anatomy import matrix, module_at
from assay.model.encode import answer_token
from assay.prompt import Prompt
from assay.run.capture import Captured
from assay.run.model import Model
from assay.stats import Interval, bootstrap_interval

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DirectEffects:
    """Every component's part of a logit, or of a difference of two.

    Attributes:
        components: ``embed``, ``L0.head[0]``, …, ``L0.attn.bias`` where attention has one, ``L0.mlp``, …, ``bias``.
        parts: ``[component, prompt]``, in logits.
        logits: what they sum to, by the model's own norm, ``[prompt]``.
        cap: what bounds the logits behind them, ``cap · tanh(logit / cap)``; None where nothing does.
    """

    components: tuple[str, ...]
    parts: Array
    logits: Array
    cap: float | None

    @property
    def mean(self) -> Array:
        """Over prompts, ``[component]``."""
        return np.asarray(self.parts.mean(axis=1))

    def of(self, component: str) -> Array:
        """One component's part in each prompt. Raises `NoSuchSite`."""
        if component not in self.components:
            raise NoSuchSite(
                f"there is no component {component!r}",
                nearest=nearest(component, self.components),
                hint="components are embed, L3.head[5], L3.attn.bias, L3.mlp and bias",
            )
        return np.asarray(self.parts[self.components.index(component)])

    def interval(self, component: str, *, level: float = 0.95, seed: int = 0) -> Interval:
        """Of the mean over prompts. Raises `NoSuchSite`, `EmptyData` for one prompt."""
        return bootstrap_interval(self.of(component), level=level, seed=seed)

    def top(self, count: int = 10) -> list[tuple[str, float]]:
        """The components that say most, for or against."""
        order = np.argsort(-np.abs(self.mean), kind="stable")[:count]
        return [(self.components[index], float(self.mean[index])) for index in order]

    def __str__(self) -> str:
        lines = [f"{float(self.logits.mean()):+.3f} logits, mean over {len(self.logits)} prompts"]
        return "\n".join([*lines, *(f"  {name:<14} {part:+.3f}" for name, part in self.top())])


def direct(
    model: Model,
    prompts: str | Prompt | Sequence[str | Prompt],
    answer: str | Sequence[str],
    against: str | Sequence[str] | None = None,
    *,
    at: str = "last",
    under: Condition | None = None,
    memory: int | None = None,
) -> DirectEffects:
    """Take the logit of an answer apart.

    Args:
        prompts: one or several.
        answer: one token; one for all prompts, or one for each.
        against: another, whose logit is subtracted.
        at: which token's scores, as in a site.
        under: interventions.
        memory: bytes that a batch's activations may take.

    Raises `BadData` for answers of several tokens or that do not match the prompts, `NoSuchPosition`, `EmptyData`.
    """
    listed = [Prompt.of(one) for one in ([prompts] if isinstance(prompts, str | Prompt) else prompts)]
    if not listed:
        raise EmptyData("there are no prompts", hint="give at least one prompt")
    said = _tokens(model, listed, answer)
    other = None if against is None else _tokens(model, listed, against)
    top = model.shape.layers - 1
    sites = ["embed", "L:.head[:].z", "L:.attn.out", "L:.mlp.out", f"L{top}.resid"]
    found = model.capture(listed, [f"{site} @ {at}" for site in sites], under=under, memory=memory)
    W_U, b_U = (one.double().cpu() for one in _picked(model, said))
    if other is not None:
        W_other, b_other = (one.double().cpu() for one in _picked(model, other))
        W_U, b_U = W_U - W_other, b_U - b_other
    norm, last = final_norm(model), found[f"L{top}.resid @ {at}"]
    out = normed(model, last).double().cpu()
    reader = norm.folded(W_U) * norm.inverse_size(last, out)[:, None]
    parts = _parts(model, found, at, reader)
    parts["bias"] = W_U @ norm.bias + b_U
    logits = (out * W_U).sum(-1) + b_U
    cap = getattr(model.hf.config.get_text_config(), model.engine.anatomy.softcap or "", None)
    return DirectEffects(tuple(parts), torch.stack(list(parts.values())).numpy(), logits.numpy(), cap)


def _parts(model: Model, found: Captured, at: str, reader: Tensor) -> dict[str, Tensor]:
    """What every component's vector is to ``reader [prompt, d_model]``, ``[prompt]`` each."""
    shape = model.shape
    parts = {"embed": (found[f"embed @ {at}"] * reader).sum(-1)}
    for layer in range(shape.layers):
        project = module_at(model.engine.hooks.blocks[layer], model.engine.anatomy.o_proj)
        W_O = matrix(project).double().cpu().unflatten(1, (shape.heads, shape.d_head))
        bias = getattr(project, "bias", None)
        b_O = torch.zeros(shape.d_model, dtype=torch.float64) if bias is None else bias.detach().double().cpu()
        z = torch.stack([found[f"L{layer}.head[{head}].z @ {at}"] for head in range(shape.heads)], dim=1).double()
        norm, out = behind_attention(model, layer), found[f"L{layer}.attn.out @ {at}"]
        whole = torch.einsum("phz,dhz->pd", z, W_O) + b_O
        mine = norm.folded(reader) * norm.inverse_size(whole, out)[:, None]
        heads = torch.einsum("phz,dhz,pd->hp", z, W_O, mine)
        parts |= {f"L{layer}.head[{head}]": heads[head] for head in range(shape.heads)}
        if bias is not None or norm.bias.any():
            parts[f"L{layer}.attn.bias"] = mine @ b_O + reader @ norm.bias
        parts[f"L{layer}.mlp"] = (found[f"L{layer}.mlp.out @ {at}"] * reader).sum(-1)
    return parts


def _picked(model: Model, tokens: list[int]) -> tuple[Tensor, Tensor]:
    """How the scores of some tokens read the normed stream, ``[n, d_model]`` and ``[n]``."""
    W_U, b_U = unembedding(model)
    return W_U[tokens], b_U[tokens]


def _tokens(model: Model, prompts: Sequence[Prompt], answer: str | Sequence[str]) -> list[int]:
    answers = [answer] * len(prompts) if isinstance(answer, str) else list(answer)
    if len(answers) != len(prompts):
        raise BadData(
            "the answers do not match the prompts",
            found=f"{len(prompts)} prompts, {len(answers)} answers",
            hint="give one answer for all prompts, or one for each",
        )
    return [
        answer_token(model.tokenizer, prompt, model.row(prompt).tokens, one)
        for prompt, one in zip(prompts, answers, strict=True)
    ]
