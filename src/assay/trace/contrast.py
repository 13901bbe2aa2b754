"""Two runs that differ in what matters, and what is measured on them: the ground of patching and attribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.act.program import Place
from assay.act.rows import Row
from assay.errors import BadData, EmptyData, NoSuchSite
from assay.model.encode import answer_token
from assay.prompt import Prompt
from assay.run.branch import Trunks, trunks
from assay.run.model import Model
from assay.site import Site

Metric = Callable[[Tensor], Tensor]
"""From the last token's logits ``[row, vocab]`` to one number a row."""
Mode = Literal["denoise", "noise"]
Prompts = str | Prompt | Sequence[str | Prompt]


@dataclass(frozen=True, eq=False)
class Patched:
    """A grid of sites × tokens.

    Attributes:
        sites: what was patched.
        tokens: the first prompt's, as text; ``("all",)`` where whole rows were patched.
        base, target: the metric of the run that was patched into, and of the other, ``[pair]``.
        values: the metric with the activation patched, ``[site, token, pair]``.
        mode: ``"denoise"`` or ``"noise"``.
    """

    sites: tuple[Site, ...]
    tokens: tuple[str, ...]
    base: NDArray[np.float32]
    target: NDArray[np.float32]
    values: NDArray[np.float32]
    mode: Mode

    @property
    def effect(self) -> NDArray[np.float32]:
        """Mean over pairs of the metric's change, ``[site, token]``, in the metric's units."""
        return np.asarray((self.values - self.base).mean(axis=-1))

    @property
    def share(self) -> NDArray[np.float32]:
        """The change as a share of the mean difference between the two runs. Raises `BadData` where there is none."""
        whole = float((self.target - self.base).mean())
        if not whole:
            raise BadData(
                "the two runs score alike",
                found=f"{float(self.base.mean()):.3g} both",
                hint="look at .effect, or choose another metric",
            )
        return self.effect / whole

    def best(self, count: int = 5) -> list[tuple[Site, str, float]]:
        """The cells that change the metric most: site, token, change."""
        order = np.argsort(-np.abs(self.effect), axis=None)[:count]
        cells = [np.unravel_index(int(index), self.effect.shape) for index in order]
        return [(self.sites[site], self.tokens[at], float(self.effect[site, at])) for site, at in cells]


@dataclass(frozen=True, eq=False)
class Contrast:
    """Pairs of prompts after both runs.

    Attributes:
        sites: what is looked at.
        measure: the metric, of logits ``[…, vocab]``.
        base, source: the run that is patched into, and the one whose activations are put there.
        first: the first token that differs in some pair.
        tokens: the first clean prompt's, as text.
        mode: which run is the base.
    """

    sites: tuple[Site, ...]
    measure: Metric
    base: Trunks
    source: Trunks
    first: int
    tokens: tuple[str, ...]
    mode: Mode

    def scored(self, model: Model, final: Tensor) -> NDArray[np.float32]:
        """The metric of final streams ``[row, d_model]``, ``[row]``."""
        return np.asarray(self.measure(model.engine.unembed(final).float()).float().cpu().numpy())


def contrasted(
    model: Model,
    clean: Prompts,
    corrupted: Prompts,
    at: str | Site | Sequence[str | Site],
    metric: Metric | None,
    answers: tuple[str, str] | None,
    mode: Mode,
) -> Contrast:
    """Check what was asked for, and run both sides. Raises `BadData`, `NoSuchSite`, `EmptyData`."""
    rows = [model.rows([one] if isinstance(one, str | Prompt) else list(one)) for one in (clean, corrupted)]
    sites = tuple(model.sites(*([at] if isinstance(at, str | Site) else at)))
    first = _first_difference(*rows)
    _refuse(sites, mode)
    prompt = Prompt.of(clean if isinstance(clean, str | Prompt) else clean[0])
    measure = _metric(model, prompt, rows[0][0], metric, answers)
    places: list[Place] = list(dict.fromkeys(site.address for site in sites))
    into, other = rows if mode == "noise" else rows[::-1]
    base, source = (trunks(model, torch.tensor([row.tokens for row in some]), places) for some in (into, other))
    tokens = tuple(model.decode([token]) for token in rows[0][0].tokens)
    return Contrast(sites, measure, base, source, first, tokens, mode)


def _metric(model: Model, prompt: Prompt, row: Row, metric: Metric | None, answers: tuple[str, str] | None) -> Metric:
    if (metric is None) == (answers is None):
        raise BadData(
            "patching needs one measure", found="both" if metric else "neither", hint="give metric=, or answers=(…, …)"
        )
    if metric is not None:
        return metric
    yes, no = (answer_token(model.tokenizer, prompt, row.tokens, answer) for answer in answers or ())
    return lambda logits: logits[..., yes] - logits[..., no]


def _first_difference(clean: Sequence[Row], corrupted: Sequence[Row]) -> int:
    lengths = {len(row.tokens) for row in (*clean, *corrupted)}
    if len(clean) != len(corrupted) or len(lengths) > 1:
        raise BadData(
            "the clean and the corrupted prompts do not pair up",
            found=f"{len(clean)} and {len(corrupted)} prompts, of {', '.join(map(str, sorted(lengths)))} tokens",
            hint="prompts of equally many tokens correspond by position; patch other lengths apart",
        )
    differ = [
        at for a, b in zip(clean, corrupted, strict=True) for at in range(len(a.tokens)) if a.tokens[at] != b.tokens[at]
    ]
    if not differ:
        raise EmptyData("the clean and the corrupted prompts are the same", hint="change what the behaviour depends on")
    return min(differ)


def _refuse(sites: Sequence[Site], mode: str) -> None:
    if mode not in ("denoise", "noise"):
        raise BadData(f"there is no mode {mode!r}", found="denoise, noise", hint="say which run is patched into which")
    wrong = [site for site in sites if site.part in ("logits", "head.pattern")]
    if wrong:
        raise NoSuchSite(
            f"{wrong[0]} cannot be patched in a grid",
            found="it does not go on through the model token by token",
            hint="patch embed, resid, mid, attn.out, mlp.out, mlp.act or head.z; patterns in model.run(…)",
        )
