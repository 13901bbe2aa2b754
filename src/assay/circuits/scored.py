"""A number for every head, with what chance adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.circuits.plot import head_map
from assay.errors import BadData, NoSuchSite
from assay.figure import save
from assay.site import Site
from assay.stats import Interval, bootstrap_interval

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeadScores:
    """Scores of all heads.

    Attributes:
        score: which one.
        values: ``[sequence, layer, head]``; what is read off weights has one sequence, and no interval.
        settings: how they were measured.
        model: the model's fingerprint.
    """

    score: str
    values: Array
    settings: Mapping[str, Any]
    model: str

    @property
    def mean(self) -> Array:
        """Over sequences, ``[layer, head]``."""
        return np.asarray(self.values.mean(axis=0))

    def of(self, site: str | Site) -> float:
        """One head's, named by its ``z``: ``L3.head[5].z``. Raises `NoSuchSite`."""
        return float(self.mean[self._cell(site)])

    def interval(self, site: str | Site, *, level: float = 0.95, seed: int = 0) -> Interval | None:
        """Of one head's mean over sequences (bootstrap); None for what has no sequences. Raises `NoSuchSite`."""
        layer, head = self._cell(site)
        if len(self.values) < 2:
            return None
        return bootstrap_interval(self.values[:, layer, head], level=level, seed=seed)

    def top(self, count: int = 10) -> list[tuple[Site, float]]:
        """The heads that score most, best first. Raises `BadData` for a count that there is not."""
        if not 1 <= count <= self.mean.size:
            raise BadData(
                f"top {count} of {self.mean.size} heads", hint="ask for at least one, and for no more than all"
            )
        order = np.argsort(-self.mean, axis=None, kind="stable")[:count]
        cells = [np.unravel_index(int(index), self.mean.shape) for index in order]
        return [(Site("head.z", int(at), int(head)), float(self.mean[at, head])) for at, head in cells]

    def plot(self, path: str | Path) -> Path:
        """Draw the map of all heads and the best ones, as SVG. Raises `Unwritable`."""
        return save(path, self._repr_svg_())

    def _repr_svg_(self) -> str:
        return head_map(self)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {**vars(self), "values": self.values.tolist(), "settings": dict(self.settings)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> HeadScores:
        """The inverse of `to_json`."""
        return cls(**{**state, "values": np.array(state["values"], dtype=np.float64)})

    def __str__(self) -> str:
        lines = [
            f"{self.score}: {len(self.values)} sequences, {self.mean.shape[0]} layers × {self.mean.shape[1]} heads"
        ]
        for site, value in self.top(min(10, self.mean.size)):
            found = self.interval(site)
            told = "" if found is None else f" [{found.low:.3f}, {found.high:.3f}]"
            lines.append(f"  {named(site):<12} {value:.3f}{told}")
        return "\n".join(lines)

    def _cell(self, site: str | Site) -> tuple[int, int]:
        found = Site.parse(site)
        layers, heads = self.mean.shape
        if not (isinstance(found.layer, int) and isinstance(found.head, int)) or (
            found.layer >= layers or found.head >= heads
        ):
            raise NoSuchSite(
                f"{found} is no head of this model",
                found=f"{layers} layers × {heads} heads",
                hint="a head is named by its z: L3.head[5].z",
            )
        return found.layer, found.head


def named(site: Site) -> str:
    """A head without its part: ``L3.head[5]``."""
    return f"L{site.layer}.head[{site.head}]"
