"""``assay steer``: try a pair on a prompt, and see natural and steered text side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.cli.options import ModelOption
from assay.cli.terminal import out
from assay.site import Site

SIDE_BY_SIDE = 60
"""The narrowest terminal, in characters, on which two columns of text can be read."""


Towards = Annotated[str, typer.Argument(metavar="TOWARDS", help="What to move towards, by example.")]
Away = Annotated[str, typer.Argument(metavar="AWAY", help="What to move away from.")]
Beginning = Annotated[str, typer.Argument(metavar="PROMPT", help="What the model goes on from.")]
At = Annotated[str, typer.Option(help="Where: one site, without positions.")]
Times = Annotated[float | None, typer.Option(help="Strength: times the raw difference. 5 unless given.")]
Dose = Annotated[float | None, typer.Option(help="Strength in typical norms of the stream, instead of --times.")]
Tokens = Annotated[int, typer.Option(min=1, help="How many tokens to generate.")]
Chat = Annotated[bool, typer.Option("--chat", help="The prompt is a user's message, not the beginning of a text.")]
Seed = Annotated[int | None, typer.Option(help="Sample with this seed; greedy unless given.")]


def steer(
    positive: Towards,
    negative: Away,
    prompt: Beginning,
    at: At = "L6.resid",
    times: Times = None,
    dose: Dose = None,
    tokens: Tokens = 40,
    chat: Chat = False,
    seed: Seed = None,
    model: ModelOption = None,
) -> None:
    """Try a pair on a prompt, natural and steered text side by side.

    The difference between the two examples, token by token, is added to the front of the prompt (activation addition).
    Receipts say what was touched, and by how much.
    """
    from assay.act.intervention import add
    from assay.find.pair import pair
    from assay.report.words import visible
    from assay.run.generate import Sampling
    from assay.run.model import Model

    console, site = out(), Site.parse(at)
    with console.status("loading the model"):
        loaded = Model.load(model)
    with console.status("generating"):
        strength = 5.0 if times is None and dose is None else times
        push = add(pair(loaded, positive, negative, at=site), times=strength, dose=dose)
        asked = loaded.chat(prompt) if chat else prompt
        sampling = None if seed is None else Sampling(seed=seed)
        natural = loaded.generate(asked, tokens=tokens, sampling=sampling)
        steered = loaded.generate(asked, tokens=tokens, sampling=sampling, under=push)
    before = "" if chat else visible(prompt)
    texts = {"natural": before + visible(natural.text), "steered": before + visible(steered.text)}
    show_texts(console, texts, dim=len(before))
    for receipt in steered.receipts:
        console.print(f"receipt  {visible(str(receipt))}", style="dim")


def show_texts(console: Console, texts: Mapping[str, str], dim: int) -> None:
    """Texts under their heads, side by side where there is room; their first ``dim`` characters are the prompt's."""
    bodies = [Text(text) for text in texts.values()]
    for body in bodies:
        body.stylize("dim", 0, dim)
    if not console.is_terminal or console.width < SIDE_BY_SIDE:
        for head, body in zip(texts, bodies, strict=True):
            console.print(Text(head, style="bold"))
            console.print(body, end="\n\n")
        return
    table = Table(box=SIMPLE_HEAD, expand=True, header_style="bold", pad_edge=False)
    for head in texts:
        table.add_column(Text(head), ratio=1, overflow="fold")
    table.add_row(*bodies)
    console.print(table)
