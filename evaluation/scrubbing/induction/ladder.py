"""``python -m evaluation.scrubbing.induction.ladder``: the published hypotheses about induction heads, scrubbed.

All but the induction heads is left as it is, and what is lost is counted against those heads on another row altogether.

========  ==============================================================================================
EV        values come from the embedding alone
EQ        queries come from the embedding alone
EK        keys come from the previous-token heads alone; or from these as functions of the previous token
own       queries, keys, or values, come from the embedding and from what layer 0 makes of a token that looks at itself;
          keys from the previous-token heads besides
========  ==============================================================================================

Lawrence Chan, Adrià Garriga-Alonso and others, Causal scrubbing: results on induction heads, Alignment Forum 2022.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from assay import scrub
from assay.organisms.small import Block, SmallTransformer
from assay.scrub.data import IGNORED
from evaluation.scrubbing.induction.data import LENGTH, candidates, features, text
from evaluation.scrubbing.induction.roles import Roles, roles
from evaluation.scrubbing.induction.train import SEEDS, load
from evaluation.scrubbing.shares import shares

PUBLISHED = {"EV": 90, "EQ": 51, "EK": 83, "EK, previous token": 82, "EV, EQ, EK": 37, "own V, own Q, EK": 86}
"""Loss recovered in percent; the last with matches of three tokens too."""
ROWS = 2048


def data(model: SmallTransformer, rows: int) -> scrub.Data:
    """Held-out rows; the next word counts at good induction candidates."""
    some = text(rows, seed=0, part="held out")
    tokens = torch.from_numpy(some.tokens.copy())
    labels = torch.from_numpy(some.labels.copy()).masked_fill(~torch.from_numpy(candidates(some.tokens)), IGNORED)
    told = {name.replace(" ", "_"): column for name, column in features(some.tokens).items()}
    estimates = {f"own{head}": own(model, head, tokens) for head in range(model.sizes.heads)}
    return scrub.Data(tokens, labels, told, estimates)


def own(model: SmallTransformer, head: int, tokens: Tensor) -> Tensor:
    """What a layer-0 head would write if every token looked at itself alone, ``[row, pos, d_model]``."""
    attn = cast(Block, model.blocks[0]).attn
    part = slice(head * model.sizes.d_head, (head + 1) * model.sizes.d_head)
    with torch.no_grad():
        by_word = attn.value(attn.norm(model.embed.weight))[:, part] @ attn.W_O[head]
    return by_word[tokens]


def hypotheses(found: Roles, heads: int) -> tuple[scrub.Node, dict[str, scrub.Node]]:
    """What is lost against, and the rungs."""
    others = [head for head in range(heads) if head not in found.previous]

    def claim(**claimed: Sequence[str]) -> scrub.Node:
        """Induction heads whose queries, keys or values come from what is claimed, and from another row else."""
        return scrub.node(
            "input",
            others="input",
            parts=[
                scrub.node("input", at=f"L1.head[{head}].out", others="input", parts=_inputs(head, claimed))
                for head in found.induction
            ],
        )

    def _inputs(head: int, claimed: dict[str, Sequence[str]]) -> list[scrub.Node]:
        made = []
        for role, sources in claimed.items():
            at = f"L1.head[{head}].{role}"
            parts = [part for source in sources for part in _sources(source, at)]
            made.append(scrub.node("input", at=at, parts=parts))
        return made

    def _sources(source: str, reader: str) -> list[scrub.Node]:
        if source == "embed":
            return [scrub.node("input", at=f"embed -> {reader}")]
        if source == "own":
            return [
                scrub.node("input", at=f"L0.head[{head}].out -> {reader}", estimate=f"own{head}") for head in others
            ]
        if source == "previous":
            return [scrub.node("input", at=f"L0.head[{head}].out -> {reader}") for head in found.previous]
        return [
            scrub.node(f"previous[{pos}]", at=f"L0.head[{head}].out @ {pos} -> {reader}")
            for head in found.previous
            for pos in range(LENGTH)
        ]

    baseline = [scrub.node("anything", at=f"L1.head[{head}].out") for head in found.induction]
    return scrub.node("input", others="input", parts=baseline), {
        "EV": claim(v=["embed"]),
        "EQ": claim(q=["embed"]),
        "EK": claim(k=["previous"]),
        "EK, previous token": claim(k=["previous token"]),
        "EV, EQ, EK": claim(v=["embed"], q=["embed"], k=["previous"]),
        "own V": claim(v=["embed", "own"]),
        "own Q": claim(q=["embed", "own"]),
        "own K": claim(k=["embed", "own", "previous"]),
        "own V, own Q, own K": claim(v=["embed", "own"], q=["embed", "own"], k=["embed", "own", "previous"]),
        "own V, own Q, EK": claim(v=["embed", "own"], q=["embed", "own"], k=["previous"]),
    }


def main() -> None:
    """Print the table over seeds."""
    parser = argparse.ArgumentParser(description="The published hypotheses about induction heads.")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--references", type=int, default=512)
    options = parser.parse_args()
    ladders: dict[int, scrub.Ladder] = {}
    for seed in options.seeds:
        model = load(seed)
        baseline, rungs = hypotheses(roles(model), model.sizes.heads)
        on = data(model, options.rows)
        found = ladders[seed] = scrub.ladder(
            model.graph(), rungs, on=on, references=options.references, seed=seed, baseline=baseline, tokens=16_384
        )
        sys.stderr.write(f"seed {seed}, {roles(model)}\n{found}\n")
    sys.stdout.write(f"{shares(ladders, PUBLISHED)}\n")


if __name__ == "__main__":
    main()
