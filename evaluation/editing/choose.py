"""``python -m evaluation.editing.choose``: layers and weights, by what they do on facts that no table is made of.

What it printed is kept in `CHOICE`, with the reasons in README.md.
"""

from __future__ import annotations

import sys
from typing import Any

from assay import Model
from assay.edit import Descent, contexts, finetune, memit, second_moment, stored, summary
from evaluation.editing.common import facts, judge, own_text

CHOICE: dict[str, Any] = {"layer": 8, "layers": [6, 7, 8, 9, 10], "weight": 1000.0, "most": 5e-3, "steps": 25}


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Print S and its parts for layers of ROME, layers and weights of MEMIT, and bounds of fine-tuning."""
    model, (tune, _) = Model.load(), facts()
    rewrites, before, text = [fact.rewrite for fact in tune], contexts(model), own_text(model)
    moments = {layer: second_moment(model, text, at=f"L{layer}.mlp.act") for layer in range(2, 21)}
    for layer in (2, 4, 6, 8, 10, 12, 14, 16, 18, 20):
        at = f"L{layer}.mlp.out @ subject[-1]"
        found = stored(model, rewrites, at=at, before=before, descent=Descent())
        edits = (one.edit(moments[layer]) for one in found)
        say(f"ROME L{layer}: {summary(judge(model, tune, edits, lambda _: None, 0).scores)}")
    for layers in (range(4, 9), range(6, 11), range(8, 13), range(10, 15)):
        for weight in (100.0, 1000.0, 15_000.0):
            edit = memit(model, rewrites, layers=layers, moments=moments, weight=weight)
            judged = judge(model, tune, [edit], lambda _: None)
            told = f"{summary(judged.scores)}, perplexity × {judged.perplexity[0]:.3f}"
            say(f"MEMIT L{layers[0]}–L{layers[-1]}, {weight:g}: {told}")
    for most in (5e-4, 2e-3, 5e-3, 2e-2):
        tuned = (finetune(model, [one], layer=CHOICE["layer"], most=most) for one in rewrites)
        say(f"fine-tuning within {most:g}: {summary(judge(model, tune, tuned, lambda _: None, 0).scores)}")


if __name__ == "__main__":
    main()
