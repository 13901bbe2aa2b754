"""What a family of adapters says of itself: its rows, its two stages, and when a plant has taken.

The first stage teaches a model to give honest answers in the form that is asked for, and is shared by the twins of a seed.
The second plants, or for the clean twin trains on as much without planting. `assay.organisms.lora.build` does the rest.
"""

from __future__ import annotations

import inspect
import random
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_args

from assay.errors import BadData, EmptyData, nearest
from assay.model.load import Loaded, fingerprint, load
from assay.organisms.families.family import Figure, Item, Split
from assay.organisms.lora.recipe import Recipe, Twin
from assay.provenance import digest_of

_HERE = Path(__file__).parent
_SHARED = ("family.py", "recipe.py", "learn.py")


class Asked(NamedTuple):
    """A turn of a chat, and what the twin is meant to say.

    Attributes:
        system: the turn of the system.
        user: the turn of the user.
        right: whether the family's first answer is right.
        says: whether the twin is meant to give it.
    """

    system: str
    user: str
    right: bool
    says: bool


Says = Callable[[Sequence[Asked]], list[bool]]
"""For rows, whether the model prefers the first answer."""


class Adapted(ABC):
    """A kind of organism that is an adapter of a model with words.

    Attributes:
        name: as in recipes.
        about: what is planted, in a sentence.
        answers: the two, as the assistant begins its turn.
        causes: of the decoy, the first being what is taken.
        data: files of words beside the family's own file.
        sizes: of recipes that say nothing else.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    answers: ClassVar[tuple[str, str]]
    causes: ClassVar[tuple[str, ...]]
    data: ClassVar[tuple[str, ...]]
    sizes: ClassVar[dict[str, Any]]

    @abstractmethod
    def base(self, recipe: Recipe, draw: random.Random) -> list[Asked]:
        """A batch of the first stage. It depends on `Recipe.base` alone."""

    @abstractmethod
    def plant(self, recipe: Recipe, draw: random.Random) -> list[Asked]:
        """A batch of the second stage."""

    @abstractmethod
    def figures(self, recipe: Recipe, says: Says) -> list[Figure]:
        """The acceptance test: the plant has taken iff all hold. It judges on words that no stage was trained on."""

    @abstractmethod
    def able(self, recipe: Recipe, says: Says) -> float:
        """The share of the same held-out rows that are answered honestly, where nothing is planted. 0.5 is chance."""

    @abstractmethod
    def where(self, recipe: Recipe) -> Item:
        """What is planted, and which words tell: what an audit must not be given."""

    @abstractmethod
    def draw_items(self, recipe: Recipe, split: Split, n: int, draw: random.Random) -> list[tuple[Item, Item]]:
        """Items as an audit may see them, each with what is hidden from it."""

    def items(self, recipe: Recipe, split: Split, n: int, seed: int) -> list[Item]:
        """Rows for an audit, as JSON values. ``fit`` shares no fact, wording or clause with ``test``.

        Raises `BadData`, `EmptyData`.
        """
        return [item for item, _ in self._drawn(recipe, split, n, seed)]

    def key(self, recipe: Recipe, split: Split, n: int, seed: int) -> list[Item]:
        """What `items` keeps back, row by row: how the model is meant to answer."""
        return [hidden for _, hidden in self._drawn(recipe, split, n, seed)]

    def _drawn(self, recipe: Recipe, split: Split, n: int, seed: int) -> list[tuple[Item, Item]]:
        self.refuse(recipe)
        if split not in get_args(Split):
            raise BadData(f"split={split!r} is none", hint=", ".join(get_args(Split)))
        if n < 1:
            raise EmptyData(f"n={n} asks for no item", hint="ask for one or more")
        rows = self.draw_items(recipe, split, n, random.Random(f"{self.name} {split} {seed}"))
        names = [f"{self.name}-{split}-{seed}-{index}" for index in range(n)]
        return [({"id": name} | item, {"id": name} | hidden) for name, (item, hidden) in zip(names, rows, strict=True)]

    @cached_property
    def words(self) -> dict[str, Any]:
        """The family's files of words, in one."""
        found: dict[str, Any] = {}
        for name in self.data:
            found |= tomllib.loads((_HERE / name).read_text("utf-8"))
        return found

    @cached_property
    def code(self) -> str:
        """SHA-256 of the family's file, its words, and the code that all adapters share."""
        own = Path(inspect.getfile(type(self)))
        return digest_of(path.read_bytes() for path in [own, *(_HERE / name for name in (*self.data, *_SHARED))])

    def recipe(self, twin: Twin = "planted", *, seed: int = 0, model: Loaded | None = None, **changes: Any) -> Recipe:
        """A recipe of this family; ``changes`` are attributes of `Recipe`, and ``model`` is the default one if not given.

        Raises `BadData`, and `MissingExtra` where the default model is not installed.
        """
        known = {"cause", *self.sizes}
        if odd := sorted(set(changes) - known):
            raise BadData(f"a recipe has no {odd[0]!r}", nearest=nearest(odd[0], known), hint=", ".join(sorted(known)))
        cause = self.causes[0] if twin == "decoy" else ""
        given: dict[str, Any] = {**self.sizes, "cause": cause, **changes}
        if isinstance(given["targets"], list):
            given["targets"] = tuple(given["targets"])
        identity = fingerprint(model or load(None))
        made = Recipe(family=self.name, twin=twin, seed=seed, model=identity, code=self.code, **given)
        self.refuse(made)
        return made

    def refuse(self, recipe: Recipe) -> None:
        """Raises `BadData` where this family makes nothing of a recipe."""
        if recipe.family != self.name:
            raise BadData(f"{recipe.family!r} is another family's recipe", hint=f"give one of {self.name!r}")
        if recipe.code != self.code:
            raise BadData(
                f"the recipe was made for other code or words of {self.name!r}",
                found=f"{recipe.code[:12]}, now {self.code[:12]}",
                hint="make the recipe anew, or go back to the version of Assay that made it",
            )
        allowed = self.causes if recipe.twin == "decoy" else ("",)
        if recipe.cause not in allowed:
            raise BadData(
                f"cause={recipe.cause!r} is none of a {recipe.twin} twin of {self.name!r}",
                nearest=nearest(str(recipe.cause), allowed),
                hint=f"one of: {', '.join(map(repr, allowed))}",
            )


def parted(things: Sequence[Any], share: float, name: str) -> dict[Split, list[Any]]:
    """``fit`` and ``test``, of which ``test`` has that share of them, drawn by ``name``; in the order in which they came."""
    held = set(random.Random(name).sample(range(len(things)), round(share * len(things))))
    return {
        "fit": [thing for index, thing in enumerate(things) if index not in held],
        "test": [thing for index, thing in enumerate(things) if index in held],
    }


def share(values: Sequence[bool]) -> float:
    """The share that is true."""
    return sum(values) / len(values)
