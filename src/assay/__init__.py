"""Assay: targeted interpretability audits of language models.

Find a direction in a model, prove by intervention and control that it carries the behaviour, and report only what bears
on the question that was asked. Names are resolved on first use; importing this package touches no model and no network.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from assay.errors import laboratory_missing

if TYPE_CHECKING:
    from assay import circuits, disclose, edit, find, scrub, trace, verify
    from assay.act.edit import Delta, Edit
    from assay.act.intervention import Intervention, ablate, add, clamp, freeze, noise, patch
    from assay.audit.plan import audit
    from assay.direction import Direction
    from assay.errors import AssayError
    from assay.evidence import Claim
    from assay.pairs import Pair, Pairs
    from assay.prompt import Prompt
    from assay.run.generate import Sampling
    from assay.run.model import Model
    from assay.site import Site
    from assay.sites import Sites

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("Intervention", "ablate", "add", "clamp", "freeze", "noise", "patch"), "assay.act.intervention"),
    **dict.fromkeys(("Delta", "Edit"), "assay.act.edit"),
    "AssayError": "assay.errors",
    "Claim": "assay.evidence",
    "Direction": "assay.direction",
    "Model": "assay.run.model",
    **dict.fromkeys(("Pair", "Pairs"), "assay.pairs"),
    "Prompt": "assay.prompt",
    "Sampling": "assay.run.generate",
    "Site": "assay.site",
    "Sites": "assay.sites",
}
_ROOMS = ("audit", "circuits", "disclose", "edit", "find", "scrub", "trace", "verify")

__all__ = [
    "AssayError",
    "Claim",
    "Delta",
    "Direction",
    "Edit",
    "Intervention",
    "Model",
    "Pair",
    "Pairs",
    "Prompt",
    "Sampling",
    "Site",
    "Sites",
    "ablate",
    "add",
    "audit",
    "circuits",
    "clamp",
    "disclose",
    "edit",
    "find",
    "freeze",
    "noise",
    "patch",
    "scrub",
    "trace",
    "verify",
]


def __getattr__(name: str) -> Any:
    try:
        if name in _ROOMS:
            return import_module(f"assay.{name}")
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        raise laboratory_missing(error) or error from error
    raise AttributeError(f"module 'assay' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
