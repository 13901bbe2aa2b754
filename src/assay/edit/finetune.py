"""The baseline that an edit has to beat: gradient descent on one projection's weights (Meng et al. 2022, appendix E.1, FT+L).

Adam on the down projection of one layer until the new answers are likely; with ``most``, every weight stays within that
distance of where it was (Zhu et al. 2021, the L∞ constraint), which spares other facts and rewrites less. The model's own
weights are not touched: the change is a variable of its own, added to what the projection gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from assay.act.edit import Delta, Edit
from assay.act.program import Place
from assay.edit.descent import Answers, Goal, Rewrite
from assay.edit.memory import Memory, recorded
from assay.errors import BadDose, EmptyData
from assay.model.clock import right_padded
from assay.model.engine import Start
from assay.model.taps import keeper
from assay.run.model import Model


def finetune(
    model: Model,
    rewrites: Sequence[Rewrite],
    *,
    layer: int,
    rate: float = 5e-4,
    steps: int = 25,
    enough: float = 0.03,
    most: float | None = 5e-4,
    progress: Callable[[int, int], None] | None = None,
) -> Edit:
    """Rewrite what the model answers by fine-tuning one layer's down projection.

    Args:
        rewrites: prompts with the span ``subject``, and their new answers; trained on together.
        layer: whose projection.
        rate, steps: of Adam.
        enough: the loss, nats per answer token, at which it stops.
        most: how far any weight may move; None for as far as it goes.
        progress: called with steps done and steps in all.

    Raises `EmptyData`, `BadDose`, `NoSuchSite`, `NoSuchPosition`, `BadData`.
    """
    if not rewrites:
        raise EmptyData("there is nothing to rewrite", hint="give prompts and their new answers")
    if steps < 1 or not rate > 0 or (most is not None and not most > 0):
        raise BadDose(f"steps={steps}, rate={rate}, most={most} change nothing", hint="give positive numbers")
    Memory(model, layer)  # refuses what has none
    rows = [Goal.of(model, rewrite, ()).rows[0] for rewrite in rewrites]
    tokens, positions = right_padded([row.tokens for row in rows])
    below: Place = (layer - 1, "resid")
    seen: dict[Place, Tensor] = {}
    if layer:
        model.engine.forward(tokens, positions, reads={below: keeper(seen, below)}, end=layer)
    start = Start(layer, seen[below]) if layer else None
    change = torch.zeros(model.shape.d_model, model.shape.d_mlp, device=model.engine.device, requires_grad=True)
    adam = torch.optim.Adam([change], lr=rate)
    keys: dict[Place, Tensor] = {}
    key: Place = (layer, "mlp.act")

    def push(h: Tensor) -> Tensor:
        return h + (keys[key].float() @ change.T).to(h)

    reads = {key: keeper(keys, key), (layer, "mlp.down"): push}
    answers = Answers.of(rows, [0] * len(rows))
    for step in range(steps):
        with torch.enable_grad():
            final = model.engine.forward(tokens, positions, reads=reads, start=start, gradients=True)
            loss = answers.loss(model.engine, final).mean()
        if progress:
            progress(step + 1, steps)
        if loss.item() < enough:
            break
        (change.grad,) = torch.autograd.grad(loss, [change])
        adam.step()
        if most is not None:
            with torch.no_grad():
                change.clamp_(-most, most)
    arguments = dict(layer=layer, rate=rate, steps=steps, enough=enough, most=most, facts=len(rewrites))
    delta = Delta(torch.eye(model.shape.d_model), change.detach().T)
    return recorded(model, {layer: delta}, method="edit.finetune", arguments=arguments, rewrites=rewrites)
