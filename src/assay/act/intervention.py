"""An intervention is data: an operation, its places, its strength, the rows that it goes into.

=========  ====================================================  =========================================
operation  h becomes                                             one dose is
=========  ====================================================  =========================================
add        h + dose · scale · v/‖v‖, or h + times · v            the typical norm of the stream at the site
ablate     h − Q Qᵀ h, Q an orthonormal basis                    —
clamp      h + (value − h·r) r                                   ``value`` is in the coordinate's own units
patch      the value at the same site in row ``source``          —
noise      h + dose · σ · ε, ε ~ N(0, 1), seeded by the prompt   σ, the site's standard deviation
freeze     the value in the same row without interventions       —
=========  ====================================================  =========================================

Sources: add and positional add, activation addition (Turner et al. 2023, §3) and CAA (Panickssery et al. 2024, §3);
ablate, directional ablation (Arditi et al. 2024, §2.4); patch and noise, causal tracing (Meng et al. 2022, §2.1).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

import torch

from assay.direction import Direction
from assay.errors import BadDose, BadSite, BadVector, NoSuchRow
from assay.site import Site, Span

Operation = Literal["add", "ablate", "clamp", "patch", "noise", "freeze"]
Place = str | Site | Iterable[str | Site]

EVERYWHERE: tuple[Site, ...] = (
    Site("embed"),
    *(Site(part, Span()) for part in ("attn.out", "mlp.out")),
    Site("resid", Span(None, -1)),
)
"""The refusal-direction form of ablation: every block's input, every attention's and every MLP's output
(Arditi et al. 2024, §2.4). A block's input is ``embed`` or the ``resid`` below it."""


@dataclass(frozen=True, eq=False)
class Intervention:
    """One operation at some places. Made by `add`, `ablate`, `clamp`, `patch`, `noise` and `freeze`.

    Attributes:
        op: the operation.
        sites: where; ranges stand for every layer or head in them.
        directions: the vectors it uses (several only for the subspace of `ablate`).
        dose: strength in the site's unit; None where ``times`` or ``value`` says it.
        times: factor on the raw vector, as papers give it.
        value: the coordinate that `clamp` sets.
        source: the row that `patch` copies from, or the values themselves, ``[n, d]``.
        seed: the seed of `noise`.
        into: the rows it acts on; None means every row.
    """

    op: Operation
    sites: tuple[Site, ...]
    directions: tuple[Direction, ...] = ()
    dose: float | None = None
    times: float | None = None
    value: float | None = None
    source: str | torch.Tensor | None = None
    seed: int = 0
    into: tuple[str, ...] | None = None

    @property
    def idle(self) -> bool:
        """Whether it changes nothing by construction (dose 0)."""
        return self.op in ("add", "noise") and (self.dose == 0 or self.times == 0)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that bears on its effect."""
        state = self.to_json()
        state["directions"] = [direction.digest for direction in self.directions]
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intervention) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        told = [direction.name for direction in self.directions]
        told += [
            f"{name}={getattr(self, name):g}" for name in ("dose", "times", "value") if getattr(self, name) is not None
        ]
        if self.source is not None:
            told.append(
                f"source={self.source!r}" if isinstance(self.source, str) else f"source={tuple(self.source.shape)}"
            )
        if self.into is not None:
            told.append(f"into={list(self.into)}")
        where = "everywhere" if self.sites == EVERYWHERE else " | ".join(map(str, self.sites))
        return f"{self.op}({', '.join(told)}) at {where}"

    __repr__ = __str__

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        source: Any = self.source
        if isinstance(source, torch.Tensor):
            source = Direction(source, self.sites[0], name="source").to_json()
        return {
            "op": self.op,
            "sites": [str(site) for site in self.sites],
            "directions": [direction.to_json() for direction in self.directions],
            "dose": self.dose,
            "times": self.times,
            "value": self.value,
            "source": source,
            "seed": self.seed,
            "into": None if self.into is None else list(self.into),
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Intervention:
        """The inverse of `to_json`."""
        source = state["source"]
        return cls(
            op=state["op"],
            sites=tuple(Site.parse(text) for text in state["sites"]),
            directions=tuple(Direction.from_json(item) for item in state["directions"]),
            dose=state["dose"],
            times=state["times"],
            value=state["value"],
            source=Direction.from_json(source).vector if isinstance(source, Mapping) else source,
            seed=state["seed"],
            into=None if state["into"] is None else tuple(state["into"]),
        )


Condition = Union[Intervention, Sequence["Condition"]]  # noqa: UP007 - `|` does not take a name in quotes
"""What one cell of a sweep runs under: one intervention, or several in their order."""


def flat(conditions: Condition | None) -> tuple[Intervention, ...]:
    """A condition as a tuple of interventions."""
    if conditions is None:
        return ()
    if isinstance(conditions, Intervention):
        return (conditions,)
    return tuple(item for condition in conditions for item in flat(condition))


def add(
    direction: Direction | torch.Tensor,
    *,
    dose: float | None = None,
    times: float | None = None,
    at: Place | None = None,
    into: str | Sequence[str] | None = None,
) -> Intervention:
    """Add a steering vector: ``dose`` in typical norms of the stream at the site, or ``times`` the raw vector.

    A positional vector ``[T, d]`` goes onto T tokens in turn, from the first position of the site on.
    Raises `BadDose` unless exactly one finite strength is given.
    """
    if (dose is None) == (times is None):
        raise BadDose(
            f"add() takes one strength, dose or times; {'neither' if dose is None else 'both'} given",
            hint="dose=2 is two typical norms of the stream; times=2 is twice the raw vector, as in a paper",
        )
    found, sites = _directed(direction, at)
    return Intervention("add", sites, (found,), dose=_finite(dose), times=_finite(times), into=_rows(into))


def ablate(
    *directions: Direction | torch.Tensor, at: Place | None = None, into: str | Sequence[str] | None = None
) -> Intervention:
    """Remove the component along one direction, or along the subspace that several span.

    ``at="everywhere"`` is the refusal-direction form: every block's input, attention output and MLP output.
    """
    if not directions:
        raise BadVector("ablate() got no direction", hint="give one direction, or several for a subspace")
    pairs = [_directed(direction, EVERYWHERE if at == "everywhere" else at) for direction in directions]
    found, sites = tuple(_single(direction, "ablate") for direction, _ in pairs), pairs[0][1]
    if any(other != sites for _, other in pairs):
        raise BadSite(
            "ablate() got directions of several sites",
            found=", ".join(str(direction.site) for direction in found),
            hint="say where the subspace is removed: ablate(a, b, at=…)",
        )
    return Intervention("ablate", sites, found, into=_rows(into))


def clamp(
    direction: Direction | torch.Tensor,
    value: float,
    *,
    at: Place | None = None,
    into: str | Sequence[str] | None = None,
) -> Intervention:
    """Set the coordinate along a direction (made unit) to ``value``, in the activation's own units."""
    found, sites = _directed(direction, at)
    if value is None:
        raise BadDose("clamp() got no value", hint="give the coordinate to set, in the activation's own units")
    return Intervention("clamp", sites, (_single(found, "clamp"),), value=_finite(value), into=_rows(into))


def patch(at: Place, *, source: str | torch.Tensor, into: str | Sequence[str] | None = None) -> Intervention:
    """Copy a site's values from the row ``source`` of the same run, or from a tensor ``[n, d]`` of n positions."""
    if isinstance(source, torch.Tensor):
        source = source.detach().to("cpu", torch.float32, copy=True)
        source = source[None] if source.dim() == 1 else source
    return Intervention("patch", _sites(at), source=source, into=_rows(into))


def noise(at: Place, *, dose: float, seed: int = 0, into: str | Sequence[str] | None = None) -> Intervention:
    """Add Gaussian noise of ``dose`` standard deviations of the site.

    The draw depends on seed, site and prompt only: rows with one prompt get the same noise, other prompts another.
    """
    if dose is None:
        raise BadDose("noise() got no dose", hint="give it in standard deviations of the site, as in dose=3")
    return Intervention("noise", _sites(at), dose=_finite(dose), seed=seed, into=_rows(into))


def freeze(at: Place, *, into: str | Sequence[str] | None = None) -> Intervention:
    """Hold a site at the value it has in the same row without interventions: severs every path through it."""
    return Intervention("freeze", _sites(at), into=_rows(into))


def _sites(at: Place) -> tuple[Site, ...]:
    if isinstance(at, str | Site):
        return (Site.parse(at),)
    sites = tuple(Site.parse(place) for place in at)
    if not sites:
        raise BadSite("the selection of sites is empty", hint="name at least one site")
    return sites


def _directed(direction: Direction | torch.Tensor, at: Place | None) -> tuple[Direction, tuple[Site, ...]]:
    if isinstance(direction, Direction):
        return direction, (direction.site,) if at is None else _sites(at)
    if at is None:
        raise BadSite("a bare tensor has no site", hint='say where: add(tensor, dose=1, at="L12.resid")')
    sites = _sites(at)
    return Direction(direction, sites[0], name="tensor"), sites


def _single(direction: Direction, op: str) -> Direction:
    if direction.vector.dim() != 1:
        raise BadVector(
            f"{op}() takes single vectors, not positional ones",
            found=f"{direction.name!r} of shape {tuple(direction.vector.shape)}",
            hint="give vectors of shape [d]",
        )
    return direction


def _rows(into: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if into is not None and not into:
        raise NoSuchRow(f"into={into!r} names no row", hint="leave into out for every row, or name at least one")
    return None if into is None else (into,) if isinstance(into, str) else tuple(into)


def _finite(number: float | None) -> float | None:
    if number is None:
        return None
    if not math.isfinite(number):
        raise BadDose(f"the strength {number!r} is no finite number", hint="give a finite number; 0 changes nothing")
    return float(number)
