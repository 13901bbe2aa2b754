"""``python -m evaluation.editing.average``: causal tracing averaged over facts that SmolLM2 knows, by place in the prompt.

A table of the largest average indirect effect at each place, with its interval over facts, and the figure with all layers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from assay import Model, trace
from assay.errors import BadData
from assay.trace.traced import BUCKETS, CausalTrace
from evaluation.editing.common import facts
from evaluation.markdown import table

HERE = Path(__file__).parent


def main() -> None:
    """Trace the facts, one after another, and print the table."""
    parser = argparse.ArgumentParser(description="Causal tracing averaged over known facts.")
    parser.add_argument("--facts", type=int, default=100)
    parser.add_argument("--samples", type=int, default=4, help="of noise (default 4)")
    options = parser.parse_args()
    model, known = Model.load(), facts()[1]
    traces: list[CausalTrace] = []
    # One in so many, since neighbouring facts of the file are of one relation.
    order = np.linspace(0, len(known) - 1, min(len(known), options.facts)).astype(int)
    for number, index in enumerate(order):
        fact = known[index]
        try:
            traces.append(trace.causal(model, fact.prompt, answer=fact.old, samples=options.samples, seed=number))
        except BadData as error:  # an answer of several tokens, of which tracing reads one
            sys.stderr.write(f"{fact.prompt}: {error.what}\n")
        sys.stderr.write(f"\r{number + 1} of {len(order)}")
    found = trace.average(traces)
    rows = []
    for part, effects in found.effects.items():
        for name, curve in zip(BUCKETS, effects, strict=True):
            if not np.isnan(curve[:, 0]).all():
                layer = int(np.nanargmax(curve[:, 0]))
                mean, low, high = curve[layer]
                rows.append([part, name, f"L{layer}", f"{mean:+.3f}", f"{low:+.3f} to {high:+.3f}"])
    value, low, high = found.total
    sys.stdout.write(f"{table(['restored', 'place', 'largest at', 'effect', '95 % interval'], rows)}\n\n")
    sys.stdout.write(f"{found.prompts} facts; total effect {value:.3f} ({low:.3f} to {high:.3f})\n")
    found.plot(HERE / "average.svg")


if __name__ == "__main__":
    main()
