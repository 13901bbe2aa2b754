"""What statistics speak of: an interval, an effect; and what all of them ask of their arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from assay.errors import BadData, EmptyData

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Side = Literal["greater", "two-sided"]
Tail = Literal["greater", "two-sided", "mirrored"]

_BLOCK = 1 << 21
"""Numbers held at once while resampling (16 MB)."""

ROUNDING = 1e-12
"""What differs by less, relative to the numbers it was computed from, is equal."""


@dataclass(frozen=True)
class Interval:
    """An estimate, and a range that covers the truth in a share ``level`` of repetitions."""

    value: float
    low: float
    high: float
    level: float
    n: int
    """Independent units behind it: items, or clusters where they were given."""
    method: str

    def excludes(self, value: float = 0.0) -> bool:
        """Whether ``value`` lies outside."""
        return not self.low <= value <= self.high


@dataclass(frozen=True)
class Effect:
    """A mean with its cluster-robust standard error and its t interval (``interval.n - 1`` degrees of freedom)."""

    value: float
    se: float
    interval: Interval


def standard_error(values: Array, codes: Codes, count: int) -> Array:
    """Cluster-robust standard errors of the column means of ``values [n, columns]``; 0 where it is all rounding."""
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, codes, values - values.mean(axis=0))
    se = np.sqrt(count / (count - 1) * np.sum(sums**2, axis=0)) / len(values)
    return np.where(se > ROUNDING * np.abs(values).max(axis=0), se, 0)


def codes_of(clusters: ArrayLike | None, n: int) -> tuple[Codes, int]:
    """Each item's cluster as 0 … count - 1, and the count."""
    if clusters is None:
        return np.arange(n), n
    labels = np.asarray(clusters)
    require(labels.shape == (n,), f"labels of shape {labels.shape} for {n} items", "give one label per item")
    nan = labels.dtype.kind == "f" and bool(np.isnan(labels).any())
    require(not nan, "labels hold NaN", "give each item a label")
    try:
        names, codes = np.unique(labels, return_inverse=True)
    except TypeError:
        raise BadData("labels of several types cannot be told apart", hint="use one type") from None
    return codes, len(names)


def blocks(rows: int, width: int) -> Iterator[int]:
    """Sizes that sum to ``rows``, each small enough for a matrix of that many rows and ``width`` columns."""
    most = max(1, _BLOCK // width)
    for start in range(0, rows, most):
        yield min(most, rows - start)


def finite(name: str, values: ArrayLike, ndim: int | None = 1) -> Array:
    """``values`` as finite floats, not empty, with ``ndim`` axes (None: one or more)."""
    try:
        data = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadData(f"{name}: {error}", hint="pass an array of numbers") from None
    require(data.ndim >= 1 if ndim is None else data.ndim == ndim, f"{name} of shape {data.shape}", "reshape them")
    if data.size == 0:
        raise EmptyData(f"{name} are empty", hint="give at least one value")
    bad = int(np.count_nonzero(~np.isfinite(data)))
    require(bad == 0, f"{bad} of {data.size} {name} are NaN or infinite", "leave out, and count, what is missing")
    return data


def require(ok: bool, what: str, hint: str) -> None:
    if not ok:
        raise BadData(what, hint=hint)


def enough(units: int, what: str) -> None:
    if units < 2:
        raise EmptyData(f"{what} needs two independent units", found=units, hint="give more items or clusters")


def known(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise BadData(f"{name}={value!r} is not known", nearest=", ".join(known), hint="choose one of these")


def fraction(name: str, value: float) -> float:
    require(0 < value < 1, f"{name}={value!r} is not between 0 and 1", "write 95 % as 0.95")
    return value


def one_tail(alpha: float, tail: str) -> float:
    known("tail", tail, get_args(Side))
    return fraction("alpha", alpha) / (2 if tail == "two-sided" else 1)
