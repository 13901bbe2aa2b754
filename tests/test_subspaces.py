"""TTPD and CCS on worlds in which truth and polarity have known directions."""

from __future__ import annotations

import numpy as np
import pytest

from assay.audit.problems.truth.readout import Labelled, areas
from assay.audit.problems.truth.subspaces import consistent, couples_of, truth_and_polarity


def world(couples: int = 60, d: int = 24, polar: float = 2.0, seed: int = 0) -> tuple[np.ndarray, Labelled, list[str]]:
    """Each question affirmed and negated; truth along axis 0, polarity along 1, their product along 2, strong."""
    rng = np.random.default_rng(seed)
    asked, affirmed_true = np.repeat(np.arange(couples), 2), np.repeat(rng.random(couples) < 0.5, 2)
    negated = np.tile([False, True], couples)
    truth = affirmed_true ^ negated
    x = rng.standard_normal((2 * couples, d)) * 0.5
    sign, polarity = np.where(truth, 1.0, -1.0), np.where(negated, -1.0, 1.0)
    x[:, 0] += sign
    x[:, 1] += polarity
    x[:, 2] += polar * sign * polarity
    topics = (asked % 3).astype(np.intp)
    return x, Labelled(truth, negated, topics, asked.astype(np.intp)), [f"q{n}" for n in asked]


def area(scores: np.ndarray, about: Labelled, mine: np.ndarray) -> float:
    return float(areas(scores[mine, None], about.truth[mine, None], np.zeros(mine.sum(), dtype=np.intp))[0])


@pytest.mark.parametrize("seed", range(3))
def test_truth_and_polarity_reads_truth_in_both_polarities(seed: int) -> None:
    x, about, _ = world(seed=seed)
    fit = about.topics != 2
    scores = truth_and_polarity(x, about, fit)
    for region in (about.negated, ~about.negated):
        assert area(scores, about, ~fit & region) > 0.9
    association = x[:, 2]  # which a read-out of affirmed statements alone would follow
    assert area(association, about, ~fit & about.negated) < 0.1


def test_consistency_finds_truth_without_labels() -> None:
    x, about, keys = world(polar=0.0, seed=1)
    fit = about.topics != 2
    pairs = couples_of(keys, about)
    assert len(pairs) == 60
    assert all(not about.negated[a] and about.negated[b] and keys[a] == keys[b] for a, b in pairs)
    scores = consistent(x, about, fit, pairs, seed=0)
    assert scores is not None
    assert area(scores, about, ~fit) > 0.9
    again = consistent(x, about, fit, pairs, seed=0)
    assert np.array_equal(scores, again)


def test_nothing_is_consistent_without_couples() -> None:
    x, about, _ = world()
    assert couples_of(["" for _ in x], about) == []
    assert consistent(x, about, about.topics != 2, [], seed=0) is None
