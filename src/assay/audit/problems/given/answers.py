"""What a model answers to rows of one's own, and the stream from which it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.act.intervention import Condition
from assay.audit.problems.given.rows import Said, prompt_of
from assay.run.model import Model

Array = NDArray[np.float64]
Part = Literal["fit", "tune", "test"]
_SHARES = (0.5, 0.7)


class Answered(NamedTuple):
    """By row.

    Attributes:
        odds: log P(first answer) − log P(second), nats, ``[n]``.
        mass: P(first answer) + P(second), ``[n]``: little of it where the model would say something else.
        stream: after each layer that was asked for, at the prompt's last token, ``[n, layer, d_model]``.
    """

    odds: Array
    mass: Array
    stream: NDArray[np.float32]


def answered(
    model: Model,
    prompts: Sequence[Said],
    answers: Sequence[Sequence[str]],
    layers: Sequence[int] = (),
    under: Condition | None = None,
) -> Answered:
    """Score two answers to each prompt, and read the stream where the answer begins."""
    given = [prompt_of(model, said) for said in prompts]
    scores = model.score(given, [list(pair) for pair in answers], under=under)
    odds, mass = scores.difference[:, 0], np.exp(scores.total[:, 0]).sum(axis=-1)
    if not layers:
        return Answered(odds, mass, np.zeros((len(given), 0, 0), np.float32))
    read = model.capture(given, [f"L{layer}.resid @ last" for layer in layers], under=under)
    return Answered(odds, mass, np.stack([one.numpy() for one in read.values.values()], axis=1))


def parts(clusters: Sequence[str], seed: int) -> NDArray[np.str_]:
    """``fit``, ``tune`` or ``test`` for each row, by whole clusters, in an order fixed by hashing: half, a fifth, the rest."""
    names = sorted(set(clusters), key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
    ends = [round(share * len(names)) for share in _SHARES]
    home = {name: "fit" if n < ends[0] else "tune" if n < ends[1] else "test" for n, name in enumerate(names)}
    return np.array([home[name] for name in clusters])
