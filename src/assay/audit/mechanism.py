"""Claims about mechanisms that any audit can make: whether a hypothesis explains what the model does, and heads carry it.

Claims name them as their measure:

========================  ============================================================================================
``mechanism.explains``    scrubbing by a hypothesis recovers most of the loss, more than random hypotheses of its size do
``mechanism.copies``      without named heads the model predicts repeated text worse than without as many random ones
========================  ============================================================================================

The data sets of the first are ``hypothesis``, JSON as `scrub.Node.save` writes it, and ``prompts``, JSON lines as `scrub.Data.load` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from assay import circuits, scrub
from assay.audit import Bench, Lab, Outcome, measure, told, unit
from assay.scrub.loss import recovered_share
from assay.stats import paired_effect

ALPHA = 0.05


@unit("mechanism.scrub")
def scrubbed(bench: Bench, *, references: int | None, seed: int) -> Any:
    """Losses by reference, and what makes the share say less than it seems to."""
    story, on = scrub.Node.load(bench.data["hypothesis"]), scrub.Data.load(bench.data["prompts"])
    found = scrub.recovered(bench.model, story, on=on, references=references, seed=seed)
    losses = dict(scrubbed=found.scrubbed, model=found.model, random=found.random, references=found.references)
    return {**{name: one.tolist() for name, one in losses.items()}, "warnings": list(found.warnings)}


@unit("mechanism.null")
def chance(bench: Bench, *, kind: scrub.Kind, draws: int, references: int | None, seed: int) -> Any:
    """Shares that random hypotheses of the same size recover, and that of this one on the same draws."""
    story, on = scrub.Node.load(bench.data["hypothesis"]), scrub.Data.load(bench.data["prompts"])
    found = scrub.null(bench.model, story, on=on, kind=kind, draws=draws, seed=seed, references=references)
    return {"observed": found.observed, "values": found.values.tolist(), "p": found.p}


@measure("mechanism.explains")
def explains(
    lab: Lab,
    *,
    least: float = 0.5,
    kind: scrub.Kind = "sites",
    draws: int = 19,
    references: int | None = None,
    seed: int = 0,
) -> Outcome:
    """Supported where the whole interval of the share of loss recovered lies above ``least``, at most one in twenty
    hypotheses with random sites (or features) recovers as much, and the mean is not made by inputs that cancel.
    """
    (one,) = lab.units(scrubbed, [dict(references=references, seed=seed)])
    (null,) = lab.units(chance, [dict(kind=kind, draws=draws, references=references, seed=seed)])
    lost, model, random, drawn = (np.array(one[name]) for name in ("scrubbed", "model", "random", "references"))
    share = recovered_share(lost, model, random, drawn, seed)
    cancels = [warning for warning in one["warnings"] if warning.startswith("cancellation")]
    holds = share.low > least and null["p"] <= ALPHA and not cancels
    return Outcome(
        claim=lab.claim.digest,
        verdict="supported" if holds else "not supported",
        because=f"Scrubbing recovers {told.between(share)} of the loss ({least:g} is asked for); of {len(null['values'])} "
        f"hypotheses with random {kind}, p {null['p']:.2g}" + ("; inputs cancel." if cancels else "."),
        where=_places(scrub.Node.load(lab.data["hypothesis"])),
        effects=(told.effect("share of loss recovered", share, "share", 0.0, "inputs"),),
        p=null["p"],
        alpha=ALPHA,
        controls=(told.control(f"hypotheses with random {kind}", null["values"], null["p"]),),
        not_looked_at=("Whether a finer hypothesis explains as much: a coarse one is never refuted by scrubbing.",),
    )


def _places(story: scrub.Node) -> tuple[str, ...]:
    """All places of a hypothesis, each once."""
    return tuple(dict.fromkeys(one.at for _, one in story.walk() if one.at is not None))


@unit("mechanism.ablate")
def ablated(bench: Bench, *, heads: list[str], count: int, draws: int, seed: int) -> Any:
    """What is lost without the heads, and without random ones of their layers, in nats, by sequence and by draw."""
    found = circuits.ablation(bench.model, heads, count=count, draws=draws, seed=seed, among="layers")
    return {"lost": (found.without - found.natural).tolist(), "chance": found.chance.tolist(), "p": found.p}


@measure("mechanism.copies")
def copies(lab: Lab, *, heads: Sequence[str], count: int = 16, draws: int = 39, seed: int = 0) -> Outcome:
    """Supported where ablating the heads (``L3.head[5].z``) raises the loss of a repeated half, its whole interval above 0,
    and at most one in twenty draws of as many heads of the same layers raises it as much.
    """
    (one,) = lab.units(ablated, [dict(heads=list(heads), count=count, draws=draws, seed=seed)])
    effect, p = paired_effect(np.array(one["lost"])).interval, one["p"]
    return Outcome(
        claim=lab.claim.digest,
        verdict="supported" if p <= ALPHA and effect.low > 0 else "not supported",
        because="Without the claimed heads the repeated half of random text costs "
        f"{told.between(effect)} nats per token more; of {draws} draws of as many random heads of their "
        f"layers, p {p:.2g}.",
        where=tuple(heads),
        effects=(told.effect("rise of the loss of repeated text", effect, "nats", 0.0, "sequences"),),
        p=p,
        alpha=ALPHA,
        controls=(told.control("as many random heads of the same layers", one["chance"], p),),
        not_looked_at=("What the heads do on other text.", "Whether others would take over after training."),
    )
