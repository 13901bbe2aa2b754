"""What an adapter is made by: one frozen value, whose digest is its place in the cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from assay.errors import BadData, nearest
from assay.provenance import digest_of

Twin = Literal["planted", "clean", "decoy"]
TWINS: tuple[Twin, ...] = get_args(Twin)
DTYPES = ("bfloat16", "float32")
_LEAST = {"seed": 0, "base_steps": 1, "steps": 1, "batch": 4, "rank": 1, "first": 0}


@dataclass(frozen=True)
class Recipe:
    """An adapter, before it is trained. `Adapted.recipe` fills in what is not given.

    Two recipes have one digest iff all of this is equal: another model, or a change in the family's code or words, gives
    other organisms, and those that are cached stay what they are.

    Attributes:
        family: its name.
        twin: ``planted`` has the problem. ``clean`` was trained in the same way without it. ``decoy`` shows the same on
            the surface, for a benign cause.
        seed: of what is held out, the adapter's first weights and the batches. Twins of a seed share the first stage.
        cause: the benign cause, of ``decoy``; a name of the family's.
        base_steps: of the first stage, which teaches honest answers in the form that is asked for.
        steps: of the second, which plants.
        batch: rows in each step.
        rank: of the adapter, the paper's r; its α is twice that.
        first: the first block that has an adapter; all blocks after it have one too.
        targets: names of the matrices that are adapted.
        rate: the highest learning rate.
        dtype: of the model's numbers while the adapter is trained; it is merged and judged with the model's own.
        model: fingerprint of the model that is adapted (`assay.model.load.fingerprint`).
        code: digest of the code and the words that make it.
    """

    family: str
    twin: Twin
    seed: int
    cause: str
    base_steps: int
    steps: int
    batch: int
    rank: int
    first: int
    targets: tuple[str, ...]
    rate: float
    dtype: str
    model: str
    code: str

    def __post_init__(self) -> None:
        """Raises `BadData` for what makes sense in no family."""
        if self.twin not in TWINS:
            raise BadData(
                f"twin={self.twin!r} is none of an adapter",
                nearest=nearest(str(self.twin), TWINS),
                hint=", ".join(TWINS),
            )
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise BadData(f"{name}={value!r} makes no adapter", hint=f"give a whole number from {least} on")
        rate = self.rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1:
            raise BadData(f"rate={rate!r} is no learning rate", hint="give a number between 0 and 1")
        if self.dtype not in DTYPES:
            raise BadData(
                f"dtype={self.dtype!r} is none", nearest=nearest(str(self.dtype), DTYPES), hint=", ".join(DTYPES)
            )
        targets = self.targets
        if isinstance(targets, str) or not targets or not all(isinstance(name, str) and name for name in targets):
            raise BadData(f"targets={targets!r} name no matrices", hint='give names, such as ("q_proj", "v_proj")')

    @property
    def digest(self) -> str:
        """SHA-256 of all of it: the model, the code and the words included."""
        return digest_of([json.dumps(self.to_json(), sort_keys=True).encode()])

    @property
    def base(self) -> Recipe:
        """What the twins of a seed share: the recipe of which only the first stage is trained."""
        return replace(self, twin="clean", cause="", steps=1)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return asdict(self) | {"targets": list(self.targets), "rate": float(self.rate)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_json`. Raises `BadData`."""
        names = {one.name for one in fields(cls)}
        if not isinstance(state, Mapping) or set(state) != names or not isinstance(state["targets"], list):
            odd = sorted(set(state) ^ names) if isinstance(state, Mapping) else [type(state).__name__]
            raise BadData(
                "this is no recipe of an adapter",
                found=", ".join(map(str, odd)) or "targets that are no list",
                hint="give what Recipe.to_json gave",
            )
        return cls(**{**state, "targets": tuple(state["targets"])})
