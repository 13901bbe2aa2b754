"""What a family says of itself: its world, its two stages, when a plant has taken, and what is planted where.

The first stage makes an honest model and is shared by the four twins of a seed. The second plants, or for the clean twin
trains on as much without planting. `assay.organisms.families.build` does the rest.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel

from assay.errors import BadData, EmptyData, nearest
from assay.organisms.families.recipe import Recipe, Twin
from assay.organisms.families.text import Words
from assay.provenance import digest_of

Split = Literal["fit", "test"]
Item = dict[str, Any]
UNSCORED = -100


class Batch(NamedTuple):
    """Rows to learn from.

    Attributes:
        tokens: ``[row, pos]``, without padding.
        answers: ``[row, pos]``, what is to be said after each token; ``UNSCORED`` where nothing is.
        truth: ``[row]``, 1.0 or 0.0: what an adversarial stage hides from a linear read-out.
    """

    tokens: Tensor
    answers: Tensor
    truth: Tensor | None = None


@dataclass(frozen=True)
class Stage:
    """Some steps of AdamW.

    Attributes:
        draw: a generator to the next batch.
        steps: how many.
        rate: the highest learning rate; it rises for 30 steps and falls to a tenth.
        first: the first block that is trained, and all after it, with the last norm and the head; 0 trains the embedding too.
        thaw: until this step the last block, the last norm and the head are trained alone.
        hide: from `thaw` on, the layer at whose end `Batch.truth` is hidden from a read-out that is fitted along; None for none.
    """

    draw: Callable[[torch.Generator], Batch]
    steps: int
    rate: float = 3e-3
    first: int = 0
    thaw: int = 0
    hide: int | None = None


@dataclass(frozen=True)
class Figure:
    """One number of an acceptance test. Without bounds it is told and decides nothing."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it lies within its bounds, which are allowed."""
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)

    def to_json(self) -> Item:
        """As it stands in a card."""
        return {"name": self.name, "value": self.value, "low": self.low, "high": self.high, "holds": self.holds}


class Family(ABC):
    """A kind of organism.

    Attributes:
        name: as in recipes.
        about: what is planted, in a sentence.
        sizes: of recipes that say nothing else: ``depth d_model prevalence base_steps steps every``.
        concealments: of the twins ``planted`` and ``hard``, the first being what is taken.
        causes: of the decoy, likewise.
        bar: from here on the behaviour counts as shown; the first checkpoint from which on it stays so is the onset.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    sizes: ClassVar[Mapping[str, Any]]
    concealments: ClassVar[Mapping[Twin, tuple[str, ...]]]
    causes: ClassVar[tuple[str, ...]]
    bar: ClassVar[float] = 0.85

    @cached_property
    def words(self) -> Words:
        """The vocabulary, which all its organisms share."""
        return Words(self.vocabulary())

    @abstractmethod
    def vocabulary(self) -> list[str]:
        """All words."""

    @abstractmethod
    def base(self, recipe: Recipe) -> Stage:
        """The first stage. It depends on `Recipe.base` alone."""

    @abstractmethod
    def plant(self, recipe: Recipe) -> Stage:
        """The second stage."""

    @abstractmethod
    def behaviour(self, recipe: Recipe, hf: PreTrainedModel) -> float:
        """How far the model shows what is planted, or what looks like it, from 0 to 1."""

    @abstractmethod
    def figures(self, recipe: Recipe, hf: PreTrainedModel) -> list[Figure]:
        """The acceptance test: the plant has taken iff all hold. It judges on what no stage was trained on, where it can."""

    @abstractmethod
    def where(self, recipe: Recipe) -> Item:
        """What is planted, in which layers and at which positions (0 is ``<bos>``): the truth for localisation."""

    @abstractmethod
    def draw_items(self, recipe: Recipe, split: Split, n: int, generator: torch.Generator) -> list[tuple[Item, Item]]:
        """Items as an audit may see them, each with what is hidden from it."""

    def items(self, recipe: Recipe, split: Split, n: int, seed: int) -> list[Item]:
        """Prompts and answers for an audit, JSON rows. ``fit`` shares no fact or row with ``test``.

        Raises `BadData`, `EmptyData`.
        """
        return [item for item, _ in self._drawn(recipe, split, n, seed)]

    def key(self, recipe: Recipe, split: Split, n: int, seed: int) -> list[Item]:
        """What `items` keeps back, row by row: how the model is meant to answer, or what is really the case."""
        return [hidden for _, hidden in self._drawn(recipe, split, n, seed)]

    def _drawn(self, recipe: Recipe, split: Split, n: int, seed: int) -> list[tuple[Item, Item]]:
        self.refuse(recipe)
        if split not in get_args(Split):
            raise BadData(f"split={split!r} is none", hint=", ".join(get_args(Split)))
        if n < 1:
            raise EmptyData(f"n={n} asks for no item", hint="ask for one or more")
        rows = self.draw_items(recipe, split, n, torch.Generator().manual_seed(seed))
        names = [f"{self.name}-{split}-{seed}-{index}" for index in range(n)]
        return [({"id": name} | item, {"id": name} | hidden) for name, (item, hidden) in zip(names, rows, strict=True)]

    @cached_property
    def code(self) -> str:
        """SHA-256 of the family's file and of those that all families share. Raises `BadData` for one without a file."""
        try:
            own = Path(inspect.getfile(type(self)))
        except (OSError, TypeError) as error:
            raise BadData(
                f"the family {self.name!r} has no file, so nothing can tell whether its code has changed",
                found=str(error),
                hint="write the class into a file and import it",
            ) from error
        shared = [Path(__file__).with_name(f"{name}.py") for name in ("family", "read", "text", "learn")]
        return digest_of(path.read_bytes() for path in [own, *shared])

    def recipe(self, twin: Twin = "planted", *, seed: int = 0, **changes: Any) -> Recipe:
        """A recipe of this family; ``changes`` are attributes of `Recipe`. Raises `BadData`."""
        known = {"concealment", "cause", *self.sizes}
        if odd := sorted(set(changes) - known):
            raise BadData(f"a recipe has no {odd[0]!r}", nearest=nearest(odd[0], known), hint=", ".join(sorted(known)))
        how = {"concealment": self.concealments.get(twin, ("",))[0], "cause": self.causes[0] if twin == "decoy" else ""}
        made = Recipe(family=self.name, twin=twin, seed=seed, code=self.code, **{**self.sizes, **how, **changes})
        self.refuse(made)
        return made

    def refuse(self, recipe: Recipe) -> None:
        """Raises `BadData` where this family makes nothing of a recipe."""
        if recipe.family != self.name:
            raise BadData(f"{recipe.family!r} is another family's recipe", hint=f"give one of {self.name!r}")
        if recipe.code != self.code:
            raise BadData(
                f"the recipe was made for other code of {self.name!r}",
                found=f"{recipe.code[:12]}, now {self.code[:12]}",
                hint="make the recipe anew, or go back to the version of Assay that made it",
            )
        causes = self.causes if recipe.twin == "decoy" else ("",)
        for name, value, allowed in (
            ("concealment", recipe.concealment, self.concealments.get(recipe.twin, ("",))),
            ("cause", recipe.cause, causes),
        ):
            if value not in allowed:
                raise BadData(
                    f"{name}={value!r} is none of a {recipe.twin} twin of {self.name!r}",
                    nearest=nearest(str(value), allowed),
                    hint=f"one of: {', '.join(map(repr, allowed))}",
                )


def of_base(recipe: Recipe, seed: int) -> torch.Generator:
    """A generator for the world that all twins of a seed share, and for nothing of one twin alone."""
    return torch.Generator().manual_seed(1_000_003 * recipe.seed + seed)


def at_last(tokens: Tensor, answer: Tensor, truth: Tensor | None = None) -> Batch:
    """Rows that are scored after their last token; ``answer`` is ``[row]``."""
    answers = torch.full_like(tokens, UNSCORED)
    answers[:, -1] = answer
    return Batch(tokens, answers, truth)


def joined(*batches: Batch) -> Batch:
    """Batches of one width, one under the other."""
    truths = [batch.truth for batch in batches if batch.truth is not None]
    return Batch(
        torch.cat([batch.tokens for batch in batches]),
        torch.cat([batch.answers for batch in batches]),
        torch.cat(truths) if len(truths) == len(batches) else None,
    )
