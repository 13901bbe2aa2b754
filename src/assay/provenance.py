"""Made by what, from what, with which seed: the record that travels inside every result."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ConfigDict


class Provenance(BaseModel):
    """How a value was made. Frozen; survives JSON.

    Attributes:
        method: the function that made it, such as ``find.mean_difference``.
        arguments: what it was called with, as JSON values.
        model: the model's fingerprint.
        data: SHA-256 of the data set that it was made from, if any.
        used: content hashes of every prompt that found or tuned it; refused at its test.
        seed: the seed, where chance was involved.
        versions: the versions of what computed it.
        steps: what was done to it since, oldest first.
    """

    model_config = ConfigDict(frozen=True)

    method: str
    arguments: dict[str, Any] = {}
    model: str = ""
    data: str = ""
    used: frozenset[str] = frozenset()
    seed: int | None = None
    versions: dict[str, str] = {}
    steps: tuple[str, ...] = ()

    def then(self, step: str, *others: Provenance) -> Provenance:
        """The provenance of a value derived from this one (and ``others``) by ``step``."""
        used = self.used.union(*(other.used for other in others))
        return self.model_copy(update={"steps": (*self.steps, step), "used": used})

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return " → ".join([f"{self.method}({arguments})", *self.steps])


def versions() -> dict[str, str]:
    """The versions that bear on numbers, as found in this environment."""
    found = {"python": platform.python_version()}
    for name in ("assay", "torch", "transformers", "numpy", "scipy", "scikit-learn"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def digest_of(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 over length-prefixed parts, so that no two different sequences of parts collide by concatenation."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as JSON values: what has no JSON form is given by its ``str``."""
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)
