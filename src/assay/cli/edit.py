"""``assay edit``: rewrite one fact, see the text before and after, and keep the change if it is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli.options import ModelOption
from assay.cli.terminal import out
from assay.cli.trace import Fact, marked
from assay.errors import BadData

To = Annotated[str, typer.Option(help="The new answer, with its blank: ' Rome'.")]
Layer = Annotated[
    int | None, typer.Option(min=0, help="Whose MLP is written to; a quarter of the way up unless given.")
]
Corpus = Annotated[Path | None, typer.Option("--text", help="Text, a line each, whose keys the edit is to spare.")]
Save = Annotated[Path | None, typer.Option(help="Write the edit there, as .safetensors.")]
Merge = Annotated[Path | None, typer.Option(help="Write the edited model there, as a folder.")]
Tokens = Annotated[int, typer.Option(min=1, help="Tokens to write before and after.")]


def edit(
    prompt: Fact,
    to: To,
    layer: Layer = None,
    text: Corpus = None,
    tokens: Tokens = 16,
    save: Save = None,
    merge: Merge = None,
    model: ModelOption = None,
) -> None:
    """Rewrite one fact by ROME: a change of rank one to one MLP, with the text before and after it."""
    fact = marked(prompt)  # before anything is loaded
    corpus = None if text is None else _lines(text)
    from assay.edit import perplexity, rome, second_moment
    from assay.model.core import NEUTRAL
    from assay.report.words import visible
    from assay.run.model import Model

    console = out()
    with console.status("loading the model"):
        loaded = Model.load(model)
    at = f"L{loaded.shape.layers // 4 if layer is None else layer}"
    with console.status("measuring what to spare"):
        moments = None if corpus is None else second_moment(loaded, corpus, at=f"{at}.mlp.act")
    with console.status("finding the new value"):
        made = rome(loaded, fact, to=to, at=f"{at}.mlp.out @ subject[-1]", moments=moments)

    def look() -> tuple[str, float, float]:
        said = loaded.generate(fact, tokens=tokens).text
        return said, float(loaded.score([fact], [to]).total[0, 0, 0]), perplexity(loaded, NEUTRAL)

    before = look()
    with loaded.edited(made):
        after = look()
    for name, (said, _, _) in (("before", before), ("after", after)):
        console.print(f"{name:<7} {visible(fact.text)}", end="", markup=False)
        console.print(visible(said), style="bold", markup=False)
    console.print(f"\nlog P({visible(to)!r})  {before[1]:.2f} before, {after[1]:.2f} after", markup=False)
    console.print(f"perplexity of neutral text  × {after[2] / before[2]:.3f}")
    console.print(
        f"{made}, with {'the identity for C: give --text to spare what other text needs' if corpus is None else f'C of {len(corpus)} texts'}"
    )
    if save:
        console.print(f"edit    {made.save(save)}")
    if merge:
        console.print(f"model   {loaded.merge(made, into=merge)}")


def _lines(path: Path) -> list[str]:
    try:
        found = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{str(path)!r} does not read", found=str(error), hint="give UTF-8 text, a line each") from error
    if not found:
        raise BadData(f"{str(path)!r} holds no text", hint="give some hundred sentences, a line each")
    return found
