"""Both sides of contrast pairs, read in one pass over all prompts for all sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.act.intervention import Place
from assay.errors import BadData, BadSite, BadVector, OneClass
from assay.pairs import Pairs
from assay.run.capture import Captured, capture
from assay.run.model import Model
from assay.site import Positions, Site
from assay.sites import Sites


@dataclass(frozen=True)
class Contrast:
    """Activations of both sides of pairs: ``contrast[site]`` is positive and negative, ``[pair, d]`` in float64."""

    captured: Captured
    plus: Sequence[int]
    minus: Sequence[int]

    def __getitem__(self, site: Site) -> tuple[Tensor, Tensor]:
        h = self.captured[site].double()
        return h[self.plus], h[self.minus]


def reading(model: Model, at: Place) -> Sites:
    """The single places to read, at ``@ last`` where no position is named.

    Raises `BadSite`, `NoSuchSite`, and `BadData` where a site names several positions.
    """
    wide = [at] if isinstance(at, str | Site) else list(at)
    if not wide:
        raise BadSite("the selection of sites is empty", hint="name at least one site: at='L12.resid @ last'")
    sites = model.sites(*(_placed(site) for site in wide))
    for site in sites:
        if not site.positions.single:
            raise BadData(
                f"{site} names many positions, and a direction is found at one",
                hint="read one position of each prompt: @ last, @ -2, @ subject[-1]",
            )
        if model.shape.width(site.part) is None:
            raise BadSite(f"{site} holds no vectors", hint="a pattern is as wide as the prompt; read head.z or resid")
    return sites


def contrast(model: Model, pairs: Pairs, sites: Sites) -> Contrast:
    """The activations of both sides at all sites; each distinct prompt runs once, all of them in one streamed pass.

    Raises, before anything runs, `EmptyData` for prompts of no tokens, `NoSuchPosition`, and `OneClass` where both
    sides of every pair have read the same tokens; afterwards `BadVector` for activations that are not finite, and
    where the two sides have the same mean.
    """
    prompts = list(dict.fromkeys(side for pair in pairs for side in (pair.positive, pair.negative)))
    rows, home = model.rows(prompts), {prompt: index for index, prompt in enumerate(prompts)}
    plus, minus = [home[pair.positive] for pair in pairs], [home[pair.negative] for pair in pairs]
    for positions, site in {site.positions: site for site in sites}.items():
        seen = [row.tokens[: row.bounds(site)[0] + 1] for row in rows]  # all that an activation there depends on
        if all(seen[a] == seen[b] for a, b in zip(plus, minus, strict=True)):
            raise OneClass(
                f"@ {positions} both sides of every pair have read the same tokens",
                found=f"{len(pairs)} pairs; the first begins {prompts[0].text[:60]!r}",
                hint="read where the two sides have parted: @ last, or a span that differs",
            )
    read = Contrast(capture(model, rows, list(sites)), plus, minus)
    for site in sites:
        finite = torch.isfinite(read.captured[site]).all(dim=1)
        if not finite.all():
            raise BadVector(
                f"activations at {site} are not finite",
                found=f"{int((~finite).sum())} of {len(prompts)} prompts, "
                f"the first {prompts[int(finite.int().argmin())].text[:60]!r}",
                hint="find out where the NaN comes from; half precision overflows first at large residual norms",
            )
        positive, negative = read[site]
        apart, typical = float((positive - negative).mean(dim=0).norm()), float(positive.norm(dim=1).mean())
        if not apart > 1e-9 * typical:
            raise BadVector(
                f"the two sides have the same mean at {site}",
                found=f"{len(pairs)} pairs; the means differ by {apart:.2g}, where an activation is {typical:.3g} long",
                hint="does each pair come in both orders, or do all prompts end in the same token at embed?",
            )
    return read


def _placed(site: str | Site) -> Site:
    found = Site.parse(site)
    unsaid = found.positions == Positions() and not (isinstance(site, str) and "@" in site)
    return found.at("last") if unsaid else found
