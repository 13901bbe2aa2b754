"""The strings, the trained checkers of brackets and their roles are what their files say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.scrubbing.brackets.data import (
    BALANCED,
    CLOSE,
    COUNTS,
    END,
    LONGEST,
    OPEN,
    PAD,
    PUBLISHED,
    START,
    TOKENS,
    columns,
    figures,
    p_open_after,
    sizes,
    strings,
)
from evaluation.scrubbing.brackets.estimates import adjusted_p, looks, open_vector, phi
from evaluation.scrubbing.brackets.roles import described, roles
from evaluation.scrubbing.brackets.train import HELD, SEEDS, _codes, held_out, load, losses, scores, stream


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return strings()


def rows(*texts: str) -> np.ndarray:
    found = np.full((len(texts), TOKENS), PAD)
    for row, text in zip(found, texts, strict=True):
        row[: len(text) + 2] = [START, *(OPEN if one == "(" else CLOSE for one in text), END]
    return found


def test_strings_have_the_published_figures(tokens: np.ndarray) -> None:
    found, has = figures(tokens), columns(tokens)
    for exact in ("strings", "balanced"):
        assert found[exact] == PUBLISHED[exact]
    for name, value in PUBLISHED.items():
        assert found[name] == pytest.approx(value, rel=0.012), name
    for length in range(2, LONGEST + 1, 2):
        here = has["length"] == length
        assert (here.sum(), (here & has["balanced"]).sum()) == (sum(sizes()[length]), sizes()[length][0])
    assert {length: sum(sizes()[length]) for length in COUNTS} == COUNTS
    assert {length: sizes()[length][0] for length in BALANCED} == BALANCED


def test_strings_are_those_of_their_seed(tokens: np.ndarray) -> None:
    assert (strings(3, 500) == strings(3, 500)).all()
    assert (strings(3, 500) != strings(4, 500)).any()
    assert len(strings(3, 777)) == 777
    few = columns(strings(3, 1000))
    assert few["balanced"].mean() == pytest.approx(0.2641, abs=0.01)
    assert set(np.unique(few["length"])) == set(range(2, 41, 2))


def test_short_balanced_strings_are_drawn_evenly(tokens: np.ndarray) -> None:
    has = columns(tokens)
    chosen = tokens[has["balanced"] & (has["length"] == 8)]
    counts = np.unique(chosen, axis=0, return_counts=True)[1]
    assert len(counts) == 14
    assert ((counts - len(chosen) / 14) ** 2 / (len(chosen) / 14)).sum() < 35  # χ², 13 degrees of freedom: p = 0.001


def test_balance_is_the_count_and_the_horizon(tokens: np.ndarray) -> None:
    has = columns(tokens)
    assert (has["balanced"] == (has["count"] & has["horizon"])).all()
    # Said of positions: none speaks against balance, and at the start as many are open as closed.
    assert (has["balanced"] == (has["horizon_all"] & has["count"])).all()


def test_features_of_strings_told_by_hand() -> None:
    has = columns(rows("()", ")(", "(())()", "((", "))()"))
    assert has["balanced"].tolist() == [True, False, True, False, False]
    assert has["count"].tolist() == [True, True, True, False, False]
    assert has["horizon"].tolist() == [True, False, True, False, True]
    assert has["opens"].tolist() == [True, False, True, True, False]
    assert has["length"].tolist() == [2, 2, 6, 2, 4]
    assert has["p"][4][:7].tolist() == [0.25, 0.25, 1 / 3, 0.5, 0.0, 0.0, 0.0]
    assert has["p1"].tolist() == [0.5, -1, 0.5, 1, -1]
    assert has["hvals"][1][:5].tolist() == [2, 2, -2, -1, 0]
    assert has["hvals"][0][:5].tolist() == [2, 2, 2, 1, 0]


def test_training_never_shows_what_is_held_out() -> None:
    held, (shown, balanced) = _codes(held_out()), next(stream(0))
    assert not np.isin(_codes(shown.numpy()), held).any()
    assert ((shown >= OPEN).sum(1) >= HELD).any()
    assert (balanced.numpy() == columns(shown.numpy())["balanced"]).all()
    assert len(np.unique(_codes(rows("()", ")(", "()()", "((")))) == 4


def test_the_fast_way_gives_what_the_model_gives(tokens: np.ndarray) -> None:
    model = load(0)
    for some in (tokens[:200], rows("()", "(()", ")()(()")):
        torch.testing.assert_close(
            scores(model, torch.from_numpy(some)), model(torch.from_numpy(some))[:, 0], rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_trained_models_tell_strings_that_they_were_not_trained_on(seed: int) -> None:
    loss, right = losses(load(seed), held_out()[:3000])
    assert right.float().mean() > 0.9985
    assert loss.mean() < 0.005


@pytest.mark.parametrize("seed", [1])
def test_roles_are_found(seed: int, tokens: np.ndarray) -> None:
    model = load(seed)
    found = roles(model, tokens[:2500])
    assert len({found.horizon, *found.counts}) == 3
    assert all(layer in (1, 2) for layer, _ in (found.horizon, *found.counts))
    assert found == roles(model, tokens[:2500])
    # A balanced string says what another balanced one says.
    assert all(abs(one.start["balanced"]) < 0.5 for one in found.heads)
    assert described(found.heads).count("\n") == 7


def test_the_estimate_is_a_direction_times_the_share(tokens: np.ndarray) -> None:
    model, some = load(0), rows("((", "))", "()")
    opened, closed, level = phi(model, 0, some)
    torch.testing.assert_close(opened, open_vector(model, 0))
    torch.testing.assert_close(closed, -opened)
    assert not level.any()


def test_the_adjusted_share_is_that_of_an_even_look(tokens: np.ndarray) -> None:
    model, some = load(0), tokens[:2000]
    has = columns(some)
    found = adjusted_p(model, 0, some)
    assert found.min() >= 0 and found.max() <= 1
    assert (found[has["count"], 0] == 0.5).all()
    np.testing.assert_allclose(found[:, :2], has["p"][:, :2])  # all that is seen from there follows
    assert not found[some <= END][some[some <= END] > START].any()
    assert all(np.allclose(pattern.sum(1), 1) for pattern in looks(model, 0).values())
    # A head that looks at nothing but what follows gives the plain share.
    model.blocks[0].attn.query.weight.zero_(), model.blocks[0].attn.query.bias.zero_()
    even = adjusted_p(model, 0, rows("(())()", ")(()"))
    np.testing.assert_allclose(even[0, 1:7], 0.5)
    assert p_open_after(rows("(())()"))[0, 3] == 0.25
