"""Train adapters by recipe into the cache, whole or not at all; check what is there; make it again, bit for bit."""

from __future__ import annotations

import copy
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from assay.errors import BadData, CorruptFile, ModelMismatch, nearest
from assay.files import read_bytes, write_whole
from assay.model.load import Loaded, cache_folder, fingerprint, load
from assay.organisms.families.learn import alone
from assay.organisms.kept import broken, weights_digest, whole
from assay.organisms.lora.backdoor import Backdoor
from assay.organisms.lora.deception import Deception
from assay.organisms.lora.family import Adapted, Says
from assay.organisms.lora.learn import WEIGHTS, learned, merged, needs_peft, says
from assay.organisms.lora.recipe import Recipe
from assay.provenance import versions

Card = dict[str, Any]
FAMILIES: Mapping[str, Adapted] = MappingProxyType({one.name: one for one in (Deception(), Backdoor())})
"""By name."""
_CARD_BYTES = 1_000_000
_MARKS = ("card.json", "told.json")
"""Files of which one is in every folder that is whole."""
_NEEDED = ("recipe", "accepted", "figures", "adapter")


@dataclass(frozen=True)
class Organism:
    """An adapter with a known answer, in a folder that peft reads too.

    Attributes:
        folder: ``adapter_model.safetensors``, ``adapter_config.json`` and ``card.json``.
        card: what is planted, the acceptance test, how able the model was, and what it took.
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

    def load(self, model: Loaded | None = None) -> tuple[PreTrainedModel, Any]:
        """The model with the adapter added into its weights, and its tokenizer: ``Model.load(hf, tokenizer=tokenizer)``.

        Args:
            model: what was adapted, where that was not the default model; it is copied and left as it is.

        Raises:
            ModelMismatch: this is not the model that was adapted.
            CorruptFile: the adapter's weights are not those of its card.
            MissingExtra: peft is not installed.
        """
        needs_peft()
        base = _given(self.recipe, model)
        if (now := weights_digest(_read(self.folder))) != self.card["adapter"]:
            raise CorruptFile(
                f"the adapter in {str(self.folder)!r} is not that of its card",
                found=f"{now[:12]}, not {self.card['adapter'][:12]}",
                hint="remove the folder and train the recipe again",
            )
        return merged(base.hf, self.recipe, self.folder / WEIGHTS), base.tokenizer


def recipe(family: str, twin: Any = "planted", *, seed: int = 0, model: Loaded | None = None, **changes: Any) -> Recipe:
    """The recipe of a known family; see `Adapted.recipe`. Raises `BadData`, `MissingExtra`."""
    return family_of(family).recipe(twin, seed=seed, model=model, **changes)


def family_of(name: str) -> Adapted:
    """A known family. Raises `BadData`."""
    if name not in FAMILIES:
        raise BadData(
            f"there is no family of adapters {name!r}", nearest=nearest(name, FAMILIES), hint=", ".join(FAMILIES)
        )
    return FAMILIES[name]


def train(recipe: Recipe, *, model: Loaded | None = None, cache: Path | None = None) -> Organism:
    """Train, or find what was trained. The same recipe gives the same bits on one machine.

    Args:
        recipe: what to make.
        model: what its recipe was made for, where that was not the default model; it is copied and left as it is.
        cache: a folder in place of Assay's own.

    Raises `BadData`, `ModelMismatch`, `Unwritable`, and `MissingExtra` where peft is not installed.
    """
    family = family_of(recipe.family)
    family.refuse(recipe)
    folder = _home(cache) / recipe.digest
    if not (folder / "card.json").is_file():
        needs_peft()
        with whole(folder, _MARKS) as work, alone():
            _make(family, recipe, model, cache, work)
    return opened(folder)


def opened(folder: str | Path) -> Organism:
    """An organism's folder. Raises `CorruptFile`."""
    folder = Path(folder)
    try:
        card = json.loads(read_bytes(folder / "card.json", most=_CARD_BYTES))
        if lacks := [name for name in _NEEDED if name not in card]:
            raise KeyError(lacks[0])
    except (ValueError, KeyError, TypeError) as error:
        raise broken(folder, error, "an adapter") from error
    return Organism(folder, card)


def known(cache: Path | None = None) -> list[Card]:
    """The cards of all adapters in the cache, those that were not accepted too, each with its ``folder``."""
    found = [opened(path.parent) for path in sorted(_home(cache).glob("*/card.json"))]
    cards = [one.card | {"folder": str(one.folder)} for one in found]
    return sorted(cards, key=lambda card: [str(card["recipe"][name]) for name in ("family", "twin", "seed")])


def check(folder: str | Path, *, model: Loaded | None = None) -> Card:
    """Measure an organism again: ``figures``, ``accepted``, and whether they are ``as_recorded``.

    Raises `CorruptFile`, `ModelMismatch`, `MissingExtra`, and `BadData` where the family's code has changed since.
    """
    organism = opened(folder)
    recipe = organism.recipe
    family = family_of(recipe.family)
    family.refuse(recipe)
    hf, tokenizer = organism.load(model)
    with alone():
        figures = _figures(family, recipe, hf, tokenizer)
    return {
        "figures": figures,
        "accepted": all(figure["holds"] for figure in figures),
        "as_recorded": figures == organism.card["figures"],
    }


def rebuilt(folder: str | Path, *, model: Loaded | None = None) -> bool:
    """Whether training from nothing gives the same adapter, bit for bit. Raises what `train` does, and `CorruptFile`."""
    organism = opened(folder)
    with tempfile.TemporaryDirectory() as empty:
        again = train(organism.recipe, model=model, cache=Path(empty))
        return bool(again.card["adapter"] == organism.card["adapter"])


def _make(family: Adapted, recipe: Recipe, given: Loaded | None, cache: Path | None, work: Path) -> None:
    """Both stages and the card, into a folder that is not yet there under its name."""
    found = _given(recipe, given)
    first, told = _base(family, recipe, found, cache)
    start = time.process_time()
    losses = learned(
        found,
        recipe,
        family.answers,
        lambda draw: family.plant(recipe, draw),
        start=first,
        steps=recipe.steps,
        seed=2 * recipe.seed + 1,
        into=work,
    )
    blocks = int(found.hf.config.num_hidden_layers)
    hf = merged(found.hf, recipe, work / WEIGHTS)
    figures, state = _figures(family, recipe, hf, found.tokenizer), _read(work)
    card = {
        "recipe": recipe.to_json(),
        "digest": recipe.digest,
        "about": family.about,
        "accepted": all(figure["holds"] for figure in figures),
        "figures": figures,
        "able": told["able"],
        "planted": family.where(recipe)
        | {"layers": [] if recipe.twin == "clean" else list(range(recipe.first, blocks))},
        "losses": [round(loss, 4) for loss in losses],
        "model": {"name": found.name, "revision": found.revision, "fingerprint": recipe.model},
        "parameters": sum(weight.numel() for weight in state.values()),
        "adapter": weights_digest(state),
        "base": recipe.base.digest,
        "seconds": {"first stage": told["seconds"], "second stage": round(time.process_time() - start, 1)},
        "versions": versions(),
    }
    write_whole(work / "card.json", json.dumps(card, indent=1, ensure_ascii=False) + "\n")


def _base(family: Adapted, recipe: Recipe, found: Loaded, cache: Path | None) -> tuple[dict[str, Tensor], Card]:
    """The first stage's adapter, trained once for all twins of a seed; how able the model was before and after it."""
    base = recipe.base
    folder = _home(cache) / "base" / base.digest
    if not (folder / "told.json").is_file():
        with whole(folder, _MARKS) as work:
            start = time.process_time()
            learned(
                found,
                base,
                family.answers,
                lambda draw: family.base(base, draw),
                steps=base.base_steps,
                seed=2 * base.seed,
                into=work,
            )
            # Told, and no figure of an acceptance test, so the shorter numbers of training will do.
            hf = copy.deepcopy(found.hf).to(getattr(torch, base.dtype))
            able = {"before": family.able(base, _judge(family, hf, found.tokenizer))}
            able["after"] = family.able(base, _judge(family, merged(hf, base, work / WEIGHTS), found.tokenizer))
            told = {"able": able, "seconds": round(time.process_time() - start, 1)}
            write_whole(work / "told.json", json.dumps(told) + "\n")
    try:
        return _read(folder), json.loads(read_bytes(folder / "told.json", most=_CARD_BYTES))
    except ValueError as error:
        raise broken(folder, error, "an adapter") from error


def _judge(family: Adapted, hf: PreTrainedModel, tokenizer: Any) -> Says:
    return lambda rows: says(hf, tokenizer, family.answers, rows)


def _figures(family: Adapted, recipe: Recipe, hf: PreTrainedModel, tokenizer: Any) -> list[Card]:
    return [figure.to_json() for figure in family.figures(recipe, _judge(family, hf, tokenizer))]


def _given(recipe: Recipe, model: Loaded | None) -> Loaded:
    """The model that a recipe is for, as a copy that may be changed. Raises `ModelMismatch`."""
    found = load(None) if model is None else model
    if (now := fingerprint(found)) != recipe.model:
        raise ModelMismatch(
            "the recipe was made for another model",
            found=f"{found.name}, {now[:12]}; the recipe's is {recipe.model[:12]}",
            hint="give the model that the recipe was made with, or make the recipe for this one: recipe(…, model=…)",
        )
    return found if model is None else replace(found, hf=copy.deepcopy(found.hf))


def _read(folder: Path) -> dict[str, Tensor]:
    try:
        return load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise broken(folder, error, "an adapter") from error


def _home(cache: Path | None) -> Path:
    return (cache or cache_folder()) / "organisms" / "lora"
