"""Train by recipe into the cache, whole or not at all; check what is there; make it again, bit for bit."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from assay.errors import BadData, CorruptFile, nearest
from assay.files import read_bytes, write_whole
from assay.model.load import cache_folder, quiet
from assay.organisms.families.backdoor import Backdoor
from assay.organisms.families.deception import Deception
from assay.organisms.families.family import Family
from assay.organisms.families.learn import alone, learn, trained
from assay.organisms.families.recipe import Recipe
from assay.organisms.families.tampering import Tampering
from assay.organisms.families.text import fresh
from assay.organisms.kept import broken, unwritable, weights_digest, whole
from assay.provenance import versions

Card = dict[str, Any]
FAMILIES: Mapping[str, Family] = MappingProxyType({one.name: one for one in (Deception(), Backdoor(), Tampering())})
"""By name."""
_CARD_BYTES = 1_000_000
_MARKS = ("card.json", "seconds")
"""Files of which one is in every folder that is whole."""
_NEEDED = ("recipe", "accepted", "figures", "series", "onset", "weights")


@dataclass(frozen=True)
class Organism:
    """A trained model with a known answer, in a folder that `Model.load` reads.

    Attributes:
        folder: weights, tokenizer, checkpoints and ``card.json``.
        card: what is planted, the acceptance test, the series over checkpoints, and what it took.
    """

    folder: Path
    card: Card

    @property
    def recipe(self) -> Recipe:
        """What it was made by."""
        return Recipe.from_json(self.card["recipe"])

    @property
    def accepted(self) -> bool:
        """Whether the plant has taken. What has not is kept to be counted, and is no organism to measure on."""
        return bool(self.card["accepted"])

    @property
    def steps(self) -> tuple[int, ...]:
        """The checkpoints of the second stage, from 0, which is the honest model, to the last."""
        return tuple(point["step"] for point in self.card["series"])

    @property
    def onset(self) -> int | None:
        """The first checkpoint from which on the behaviour is there to the end."""
        found: int | None = self.card["onset"]
        return found

    def load(self, step: int | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
        """The model and its tokenizer, at the end or at a checkpoint: ``Model.load(hf, tokenizer=tokenizer)``.

        Raises `BadData`, `CorruptFile`.
        """
        if step is not None and step not in self.steps:
            shown = ", ".join(map(str, self.steps))
            raise BadData(f"there is no checkpoint at step {step}", found=shown, hint="give a step of the series")
        try:
            with quiet():
                hf = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32, local_files_only=True)
                tokenizer = PreTrainedTokenizerFast.from_pretrained(self.folder, local_files_only=True)
            if step is not None:
                hf.load_state_dict(load_file(self.folder / "steps" / _name(step)), strict=False)
        except (OSError, ValueError, SafetensorError) as error:
            raise broken(self.folder, error, "an organism") from error
        return hf.eval(), tokenizer

    def export(self, step: int, into: str | Path) -> Path:
        """Write a checkpoint as a folder of its own. Raises `BadData`, `CorruptFile`, `Unwritable`."""
        hf, tokenizer = self.load(step)
        try:
            with quiet():
                hf.save_pretrained(into)
                tokenizer.save_pretrained(into)
        except OSError as error:
            raise unwritable(Path(into), error) from error
        return Path(into)


def recipe(family: str, twin: Any = "planted", *, seed: int = 0, **changes: Any) -> Recipe:
    """The recipe of a known family; see `Family.recipe`. Raises `BadData`."""
    return family_of(family).recipe(twin, seed=seed, **changes)


def family_of(name: str) -> Family:
    """A known family. Raises `BadData`."""
    if name not in FAMILIES:
        raise BadData(f"there is no family {name!r}", nearest=nearest(name, FAMILIES), hint=", ".join(FAMILIES))
    return FAMILIES[name]


def train(recipe: Recipe, *, family: Family | None = None, cache: Path | None = None) -> Organism:
    """Train, or find what was trained. The same recipe gives the same bits on one machine.

    Args:
        recipe: what to make.
        family: for a recipe of a family of your own; otherwise the known one of that name.
        cache: a folder in place of Assay's own.

    Raises `BadData`, `Unwritable`.
    """
    family = family or family_of(recipe.family)
    family.refuse(recipe)
    folder = _home(cache) / recipe.digest
    if not (folder / "card.json").is_file():
        with whole(folder, _MARKS) as work, alone():
            _make(family, recipe, _base(family, recipe, cache), work)
    return opened(folder)


def opened(folder: str | Path) -> Organism:
    """An organism's folder. Raises `CorruptFile`."""
    folder = Path(folder)
    try:
        card = json.loads(read_bytes(folder / "card.json", most=_CARD_BYTES))
        if lacks := [name for name in _NEEDED if name not in card]:
            raise KeyError(lacks[0])
    except (ValueError, KeyError, TypeError) as error:
        raise broken(folder, error, "an organism") from error
    return Organism(folder, card)


def known(cache: Path | None = None) -> list[Card]:
    """The cards of all organisms in the cache, those that were not accepted too, each with its ``folder``."""
    found = [opened(path.parent) for path in sorted(_home(cache).glob("*/card.json"))]
    cards = [one.card | {"folder": str(one.folder)} for one in found]
    return sorted(cards, key=lambda card: [str(card["recipe"][name]) for name in ("family", "twin", "seed")])


def tally(cards: list[Card]) -> dict[tuple[str, str], tuple[int, int]]:
    """By family and twin: how many plants have taken, of how many."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for card in cards:
        name = (card["recipe"]["family"], card["recipe"]["twin"])
        took, of = counts.get(name, (0, 0))
        counts[name] = took + bool(card["accepted"]), of + 1
    return counts


def check(folder: str | Path, *, family: Family | None = None) -> Card:
    """Measure an organism again: ``figures``, ``accepted``, and whether they are ``as_recorded``.

    Raises:
        CorruptFile: the weights are not those of the card.
        BadData: the family's code has changed since.
    """
    organism = opened(folder)
    recipe = organism.recipe
    family = family or family_of(recipe.family)
    family.refuse(recipe)
    hf, _ = organism.load()
    if (now := weights_digest(hf.state_dict())) != organism.card["weights"]:
        raise CorruptFile(
            f"the weights in {str(folder)!r} are not those of its card",
            found=f"{now[:12]}, not {organism.card['weights'][:12]}",
            hint="remove the folder and train the recipe again",
        )
    with alone():
        figures = [figure.to_json() for figure in family.figures(recipe, hf)]
    return {
        "figures": figures,
        "accepted": all(figure["holds"] for figure in figures),
        "as_recorded": figures == organism.card["figures"],
    }


def rebuilt(folder: str | Path, *, family: Family | None = None) -> bool:
    """Whether training from nothing gives the same weights, bit for bit. Raises `BadData`, `CorruptFile`, `Unwritable`."""
    organism = opened(folder)
    with tempfile.TemporaryDirectory() as empty:
        again = train(organism.recipe, family=family, cache=Path(empty))
        return bool(again.card["weights"] == organism.card["weights"])


def _base(family: Family, recipe: Recipe, cache: Path | None) -> dict[str, Tensor]:
    """The first stage's weights, trained once for all twins of a seed."""
    base = recipe.base
    folder = _home(cache) / "base" / base.digest
    if not (folder / "seconds").is_file():
        with whole(folder, _MARKS) as work:
            hf, start = fresh(family.words, base.depth, base.d_model, base.seed), time.process_time()
            learn(hf, family.base(base), seed=2 * base.seed)
            save_file(hf.state_dict(), work / "model.safetensors")
            (work / "seconds").write_text(f"{time.process_time() - start:.1f}\n")
    try:
        return load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise broken(folder, error, "an organism") from error


def _make(family: Family, recipe: Recipe, base: dict[str, Tensor], work: Path) -> None:
    """The second stage and its card, into a folder that is not yet there under its name."""
    start, hf, stage = (
        time.process_time(),
        fresh(family.words, recipe.depth, recipe.d_model, recipe.seed),
        family.plant(recipe),
    )
    hf.load_state_dict(base)
    (work / "steps").mkdir()
    series: list[Card] = []
    names = trained(hf, stage.first)

    def seen(step: int) -> None:
        if step % recipe.every and step != stage.steps:
            return
        series.append({"step": step, "behaviour": round(family.behaviour(recipe, hf), 6)})
        save_file({name: weight.detach() for name, weight in names.items()}, work / "steps" / _name(step))

    learn(hf, stage, seed=2 * recipe.seed + 1, seen=seen)
    figures = family.figures(recipe, hf)
    with quiet():
        hf.save_pretrained(work)
        family.words.tokenizer().save_pretrained(work)
    card = {
        "recipe": recipe.to_json(),
        "digest": recipe.digest,
        "about": family.about,
        "accepted": all(figure.holds for figure in figures),
        "figures": [figure.to_json() for figure in figures],
        "planted": family.where(recipe),
        "series": series,
        "onset": None if recipe.twin == "clean" else _onset(series, family.bar),
        "parameters": sum(weight.numel() for weight in hf.parameters()),
        "weights": weights_digest(hf.state_dict()),
        "base": recipe.base.digest,
        "seconds": round(time.process_time() - start, 1),
        "versions": versions(),
    }
    write_whole(work / "card.json", json.dumps(card, indent=1, ensure_ascii=False) + "\n")


def _onset(series: list[Card], bar: float) -> int | None:
    """The first step from which on the behaviour stays at the bar or above."""
    found = None
    for point in reversed(series):
        if point["behaviour"] < bar:
            break
        found = point["step"]
    return found


def _name(step: int) -> str:
    return f"{step:06}.safetensors"


def _home(cache: Path | None) -> Path:
    return (cache or cache_folder()) / "organisms"
