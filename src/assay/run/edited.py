"""``with model.edited(…)``: other weights for the length of a block, and bit for bit the old ones after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from assay.act.edit import Edit
from assay.errors import BadVector, NoSuchSite, Unwritable, nearest
from assay.model.core import Core
from assay.provenance import digest_of

_OF_WEIGHTS = ("fingerprint", "_scales")
"""What a model remembers and edited weights make untrue."""


@contextmanager
def edited(core: Core, edits: Sequence[Edit]) -> Iterator[None]:
    """Put edits in, one after the other. Inside, the model has another fingerprint: what is found there is not the
    unedited model's. Raises `ModelMismatch`, `NoSuchSite` and `BadVector` before any weight is touched.
    """
    fingerprint = core.fingerprint
    weights = {name: _weight(core, name, edit) for edit in edits for name in edit.deltas}
    for edit in edits:
        edit.check(fingerprint)
    kept = {name: weight.detach().clone() for name, weight in weights.items()}
    remembered = {name: core.__dict__.pop(name) for name in _OF_WEIGHTS if name in core.__dict__}
    try:
        with torch.no_grad():
            for edit in edits:
                for name, delta in edit.deltas.items():
                    weights[name].add_(delta.full.to(weights[name]))
        if edits:
            core.__dict__["fingerprint"] = digest_of([fingerprint.encode(), *(edit.digest.encode() for edit in edits)])
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(kept[name])
        for name in _OF_WEIGHTS:
            core.__dict__.pop(name, None)
        core.__dict__.update(remembered)


def merged(core: Core, edits: Sequence[Edit], into: str | Path) -> Path:
    """Write the edited model, with its tokenizer, as a folder that transformers reads. Raises `Unwritable`."""
    path = Path(into)
    with edited(core, edits):
        try:
            core.hf.save_pretrained(path)
            core.tokenizer.save_pretrained(path)
        except OSError as error:
            raise Unwritable(
                f"{str(path)!r} cannot be written", found=str(error), hint="give a writable folder with room"
            ) from error
    return path


def _weight(core: Core, name: str, edit: Edit) -> Tensor:
    known = dict(core.hf.named_parameters())
    if name not in known:
        raise NoSuchSite(
            f"this model has no weight {name!r}",
            nearest=nearest(name, known),
            hint="an edit fits the architecture that it was made for",
        )
    if tuple(known[name].shape) != edit.deltas[name].shape:
        raise BadVector(
            f"the change of {name} does not fit",
            found=f"{edit.deltas[name].shape} for a weight of {tuple(known[name].shape)}",
            hint="an edit fits the architecture that it was made for",
        )
    return known[name]
