"""``assay trace``: where a fact passes through the model, as a heat map in the terminal and on disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from assay.cli.options import ModelOption
from assay.cli.terminal import out
from assay.errors import BadData
from assay.prompt import Prompt

if TYPE_CHECKING:
    from assay.trace import CausalTrace

SHADES = " ░▒▓█"

Fact = Annotated[str, typer.Argument(metavar="PROMPT", help='With the subject in braces: "The {Eiffel Tower} is in".')]
Answer = Annotated[str | None, typer.Option(help="One token, with its blank: ' Paris'. The likeliest unless given.")]
Samples = Annotated[int, typer.Option(min=1, help="Samples of noise.")]
Noise = Annotated[float, typer.Option(help="Standard deviations of embeddings.")]
Window = Annotated[int, typer.Option(min=1, help="How many modules are restored together.")]
Insist = Annotated[bool, typer.Option("--insist", help="Trace an answer that the model does not give, too.")]
Into = Annotated[Path | None, typer.Option(help="Write the heat maps there, as SVG.")]


def trace(
    prompt: Fact,
    answer: Answer = None,
    samples: Samples = 10,
    noise: Noise = 3.0,
    window: Window = 10,
    insist: Insist = False,
    plot: Into = None,
    model: ModelOption = None,
) -> None:
    """Find the states that carry a fact: corrupt the subject, restore single states, see what brings the answer back."""
    fact = marked(prompt)  # before anything is loaded
    from assay.report.words import visible
    from assay.run.model import Model
    from assay.trace import causal

    console = out()
    with console.status("loading the model"):
        loaded = Model.load(model)
    with console.status("tracing"):
        found = causal(loaded, fact, answer=answer, samples=samples, noise=noise, window=window, insist=insist)
    console.print(
        f"P({visible(found.answer)!r})  {found.clean:.3f} clean, {float(found.corrupted.mean()):.3f} with the subject corrupted"
    )
    for part in found.restored:
        console.print()
        console.print(_map(found, part))
    if plot:
        console.print(f"\nfigure  {found.plot(plot)}")


def marked(text: str) -> Prompt:
    """The prompt, its subject in braces. Raises `BadData` unless there is exactly one."""
    found = re.findall(r"\{([^{}]+)\}", text)
    if len(found) != 1:
        raise BadData(
            f"the prompt {text!r} marks {len(found)} subjects",
            hint='put the subject in braces, once: "The {Eiffel Tower} is in the city of"',
        )
    return Prompt(text.replace("{" + found[0] + "}", "{subject}"), subject=found[0])


def _map(found: CausalTrace, part: str) -> Text:
    """A line per token, a character per layer, darker where more comes back."""
    from assay.report.words import visible

    effect = found.effect(part)
    most, names = max(float(effect.max()), 1e-9), [visible(token.strip()) or repr(token) for token in found.tokens]
    width = max(map(len, names)) + 1
    text = Text()
    text.append(f"{part}, restored: up to {most:+.3f} (█)\n", style="bold")
    for at, name in enumerate(names):
        star = "*" if found.subject[0] <= at < found.subject[1] else ""
        cells = "".join(SHADES[round(max(0.0, float(value)) / most * (len(SHADES) - 1))] for value in effect[at])
        text.append(f"{name + star:>{width}} ", style="default")
        text.append(f"{cells}\n", style="default")
    at, layer, best = found.best(part)
    text.append(f"{'':>{width}} L0{'L' + str(effect.shape[1] - 1):>{effect.shape[1] - 2}}", style="dim")
    text.append(f"\nof the subject most by {names[at]!r} at L{layer}: {best:+.3f}", style="dim")
    return text
