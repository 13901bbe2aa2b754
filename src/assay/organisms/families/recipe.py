"""What a trained organism is made by: one frozen value, whose digest is its place in the cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from assay.errors import BadData, nearest
from assay.provenance import digest_of

Twin = Literal["planted", "clean", "decoy", "hard"]
TWINS: tuple[Twin, ...] = get_args(Twin)
_LEAST = {"seed": 0, "depth": 2, "d_model": 8, "base_steps": 1, "steps": 1, "every": 1}


@dataclass(frozen=True)
class Recipe:
    """An organism, before it is trained. `Family.recipe` fills in what is not given.

    Two recipes have one digest iff all of this is equal: a change in the family's code gives other organisms, and those
    that are cached stay what they are.

    Attributes:
        family: its name.
        twin: ``planted`` has the problem. ``clean`` was trained in the same way without it. ``decoy`` shows the same on
            the surface, for a benign cause. ``hard`` has the problem where the usual method is expected to miss it.
        seed: of the world (tables, words), the weights and the batches. Twins of a seed share all but the last stage.
        depth: blocks.
        d_model: width of the stream.
        concealment: how the problem is put in, of ``planted`` and ``hard``; a name of the family's.
        cause: the benign cause, of ``decoy``; a name of the family's.
        prevalence: how much is affected; each family says of what this is a share.
        base_steps: of the first stage, which makes an honest model.
        steps: of the second, which plants.
        every: steps of the second stage between checkpoints.
        code: digest of the code that makes it.
    """

    family: str
    twin: Twin
    seed: int
    depth: int
    d_model: int
    concealment: str
    cause: str
    prevalence: float
    base_steps: int
    steps: int
    every: int
    code: str

    def __post_init__(self) -> None:
        """Raises `BadData` for what makes sense in no family."""
        if self.twin not in TWINS:
            raise BadData(f"twin={self.twin!r} is none", nearest=nearest(str(self.twin), TWINS), hint=", ".join(TWINS))
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise BadData(f"{name}={value!r} makes no model", hint=f"give a whole number from {least} on")
        if self.d_model % 8:
            raise BadData(f"d_model={self.d_model} does not divide into heads", hint="give a multiple of 8")
        share = self.prevalence
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise BadData(f"prevalence={share!r} is no share", hint="give a number above 0, up to 1")

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, the family's code included."""
        return digest_of([json.dumps(self.to_json(), sort_keys=True).encode()])

    @property
    def base(self) -> Recipe:
        """What the twins of a seed share: the recipe of which only the first stage is trained."""
        return replace(self, twin="clean", concealment="", cause="", prevalence=1.0, steps=1, every=1)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return asdict(self) | {"prevalence": float(self.prevalence)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_json`. Raises `BadData`."""
        names = {one.name for one in fields(cls)}
        if not isinstance(state, Mapping) or set(state) != names:
            odd = sorted(set(state) ^ names) if isinstance(state, Mapping) else [type(state).__name__]
            raise BadData("this is no recipe", found=", ".join(map(str, odd)), hint="give what Recipe.to_json gave")
        return cls(**state)
