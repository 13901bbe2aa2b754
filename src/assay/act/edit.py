"""Edits: changes of weights as values. They act on nothing until ``with model.edited(…)`` puts them in, and takes them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay import tensorfile
from assay.errors import BadVector, ModelMismatch
from assay.provenance import Provenance, digest_of


@dataclass(frozen=True, eq=False)
class Delta:
    """What is added to one weight: ``left @ right.T``, as wide as the rank of the change.

    Attributes:
        left: ``[rows of the weight, rank]``.
        right: ``[columns of the weight, rank]``.
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        for name in ("left", "right"):
            value = getattr(self, name).detach().float().cpu().clone(memory_format=torch.contiguous_format)
            object.__setattr__(self, name, value)
        if self.left.dim() != 2 or self.right.dim() != 2 or self.left.shape[1] != self.right.shape[1]:
            raise BadVector(
                "the two factors of a change do not fit",
                found=f"{tuple(self.left.shape)} and {tuple(self.right.shape)}",
                hint="give [rows, rank] and [columns, rank]",
            )
        if not (self.left.isfinite().all() and self.right.isfinite().all()):
            raise BadVector("a change of weights holds NaN or infinity", hint="look at what it was computed from")

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight that it changes."""
        return self.left.shape[0], self.right.shape[0]

    @property
    def full(self) -> Tensor:
        """The whole change ``[rows, columns]``."""
        return self.left @ self.right.T

    def __add__(self, other: Delta) -> Delta:
        return Delta(torch.cat([self.left, other.left], dim=1), torch.cat([self.right, other.right], dim=1))


@dataclass(frozen=True, eq=False)
class Edit:
    """Changes of weights by parameter name, where they come from, and what they are meant to do.

    Attributes:
        deltas: by the parameter's name in the Hugging Face model.
        provenance: how it was made, and for which model.
        aims: what each fact edited is meant to become, in words.
    """

    deltas: Mapping[str, Delta]
    provenance: Provenance
    aims: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and numbers."""
        parts: list[bytes | memoryview] = []
        for name, delta in sorted(self.deltas.items()):
            parts += [name.encode(), delta.left.numpy().tobytes(), delta.right.numpy().tobytes()]
        return digest_of(parts)

    def __add__(self, other: Edit) -> Edit:
        """Both at once. Raises `ModelMismatch` for edits of different models."""
        if self.provenance.model != other.provenance.model:
            raise ModelMismatch(
                "the edits were made for different models",
                found=f"{self.provenance.model[:16]}, {other.provenance.model[:16]}",
                hint="make both for one model; an edit of an edited model is opened inside the first one's block",
            )
        both = dict(self.deltas)
        for name, delta in other.deltas.items():
            both[name] = both[name] + delta if name in both else delta
        made = self.provenance.then(f"+ {other.provenance}", other.provenance)
        return Edit(both, made, (*self.aims, *other.aims))

    def save(self, path: str | Path) -> Path:
        """Write factors and provenance to a ``.safetensors`` file. Raises `Unwritable`."""
        tensors = {
            f"{name}|{side}": getattr(one, side) for name, one in self.deltas.items() for side in ("left", "right")
        }
        told = {"provenance": self.provenance.model_dump(mode="json"), "aims": list(self.aims)}
        return tensorfile.save(path, "edit", tensors, told)

    @classmethod
    def load(cls, path: str | Path, model: Any = None) -> Edit:
        """Read what `save` wrote. With ``model``, refuse another one (`ModelMismatch`). Raises `CorruptFile`."""

        def read(tensors: dict[str, Tensor], told: dict[str, Any]) -> Edit:
            names = dict.fromkeys(key.rpartition("|")[0] for key in tensors)
            deltas = {name: Delta(tensors[f"{name}|left"], tensors[f"{name}|right"]) for name in names}
            return cls(deltas, Provenance.model_validate(told["provenance"]), tuple(told["aims"]))

        edit = tensorfile.load(path, "edit", read)
        if model is not None:
            edit.check(model.fingerprint)
        return edit

    def check(self, fingerprint: str) -> None:
        """Raise `ModelMismatch` unless it was made for the model of this fingerprint."""
        if self.provenance.model != fingerprint:
            raise ModelMismatch(
                f"{self} was made for another model",
                found=f"{self.provenance.model[:16]}, not {fingerprint[:16]}",
                hint="make the edit for this model; weights differ even between revisions",
            )

    def __str__(self) -> str:
        names = ", ".join(f"{name} (rank {delta.left.shape[1]})" for name, delta in self.deltas.items())
        return f"edit of {names}"
