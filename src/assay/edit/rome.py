"""ROME: one fact rewritten by a rank-one change of one projection (Meng et al. 2022, §3 and appendix E).

The MLP's down projection W is read as a memory from keys k (``mlp.act`` at the subject's last token) to values v. A value
v* is found that makes the model say the new answer (`assay.edit.descent`); then W is changed so that it maps the subject's
key to v*, and disturbs other keys least::

    Ŵ = W + Λ (C⁻¹k*)ᵀ        Λ = (v* − W k*) / ((C⁻¹k*)ᵀ k*)        C = E[k kᵀ]

k* is a mean over contexts, texts of the model's own that stand before the prompt. Paper and published code differ:

==========  ====================================================  ===========================================
preset      keys in the formula                                   v* is found with
==========  ====================================================  ===========================================
``r-rome``  k* throughout                                         the code's descent
``paper``   k* throughout                                         the paper's: KL × 100, Adam's weight decay
``p-rome``  the bare prompt's throughout                          the code's descent
``code``    C⁻¹k* over the bare prompt's key, so Ŵk* ≠ v*         the code's descent
==========  ====================================================  ===========================================

After some hundreds of edits ``code`` breaks a model for that reason (Gupta et al. 2024, who name the first and the third).

It misleads as a test of where a fact is stored: edits work at layers that tracing does not point to (Hase et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from assay.act.edit import Delta, Edit
from assay.edit.contexts import contexts
from assay.edit.descent import PAPER, Descent, Goal, Rewrite, values
from assay.edit.memory import Memory, recorded
from assay.edit.moments import SecondMoment
from assay.errors import BadDose, NoSuchSite
from assay.prompt import Prompt
from assay.run.model import Model
from assay.site import Site

Preset = Literal["r-rome", "paper", "p-rome", "code"]


def rome(
    model: Model,
    prompt: Prompt,
    *,
    to: str,
    at: str | Site,
    moments: SecondMoment | None = None,
    before: Sequence[str] | None = None,
    preset: Preset = "r-rome",
    descent: Descent | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Edit:
    """Rewrite what the model answers to a prompt.

    Args:
        prompt: with the span ``subject``.
        to: the new answer, with its blank: ``" Rome"``.
        at: the layer's ``mlp.out`` at the subject's last token: ``"L8.mlp.out @ subject[-1]"``.
        moments: C of that layer's ``mlp.act``; None takes the identity.
        before: contexts; None samples twenty from the model.
        preset: see above.
        descent: how v* is found, in place of the preset's way.
        progress: called when v* is found.

    Raises `NoSuchPosition` without the span, `NoSuchSite` where there is no single down projection, `ModelMismatch`, `BadData`.
    """
    if preset not in get_args(Preset):
        raise BadDose(f"there is no preset {preset!r}", found=", ".join(get_args(Preset)), hint="choose one of these")
    way = descent or (PAPER if preset == "paper" else Descent())
    (found,) = stored(model, [(prompt, to)], at=at, before=before, descent=way, progress=progress)
    return found.edit(moments, preset)


@dataclass(frozen=True, eq=False)
class Stored:
    """What ROME found for one fact; the expensive half of an edit, which its presets share.

    Attributes:
        memory: where it goes.
        rewrite: the fact.
        keys, values: of the down projection at the subject's last token, ``[prompt, d]``, the bare prompt's first.
        target: v*, ``[d_model]``.
        loss: of the descent, at its end.
        told: arguments, for the record.
    """

    memory: Memory
    rewrite: Rewrite
    keys: Tensor
    values: Tensor
    target: Tensor
    loss: float
    told: Mapping[str, object]

    def edit(self, moments: SecondMoment | None = None, preset: Preset = "r-rome") -> Edit:
        """The change of rank one. Raises `ModelMismatch` or `BadData` for moments of another model or layer."""
        self.memory.refuse(moments)
        k_bare, k_mean = self.keys[0].double(), self.keys.double().mean(dim=0)
        v_bare, v_mean = self.values[0].double(), self.values.double().mean(dim=0)
        key = k_bare if preset == "p-rome" else k_mean
        over = key if moments is None else moments.solve(key)
        over = over / over.norm()
        shared, now = (k_mean, v_mean) if preset in ("r-rome", "paper") else (k_bare, v_bare)
        change = (self.target.double() - now) / (shared @ over)
        prompt, to = self.rewrite
        return recorded(
            self.memory.model,
            {self.memory.layer: Delta(change[:, None], over[:, None])},
            method="edit.rome",
            arguments={"prompt": prompt.text, "to": to, "preset": preset, **self.told},
            rewrites=[self.rewrite],
            data=moments.data if moments else "",
        )


def stored(
    model: Model,
    rewrites: Sequence[Rewrite],
    *,
    at: str | Site,
    before: Sequence[str] | None = None,
    descent: Descent | None = None,
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Stored]:
    """Find v* for each of several facts, each for itself. Arguments and errors as for `rome`."""
    (site,) = model.sites(at).expect(1)
    if site.part != "mlp.out" or str(site.positions) != "subject[-1]":
        raise NoSuchSite(
            f"ROME cannot write at {site}",
            nearest=f"L{site.layer}.mlp.out @ subject[-1]",
            hint="name an MLP at the subject's last token",
        )
    assert isinstance(site.layer, int)
    place = Memory(model, site.layer)
    way, before = descent or Descent(), contexts(model) if before is None else before
    goals = [Goal.of(model, rewrite, before) for rewrite in rewrites]
    key, value = (site.layer, "mlp.act"), (site.layer, "mlp.down")
    told = {"at": str(site), "contexts": len(before), "descent": vars(way)}
    return [
        Stored(place, rewrite, one.read[key], one.read[value], one.read[value][0] + one.delta, one.loss, told)
        for rewrite, one in zip(rewrites, values(model, goals, value, way, [key], memory, progress), strict=True)
    ]
