"""``assay organisms``: models with a known answer, trained, listed and measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.audit import Settings, read_settings
from assay.cli.terminal import Row, out, show_checks, show_rows

app = typer.Typer(no_args_is_help=True, help="Train, list and check small models with a known answer.")
FamilyName = Annotated[
    str,
    typer.Argument(
        metavar="FAMILY",
        help="deception, tampering or backdoor; deception-lora or backdoor-lora for an adapter of the default model.",
    ),
]
TwinName = Annotated[str, typer.Option(help="planted, clean, decoy or hard.")]
Seed = Annotated[
    int, typer.Option(help="Of the world, the weights and the batches. Twins of a seed share all but the last stage.")
]
Seeds = Annotated[int, typer.Option(help="So many seeds, from --seed on.")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="An organism's folder, as list prints it.")]
Again = Annotated[bool, typer.Option("--rebuild", help="Train it anew as well, and compare every bit.")]

_ADAPTER = "-lora"
"""The end of a family's name that asks for an adapter of a real model."""


@app.command()
def train(
    family: FamilyName, twin: TwinName = "planted", seed: Seed = 0, seeds: Seeds = 1, settings: Settings = None
) -> None:
    """Train organisms, or find them in the cache. A plant that does not take is kept, and counted."""
    from assay.organisms import families, lora

    changes, name = read_settings(settings or []), family.removesuffix(_ADAPTER)
    kind: Any = families if name == family else lora
    wanted = [kind.recipe(name, twin, seed=number, **changes) for number in range(seed, seed + seeds)]
    for recipe in wanted:
        made = kind.train(recipe)
        out().print(f"{family} {twin}, seed {recipe.seed}: {_took(made.card)}, {made.folder}")


@app.command(name="list")
def list_() -> None:
    """List the organisms in the cache, and how many plants have taken."""
    from assay.organisms import families, lora

    adapters = [card | {"recipe": card["recipe"] | {"family": _adapter(card)}} for card in lora.known()]
    cards = families.known() + adapters
    rows = [(*_named(card["recipe"]), _took(card), card["folder"]) for card in cards]
    show_rows(out(), rows, heads=("family", "twin", "seed", "", "folder"))
    for (family, twin), (took, of) in families.tally(cards).items():
        out().print(f"{family} {twin}: {took} of {of} took")


@app.command()
def check(folder: Folder, rebuild: Again = False) -> None:
    """Measure an organism again, beside its card."""
    from assay.organisms import families, lora

    kind: Any = lora if (folder / lora.WEIGHTS).is_file() else families
    found = kind.check(folder)
    rows = [Row(one["holds"], one["name"], f"{one['value']:.3g}", "train another seed") for one in found["figures"]]
    rows.append(
        Row(
            found["as_recorded"],
            "card",
            "as it was recorded" if found["as_recorded"] else "other figures",
            "train it anew",
        )
    )
    if rebuild:
        same = kind.rebuilt(folder)
        rows.append(
            Row(same, "rebuilt", "every bit equal" if same else "other weights", "see that nothing else has changed")
        )
    show_checks(out(), rows)


def _adapter(card: Mapping[str, Any]) -> str:
    return f"{card['recipe']['family']}{_ADAPTER}"


def _named(recipe: Mapping[str, Any]) -> Sequence[str]:
    return [str(recipe[name]) for name in ("family", "twin", "seed")]


def _took(card: Mapping[str, Any]) -> str:
    told = "took" if card["accepted"] else "did not take"
    return told if card.get("onset") is None else f"{told}, onset at step {card['onset']}"
