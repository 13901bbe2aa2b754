"""An MLP's down projection, as what edits write to: which weight it is, what they may not do to it, how changes are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assay.act.edit import Delta, Edit
from assay.edit.descent import Rewrite
from assay.edit.moments import SecondMoment
from assay.errors import BadData, ModelMismatch, NoSuchSite
from assay.model.anatomy import crosswise, module_at
from assay.provenance import Provenance, jsonable, versions
from assay.run.model import Model


class Memory:
    """The down projection of one layer. Raises `NoSuchSite` where the layer has no single one."""

    def __init__(self, model: Model, layer: int) -> None:
        model.shape.expand(f"L{layer}.mlp.out")
        if model.engine.anatomy.down is None:
            raise NoSuchSite(
                f"L{layer}.mlp.out has no single down projection",
                found="its MLP is routed to experts",
                hint="edit another model",
            )
        self.model, self.layer = model, layer
        self.module = module_at(model.engine.hooks.blocks[layer], model.engine.anatomy.down)

    @property
    def name(self) -> str:
        """Of the weight, as a parameter."""
        return next(name for name, known in self.model.hf.named_parameters() if known is self.module.weight)

    def refuse(self, moments: SecondMoment | None) -> None:
        """Raise `ModelMismatch` or `BadData` for a second moment that is not this one's."""
        if moments is None:
            return
        if moments.model != self.model.fingerprint:
            raise ModelMismatch(
                "the second moment is another model's", hint="measure it on this one: edit.second_moment(…)"
            )
        if moments.site.layer != self.layer:
            raise BadData(
                f"the second moment is that of {moments.site}",
                found=f"the edit is at L{self.layer}.mlp.out",
                hint="measure it at that layer",
            )


def recorded(
    model: Model,
    deltas: Mapping[int, Delta],
    *,
    method: str,
    arguments: dict[str, Any],
    rewrites: Sequence[Rewrite],
    data: str = "",
) -> Edit:
    """Changes ``[d_model, d_mlp]`` of down projections, by layer, as an edit of this model."""
    memories = {layer: Memory(model, layer) for layer in deltas}
    made = Provenance(
        method=method,
        arguments=jsonable(arguments),
        model=model.fingerprint,
        data=data,
        used=frozenset(prompt.digest for prompt, _ in rewrites),
        versions=versions(),
    )
    as_it_lies = {
        memories[layer].name: Delta(one.right, one.left) if crosswise(memories[layer].module) else one
        for layer, one in deltas.items()
    }
    return Edit(as_it_lies, made, tuple(f"{prompt.text}{to}" for prompt, to in rewrites))
