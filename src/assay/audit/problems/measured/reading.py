"""Units of work that put rows through the model: what it says of every sensor, and the stream where the first is asked for.

The stream is read at the last token of the first sensor's prompt: all that the input says is known there, and no sensor
has been told yet. A mean over the sensors' prompts was not taken, since rows with contradicting sensors would stand out
in it by what the model is about to say of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.audit import Bench, Lab, unit
from assay.audit.problems.given.answers import answered
from assay.audit.problems.given.rows import Measured, prompt_of
from assay.audit.problems.given.untrained import untrained as untrained_twin
from assay.audit.problems.measured.known import Array, rows_of
from assay.run.model import Model

_MOST_LAYERS, _AT_ONCE = 16, 400
_LARGEST_UNTRAINED = 500_000_000
"""Parameters above which no untrained twin is made: it would not fit beside the model."""


class Read(NamedTuple):
    """Of each row: log P(up) − log P(down) of each sensor, ``[n, sensor]`` in nats; the stream, ``[n, layer, d_model]``."""

    odds: Array
    stream: NDArray[np.float32]


def layers_of(model: Model) -> list[int]:
    """At most sixteen layers, evenly spaced, the last among them."""
    count = model.shape.layers
    step = -(-count // _MOST_LAYERS)
    return list(range((count - 1) % step, count, step))


def read(model: Model, rows: Sequence[Measured], layers: Sequence[int]) -> Read:
    """Put rows through a model."""
    first = answered(model, [row.prompts[0] for row in rows], [row.answers for row in rows], layers)
    later = [(prompt, row.answers) for row in rows for prompt in row.prompts[1:]]
    odds = first.odds[:, None]
    if later:
        prompts, answers = zip(*later, strict=True)
        odds = np.hstack([odds, answered(model, prompts, answers).odds.reshape(len(rows), -1)])
    return Read(odds, first.stream)


@unit("tampering.read")
def read_rows(bench: Bench, *, start: int, stop: int, layers: list[int]) -> dict[str, Any]:
    """Rows ``start`` to ``stop``."""
    found = read(bench.model, rows_of(bench)[start:stop], layers)
    return {"arrays": bench.arrays.put(odds=found.odds, stream=found.stream)}


@unit("tampering.read-untrained")
def read_untrained(bench: Bench, *, rows: list[int], seed: int, layers: list[int]) -> dict[str, Any]:
    """Rows by their numbers, in a model of this architecture whose weights were drawn and never trained."""
    twin = untrained_twin(bench.model, seed)
    every = rows_of(bench)
    found = twin.capture(
        [prompt_of(twin, every[n].prompts[0]) for n in rows], [f"L{layer}.resid @ last" for layer in layers]
    )
    return {"arrays": bench.arrays.put(stream=np.stack([one.numpy() for one in found.values.values()], axis=1))}


def read_all(lab: Lab, count: int) -> list[str]:
    """All rows, in units of some hundreds: where their arrays are."""
    layers = layers_of(lab.model)
    starts = range(0, count, _AT_ONCE)
    found = lab.units(
        read_rows, [dict(start=start, stop=min(start + _AT_ONCE, count), layers=layers) for start in starts]
    )
    return [one["arrays"] for one in found]


def joined(bench: Bench, readings: Sequence[str]) -> Read:
    """What units have read, in the order of the rows."""
    found = [bench.arrays.get(one) for one in readings]
    return Read(
        np.concatenate([one["odds"] for one in found]),
        np.concatenate([one["stream"] for one in found]).astype(np.float32),
    )


def untrained_rows(lab: Lab, count: int, most: int) -> list[int]:
    """The numbers of the rows that an untrained twin is shown, evenly over the file; none where the model is too large."""
    if not most:
        return []
    if sum(weight.numel() for weight in lab.model.hf.parameters()) > _LARGEST_UNTRAINED:
        lab.note("limits", "No untrained twin was read: the model is too large to hold a second one.")
        return []
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()
