"""Claims about facts that any audit can make: where they pass through, and whether they can be rewritten.

Both read the data set ``facts``, JSON lines as `edit.Fact` writes them. Claims name them as their measure:

========================  ============================================================================================
``facts.pass-through``    restoring one kind of module at the subject's last token brings back more than after it
``facts.rewritten``       an edit at one layer is heard in paraphrases, and neighbours stay as they were
========================  ============================================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np

from assay import edit, trace
from assay.audit import Bench, Lab, Outcome, measure, told, unit
from assay.errors import EmptyData
from assay.stats import paired_effect, sign_flip_p
from assay.trace.causal import Part

ALPHA = 0.05
_LEAST = 6
"""Facts below which sign flips cannot reach .05."""

_WRITTEN: dict[Part, str] = {"resid": "the stream", "mlp.out": "what MLPs write", "attn.out": "what attention writes"}
"""What is restored, in words that name no site."""


def _facts(bench: Bench, least: int) -> tuple[edit.Fact, ...]:
    facts = edit.Fact.load(bench.data["facts"])
    if len(facts) < least:
        raise EmptyData(f"{len(facts)} facts cannot bear a claim out", hint=f"give {least} or more")
    return facts


def _edited(layer: int) -> str:
    """Where an edit acts."""
    return f"L{layer}.mlp.out @ subject[-1]"


@unit("facts.trace")
def traced(bench: Bench, *, fact: dict[str, Any], part: Part, window: int, samples: int, seed: int) -> Any:
    """Indirect effects by layer, at the subject's last token and mean over the tokens after it; and the total effect."""
    prompt = edit.Fact.from_json(fact).prompt
    found = trace.causal(bench.model, prompt, restore=part, window=window, samples=samples, seed=seed)
    effect, last = found.effect(part), found.subject[1] - 1
    return {"at": effect[last].tolist(), "after": effect[last + 1 :].mean(axis=0).tolist(), "total": found.total}


@measure("facts.pass-through")
def pass_through(lab: Lab, *, part: Part = "mlp.out", window: int = 10, samples: int = 10, seed: int = 0) -> Outcome:
    """Supported where, at the layer that half of the facts choose, the other half's effect at the subject's last token
    exceeds that at the tokens after it (one-sided sign flips over facts).
    """
    facts = _facts(lab, 2 * _LEAST)
    way = dict(part=part, window=window, samples=samples, seed=seed)
    found = lab.units(traced, [dict(fact=fact.to_json(), **way) for fact in facts])
    at, after = (np.array([one[name] for one in found]) for name in ("at", "after"))
    layer = int(at[::2].mean(axis=0).argmax())
    here, there = at[1::2, layer], after[1::2, layer]
    difference, p = paired_effect(here - there).interval, sign_flip_p(here - there)
    total = paired_effect(np.array([one["total"] for one in found[1::2]])).interval
    return Outcome(
        claim=lab.claim.digest,
        verdict="supported" if p <= ALPHA and difference.low > 0 else "not supported",
        because=f"Restoring {_WRITTEN[part]} at the subject's last token, around the layer that the other half of the "
        f"facts choose, brings back {told.between(difference)} more probability than at later tokens (p {p:.2g}, "
        f"{len(here)} facts).",
        where=(f"L{layer}.{part} @ subject[-1]",),
        effects=(
            told.effect(
                "effect at the subject's last token minus later tokens", difference, "probability", 0.0, "facts"
            ),
            told.effect(
                "effect at the subject's last token", paired_effect(here).interval, "probability", 0.0, "facts"
            ),
            told.effect("total effect of corrupting the subject", total, "probability", 0.0, "facts"),
        ),
        p=p,
        alpha=ALPHA,
        controls=(told.control("effect at the tokens after the subject", there),),
        not_looked_at=("Whether an edit there works: tracing does not tell (`facts.rewritten`).",),
    )


@unit("facts.rewrite")
def rewrite(bench: Bench, *, fact: dict[str, Any], layer: int, contexts: int, seed: int) -> Any:
    """Scores of one fact, without and with its edit."""
    one, model = edit.Fact.from_json(fact), bench.model
    before = edit.contexts(model, contexts, seed=seed)
    made = edit.rome(model, one.prompt, to=one.new, at=_edited(layer), before=before)
    (was,) = edit.measure(model, [one])
    with model.edited(made):
        (now,) = edit.measure(model, [one])
    return {name: [was[name], now[name]] for name in ("ES", "PS", "NS")}


@measure("facts.rewritten")
def rewritten(lab: Lab, *, layer: int, margin: float = 0.08, contexts: int = 10, seed: int = 0) -> Outcome:
    """Supported where edits raise the share of paraphrases that get the new answer (one-sided sign flips over facts),
    and the share of neighbours that keep theirs falls by less than the margin, its whole interval considered.
    """
    facts = _facts(lab, _LEAST)
    found = lab.units(rewrite, [dict(fact=one.to_json(), layer=layer, contexts=contexts, seed=seed) for one in facts])
    rose, lost = (np.array([one[name][1] - one[name][0] for one in found]) for name in ("PS", "NS"))
    said = np.array([one["ES"][1] for one in found])
    heard, spared, p = paired_effect(rose).interval, paired_effect(lost).interval, sign_flip_p(rose)
    holds = p <= ALPHA and heard.low > 0 and spared.low > -margin
    return Outcome(
        claim=lab.claim.digest,
        verdict="supported" if holds else "not supported",
        because="Edits at the claimed layer change the share of paraphrases with the new answer by "
        f"{told.between(heard)} (p {p:.2g}), and that of neighbours with theirs by {told.between(spared)}; "
        f"a loss of {margin:g} is allowed.",
        where=(_edited(layer),),
        effects=(
            told.effect("change of the share of paraphrases with the new answer", heard, "share", 0.0, "facts"),
            told.effect("change of the share of neighbours with their own", spared, "share", 0.0, "facts"),
            told.effect("share of prompts with the new answer", paired_effect(said).interval, "share", 0.0, "facts"),
        ),
        p=p,
        alpha=ALPHA,
        not_looked_at=("Facts that follow from the edited one.",),
    )
