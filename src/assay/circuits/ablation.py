"""What the model loses without some heads, on text that only repetition can predict.

A sequence of random tokens comes twice. Its second half cannot be guessed, only copied, so its loss is what copying from the
context leaves. Each chosen head's ``z`` becomes its mean over tokens and sequences, and the loss of the second half is
measured again; so it is for as many heads drawn at random::

    effect = loss of the second half without the heads − with them          in nats per token

``p`` is the share of random draws whose effect is as large (the observed one counted among them). ``fresh`` is the loss where
the second half is other random tokens: what there is to lose is ``fresh − natural``.

The mean keeps what a head always says and takes what it says here (Wang et al. 2023, §3.2); zero would take both, and break
the norms of later layers besides. The first token, which sees only itself and which idle heads look at, is left as it is.

It misleads where other heads take over what is ablated (McGrath et al. 2023): no effect is no proof of no use. Random heads
lie in all layers; heads that many later ones read from, in early layers above all, cost something whatever they do, so compare
with ``among="layers"`` too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from assay.act.intervention import Intervention, patch
from assay.circuits.plot import ablated
from assay.circuits.scored import named
from assay.circuits.tokens import sequences
from assay.errors import BadData, EmptyData
from assay.figure import save
from assay.prompt import Prompt
from assay.run.model import Model
from assay.run.sweep import Progress
from assay.site import Site
from assay.stats import Interval, bootstrap_interval, permutation_p

Array = NDArray[np.float64]
Among = Literal["model", "layers"]


@dataclass(frozen=True, eq=False)
class Ablation:
    """The loss of the second half of repeated random tokens, in nats per token.

    Attributes:
        heads: that were ablated, by their ``z``.
        fresh: where the second half repeats nothing, mean over sequences.
        natural: with all heads, ``[sequence]``.
        without: without the chosen heads, ``[sequence]``.
        random: without as many random ones, ``[draw, sequence]``.
        among: where the random ones were drawn: the whole ``model``, or the ``layers`` of the chosen ones, as many in each.
        effect: the mean rise, with its interval over sequences.
        p: against the random draws.
    """

    heads: tuple[Site, ...]
    fresh: float
    natural: Array
    without: Array
    random: Array
    among: Among
    effect: Interval
    p: float

    @property
    def chance(self) -> Array:
        """The mean rise without each set of random heads, ``[draw]``."""
        return np.asarray((self.random - self.natural).mean(axis=1))

    @property
    def share(self) -> float:
        """How much of what repetition is worth to the model goes with the heads. Raises `BadData` where it is worth nothing."""
        worth = self.fresh - float(self.natural.mean())
        if worth <= 0:
            raise BadData(
                "repetition is worth nothing to this model",
                found=f"{float(self.natural.mean()):.3f} nats repeated, {self.fresh:.3f} fresh",
                hint="look at .effect",
            )
        return self.effect.value / worth

    def plot(self, path: str | Path) -> Path:
        """Draw the effect among those of random heads, as SVG. Raises `Unwritable`."""
        return save(path, self._repr_svg_())

    def _repr_svg_(self) -> str:
        return ablated(self)

    def __str__(self) -> str:
        many, chance = len(self.heads), self.chance
        return "\n".join(
            [
                f"loss of the repeated half, nats per token: {float(self.natural.mean()):.3f}, of fresh tokens {self.fresh:.3f}",
                f"  without {', '.join(map(named, self.heads))}: {float(self.without.mean()):.3f}, "
                f"{self.effect.value:+.3f} [{self.effect.low:+.3f}, {self.effect.high:+.3f}]",
                f"  without {many} random head{'s' * (many > 1)} of the {'same layers' if self.among == 'layers' else 'model'}, "
                f"{len(chance)} draws: {chance.mean():+.3f}, at most {chance.max():+.3f}; p = {self.p:.3g}",
            ]
        )


def ablation(
    model: Model,
    heads: Sequence[str | Site],
    *,
    count: int = 16,
    length: int = 25,
    draws: int = 20,
    among: Among = "model",
    seed: int = 1,
    bos: bool | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Ablation:
    """Ablate heads, and as many random ones.

    Args:
        heads: by their ``z``: ``[site for site, _ in circuits.heads(model, "induction").top(5)]``.
        count, length: sequences, and random tokens in each half.
        draws: sets of random heads; none of them holds a chosen head.
        among: where they are drawn.
        seed: of sequences and draws; another than that on which the heads were found, so that they are not tested on it.
        bos: as in `heads`.
        memory, progress: as in `Model.sweep`.

    Raises `NoSuchSite`, `BadData` where there are too few other heads or draws, `EmptyData` for no heads.
    """
    sites = list(dict.fromkeys(model.sites(*heads))) if heads else []
    if not sites:
        raise EmptyData("there are no heads to ablate", hint="take some: circuits.heads(model).top(5)")
    if draws < 1 or count < 2 or among not in ("model", "layers") or any(site.part != "head.z" for site in sites):
        raise BadData(
            f"cannot ablate {', '.join(map(str, sites[:3]))} on {count} sequences, beside {draws} draws among {among!r}",
            found="heads by their z, two sequences and one draw at least, among 'model' or 'layers'",
            hint="circuits.ablation(model, ['L3.head[5].z'], draws=20, among='layers')",
        )
    rng = np.random.default_rng(seed)
    sets = [sites, *(_drawn(model, sites, among, rng) for _ in range(draws))]
    tokens, _ = sequences(model, count, length, 2, seed, bos)
    prompts = [Prompt.tokenized(row) for row in tokens.tolist()]
    every = list(dict.fromkeys(site for one in sets for site in one))
    means = model.moments(prompts, [site.at("1:") for site in every], memory=memory)
    acts = {site: _held(site, means[site.at("1:")].mean, tokens.shape[1] - 1) for site in every}
    found = model.drift(prompts, [[acts[site] for site in one] for one in sets], memory=memory, progress=progress)
    fresh, _ = sequences(model, count, 2 * length, 1, seed, bos)
    unseen = model.drift([Prompt.tokenized(row) for row in fresh.tolist()], [()], memory=memory)
    random = found.nll[:, 1:].T
    rise = found.nll[:, 0] - found.natural
    return Ablation(
        tuple(sites),
        float(unseen.natural.mean()),
        found.natural,
        found.nll[:, 0],
        random,
        among,
        bootstrap_interval(rise, seed=seed),
        permutation_p(float(rise.mean()), (random - found.natural).mean(axis=1)),
    )


def _held(site: Site, mean: Tensor | None, tokens: int) -> Intervention:
    """The head's z at its mean, at all tokens but the first."""
    assert mean is not None
    return patch(site.at("1:"), source=mean.float().expand(tokens, -1))


def _drawn(model: Model, chosen: Sequence[Site], among: Among, rng: np.random.Generator) -> list[Site]:
    """As many other heads: of the whole model, or of each layer as many as are chosen there. Raises `BadData`."""
    others = [site for site in model.sites("L:.head[:].z") if site not in chosen]
    found: list[Site] = []
    for layer in dict.fromkeys(site.layer for site in chosen) if among == "layers" else [None]:
        pool = [site for site in others if layer is None or site.layer == layer]
        many = sum(layer is None or site.layer == layer for site in chosen)
        if many > len(pool):
            where = "the model" if layer is None else f"layer {layer}"
            raise BadData(
                f"{where} has too few other heads to draw from",
                found=f"{many} chosen, {len(pool)} others",
                hint='ablate fewer, or draw from the whole model: among="model"',
            )
        found += [pool[index] for index in rng.choice(len(pool), size=many, replace=False)]
    return found
