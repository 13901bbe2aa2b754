"""``assay heads``: what every head does on random tokens, as a map in the terminal, and what the model loses without the best."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from assay.cli.options import ModelOption
from assay.cli.terminal import out, show_rows
from assay.cli.trace import SHADES

if TYPE_CHECKING:
    from assay.circuits import HeadScores


class Score(StrEnum):
    """The scores of `assay.circuits.heads`."""

    induction = "induction"
    previous = "previous"
    duplicate = "duplicate"
    copying = "copying"


class Among(StrEnum):
    """Where random heads are drawn."""

    model = "model"
    layers = "layers"


Which = Annotated[Score, typer.Option("--score", help="What heads are scored by.")]
Top = Annotated[int, typer.Option(min=1, help="How many heads are listed.")]
Count = Annotated[int, typer.Option(min=2, help="Sequences of random tokens.")]
Without = Annotated[int | None, typer.Option("--ablate", min=1, help="Ablate so many of the best, beside random ones.")]
Draws = Annotated[int, typer.Option(min=1, help="Sets of random heads beside them.")]
Where = Annotated[Among, typer.Option(help="Draw random heads in the whole model, or in the layers of the best.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the tokens; the ablation's are others.")]
Into = Annotated[Path | None, typer.Option(help="Write the map and the list there, as SVG.")]


def heads(
    score: Which = Score.induction,
    top: Top = 10,
    count: Count = 16,
    ablate: Without = None,
    draws: Draws = 20,
    among: Where = Among.model,
    seed: Seed = 0,
    plot: Into = None,
    model: ModelOption = None,
) -> None:
    """Find the heads that do one thing: induction, looking back one token, finding duplicates, or copying."""
    from assay import circuits
    from assay.circuits.scored import named
    from assay.run.model import Model

    console = out()
    with console.status("loading the model"):
        loaded = Model.load(model)
    with console.status("scoring heads"):
        found = circuits.heads(loaded, score.value, count=count, seed=seed)
    console.print(_map(found))
    best = found.top(min(top, found.mean.size))
    rows = []
    for site, value in best:
        ends = found.interval(site)
        rows.append((named(site), f"{value:.3f}", "" if ends is None else f"[{ends.low:.3f}, {ends.high:.3f}]"))
    show_rows(console, rows, heads=("head", "score", "95% interval"))
    if ablate:
        chosen = [site for site, _ in found.top(min(ablate, found.mean.size))]
        with console.status("ablating"):
            lost = circuits.ablation(loaded, chosen, count=count, draws=draws, among=among.value, seed=seed + 1)
        console.print(f"\n{lost}")
    if plot:
        console.print(f"\nfigure  {found.plot(plot)}")


def _map(found: HeadScores) -> Text:
    """A line per head, a character per layer, darker where the score is higher; what is below 0 is blank."""
    mean, text = found.mean.T, Text()
    most = max(float(mean.max()), 1e-9)
    text.append(f"{found.score}, {len(found.values)} sequences: up to {float(mean.max()):+.3f} (█)\n", style="bold")
    for head, row in enumerate(mean):
        cells = "".join(SHADES[round(max(0.0, float(value)) / most * (len(SHADES) - 1))] for value in row)
        text.append(f"{f'head {head}':>8} {cells}\n")
    last = f"L{mean.shape[1] - 1}"
    text.append(f"{'':>8} L0{last:>{max(1, mean.shape[1] - 2)}}\n", style="dim")
    return text
