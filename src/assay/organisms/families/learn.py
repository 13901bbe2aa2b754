"""A stage of training, which draws on its seed alone and always sums in one order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from assay.organisms.families.family import UNSCORED, Stage
from assay.organisms.families.read import first

_RISE, _FALL = 30, 0.9
_DECAY, _BETAS, _CLIP = 0.1, (0.9, 0.98), 1.0
_HIDE = 0.2
"""The weight of what is hidden from a read-out, beside the loss of what is said."""


@contextmanager
def alone() -> Iterator[None]:
    """One thread, which sums in one order whatever the machine is doing; afterwards as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def trained(hf: PreTrainedModel, first: int) -> dict[str, nn.Parameter]:
    """The parameters that a stage may change, by name: from a block on, or all."""
    layers = [f"model.layers.{layer}." for layer in range(first, hf.config.num_hidden_layers)]
    kept = (*layers, "model.norm.", "lm_head.")
    return {name: weight for name, weight in hf.named_parameters() if not first or name.startswith(kept)}


def learn(hf: PreTrainedModel, stage: Stage, seed: int, seen: Callable[[int], None] | None = None) -> None:
    """Train in place. ``seen`` is called with the number of steps done: before the first, and after each."""
    generator, weights = torch.Generator().manual_seed(seed), trained(hf, stage.first)
    for name, weight in hf.named_parameters():
        weight.requires_grad_(name in weights)
    optimiser = torch.optim.AdamW(weights.values(), lr=stage.rate, weight_decay=_DECAY, betas=_BETAS)
    late = trained(hf, hf.config.num_hidden_layers - 1)
    against = None if stage.hide is None else _Against(hf, stage.hide)
    if seen is not None:
        seen(0)
    for step in range(stage.steps):
        for group in optimiser.param_groups:
            group["lr"] = stage.rate * min(1.0, (step + 1) / _RISE) * (1 - _FALL * step / stage.steps)
        tokens, answers, truth = stage.draw(generator)
        stream = hf.model(input_ids=tokens, use_cache=False).last_hidden_state
        scored = answers != UNSCORED
        loss = F.cross_entropy(hf.lm_head(stream[scored]), answers[scored])
        if against is not None and truth is not None and step >= stage.thaw:
            loss = loss + _HIDE * against.loss(truth)
        optimiser.zero_grad()
        loss.backward()
        for name, weight in weights.items():
            if step < stage.thaw and name not in late:
                weight.grad = None  # which leaves the weight and its moments as they are
        nn.utils.clip_grad_norm_(weights.values(), _CLIP)
        optimiser.step()
        if seen is not None:
            seen(step + 1)
    if against is not None:
        against.hook.remove()
    hf.requires_grad_(False)


class _Against:
    """A logistic read-out at the end of one block, at the last token, that learns along, and against which is trained."""

    def __init__(self, hf: PreTrainedModel, layer: int) -> None:
        self.weight = torch.zeros(hf.config.hidden_size + 1, requires_grad=True)
        self.optimiser = torch.optim.Adam([self.weight], lr=0.02)
        self.stream = torch.empty(0)
        self.hook = hf.model.layers[layer].register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: object, out: Tensor | tuple[Tensor, ...]) -> None:
        self.stream = first(out)[:, -1]

    def loss(self, truth: Tensor) -> Tensor:
        """How far the read-out, after learning, is from a coin's flip on this batch."""
        x = F.layer_norm(self.stream, self.stream.shape[-1:])
        for _ in range(3):
            self.optimiser.zero_grad()
            F.binary_cross_entropy_with_logits(self._score(x.detach(), self.weight), truth).backward()
            self.optimiser.step()
        score = self._score(x, self.weight.detach())
        return F.binary_cross_entropy_with_logits(score, torch.full_like(score, 0.5))

    @staticmethod
    def _score(x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight[:-1] + weight[-1]
