"""What came of tracing: one prompt's grid, and averages over prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from assay.errors import BadData, EmptyData
from assay.figure import save
from assay.stats import bootstrap_interval
from assay.trace.plot import averages, heat_map

Array = NDArray[np.float32]

BUCKETS = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first subsequent token",
    "further tokens",
    "last token",
)
"""Where tokens stand, as in the paper's averages. A subject of one token is first and last at once."""


@dataclass(frozen=True, eq=False)
class CausalTrace:
    """A grid of tokens × layers for each part that was restored.

    Attributes:
        tokens: the prompt's, as text.
        subject: the half-open interval of its tokens.
        answer: whose probability is traced.
        clean: that probability in the clean run.
        corrupted: in the corrupted one, ``[sample]``.
        restored: by part, with the state restored: ``[token, layer, sample]``.
        deviation: of the noise, in units of the embedding.
        window, severed, preset, seed: as asked for.
        model: the model's fingerprint.
    """

    tokens: tuple[str, ...]
    subject: tuple[int, int]
    answer: str
    clean: float
    corrupted: Array
    restored: Mapping[str, Array]
    deviation: float
    window: int
    severed: str | None
    preset: str
    seed: int
    model: str

    @property
    def total(self) -> float:
        """The total effect: how much probability the corruption takes."""
        return self.clean - float(self.corrupted.mean())

    def effect(self, part: str = "resid") -> Array:
        """The indirect effects ``[token, layer]``: how much probability comes back, mean over samples."""
        if part not in self.restored:
            raise BadData(
                f"{part!r} was not restored", found=", ".join(self.restored), hint="restore it too: restore=[…]"
            )
        return np.asarray((self.restored[part] - self.corrupted).mean(axis=-1))

    def best(self, part: str = "resid", tokens: Literal["subject", "all"] = "subject") -> tuple[int, int, float]:
        """Token, layer and effect where most comes back; among the subject's tokens, or all."""
        first, last = self.subject if tokens == "subject" else (0, len(self.tokens))
        found = self.effect(part)[first:last]
        at, layer = np.unravel_index(int(found.argmax()), found.shape)
        return first + int(at), int(layer), float(found[at, layer])

    def buckets(self, part: str = "resid") -> Array:
        """Effects by where tokens stand, ``[bucket, layer]`` in the order of `BUCKETS`; NaN where there is none."""
        (start, stop), last, effect = self.subject, len(self.tokens) - 1, self.effect(part)
        where = [[start], range(start + 1, stop - 1), [stop - 1], [stop], range(stop + 1, last), [last]]
        empty = np.full(effect.shape[1], np.nan)
        inside = [[at for at in bucket if at <= last] for bucket in where]
        return np.stack([effect[ats].mean(axis=0) if ats else empty for ats in inside])

    def plot(self, path: str | Path) -> Path:
        """Draw the heat maps as SVG. Raises `Unwritable`."""
        return save(path, self._repr_svg_())

    def _repr_svg_(self) -> str:
        return heat_map(self)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        arrays = {"corrupted": self.corrupted.tolist(), "restored": {k: v.tolist() for k, v in self.restored.items()}}
        return {**vars(self), "tokens": list(self.tokens), "subject": list(self.subject), **arrays}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> CausalTrace:
        """The inverse of `to_json`."""
        restored = {part: np.array(values, dtype=np.float32) for part, values in state["restored"].items()}
        start, stop = state["subject"]
        arrays = {"corrupted": np.array(state["corrupted"], dtype=np.float32), "restored": restored}
        return cls(**{**state, "tokens": tuple(state["tokens"]), "subject": (start, stop), **arrays})

    def __str__(self) -> str:
        lines = [
            f"P({self.answer!r}) {self.clean:.3f} clean, {float(self.corrupted.mean()):.3f} corrupted; total effect {self.total:.3f}"
        ]
        for part in self.restored:
            at, layer, effect = self.best(part)
            _, last, late = max(
                ((len(self.tokens) - 1, layer, float(value)) for layer, value in enumerate(self.effect(part)[-1])),
                key=lambda cell: cell[2],
            )
            lines.append(
                f"  {part:<9} subject: {effect:+.3f} at L{layer}, token {self.tokens[at]!r};  last token: {late:+.3f} at L{last}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class AverageTrace:
    """Means over prompts, with bootstrap intervals over prompts.

    Attributes:
        prompts: how many.
        total: the average total effect, and its interval's ends.
        effects: by part, ``[bucket, layer, (mean, low, high)]`` in the order of `BUCKETS`; NaN where no prompt has one.
        level: of the intervals.
    """

    prompts: int
    total: tuple[float, float, float]
    effects: Mapping[str, NDArray[np.float64]]
    level: float

    def plot(self, path: str | Path) -> Path:
        """Draw the averages by layer as SVG. Raises `Unwritable`."""
        return save(path, self._repr_svg_())

    def _repr_svg_(self) -> str:
        return averages(self, BUCKETS)

    def __str__(self) -> str:
        lines = ["average total effect {:.3f} [{:.3f}, {:.3f}] over {} prompts".format(*self.total, self.prompts)]
        for part, values in self.effects.items():
            for name, curve in zip(BUCKETS, values, strict=True):
                if not np.isnan(curve[:, 0]).all():
                    layer = int(np.nanargmax(curve[:, 0]))
                    mean, low, high = curve[layer]
                    lines.append(f"  {part:<9} {name:<24} {mean:+.3f} [{low:+.3f}, {high:+.3f}] at L{layer}")
        return "\n".join(lines)


def average(traces: Sequence[CausalTrace], *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> AverageTrace:
    """Average traces of several prompts on one model, with bootstrap intervals over prompts (`stats.bootstrap_interval`).

    A prompt without tokens of a kind does not count there; a mean over fewer than two prompts has no interval (NaN).

    Raises `EmptyData` for none, `BadData` where they were not made alike.
    """
    if not traces:
        raise EmptyData("there are no traces to average", hint="trace some prompts first")
    ways = {(one.model, one.window, one.severed, one.preset, tuple(one.restored)) for one in traces}
    if len(ways) > 1:
        raise BadData(
            "the traces were not made alike",
            found=f"{len(ways)} ways",
            hint="average traces of one model, made with the same arguments",
        )

    def mean(values: NDArray[Any]) -> tuple[float, float, float]:
        there = values[~np.isnan(values)].astype(np.float64)
        if len(there) < 2:
            return (float(there[0]) if len(there) else np.nan, np.nan, np.nan)
        found = bootstrap_interval(there, level=level, draws=draws, seed=seed)
        return found.value, found.low, found.high

    def means(part: str) -> NDArray[np.float64]:
        return np.apply_along_axis(mean, 0, np.stack([one.buckets(part) for one in traces])).transpose(1, 2, 0)

    total = mean(np.array([one.total for one in traces]))
    return AverageTrace(len(traces), total, {part: means(part) for part in traces[0].restored}, level)
