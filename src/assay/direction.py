"""A direction: a vector, the site that it belongs to, and how it was made."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay import tensorfile
from assay.errors import BadVector, ModelMismatch
from assay.provenance import Provenance, digest_of
from assay.site import Site


@dataclass(frozen=True, eq=False)
class Direction:
    """A steering vector with its site and its provenance. Frozen; arithmetic gives new directions.

    Attributes:
        vector: float32 on the CPU, ``[d]``, or ``[T, d]`` for a positional vector that acts on T tokens in turn.
        site: where it was read and where it acts unless told otherwise.
        provenance: how it was made.
        name: a word for plots and receipts.
        scale: the length that one dose has; None means the typical norm of the stream at the site. ITI's heads carry
            the standard deviation of the projection here.
    """

    vector: torch.Tensor
    site: Site
    provenance: Provenance = Provenance(method="given")
    name: str = "direction"
    scale: float | None = None

    def __post_init__(self) -> None:
        vector = torch.as_tensor(self.vector).detach().to("cpu", torch.float32, copy=True).contiguous()
        if vector.dim() not in (1, 2) or vector.numel() == 0:
            raise BadVector(
                f"the vector of {self.name!r} has shape {tuple(vector.shape)}",
                hint="give [d], or [T, d] for a positional one",
            )
        if not torch.isfinite(vector).all():
            bad = int((~torch.isfinite(vector)).sum())
            raise BadVector(
                f"the vector of {self.name!r} is not finite",
                found=f"{bad} of {vector.numel()} entries are NaN or infinite",
                hint="find out where the NaN comes from; half precision overflows first at large residual norms",
            )
        object.__setattr__(self, "vector", vector)
        object.__setattr__(self, "site", Site.parse(self.site))

    @property
    def width(self) -> int:
        """The number of coordinates, d."""
        return self.vector.shape[-1]

    @property
    def norm(self) -> float:
        """The Euclidean norm; of a positional vector, the largest over its tokens."""
        return float(self.vector.norm(dim=-1).max())

    @property
    def unit(self) -> torch.Tensor:
        """The vector at norm 1. Raises `BadVector` when it is zero."""
        norm = self.norm
        if norm == 0:
            raise BadVector(
                f"{self.name!r} is the zero vector", hint="a direction needs a length; were both sides equal?"
            )
        return self.vector / norm

    @property
    def digest(self) -> str:
        """SHA-256 of the vector, its site and its scale."""
        head = json.dumps([list(self.vector.shape), str(self.site), self.scale]).encode()
        return digest_of([head, self.vector.numpy().tobytes()])

    def at(self, layer: int) -> Direction:
        """The same vector at another layer."""
        return self._derive(self.vector, f"at(L{layer})", site=self.site.on(layer))

    def cosine(self, other: Direction) -> float:
        """The cosine of the angle to another direction."""
        self._same_width(other)
        a, b = self.unit.double().flatten(), other.unit.double().flatten()
        return float((a @ b / (a.norm() * b.norm())).clamp(-1, 1))

    def without(self, *others: Direction) -> Direction:
        """The part orthogonal to all of ``others``, single directions; of a positional vector, at every token."""
        for other in others:
            if other.vector.shape != (self.width,):
                raise BadVector(
                    f"{other.name!r} cannot be taken out of {self.name!r}",
                    found=f"shapes {tuple(other.vector.shape)} and {tuple(self.vector.shape)}",
                    hint="take out single directions of the same width",
                )
        basis = (
            orthonormal([other.unit for other in others]).double() if others else torch.zeros(0, self.width).double()
        )
        vector = self.vector.double()
        vector = (vector - (vector @ basis.T) @ basis).float()
        return self._derive(vector, "without(" + ", ".join(other.name for other in others) + ")", *others)

    def __add__(self, other: Direction) -> Direction:
        self._same_width(other)
        return self._derive(self.vector + other.vector, f"+ {other.name}", other)

    def __sub__(self, other: Direction) -> Direction:
        self._same_width(other)
        return self._derive(self.vector - other.vector, f"- {other.name}", other)

    def __mul__(self, factor: float) -> Direction:
        return self._derive(self.vector * factor, f"× {factor:g}")

    __rmul__ = __mul__

    def __truediv__(self, factor: float) -> Direction:
        return self * (1 / factor)

    def __neg__(self) -> Direction:
        return self._derive(-self.vector, "negated")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Direction) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.vector.shape))
        return f"Direction({self.name!r}, {shape}, norm {self.norm:.3g}, at {self.site}, from {self.provenance})"

    def check(self, fingerprint: str) -> None:
        """Raise `ModelMismatch` unless it was found on the model of this fingerprint (or was given by hand)."""
        if self.provenance.model and self.provenance.model != fingerprint:
            raise ModelMismatch(
                f"{self.name!r} was not found on this model",
                found_on=self.provenance.model[:16],
                this_model=fingerprint[:16],
                hint="load the model it was found on, at the same revision, or find the direction again on this one",
            )

    def save(self, path: str | Path) -> Path:
        """Write vector and provenance to a ``.safetensors`` file. Raises `Unwritable`."""
        state = self.to_json()
        del state["vector"]
        return tensorfile.save(path, "direction", {"vector": self.vector}, state)

    @classmethod
    def load(cls, path: str | Path, model: Any = None) -> Direction:
        """Read what `save` wrote. With ``model``, refuse another one (`ModelMismatch`). Raises `CorruptFile`."""
        direction = tensorfile.load(path, "direction", lambda tensors, state: cls._from({**state, **tensors}))
        if model is not None:
            direction.check(model.fingerprint)
        return direction

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back bit for bit."""
        return {
            "vector": {
                "shape": list(self.vector.shape),
                "float32": base64.b64encode(self.vector.numpy().astype("<f4").tobytes()).decode(),
            },
            "site": str(self.site),
            "provenance": self.provenance.model_dump(mode="json"),
            "name": self.name,
            "scale": self.scale,
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Direction:
        """The inverse of `to_json`."""
        packed = state["vector"]
        numbers = np.frombuffer(base64.b64decode(packed["float32"]), dtype="<f4").reshape(packed["shape"])
        return cls._from({**state, "vector": torch.from_numpy(numbers.copy())})

    @classmethod
    def _from(cls, state: Mapping[str, Any]) -> Direction:
        return cls(
            state["vector"],
            Site.parse(state["site"]),
            Provenance.model_validate(state["provenance"]),
            state["name"],
            state["scale"],
        )

    def _derive(self, vector: torch.Tensor, step: str, *others: Direction, site: Site | None = None) -> Direction:
        models = {source.model for source in (self.provenance, *(other.provenance for other in others)) if source.model}
        if len(models) > 1:
            raise ModelMismatch(
                f"{self.name!r} and {others[0].name!r} were found on different models",
                found=", ".join(sorted(model[:16] for model in models)),
                hint="combine directions of one model",
            )
        made = self.provenance.then(step, *(other.provenance for other in others))
        made = made.model_copy(update={"model": next(iter(models), "")})
        return replace(self, vector=vector, provenance=made, site=site or self.site)

    def _same_width(self, other: Direction) -> None:
        if self.vector.shape != other.vector.shape:
            raise BadVector(
                f"{self.name!r} and {other.name!r} have different shapes",
                found=f"{tuple(self.vector.shape)} and {tuple(other.vector.shape)}",
                hint="combine directions of one width, found at sites of one kind",
            )


def orthonormal(units: Sequence[torch.Tensor]) -> torch.Tensor:
    """An orthonormal basis ``[k, d]`` of the span, in float64 until the end; what depends on the others to rounding is dropped."""
    stacked = torch.stack([unit.double() for unit in units])
    if len(units) == 1:
        return (stacked / stacked.norm()).float()
    _, singular, basis = torch.linalg.svd(stacked, full_matrices=False)
    return basis[singular > singular[0] * 1e-6].float()
