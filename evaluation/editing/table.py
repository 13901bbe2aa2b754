"""``python -m evaluation.editing.table``: how well each way of editing does on facts that the model knows.

Layers and weights were chosen on other facts (``python -m evaluation.editing.choose``).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from assay import Model
from assay.edit import PAPER, Descent, contexts, finetune, memit, second_moments, stored, summary
from evaluation.editing.choose import CHOICE
from evaluation.editing.common import CONTEXTS, Judged, facts, judge, own_text
from evaluation.markdown import table, write

COLUMNS = ("ES", "PS", "NS", "S", "EM", "PM", "NM")


def line(name: str, judged: Judged) -> list[str]:
    """A row of the table."""
    means = summary(judged.scores)
    cells = [f"{means[one].value:.1f} ({means[one].low:.1f} to {means[one].high:.1f})" for one in COLUMNS]
    mean, most = judged.perplexity
    return [name, str(len(judged.scores)), *cells, f"{judged.entropy:.0f}", f"{mean:.3f}, {most:.3f}"]


def main() -> None:
    """Print the table, and with ``--write`` put it into the README beside."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--facts", type=int, default=200, help="facts that are edited one by one")
    options.add_argument("--fewer", type=int, default=50, help="of which so many for what shares no search")
    options.add_argument("--together", type=int, default=100, help="facts that MEMIT edits at once")
    options.add_argument("--write", action="store_true", help="put the table into README.md")
    given = options.parse_args()
    started = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.0f} s  {text}\n")

    model, (_, test) = Model.load(), facts()
    alone, many = test[: given.facts], test[: given.together]
    rewrites = [fact.rewrite for fact in alone]
    text = own_text(model)
    say("text is written")
    layer, spread, weight = CHOICE["layer"], CHOICE["layers"], CHOICE["weight"]
    moments = second_moments(model, text)
    say(f"second moments are measured, over {moments[layer].count} tokens")
    before, at = contexts(model, CONTEXTS), f"L{layer}.mlp.out @ subject[-1]"
    rows = [line("unedited", judge(model, alone, [None], say, 1))]
    found = stored(model, rewrites, at=at, before=before, descent=Descent())
    say("values are found")
    for preset in ("r-rome", "p-rome", "code"):
        rows.append(
            line(f"ROME, `{preset}`", judge(model, alone, (one.edit(moments[layer], preset) for one in found), say, 10))
        )
        say(preset)
    alone, rewrites = alone[: given.fewer], rewrites[: given.fewer]
    found = stored(model, rewrites, at=at, before=before, descent=PAPER)
    rows.append(
        line("ROME, `paper`", judge(model, alone, (one.edit(moments[layer], "paper") for one in found), say, 10))
    )
    for name, most in (("fine-tuning", None), ("fine-tuning, held close", CHOICE["most"])):
        edits = (finetune(model, [one], layer=layer, most=most, steps=CHOICE["steps"]) for one in rewrites)
        rows.append(line(name, judge(model, alone, edits, say, 10)))
        say(name)
    rows.append(line(f"unedited, the first {len(many)}", judge(model, many, [None], say, 1)))
    together = [fact.rewrite for fact in many]
    at_once = memit(model, together, layers=spread, moments=moments, weight=weight)
    rows.append(line(f"MEMIT, {len(many)} at once", judge(model, many, [at_once], say, 1)))
    held = finetune(model, together, layer=layer, most=CHOICE["most"], steps=4 * CHOICE["steps"])
    rows.append(line(f"fine-tuning, held close, {len(many)} at once", judge(model, many, [held], say, 1)))
    printed = table(["", "facts", *COLUMNS, "GE", "perplexity ×, mean and most"], rows)
    sys.stdout.write(f"{printed}\n")
    if given.write:
        write(Path(__file__).with_name("README.md"), "table", printed)


if __name__ == "__main__":
    main()
