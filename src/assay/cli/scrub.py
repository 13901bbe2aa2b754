"""``assay scrub``: how much of what a model does a hypothesis explains, beside random hypotheses of its size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli.options import ModelOption
from assay.cli.terminal import out

Hypothesis = Annotated[Path, typer.Argument(metavar="HYPOTHESIS", help="A hypothesis as JSON, as Node.save writes it.")]
On = Annotated[
    Path,
    typer.Option("--data", help="Prompts as JSON lines, with an answer, spans and features each.", show_default=False),
]
References = Annotated[
    int | None, typer.Option(min=2, help="How many inputs are drawn, with replacement; each once unless given.")
]
Draws = Annotated[
    int, typer.Option("--null", min=0, help="How many random hypotheses of the same size to compare with.")
]
Seed = Annotated[int, typer.Option(help="Of all draws.")]
Into = Annotated[Path | None, typer.Option("--plot", help="Write the change for each input there, as SVG.")]
Tree = Annotated[Path | None, typer.Option("--tree", help="Write the hypothesis as a tree there, as SVG.")]


def scrub(
    hypothesis: Hypothesis,
    data: On,
    references: References = None,
    draws: Draws = 19,
    seed: Seed = 0,
    plot: Into = None,
    tree: Tree = None,
    model: ModelOption = None,
) -> None:
    """Scrub a model by a hypothesis: resample all that it calls irrelevant, and see how much of the loss is recovered."""
    from assay.scrub.data import Data
    from assay.scrub.hypothesis import Node

    story, on = Node.load(hypothesis), Data.load(data)  # before the model is loaded
    from assay.report.words import visible
    from assay.run.model import Model
    from assay.scrub import null, recovered

    console = out()
    with console.status("loading the model"):
        loaded = Model.load(model)
    with console.status("scrubbing"):
        found = recovered(loaded, story, on=on, references=references, seed=seed)
    console.print(visible(str(story)), markup=False, highlight=False)
    console.print()
    console.print(str(found), markup=False, highlight=False)
    chance = None
    if draws:
        with console.status("comparing with random hypotheses"):
            chance = null(loaded, story, on=on, draws=draws, seed=seed, references=references)
        console.print(f"\n{chance}", markup=False, highlight=False)
    if tree:
        console.print(f"\ntree    {story.plot(tree)}")
    if plot:
        console.print(f"figure  {found.plot(plot, chance)}")
