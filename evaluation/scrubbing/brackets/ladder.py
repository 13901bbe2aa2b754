"""``python -m evaluation.scrubbing.brackets.ladder``: the published hypotheses about the checker of brackets, scrubbed.

For every trained seed and every rung the share of loss recovered, beside the published figure. Heads are given their roles
by `roles`, which looks at no scrubbing.

Nicholas Goldowsky-Dill and others, Causal scrubbing: results on a paren balance checker, Alignment Forum 2022.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay import scrub
from assay.graph import ModuleGraph
from assay.organisms.small import SmallTransformer
from evaluation.scrubbing.brackets.data import TOKENS, columns, horizon_values, strings
from evaluation.scrubbing.brackets.estimates import adjusted_p, open_vector, phi
from evaluation.scrubbing.brackets.roles import Roles, roles
from evaluation.scrubbing.brackets.train import SEEDS, WEIGHTS
from evaluation.scrubbing.shares import shares

PUBLISHED = {"1": 93, "1+2": 88, "1+3": 84, "1+2+3": 72}
"""Loss recovered in percent, by claims."""
REFERENCES = 4000


def data(model: SmallTransformer, averaging: int, tokens: NDArray[np.int64]) -> scrub.Data:
    """The strings, what is right, and every feature and estimate that the hypotheses name."""
    has = columns(tokens)
    weighed = horizon_values(tokens, adjusted_p(model, averaging, tokens))
    features = {**has, "weighed": weighed, "weighed_all": (weighed >= 0).all(1)}
    right = torch.from_numpy(has["balanced"].astype(np.int64))
    return scrub.Data(torch.from_numpy(tokens), right, features, {"phi": phi(model, averaging, tokens)})


def hypotheses(model: SmallTransformer, found: Roles) -> dict[str, scrub.Node]:
    """The rungs, by the post's names. Every head acts at position 0, by its direct path to the scores but in one rung that is
    ours.
    """
    spread = f"L0.head[{found.averaging}].out @ 1"
    v = open_vector(model, found.averaging)[None]

    def counts(depth: str) -> list[scrub.Node]:
        """The heads that count, and down to where it is said how they know."""
        made = []
        for layer, head in found.counts:
            reader = f"L{layer}.attn"
            below: list[scrub.Node] = []
            if depth == "position 1":
                below = [scrub.node("count & opens", at=f"L{layer - 1}.resid @ 1")]
            elif depth:
                ways: dict[str, dict[str, Any]] = {
                    "averaged": {},
                    "one direction": {"along": v},
                    "phi": {"estimate": "phi"},
                }
                below = [
                    scrub.node("p1", at=f"{spread} -> {reader}", **ways[depth]),
                    scrub.node("opens", at=f"embed @ 1 -> {reader}"),
                ]
            made.append(scrub.node("count & opens", at=f"L{layer}.head[{head}].out @ 0 -> logits", parts=below))
        return made

    def horizon(feature: str) -> scrub.Node:
        layer, head = found.horizon
        at = f"L{layer}.head[{head}].out @ 0 -> logits"
        if not feature:
            return scrub.node("horizon", at=at)
        below = scrub.split(feature, f"L{layer - 1}.resid", range(TOKENS))
        return scrub.node(
            "horizon_all" if feature == "hvals" else f"{feature}_all", at=at, parts=below, others="length"
        )

    every = [
        scrub.node(feature, at=f"L{layer}.head[{head}].out @ 0")
        for feature, (layer, head) in [*(("count & opens", one) for one in found.counts), ("horizon", found.horizon)]
    ]
    early = [scrub.node("count", at=f"L{layer}.head[{head}].out @ 0 -> logits") for layer, head in found.counts]
    return {
        "1a: count; horizon": scrub.node("input", parts=[*early, horizon("")]),
        "1": scrub.node("input", parts=[*counts(""), horizon("")]),
        "1, by all paths": scrub.node("input", parts=every),
        "2, position 1": scrub.node("input", parts=[*counts("position 1"), horizon("")]),
        "2a: averaged, opens": scrub.node("input", parts=[*counts("averaged"), horizon("")]),
        "2, one direction": scrub.node("input", parts=[*counts("one direction"), horizon("")]),
        "1+2": scrub.node("input", parts=[*counts("phi"), horizon("")]),
        "3a: p at each position": scrub.node("input", parts=[*counts(""), horizon("hvals")]),
        "1+3": scrub.node("input", parts=[*counts(""), horizon("weighed")]),
        "1+2+3": scrub.node("input", parts=[*counts("phi"), horizon("weighed")]),
    }


def case(seed: int, count: int = 100_000) -> tuple[ModuleGraph, scrub.Data, Mapping[str, scrub.Node]]:
    """A trained checker as a graph, strings with their features, and the hypotheses."""
    model, tokens = SmallTransformer.load(WEIGHTS / f"seed{seed}.safetensors"), strings(count=count)
    found = roles(model, tokens)
    return model.graph(), data(model, found.averaging, tokens), hypotheses(model, found)


def main() -> None:
    """Print the table over seeds."""
    parser = argparse.ArgumentParser(description="The published hypotheses about the checker of brackets.")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--count", type=int, default=100_000, help="strings (default 100,000)")
    parser.add_argument("--references", type=int, default=REFERENCES)
    options = parser.parse_args()
    ladders: dict[int, scrub.Ladder] = {}
    for seed in options.seeds:
        graph, on, rungs = case(seed, options.count)
        found = ladders[seed] = scrub.ladder(
            graph, rungs, on=on, references=options.references, seed=seed, tokens=16_384
        )
        sys.stderr.write(f"seed {seed}\n{found}\n")
    sys.stdout.write(f"{shares(ladders, PUBLISHED)}\n")


if __name__ == "__main__":
    main()
