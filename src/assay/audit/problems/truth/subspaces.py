"""Two read-outs of truth that survive negation by design, for comparison with those that the search chooses among.

TTPD     x − mean of its topic ≈ τ t_G + τ p t_P, with truth τ and polarity p = ±1, by least squares; a logistic regression on
         the projections on t_G and on the direction of polarity (Bürger et al. 2024, *Truth is Universal*, section 5)
CCS      p⁺, p⁻ of a statement and its negation: (p⁺ + p⁻ − 1)² + min(p⁺, p⁻)², without labels; the best of several starts,
         its sign by the labels (Burns et al. 2022, *Discovering Latent Knowledge*, section 2)

Both score linearly. CCS needs couples of a statement with its negation, and finds whatever tells both sides apart in every
couple, which need not be truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from assay.audit.problems.truth.readout import Array, Labelled, Mask, centred

_STARTS, _STEPS, _RATE, _DECAY = 5, 300, 0.02, 0.01


def truth_and_polarity(x: Array, about: Labelled, fit: Mask) -> Array:
    """TTPD fitted on some statements; scores of all, ``[n]``. ``x [n, d]``."""
    inside, truth = centred(x[fit], about.topics[fit]), about.signs[fit]
    polarity = np.where(about.negated[fit], -1.0, 1.0)
    design = np.column_stack([truth, truth * polarity])
    general = np.linalg.lstsq(design, inside, rcond=None)[0][0]
    if len(set(polarity)) < 2:
        return np.asarray(x @ general)
    along = LogisticRegression(C=1.0, max_iter=300, fit_intercept=False).fit(inside, polarity).coef_[0]
    plane = np.column_stack([general, along])
    plane = plane / np.maximum(np.linalg.norm(plane, axis=0), 1e-12)
    fitted = LogisticRegression(max_iter=300).fit(inside @ plane, truth > 0)
    return np.asarray(x @ (plane @ fitted.coef_[0]))


def consistent(x: Array, about: Labelled, fit: Mask, couples: Sequence[tuple[int, int]], seed: int) -> Array | None:
    """CCS fitted on the couples (affirmed, negated) of some statements; scores of all, ``[n]``; None without couples."""
    mine = np.array([pair for pair in couples if fit[pair[0]] and fit[pair[1]]])
    if len(mine) < 2:
        return None
    sides = [centred(x[mine[:, side]], np.zeros(len(mine), dtype=np.intp)) for side in (0, 1)]
    scale = max(float(np.mean([np.linalg.norm(side, axis=1).mean() for side in sides])), 1e-12)
    up, down = (torch.tensor(side / scale, dtype=torch.float32) for side in sides)
    theta = _least(up, down, seed)
    scores = np.array(x @ theta)
    for negated in (False, True):  # each side about its own mean, as it was fitted
        where = about.negated == negated
        scores[where] -= float((x[mine[:, int(negated)]] @ theta).mean())
    return np.asarray(scores * (np.sign(scores[fit] @ about.signs[fit]) or 1.0))


def couples_of(keys: Sequence[str], about: Labelled) -> list[tuple[int, int]]:
    """Statements that share a key, one affirmed and one negated: ``(affirmed, negated)``."""
    found: dict[str, dict[bool, list[int]]] = {}
    for number, (key, negated) in enumerate(zip(keys, about.negated.tolist(), strict=True)):
        if key:
            found.setdefault(key, {False: [], True: []})[negated].append(number)
    return [(sides[False][0], sides[True][0]) for sides in found.values() if len(sides[False]) == len(sides[True]) == 1]


def _least(up: torch.Tensor, down: torch.Tensor, seed: int) -> NDArray[np.float64]:
    """The direction of the least loss over several starts, ``[d]``."""
    best: tuple[float, NDArray[np.float64]] | None = None
    for start in range(_STARTS):
        drawn = torch.Generator().manual_seed(1000 * seed + start)
        theta = torch.randn(up.shape[1], generator=drawn).div_(up.shape[1] ** 0.5).requires_grad_()
        shift = torch.zeros((), requires_grad=True)
        optimiser = torch.optim.AdamW([theta, shift], lr=_RATE, weight_decay=_DECAY)
        for _ in range(_STEPS):
            p, q = torch.sigmoid(up @ theta + shift), torch.sigmoid(down @ theta + shift)
            loss = ((p + q - 1) ** 2 + torch.minimum(p, q) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if best is None or loss.item() < best[0]:
            best = loss.item(), theta.detach().double().numpy()
    assert best is not None
    return best[1]
