"""ROME: one fact rewritten by a rank-one change of one projection (Meng et al. 2022, §3 and appendix E).

The MLP's down projection W is read as a memory from keys k (``mlp.act`` at the subject's last token) to values v. A value
v* is found by gradient descent that makes the model say the new answer; then W is changed so that it maps the subject's key
to v*, and disturbs other keys least::

    Ŵ = W + Λ (C⁻¹k*)ᵀ        Λ = (v* − W k*) / ((C⁻¹k*)ᵀ k*)        C = E[k kᵀ]

k* is a mean over contexts, texts of the model's own that stand before the prompt. The published code divides by another
key, that of the bare prompt, which breaks Ŵk* = v* and after some hundreds of edits the model (Gupta et al. 2024): preset
``code`` does as it does, ``r-rome`` uses the mean key throughout, ``p-rome`` the bare prompt's.

It misleads as a test of where a fact is stored: edits work at layers that tracing does not point to (Hase et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from assay.act.edit import Delta, Edit
from assay.act.program import Place
from assay.act.rows import Row
from assay.edit.moments import SecondMoment
from assay.errors import BadData, BadDose, ModelMismatch, NoSuchPosition, NoSuchSite
from assay.model.anatomy import module_at
from assay.model.clock import right_padded
from assay.model.engine import Start
from assay.model.hooks import Tap
from assay.prompt import Prompt
from assay.provenance import Provenance, versions
from assay.run.generate import Sampling
from assay.run.model import Model
from assay.site import Site

Preset = Literal["r-rome", "p-rome", "code"]


@dataclass(frozen=True)
class Descent:
    """How v* is found. The defaults are those of the published code.

    Attributes:
        rate, steps: of Adam.
        enough: the loss at which it stops.
        clamp: the most that δ may be, in lengths of the value that it changes.
        kl, decay: weights of the drift on "{subject} is a", and of ‖δ‖/‖v‖².
    """

    rate: float = 0.5
    steps: int = 20
    enough: float = 0.05
    clamp: float = 4.0
    kl: float = 0.0625
    decay: float = 0.5


def contexts(model: Model, count: int = 10, lengths: Sequence[int] = (5, 10), seed: int = 0) -> tuple[str, ...]:
    """Texts of the model's own to stand before a prompt: ``count`` of each length, from its first token, top 5."""
    first = model.tokenizer.bos_token_id
    first = next(iter(model.stops)) if first is None else first
    made = []
    for length in lengths:
        for number in range(count):
            sampling = Sampling(top_k=5, seed=seed * 1_000_003 + length * 1009 + number)
            text = model.generate(Prompt.tokenized([first]), tokens=length, sampling=sampling).text
            made.append(text.strip().replace("\n", " ") + ". ")
    return tuple(made)


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
    subject: str = "subject",
    progress: Callable[[int, int], None] | None = None,
) -> Edit:
    """Rewrite what the model answers to a prompt.

    Args:
        prompt: with the span ``subject``.
        to: the new answer, with its blank: ``" Rome"``.
        at: the layer's ``mlp.out`` at one token, as a rule ``@ subject[-1]``.
        moments: C of that layer's ``mlp.act``; None takes the identity.
        before: contexts; None samples twenty from the model.
        preset: which keys are used where, see above.
        descent: how v* is found.
        progress: called with steps done and steps in all.

    Raises `NoSuchPosition` without the span, `NoSuchSite` where there is no single down projection, `ModelMismatch`, `BadData`.
    """
    site, descent = _place(model, at), descent or Descent()
    if not to:
        raise BadData("there is no new answer", hint='give it with its blank: to=" Rome"')
    _refuse(model, prompt, site, moments, preset, subject)
    before = contexts(model) if before is None else before
    prompts = [prompt, *(_after(text, prompt) for text in before)]
    text = next(prompt.text[a:b] for name, a, b in prompt.spans if name == subject)
    drift = model.row(Prompt("{" + subject + "} is a", **{subject: text}), "drift")
    rows = [model.row(one, str(index), to) for index, one in enumerate(prompts)]
    search = _Search(model, site, rows, drift, subject, descent)
    keys, values = search.keys, search.values
    delta = search.run(progress)
    target = values[0] + delta
    k_bare, k_mean = keys[0].double(), keys.double().mean(dim=0)
    v_bare, v_mean = values[0].double(), values.double().mean(dim=0)
    key = k_bare if preset == "p-rome" else k_mean
    over = key if moments is None else moments.solve(key)
    over = over / over.norm()
    shared, now = (k_mean, v_mean) if preset == "r-rome" else (k_bare, v_bare)
    change = (target.double() - now) / (shared @ over)
    name, crosswise = _weight(model, site)
    factors = (over, change) if crosswise else (change, over)
    made = Provenance(
        method="edit.rome",
        arguments={"prompt": prompt.text, "to": to, "at": str(site), "preset": preset, "contexts": len(before)},
        model=model.fingerprint,
        data=moments.data if moments else "",
        used=frozenset({prompt.digest}),
        versions=versions(),
    )
    return Edit({name: Delta(*(one[:, None] for one in factors))}, made, (f"{prompt.text}{to}",))


class _Search:
    """v* for one fact: the value at the subject's last token under which the answer is the new one.

    Attributes:
        keys, values: ``[prompt, d]`` of the down projection at that token, the bare prompt's first.
    """

    def __init__(
        self, model: Model, site: Site, rows: Sequence[Row], drift: Row, subject: str, descent: Descent
    ) -> None:
        self.model, self.descent = model, descent
        assert isinstance(site.layer, int)
        self.layer = site.layer
        self.rows = [*rows, drift]
        self.tokens, self.positions = right_padded([row.tokens for row in self.rows])
        here = [row.bounds(site)[0] for row in rows] + [drift.spans[subject][1] - 1]
        self.here = torch.arange(len(self.rows)), torch.tensor(here)
        seen: dict[str, Tensor] = {}
        reads: dict[Place, Tap] = {(self.layer, part): _keep(seen, part) for part in ("mlp.act", "mlp.down")}
        if self.layer:
            reads[self.layer - 1, "resid"] = _keep(seen, "below")
        final = model.engine.forward(self.tokens, self.positions, reads=reads)
        self.below = seen.get("below")
        self.keys, self.values = (seen[part][self.here][:-1].float().cpu() for part in ("mlp.act", "mlp.down"))
        self.natural = self._drift(final)

    def run(self, progress: Callable[[int, int], None] | None) -> Tensor:
        """δ, what is added to the bare prompt's value, ``[d_model]``."""
        way, length = self.descent, self.values[0].norm()
        delta = torch.zeros_like(self.values[0], requires_grad=True)
        steps = torch.optim.Adam([delta], lr=way.rate)
        for step in range(way.steps):
            with torch.enable_grad():
                loss = self._loss(delta) + way.decay * delta.norm() / length**2
            if progress:
                progress(step + 1, way.steps)
            if loss.item() < way.enough or step == way.steps - 1:
                break
            (slope,) = torch.autograd.grad(loss, [delta])
            delta.grad = torch.nan_to_num(slope)  # the norm has no slope at 0
            steps.step()
            with torch.no_grad():
                if delta.norm() > way.clamp * length:
                    delta.mul_(way.clamp * length / delta.norm())
        return delta.detach()

    def _loss(self, delta: Tensor) -> Tensor:
        engine = self.model.engine

        def push(h: Tensor) -> Tensor:
            added = torch.zeros_like(h)
            added[self.here] = 1
            return h + added * delta.to(h)

        start = Start(self.layer, self.below) if self.below is not None else None
        final = engine.forward(
            self.tokens, self.positions, reads={(self.layer, "mlp.down"): push}, start=start, gradients=True
        )
        said = torch.zeros(())
        for index, row in enumerate(self.rows[:-1]):
            logits = engine.unembed(final[index, row.prompt - 1 : len(row.tokens) - 1], gradients=True).float()
            answer = torch.tensor(row.tokens[row.prompt :], device=logits.device)
            said = said + torch.nn.functional.cross_entropy(logits, answer).cpu()
        drift = torch.nn.functional.kl_div(self._drift(final), self.natural, log_target=True, reduction="sum")
        return said / (len(self.rows) - 1) + self.descent.kl * drift.cpu()

    def _drift(self, final: Tensor) -> Tensor:
        """Log-probabilities at the subject's last token of "{subject} is a"."""
        return (
            self.model.engine.unembed(final[-1, self.here[1][-1]], gradients=final.requires_grad)
            .float()
            .log_softmax(-1)
        )


def _keep(seen: dict[str, Tensor], part: str) -> Callable[[Tensor], None]:
    def tap(h: Tensor) -> None:
        seen[part] = h

    return tap


def _after(text: str, prompt: Prompt) -> Prompt:
    """The prompt with a text before it, its spans moved along."""
    state = prompt.to_json()
    spans = [(name, start + len(text), end + len(text)) for name, start, end in prompt.spans]
    return Prompt.from_json({**state, "text": text + prompt.text, "spans": spans})


def _place(model: Model, at: str | Site) -> Site:
    (site,) = model.sites(at).expect(1)
    if site.part != "mlp.out" or not site.positions.single:
        raise NoSuchSite(
            f"ROME cannot write at {site}",
            nearest=f"L{site.layer}.mlp.out @ subject[-1]",
            hint="name an MLP at one token",
        )
    return site


def _weight(model: Model, site: Site) -> tuple[str, bool]:
    """The down projection's weight by name, and whether it maps rows to columns (GPT-2's ``Conv1D``)."""
    assert isinstance(site.layer, int) and model.engine.anatomy.down is not None
    module = module_at(model.engine.hooks.blocks[site.layer], model.engine.anatomy.down)
    weight = module.weight
    name = next(name for name, known in model.hf.named_parameters() if known is weight)
    return name, type(module).__name__ == "Conv1D"


def _refuse(model: Model, prompt: Prompt, site: Site, moments: SecondMoment | None, preset: str, subject: str) -> None:
    if model.engine.anatomy.down is None:
        raise NoSuchSite(
            f"{site} has no single down projection", found="its MLP is routed to experts", hint="edit another model"
        )
    if subject not in {name for name, _, _ in prompt.spans} or prompt.turns is not None or prompt.tokens is not None:
        raise NoSuchPosition(
            f"the prompt has no span {subject!r} that an edit could be about",
            found=", ".join(name for name, _, _ in prompt.spans) or "no spans",
            hint='write it as text, and mark it: Prompt("The {subject} is in the city of", subject="Eiffel Tower")',
        )
    if preset not in ("r-rome", "p-rome", "code"):
        raise BadDose(f"there is no preset {preset!r}", found="r-rome, p-rome, code", hint="choose one of these")
    if moments is not None and moments.model != model.fingerprint:
        raise ModelMismatch(
            "the second moment is another model's", hint="measure it on this one: edit.second_moment(…)"
        )
    if moments is not None and moments.site.layer != site.layer:
        raise BadData(
            f"the second moment is that of {moments.site}",
            found=f"the edit is at {site}",
            hint="measure it at that layer",
        )
