"""Verdicts on a model whose computation is known, controls checked against what they claim to be, and bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch

from assay import Direction, Model, Pair, Pairs, Prompt, Site, ablate, add, find, verify
from assay.errors import (
    AssayError,
    BadData,
    BadDose,
    BadSite,
    BadVector,
    EmptyData,
    LeakedData,
    ModelMismatch,
    NeverFired,
    Unwritable,
)
from assay.find.found import Fit, Found
from assay.provenance import Provenance
from assay.stats import max_statistic_p, paired_effect, sign_flip_p
from assay.verify import Verdict, controls
from assay.verify.dose import _crossing, equal_kl, mirrored, pushes
from assay.verify.rule import bar, decide, power
from assay.verify.search import _recorded, reading, spots
from assay.verify.specificity import wrong_layer, wrong_position
from assay.verify.stability import split_half
from assay.verify.verdict import ConceptShare, Control, Missing
from calibration.planted import Planted, planted
from tests.tiny import tiny, tokenizer

NEUTRAL = ("about1 so ask1 about2 so", "about3 so ask3 about4 so", "so about5 so ask5 about6")
FEW = dict(random=19, covariance=19, shuffled=19, orthogonal=4)
DOSES = (-1.0, -0.5, 0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def organism() -> Planted:
    return planted(0, sizes=(16, 8, 12))


@pytest.fixture(scope="module")
def found(organism: Planted) -> Found:
    return find.mean_difference(organism.model, organism.fit, at="L0:3.resid @ last")


@pytest.fixture(scope="module")
def concept(found: Found) -> Direction:
    return replace(found.at(1), site=Site.parse("L1.resid @ last:"))


def judge(organism: Planted, direction: Direction, **changes: Any) -> Verdict:
    settings: dict[str, Any] = dict(
        on=organism.test, fit=organism.fit, doses=DOSES, deciding=(-1, 1), controls=FEW, neutral=NEUTRAL
    )
    return verify.direction(organism.model, direction, **settings | changes)


@pytest.fixture(scope="module")
def verdict(organism: Planted, concept: Direction) -> Verdict:
    return judge(organism, concept, prompt_baseline="so about9")


# ── the verdict ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_planted_direction_holds(verdict: Verdict) -> None:
    assert verdict.holds
    assert verdict.verdict == "holds"
    assert verdict.p == max(verdict.items_p, *(verdict.controls[gate].p or 0 for gate in verify.GATES))
    assert verdict.p <= verdict.alpha
    assert verdict.interval.excludes(0)
    assert verdict.dose_response.trend.both_signs
    assert verdict.sufficiency.turned == verdict.sufficiency.absent > 0
    assert {name: control.gating for name, control in verdict.controls.items()} == {
        "random": True, "covariance": True, "shuffled": True, "orthogonal": False,
    }  # fmt: skip


def test_its_negative_does_not(organism: Planted, concept: Direction) -> None:
    against = judge(organism, -concept, controls=FEW | dict(orthogonal=0))
    assert against.verdict == "does not hold"
    assert "not toward the matching answer" in against.because
    assert against.p > 0.9


def test_labels_by_a_coin_do_not_hold(organism: Planted) -> None:
    coins = np.random.default_rng(5).random(len(organism.fit)) < 0.5
    fit = Pairs(tuple(pair.swapped() if coin else pair for pair, coin in zip(organism.fit, coins, strict=True)))
    drawn = find.mean_difference(organism.model, fit, at="L1.resid @ last").directions[0]
    assert not judge(organism, drawn, fit=fit).holds


def test_the_slope_is_that_of_scores_under_add(organism: Planted, concept: Direction, verdict: Verdict) -> None:
    model, site = organism.model, concept.site
    questions = [pair.question for pair in organism.test if pair.question]
    plus, minus = (
        model.score(questions, (" yes", " no"), under=add(concept, dose=dose)).difference[:, 0] for dose in (1, -1)
    )
    assert np.allclose(verdict.slopes, (plus - minus) / 2, atol=1e-4)
    natural = model.score(questions, (" yes", " no")).difference[:, 0]
    at = verdict.dose_response.doses.index(1.0)
    assert math.isclose(verdict.dose_response.means[at], (plus - natural).mean(), abs_tol=1e-4)
    present = natural > 0
    gone = model.score(questions, (" yes", " no"), under=ablate(concept)).difference[:, 0]
    assert verdict.necessity.present == present.sum()
    assert not isinstance(verdict.necessity.here, Missing)
    assert math.isclose(verdict.necessity.here.value, (natural - gone)[present].mean(), abs_tol=1e-4)
    assert verdict.site == str(site)


def test_the_prompt_alone(organism: Planted, verdict: Verdict) -> None:
    questions = [pair.question for pair in organism.test if pair.question]
    natural, told = (
        organism.model.score(asked, (" yes", " no")).difference[:, 0]
        for asked in (questions, [question.after("so about9\n\n") for question in questions])
    )
    assert not isinstance(verdict.prompt_baseline, Missing)
    assert math.isclose(verdict.prompt_baseline.value, (told - natural).mean(), abs_tol=1e-5)


def test_side_effects_are_drift(organism: Planted, concept: Direction, verdict: Verdict) -> None:
    assert not isinstance(verdict.side_effects, Missing)
    by = {one.under: one for one in verdict.side_effects}
    drift = organism.model.drift(NEUTRAL, [add(concept, dose=1), ablate(concept), ablate(concept, at="everywhere")])
    for name, kl, ratio in zip(
        ("dose +1", "ablated", "ablated everywhere"), drift.kl.mean(axis=0), drift.perplexity_ratio, strict=True
    ):
        assert math.isclose(by[name].kl.value, kl, rel_tol=1e-4)
        assert math.isclose(by[name].perplexity_ratio, ratio, rel_tol=1e-4)
    assert [one.dose for one in verdict.side_effects] == [-1, -0.5, 0.5, 1, None, None]


def test_it_survives_json_and_repeats_itself(organism: Planted, concept: Direction, verdict: Verdict) -> None:
    again = Verdict.from_json(json.loads(json.dumps(verdict.to_json())))
    assert again == verdict
    assert judge(organism, concept, prompt_baseline="so about9").to_json() == verdict.to_json()
    other = judge(organism, concept, seed=1)
    assert other.controls["random"].values != verdict.controls["random"].values
    assert other.slopes == verdict.slopes


def test_it_prints_and_draws(verdict: Verdict, tmp_path: Path) -> None:
    text = str(verdict)
    assert text.startswith("mean difference at L1.resid @ last: · holds, p ")
    for word in (
        "random",
        "covariance",
        "shuffled",
        "beyond orthogonal",
        "stability",
        "power",
        "dose +1",
        "prompt alone",
    ):
        assert f"\n  {word}" in text
    one, two = verdict.plot(tmp_path / "a.svg"), verdict.plot(tmp_path / "b.svg")
    assert one.read_bytes() == two.read_bytes()
    assert ET.parse(one).getroot().tag.endswith("svg")
    with pytest.raises(Unwritable):
        verdict.plot(tmp_path / "none" / "a.svg")


def test_the_record(organism: Planted, concept: Direction, verdict: Verdict) -> None:
    made = verdict.provenance
    assert (made.method, made.model, made.data) == (
        "verify.direction",
        organism.model.fingerprint,
        organism.test.digest,
    )
    assert made.arguments["fit"] == organism.fit.digest
    assert made.arguments["direction"] == concept.digest
    conditions = 1 + 2 * 58 + 4 + 2 * (4 + 1 + 1) + 2 + 19
    assert verdict.cost.cells == 12 * conditions
    assert verdict.cost.tokens == 12 * 3 * conditions


def test_progress_announces_the_cost(organism: Planted, concept: Direction) -> None:
    seen: list[tuple[int, int]] = []
    cost = judge(organism, concept, progress=lambda done, total: seen.append((done, total))).cost
    assert seen[0] == (0, cost.cells)
    assert seen[-1] == (cost.cells, cost.cells)


def test_answers_for_all_items(organism: Planted, concept: Direction, verdict: Verdict) -> None:
    turned = judge(organism, concept, score=(" no", " yes"))
    assert np.allclose(turned.slopes, [-slope for slope in verdict.slopes], atol=1e-5)


# ── what the search costs ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_search_is_paid_for(organism: Planted, found: Found) -> None:
    best = found.best(on=organism.tune)
    seen: list[tuple[int, int]] = []
    given = judge(organism, best, search=found.directions, progress=lambda done, total: seen.append((done, total)))
    taken = judge(organism, best)
    assert given.provenance.arguments["search"] == [f"L{layer}.resid @ last:" for layer in range(3)]
    assert {name: control.p for name, control in given.controls.items()} == {
        name: control.p for name, control in taken.controls.items()
    }
    assert "largest of 3 places" in given.controls["random"].note
    assert given.cost.cells == judge(organism, found.at(0)).cost.cells + 2 * 4 * 2 * 58  # places, items, doses, vectors
    assert {total for _, total in seen} == {given.cost.cells}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == given.cost.cells


def test_p_is_that_of_the_largest_place(organism: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, tuple[Any, ...]] = {}

    def spy(observed: Any, null: Any, tail: str) -> Any:
        seen[len(seen)] = (observed, null, tail)
        return max_statistic_p(observed, null, tail)  # type: ignore[arg-type]

    monkeypatch.setattr("assay.verify.trial.max_statistic_p", spy)
    weak = Direction(torch.from_numpy(np.random.default_rng(0).standard_normal(64)), Site.parse("L0.resid @ last"))
    others = [replace(weak, site=Site.parse(f"L{layer}.resid @ last")) for layer in range(3)]
    got = judge(organism, weak, search=others)
    for name, (observed, null, tail) in zip(("random", "covariance"), seen.values(), strict=True):
        assert (observed.shape, null.shape, tail) == ((3,), (19, 3), "mirrored")
        size = np.sqrt((np.vstack([observed, null]) ** 2).mean(axis=0))
        pool = np.vstack([observed, null]) / size
        largest = np.concatenate([pool.max(axis=1), (-pool).max(axis=1)])
        assert got.controls[name].p == np.mean(largest >= pool[0, 0] - 1e-9)


def test_what_best_has_recorded(organism: Planted, found: Found) -> None:
    model = organism.model
    assert _recorded(model, found.at(0)) == []
    chosen = found.best(on=organism.tune)
    assert [str(site) for site in _recorded(model, chosen)] == [f"L{layer}.resid @ last" for layer in range(3)]
    silent = Pairs(tuple(replace(pair, question=None) for pair in organism.tune))
    assert _recorded(model, found.best(on=silent)) == []
    some = find.mean_difference(model, organism.fit, at=["L0.resid @ last", "L2.mlp.out @ last"]).best(on=organism.tune)
    assert [str(site) for site in _recorded(model, some)] == ["L0.resid @ last", "L2.mlp.out @ last"]
    apart = ["embed @ last", "L0.mlp.out @ last", "L0.resid @ last", "L1.resid @ last", "L2.mlp.out @ last"]
    many = find.mean_difference(model, organism.fit, at=apart)
    assert _recorded(model, many.best(on=organism.tune)) is None
    with pytest.raises(BadData, match="other candidates"):
        judge(organism, many.best(on=organism.tune))
    assert judge(organism, many.best(on=organism.tune), search=many.directions).holds


def test_a_search_cannot_be_made_smaller_than_its_record(organism: Planted, found: Found) -> None:
    best = found.best(on=organism.tune)
    with pytest.raises(BadData, match="are not those") as caught:
        judge(organism, best, search=[best])
    assert "missing" in str(caught.value)


def test_candidates_may_share_a_layer(organism: Planted) -> None:
    places = ["L1.resid @ last", "L1.resid @ 1", "L2.resid @ last"]
    read = [Direction(torch.ones(64), Site.parse(place)) for place in places]
    still, own = spots(organism.model, read[1], read, refits=False)
    assert [str(spot.at) for spot in still] == places
    assert still[own].direction is read[1]
    record = Provenance(method="given", arguments={"at": places[1]})
    moved = replace(read[1], site=Site.parse("L1.resid @ last:"), provenance=record)
    acting, own = spots(organism.model, moved, read, refits=False)
    assert [str(spot.at) for spot in acting] == ["L1.resid @ last:", "L1.resid @ last:", "L2.resid @ last:"]
    assert [str(spot.read) for spot in acting] == places
    assert acting[own].direction is moved


# ── controls ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_random_and_orthogonal_draws() -> None:
    vector = np.random.default_rng(0).standard_normal(12) * 3
    rng = np.random.default_rng(1)
    drawn = controls.random(vector, 5_000, rng)
    assert np.allclose(np.linalg.norm(drawn, axis=1), np.linalg.norm(vector))
    assert np.allclose(drawn.T @ drawn / 5_000, np.eye(12) * (vector @ vector) / 12, atol=0.6)
    assert np.allclose(controls.orthogonal(vector, 9, rng) @ vector, 0)
    positional = np.stack([np.zeros(4), [3.0, 0, 0, 0]])
    assert np.allclose(np.linalg.norm(controls.random(positional, 3, rng), axis=-1), [0, 3])
    assert np.allclose(controls.orthogonal(positional, 3, rng)[:, 1, 0], 0)


def test_covariance_draws_have_the_residuals_covariance() -> None:
    rng = np.random.default_rng(0)
    residuals = rng.standard_normal((30, 6)) * [4, 2, 1, 1, 0, 0]
    drawn = controls.covariance(np.ones(6), residuals, 20_000, rng)
    assert np.allclose(np.linalg.norm(drawn, axis=1), np.sqrt(6))
    raw = rng.standard_normal((20_000, 30)) @ residuals
    raw *= np.sqrt(6) / np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.allclose(np.cov(drawn.T), np.cov(raw.T), atol=0.1)
    assert np.all(drawn[:, 4:] == 0)
    with pytest.raises(BadVector, match="do not vary"):
        controls.covariance(np.ones(3), np.zeros((4, 3)), 2, rng)


def _sides(seed: int = 0, pairs: int = 20, noise: float = 1.0) -> controls.Sides:
    rng = np.random.default_rng(seed)
    shift = np.zeros(8)
    shift[0] = 4.0
    base = 5 * rng.standard_normal((pairs, 8))
    positive, negative = (base + sign * shift / 2 + noise * rng.standard_normal((pairs, 8)) for sign in (1, -1))
    return controls.Sides(torch.from_numpy(positive), torch.from_numpy(negative), np.arange(pairs) // 2)


def _mean(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    return (positive - negative).mean(dim=0)


def test_residuals_hold_nothing_of_the_contrast() -> None:
    sides = _sides(noise=0.0)
    widened = replace(sides, positive=sides.positive + torch.tensor([100.0] + [0] * 7, dtype=torch.float64))
    assert np.allclose(sides.residuals, widened.residuals)
    assert np.allclose(sides.residuals.mean(axis=0), 0)


def test_swaps_are_by_cluster_and_turn_the_direction() -> None:
    sides = _sides()
    every = sides.swapped(np.ones(10, dtype=bool))
    assert np.allclose(every.raw(_mean), -sides.raw(_mean))
    one = sides.swapped(np.arange(10) == 3)
    moved = (one.positive != sides.positive).any(dim=1).numpy()
    assert moved.tolist() == (sides.clusters == 3).tolist()
    assert torch.equal(one.positive[moved], sides.negative[moved])


def test_refits_keep_their_raw_length() -> None:
    sides, vector = _sides(noise=0.0), np.eye(8)[0] * 2
    swaps = controls.flips(10, 200, np.random.default_rng(0))
    drawn = controls.shuffled(vector, sides, _mean, swaps)
    # without noise a refit is the direction times the surplus of labels that were left alone
    surplus = (~swaps).mean(axis=1) - swaps.mean(axis=1)
    assert np.allclose(drawn, surplus[:, None] * vector)


def test_a_unit_vector_is_as_long_as_the_gap_along_it() -> None:
    sides = _sides()
    unit = lambda positive, negative: _mean(positive, negative) / _mean(positive, negative).norm()
    assert np.allclose(sides.raw(unit), sides.raw(_mean))
    assert np.allclose(sides.raw(lambda positive, negative: 0 * positive[0]), 0)
    with pytest.raises(BadVector, match="no direction on the fit pairs"):
        controls.shuffled(np.ones(8), sides, lambda p, n: 0 * p[0], controls.flips(10, 2, np.random.default_rng(0)))


def test_concept_share_is_the_mean_squared_cosine_with_draws() -> None:
    rng = np.random.default_rng(0)
    residuals = rng.standard_normal((500, 20)) * np.arange(1, 21)
    vector = np.eye(20)[-1]
    said = controls.concept_share(vector, residuals)
    drawn = controls.covariance(vector, residuals, 20_000, rng)
    assert math.isclose(said.share, np.mean((drawn @ vector) ** 2), rel_tol=0.15)
    weights = residuals.T @ residuals
    assert math.isclose(said.rank, np.trace(weights) ** 2 / np.sum(weights**2), rel_tol=1e-9)


def test_split_halves() -> None:
    rng = np.random.default_rng(0)
    same = split_half(_sides(noise=0.0), _mean, rng)
    loud = split_half(_sides(noise=20.0), _mean, rng)
    assert not isinstance(same, Missing)
    assert not isinstance(loud, Missing)
    assert math.isclose(same.cosine, 1)
    assert loud.cosine < 0.8
    assert loud.least <= loud.cosine
    assert isinstance(split_half(_sides(pairs=6), _mean, rng), Missing)


# ── the rule ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _tested(**ps: float | None) -> dict[str, Control]:
    values = (0.1,) * 19
    return {
        name: Control(values=() if p is None else values, p=p, gating=True, note="" if p is not None else "left out")
        for name, p in ps.items()
    }


@pytest.mark.parametrize(
    ("items", "ps", "share", "word", "says"),
    [
        (0.01, dict(random=0.02, covariance=0.05, shuffled=0.03), 0.0, "holds", "largest p 0.05"),
        (0.06, dict(random=0.02, covariance=0.02, shuffled=0.02), 0.0, "does not hold", "items do not agree"),
        (0.01, dict(random=0.2, covariance=0.02, shuffled=0.02), 0.5, "does not hold", "random directions"),
        (0.01, dict(random=0.02, covariance=0.2, shuffled=0.02), 0.09, "does not hold", "covariance"),
        (0.01, dict(random=0.02, covariance=0.2, shuffled=0.02), 0.3, "undecided", "30%"),
        (0.01, dict(random=0.02, covariance=0.2, shuffled=0.2), 0.3, "does not hold", "shuffled labels"),
        (0.01, dict(random=0.02, covariance=0.02, shuffled=None), 0.0, "undecided", "shuffled: left out"),
        (0.01, dict(random=0.2, covariance=None, shuffled=0.02), 0.0, "does not hold", "random directions"),
        (0.01, dict(random=0.02, covariance=0.02), 0.0, "holds", "19 random, 19 covariance"),
    ],
)
def test_the_rule(items: float, ps: dict[str, float | None], share: float, word: str, says: str) -> None:
    effect = paired_effect([1.0, 1.2, 0.9])
    said, because, p = decide(items, _tested(**ps), 0.05, effect, ConceptShare(share=share, rank=3))
    assert said == word
    assert says in because
    assert p == max(items, *(value for value in ps.values() if value is not None))


def test_the_bar_is_what_a_draw_exceeds_by_chance() -> None:
    null = np.random.default_rng(0).standard_normal((20_000, 2)) * [1, 10]
    assert math.isclose(bar(null[:, :1], 0, 0.05), 1.645, rel_tol=0.05)
    both = bar(null, 1, 0.05)
    assert math.isclose(both / 10, 1.955, rel_tol=0.05)  # the normal quantile of .95 ** .5


def test_power() -> None:
    slopes = np.array([1.0, 1.2, 0.8, 1.1, 0.9])
    clusters, effect = np.arange(5), paired_effect(slopes)
    said = power(effect, slopes, clusters, {"random": 0.5}, 0.05)
    assert said.limit == "random"
    assert math.isclose(said.detectable, 0.5 + 0.8416 * effect.se, rel_tol=1e-3)
    assert said.items_needed is not None
    assert said.items_needed <= 5
    assert power(effect, slopes, clusters, {}, 0.05).limit == "items"
    flat = power(paired_effect([1.0, 1.0]), np.ones(2), np.arange(2), {"random": 0.2}, 0.05)
    assert (flat.detectable, flat.limit, flat.items_needed) == (0.2, "random", None)
    assert power(paired_effect(-slopes), -slopes, clusters, {}, 0.05).items_needed is None


def test_fewer_items_than_ten_use_the_t_interval(organism: Planted, concept: Direction) -> None:
    few = judge(organism, concept, on=organism.test[:6])
    assert few.interval.method == "t"
    assert few.items_p == sign_flip_p(few.slopes, tail="greater")


# ── beside the verdict ────────────────────────────────────────────────────────────────────────────────────────────────


def test_elsewhere(organism: Planted) -> None:
    model, site = organism.model, Site.parse("L1.resid @ last:")
    assert str(wrong_layer(model, site)) == "L2.resid @ last:"
    assert str(wrong_layer(model, Site.parse("L2.head[3].z @ last"))) == "L0.head[3].z @ last"
    assert isinstance(wrong_layer(model, Site.parse("embed @ last")), Missing)
    rows = model.rows(["so about1 ask1", "so ask2 about3 ask1"])
    assert str(wrong_position(site, rows)) == "L1.resid @ 1"
    assert isinstance(wrong_position(Site.parse("L1.resid @ 1"), rows), Missing)
    assert isinstance(wrong_position(site, model.rows(["so ask1"])), Missing)


def test_equal_kl_meets_the_budget(organism: Planted, concept: Direction) -> None:
    budgeted = judge(organism, concept, budget=0.05)
    assert not isinstance(budgeted.side_effects, Missing)
    kl = [one.kl.value for one in budgeted.side_effects if one.dose in (-1, 1)]
    assert 0.04 < np.mean(kl) < 0.06
    vectors = controls.random(np.ones(64), 5, np.random.default_rng(0))
    factors = equal_kl(organism.model, NEUTRAL, vectors, concept.site, 2.0, 0.02)
    assert np.allclose(factors, equal_kl(organism.model, NEUTRAL, -vectors, concept.site, 2.0, 0.02), rtol=1e-4)
    for vector, factor in zip(vectors, factors, strict=True):
        found = organism.model.drift(NEUTRAL, pushes(vector * factor, concept.site, (-2, 2), ""))
        assert 0.015 < (found.kl * found.tokens[:, None]).sum() / found.tokens.sum() / 2 < 0.025


def test_the_crossing_of_a_quadratic_is_exact() -> None:
    strengths = np.array([0.125, 0.25, 0.5, 1, 2])
    for budget in (0.001, 0.3, 3.0):
        assert math.isclose(_crossing(strengths**2, budget), math.sqrt(budget))
    assert _crossing(strengths**2, 9) == 2
    assert _crossing(np.zeros(5), 0.1) == 2


def test_a_control_left_out_leaves_it_undecided(organism: Planted, concept: Direction) -> None:
    got = judge(organism, concept, controls=FEW | dict(covariance=0, orthogonal=0))
    assert got.verdict == "undecided"
    assert "covariance: left out" in got.because
    assert set(got.specificity) == {"wrong layer", "wrong position"}
    assert got.necessity.control is None


def test_a_direction_given_by_hand_needs_no_fit(organism: Planted) -> None:
    by_hand = Direction(torch.from_numpy(organism.concept), Site.parse("L0.resid @ last:"), name="by hand")
    got = judge(organism, by_hand, fit=None)
    assert got.holds
    assert not got.controls["shuffled"].gating
    assert "no labels to shuffle" in got.controls["shuffled"].note
    assert isinstance(got.stability, Missing)


def test_a_positional_pair_and_a_head() -> None:
    model = Model.load(tiny("llama"), tokenizer=tokenizer(), selftest=False)
    words = ("Paris", "Rome", "Berlin", "Tower", "Eiffel", "city", "capital", "love", "hate", "The", "not", "and")
    pairs = Pairs(
        tuple(
            Pair(
                Prompt(f"I love {word}"), Prompt(f"I hate {word}"), Prompt(f"The {word} is"), (" true", " false"), word
            )
            for word in words
        )
    )
    settings: dict[str, Any] = dict(doses=(-1, 1), controls=dict(random=9, covariance=9, shuffled=9, orthogonal=2))
    love = find.pair(model, "I love you", "I hate you", at="L1.resid")
    added = verify.direction(model, love, on=pairs[:5], **settings)
    assert not added.controls["shuffled"].gating
    assert isinstance(added.necessity.here, Missing)
    assert added.controls["covariance"].p is not None
    heads = find.heads(model, pairs[5:], at="L1.head[:].z @ last", top=1, validation=0.4).directions[0]
    moved = replace(heads, site=heads.site.at("last:"))
    asked = Pairs(tuple(replace(pair, cluster=f"new {pair.cluster}") for pair in pairs[:5]))
    few = verify.direction(model, moved, on=asked, fit=pairs[5:], **settings)
    assert few.controls["shuffled"].gating
    assert few.controls["shuffled"].note == "only 7 clusters to swap"
    plus, minus = (
        model.score([pair.question for pair in asked], (" true", " false"), under=add(moved, dose=dose)).difference[
            :, 0
        ]
        for dose in (1, -1)
    )
    assert np.allclose(few.slopes, (plus - minus) / 2, atol=1e-4)
    assert isinstance(few.necessity.everywhere, Missing)


# ── drift ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("at", ["L0.resid @ last", "L1.resid", "L2.resid @ response", "L1.mlp.out @ last:"])
def test_drift_is_kl_and_likelihood_of_the_second_half(at: str) -> None:
    model = Model.load(tiny("llama"), tokenizer=tokenizer(), selftest=False)
    texts = ["The city is Paris and the Tower is in Rome", "I love you because you hate Berlin", "A B"]
    push = add(torch.randn(32, generator=torch.Generator().manual_seed(0)), dose=0.5, at=at)
    got = model.drift(texts, [(), push])
    assert np.all(got.kl[:, 0] == 0)
    assert np.allclose(got.nll[:, 0], got.natural)
    for number, text in enumerate(texts):
        tokens = model.row(text).tokens
        half = (len(tokens) + 1) // 2
        prompt, answer = Prompt.tokenized(tokens[:half]), tokens[half:]
        base, under = (
            torch.stack([_next(model, Prompt.tokenized(tokens[: half + step]), prompt, push if pushed else ())
                         for step in range(len(answer))])
            for pushed in (False, True)
        )  # fmt: skip
        kl = float((base.exp() * (base - under)).sum(dim=-1).mean())
        nll = -float(under[torch.arange(len(answer)), torch.tensor(answer)].mean())
        assert math.isclose(got.kl[number, 1], kl, rel_tol=1e-3, abs_tol=1e-6)
        assert math.isclose(got.nll[number, 1], nll, rel_tol=1e-4)
    assert got.perplexity_ratio[0] == 1


def _next(model: Model, fed: Prompt, prompt: Prompt, under: Any) -> torch.Tensor:
    """The next token's log-probabilities after ``fed``, of which ``prompt`` is the prompt and the rest the answer."""
    from assay.act.rows import Row
    from assay.run.forward import forward

    tokens, length = fed.tokens or (), len(prompt.tokens or ())
    room = 1 if len(tokens) == length else 0
    return forward(model, [Row("row", tokens, length, {}, room)], under).logits[-1].log_softmax(-1)


def test_a_text_without_a_second_half_is_refused() -> None:
    model = Model.load(tiny("llama"), tokenizer=tokenizer(), selftest=False)
    with pytest.raises(EmptyData, match="no token to predict"):
        model.drift(["A B", Prompt.tokenized([5])], [()])


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────────────────────────

Change = Callable[[Planted, Direction], tuple[Direction, dict[str, Any]]]


def _with(**settings: Any) -> Change:
    return lambda organism, direction: (direction, settings)


def _at(site: str) -> Change:
    return lambda organism, direction: (Direction(direction.vector, Site.parse(site)), {})


def _silent(organism: Planted, direction: Direction) -> tuple[Direction, dict[str, Any]]:
    return direction, dict(on=Pairs((replace(organism.test[0], question=None), *organism.test[1:])))


def _seen(organism: Planted, direction: Direction) -> tuple[Direction, dict[str, Any]]:
    asked = replace(organism.test[0], question=organism.fit[3].positive)
    return direction, dict(on=Pairs((asked, *organism.test[1:])))


def _searched(organism: Planted, direction: Direction) -> tuple[Direction, dict[str, Any]]:
    fits = {site: Fit(direction.vector) for site in organism.model.sites("L0:3.resid @ last")}
    drawn = Found(organism.model, fits, "drawn", Provenance(method="given", model=organism.model.fingerprint))
    return drawn.best(on=organism.tune), {}


REFUSALS: dict[str, tuple[Change, type[AssayError], str]] = {
    "a leak": (_seen, LeakedData, "1 test prompts were used"),
    "fit again": (lambda o, d: (d, dict(on=o.fit)), LeakedData, "test prompts were used"),
    "another fit": (lambda o, d: (d, dict(fit=o.tune)), BadData, "fit= is not what"),
    "no fit": (_with(fit=None), BadData, "are needed to find it again on shuffled labels"),
    "few fit": (
        lambda o, d: (find.mean_difference(o.model, o.fit[:4], at="L1.resid").directions[0], dict(fit=o.fit[:4])),
        EmptyData,
        "the labels of 4 fit clusters",
    ),
    "unmirrored": (_with(doses=(0, 1, 2)), BadDose, "are not mirrored"),
    "one sided": (_with(doses=(-2, -1, 1)), BadDose, "-2 without 2"),
    "no dose": (_with(doses=()), BadDose, "no dose but 0"),
    "NaN dose": (_with(doses=(-1, math.nan, 1)), BadDose, "not finite"),
    "deciding elsewhere": (_with(deciding=(-3, 3)), BadData, "not among the doses"),
    "few draws": (_with(controls=dict(shuffled=8)), BadData, "8 shuffled draws cannot reach alpha 0.05"),
    "negative draws": (_with(controls=dict(orthogonal=-1)), BadData, "-1 orthogonal draws"),
    "an unknown control": (_with(controls=dict(shufled=39)), BadData, "nearest   shuffled"),
    "no question": (_silent, BadData, "1 of 12 test pairs cannot be scored"),
    "one answer": (_with(score=" yes"), BadData, "is no pair of answers"),
    "one cluster": (
        lambda o, d: (d, dict(on=Pairs(tuple(replace(pair, cluster="one") for pair in o.test)))),
        EmptyData,
        "1 test cluster cannot reach alpha",
    ),
    "few clusters": (lambda o, d: (d, dict(on=o.test[:4])), EmptyData, "4 test clusters"),
    "too small an alpha": (_with(alpha=0.001), BadData, "cannot reach alpha 0.001"),
    "alpha 1": (_with(alpha=1.0), BadData, "alpha=1.0"),
    "logits": (_at("logits"), BadSite, "no one direction can be judged"),
    "several layers": (_at("L0:2.resid"), BadSite, "no one direction can be judged"),
    "a missing layer": (_at("L9.resid"), AssayError, "no L9.resid"),
    "a missing position": (_at("L1.resid @ 40"), NeverFired, "touched no activation"),
    "a wrong width": (lambda o, d: (Direction(torch.ones(5), d.site), {}), BadVector, "does not fit"),
    "a zero vector": (lambda o, d: (d * 0, {}), BadVector, "zero vector"),
    "another model": (
        lambda o, d: (replace(d, provenance=d.provenance.model_copy(update={"model": "abc"})), {}),
        ModelMismatch,
        "not found on this model",
    ),
    "an answer without a token": (_with(score=("", " no")), BadData, "does not begin at a token of its own"),
    "an unpaid search": (_searched, BadData, "chosen by its effect among other candidates"),
    "another search": (
        lambda o, d: (d, dict(search=[replace(d, site=Site.parse("L0.resid"))])),
        BadData,
        "are not those that 'mean difference' was chosen among",
    ),
    "one neutral text": (_with(neutral=("so ask1 so",)), EmptyData, "1 neutral texts"),
    "an empty budget": (_with(budget=0.0), BadDose, "cannot be met"),
    "no direction": (lambda o, d: ("honest", {}), BadData, "not a str"),  # type: ignore[dict-item,return-value]
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_refused_before_anything_runs(
    name: str, organism: Planted, concept: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, kind, says = REFUSALS[name]
    direction, settings = change(organism, concept)
    monkeypatch.setattr(organism.model.engine, "forward", lambda *_, **__: pytest.fail("a forward pass was run"))
    with pytest.raises(kind) as caught:
        judge(organism, direction, **settings)
    assert says in str(caught.value)
    assert "hint:" in str(caught.value)


def test_doses_are_sorted_and_zero_is_left_to_the_model() -> None:
    assert mirrored((2, 0, -1, 1, -2)) == (-2, -1, 1, 2)


def test_where_a_direction_was_read(concept: Direction) -> None:
    assert str(reading(concept)) == "L1.resid @ last"
    assert str(reading(concept.at(2))) == "L2.resid @ last"
    assert str(reading(Direction(torch.ones(3), Site.parse("L1.resid @ 2:4")))) == "L1.resid @ last"
    assert str(reading(Direction(torch.ones(3), Site.parse("L1.resid @ -2")))) == "L1.resid @ -2"
