"""``python -m evaluation.editing.choose``: layers and weights, by what they do on facts that no table is made of.

What it printed is kept in `CHOICE`, with the reasons in README.md.
"""

from __future__ import annotations

import sys
from typing import Any

from assay import Model
from assay.edit import contexts, finetune, second_moments, sought, stored, summary
from evaluation.editing.common import CONTEXTS, facts, judge, own_text

CHOICE: dict[str, Any] = {"layer": 4, "layers": [1, 2, 3], "weight": 5000.0, "most": 8e-3, "steps": 25}


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Print S and its parts for layers of ROME, layers and weights of MEMIT, and bounds of fine-tuning."""
    model, (tune, _) = Model.load(), facts()
    few, before = tune[:20], contexts(model, CONTEXTS)
    moments = second_moments(model, own_text(model))
    say(f"second moments over {moments[0].count} tokens")
    for layer in (1, 2, 3, 4, 5, 7):
        found = stored(model, [fact.rewrite for fact in few], at=f"L{layer}.mlp.out @ subject[-1]", before=before)
        say(f"ROME L{layer}: {summary(judge(model, few, (one.edit(moments[layer]) for one in found), None).scores)}")
    rewrites = [fact.rewrite for fact in tune]
    for layers in (range(1, 4), range(2, 7), range(5, 10)):
        at_once = sought(model, rewrites, layer=layers[-1])
        for weight in (1.0, 100.0, 1000.0, 5000.0, 15_000.0):
            judged = judge(model, tune, [at_once.edit(layers, moments, weight)], None)
            told = f"{summary(judged.scores)}, perplexity × {judged.perplexity[0]:.3f}"
            say(f"MEMIT L{layers[0]}–L{layers[-1]}, {weight:g}: {told}")
    for most in (2e-3, 8e-3):
        tuned = (finetune(model, [fact.rewrite], layer=CHOICE["layer"], most=most) for fact in few)
        say(f"fine-tuning within {most:g}: {summary(judge(model, few, tuned, None).scores)}")


if __name__ == "__main__":
    main()
