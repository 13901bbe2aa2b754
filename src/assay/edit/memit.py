"""MEMIT: many facts at once, spread over the MLPs of a few layers (Meng et al. 2023, §4).

For every fact a stream z at the last of the layers is found that makes the model say the new answer
(`assay.edit.descent`). Then, from the first layer to the last, each down projection takes on its share of what is still
missing, by least squares over all facts' keys K against the keys of ordinary text::

    Δ_l = R_l Kᵀ (λC + K Kᵀ)⁻¹        R_l = (z − h) / (layers still to go)

with K and the stream h measured anew under the changes made so far. As in the published code, the key of a fact is half
the bare prompt's and half the mean over contexts, and h is the bare prompt's. With one fact, one layer and λ → 0 this is
ROME.

It misleads where facts share subjects: their keys are then near equal, and least squares averages their answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from assay.act.edit import Delta, Edit
from assay.act.program import Place
from assay.edit.contexts import OPENINGS, contexts
from assay.edit.descent import Descent, Goal, Rewrite, batches, last_of, values
from assay.edit.memory import Memory, recorded
from assay.edit.moments import SecondMoment
from assay.errors import BadDose, EmptyData, NoSuchSite
from assay.model.clock import right_padded
from assay.model.taps import keeper
from assay.run.model import Model
from assay.run.plan import token_budget

STREAM = Descent(clamp=0.75)
"""MEMIT's own clamp: a value is sought in the stream, which is longer than what one MLP adds."""


def memit(
    model: Model,
    rewrites: Sequence[Rewrite],
    *,
    layers: Sequence[int],
    moments: Mapping[int, SecondMoment] | None = None,
    weight: float = 15_000.0,
    before: Sequence[str] | None = None,
    descent: Descent | None = None,
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Edit:
    """Rewrite what the model answers to many prompts.

    Args:
        rewrites: prompts with the span ``subject``, and their new answers.
        layers: where to write, rising, as a rule neighbours.
        moments: C by layer; None takes the identity.
        weight: λ, how many facts one mean of ordinary text weighs against.
        before: contexts; None samples five from the model.
        descent: how z is found; `STREAM` unless given.
        memory: bytes that a batch's activations may take.
        progress: called with facts whose z is found and facts in all.

    Raises `EmptyData` for nothing to do, `NoSuchSite` for layers without a down projection that adds to the stream,
    `ModelMismatch`, `BadData`, `NoSuchPosition`, `BadDose`.
    """
    _refuse(model, rewrites, layers, moments, weight)
    found = sought(model, rewrites, layer=layers[-1], before=before, descent=descent, memory=memory, progress=progress)
    return found.edit(layers, moments, weight)


@dataclass(frozen=True, eq=False)
class Sought:
    """What MEMIT found for its facts; the expensive half, which choices of layers and weights share.

    Attributes:
        model: the model.
        rewrites, goals: the facts, as given and as rows.
        layer: the last layer, after which the streams are.
        streams: z, ``[fact, d_model]`` in float64.
        memory: bytes that a batch's activations may take.
    """

    model: Model
    rewrites: Sequence[Rewrite]
    goals: Sequence[Goal]
    layer: int
    streams: Tensor
    memory: int | None

    def edit(
        self, layers: Sequence[int], moments: Mapping[int, SecondMoment] | None = None, weight: float = 15_000.0
    ) -> Edit:
        """The changes, from the first of the layers to the last, which is `layer`. Raises as `memit` does."""
        model = self.model
        memories = _refuse(model, self.rewrites, layers, moments, weight)
        if layers[-1] != self.layer:
            raise NoSuchSite(
                f"the streams were sought after layer {self.layer}",
                found=f"layers up to {layers[-1]}",
                hint="seek them again, or end there",
            )
        record = partial(
            recorded,
            model,
            method="edit.memit",
            arguments={"layers": list(layers), "weight": weight, "contexts": len(self.goals[0].rows) - 1},
            rewrites=self.rewrites,
            data="".join(moments[layer].data[:16] for layer in layers) if moments else "",
        )
        deltas: dict[int, Delta] = {}
        for number, one in enumerate(memories):
            so_far = [record(deltas)] if deltas else []
            with model.edited(*so_far):
                keys, now = _measured(model, self.goals, one.layer, (self.layer, "resid"), self.memory)
            missing = (self.streams - now) / (len(layers) - number)
            usual = moments[one.layer].ridged if moments else torch.eye(keys.shape[1], dtype=torch.float64)
            over = torch.linalg.solve(weight * usual + keys.T @ keys, keys.T)
            deltas[one.layer] = Delta(missing.T, over)
        return record(deltas)


def sought(
    model: Model,
    rewrites: Sequence[Rewrite],
    *,
    layer: int,
    before: Sequence[str] | None = None,
    descent: Descent | None = None,
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sought:
    """Find z after a layer for every fact. Arguments and errors as for `memit`."""
    _refuse(model, rewrites, [layer], None, 1.0)
    before = contexts(model, 1, (10,), OPENINGS) if before is None else before
    goals = [Goal.of(model, rewrite, before) for rewrite in rewrites]
    top: Place = (layer, "resid")
    found = values(model, goals, top, descent or STREAM, memory=memory, progress=progress)
    streams = torch.stack([one.read[top][0] + one.delta for one in found]).double()
    return Sought(model, tuple(rewrites), goals, layer, streams, memory)


def _measured(model: Model, goals: Sequence[Goal], layer: int, top: Place, memory: int | None) -> tuple[Tensor, Tensor]:
    """Each fact's key at a layer ``[fact, d_mlp]`` and its stream at the last layer ``[fact, d_model]``, in float64."""
    key: Place = (layer, "mlp.act")
    keys, streams = [], []
    for batch in batches(goals, lambda row: len(row.tokens), token_budget(model, memory)):
        rows = [row for goal in batch for row in goal.rows]
        seen: dict[Place, Tensor] = {}
        tokens, positions = right_padded([row.tokens for row in rows])
        reads = {place: keeper(seen, place) for place in (key, top)}
        assert top[0] is not None
        model.engine.forward(tokens, positions, reads=reads, end=top[0] + 1)
        at = torch.arange(len(rows)), torch.tensor([last_of(row) for row in rows])
        read, stream = seen[key][at].double().cpu(), seen[top][at].double().cpu()
        first = 0
        for goal in batch:
            mine = read[first : first + len(goal.rows)]
            keys.append((mine[0] + mine[1:].mean(dim=0)) / 2 if len(mine) > 1 else mine[0])
            streams.append(stream[first])
            first += len(goal.rows)
    return torch.stack(keys), torch.stack(streams)


def _refuse(
    model: Model,
    rewrites: Sequence[Rewrite],
    layers: Sequence[int],
    moments: Mapping[int, SecondMoment] | None,
    weight: float,
) -> list[Memory]:
    if not rewrites:
        raise EmptyData("there is nothing to rewrite", hint="give prompts and their new answers")
    if not layers or list(layers) != sorted(set(layers)):
        raise NoSuchSite(f"layers {list(layers)} are none to spread an edit over", hint="give rising ones: range(4, 9)")
    if not weight > 0 or weight == float("inf"):
        raise BadDose(f"weight={weight} weighs nothing against the facts", hint="give a positive, finite number")
    memories = [Memory(model, layer) for layer in layers]
    if not model.engine.anatomy.neurons_add:
        raise NoSuchSite(
            f"MEMIT cannot write at L{layers[0]}.mlp.out",
            found="a norm stands behind the down projection, so that what it writes is not what the stream receives",
            hint="edit single facts with edit.rome, which works before the norm",
        )
    without = [layer for layer in layers if moments is not None and layer not in moments]
    if without:
        raise NoSuchSite(
            f"no second moment is given for layer {without[0]}",
            found=", ".join(f"L{layer}" for layer in moments or ()),
            hint="measure it: edit.second_moment(…), or give none at all",
        )
    for one in memories:
        one.refuse(moments[one.layer] if moments else None)
    return memories
