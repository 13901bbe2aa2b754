"""Evidence accounting: the spec's worked figures, laws of the ratios, and simulations of what they promise."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.linear_model import LogisticRegression

from assay.errors import BadData, EmptyData
from assay.stats import (
    PROCEDURE_CHECK,
    Array,
    Evidence,
    average_e,
    binary_ratio,
    calibrate,
    cllr,
    cllr_min,
    clopper_pearson,
    e_bh,
    held_out_ratios,
    likelihood_ratio,
    misleading,
    models_needed,
    onset,
    reference_e,
    score_ratio,
    separation,
    sequential_product,
    verbal,
    weigh,
)

logs = st.floats(-50, 50).map(lambda x: round(x, 3))
samples = st.lists(logs, min_size=1, max_size=10)
sizes = st.integers(1, 200)
shares = st.floats(0, 1)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([21, seed]).normal(size=shape)


def spread_like(mean: float, sd: float, k: int) -> Array:
    """k values with exactly this mean and standard deviation."""
    x = np.arange(k) - (k - 1) / 2
    return mean + sd * x / x.std(ddof=1)


def example(**changes: object) -> Evidence:
    given_ = dict(expected=0.3, spread=0.15, references={"clean": spread_like(0, 0.03, 10)})
    return likelihood_ratio(0.07, 0.005, **given_ | changes)


# ── effect to ratio ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_worked_example_of_the_spec() -> None:
    # Against sampling error alone the same data are overwhelming. References without spread, many of them, are that.
    alone = example(references={"zero": np.zeros(10**6)})
    assert math.exp(alone.weight.log_lr) == pytest.approx(3.7e40, rel=0.02)
    found = example()
    assert found.weight.value == pytest.approx(0.58, abs=0.005)
    assert found.weight.band == "negligible against"
    assert str(found) == "LR 0.577, negligible against (raw 0.577, cap 21, transfer 1) against clean"


def test_every_intermediate_number_by_hand() -> None:
    references = {"clean": spread_like(0.01, 0.03, 10), "decoy": spread_like(0.2, 0.05, 6)}
    found = example(references=references, planted=5, transfer=0.5)
    assert found.z == pytest.approx((0.07 - 0.3) / math.hypot(0.005, 0.15))
    assert found.log_density == pytest.approx(scipy_stats.norm.logpdf(0.07, 0.3, math.hypot(0.005, 0.15)))
    assert [a.log_lr for a in found.alternatives] == sorted(a.log_lr for a in found.alternatives)
    of = {a.name: a for a in found.alternatives}
    for name, k, m0, s0 in (("clean", 10, 0.01, 0.03), ("decoy", 6, 0.2, 0.05)):
        scale = math.sqrt(0.005**2 + s0**2 * (1 + 1 / k))
        f0 = scipy_stats.t.logpdf(0.07, k - 1, m0, scale)
        expected = (k, m0, s0, scale, (0.07 - m0) / scale, f0, found.log_density - f0)
        a = of[name]
        assert (a.n, a.mean, a.sd, a.scale, a.t, a.log_density, a.log_lr) == pytest.approx(expected)
    weight = found.weight
    assert (weight.log_lr, weight.n, weight.cap) == (found.alternatives[0].log_lr, 5, 11)
    assert weight.value == pytest.approx(math.exp(0.5 * weight.log_lr))
    assert "the best of 2 alternatives" in str(found) and "\n" not in str(found)


@settings(max_examples=40)
@given(st.floats(-3, 3), st.floats(0.01, 1), st.floats(-3, 3), st.floats(0, 1), st.floats(0.1, 9), st.floats(-5, 5))
def test_the_ratio_has_no_unit_and_no_side(d: float, se: float, mu: float, tau: float, by: float, shift: float) -> None:
    x = normal(7)
    here = likelihood_ratio(d, se, expected=mu, spread=tau, references={"clean": x}).weight.log_lr
    for scale in (by, -by):
        moved = {"clean": scale * x + shift}
        there = likelihood_ratio(
            scale * d + shift, by * se, expected=scale * mu + shift, spread=by * tau, references=moved
        )
        assert there.weight.log_lr == pytest.approx(here, abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0.001, 0.3), st.floats(0.1, 3))
def test_it_rises_from_the_null_to_what_was_expected(at: list[float], se: float, tau: float) -> None:
    mean = normal(8).mean()
    ratios = [
        likelihood_ratio(mean + 5 * a, se, expected=mean + 5, spread=tau, references={"clean": normal(8)})
        for a in sorted(at)
    ]
    assert np.all(np.diff([r.weight.log_lr for r in ratios]) >= -1e-9)


def test_far_beyond_what_was_expected_it_falls_again_and_z_says_so() -> None:
    near, far = (
        likelihood_ratio(d, 0.01, expected=0.3, spread=0.05, references={"c": normal(9) / 10}) for d in (0.3, 3)
    )
    assert far.weight.log_lr < 0 < near.weight.log_lr and far.z > 50


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 50))
def test_one_more_alternative_never_helps_the_claim(a: int, b: int, seed: int) -> None:
    one, two = {"clean": normal(a, seed=seed)}, {"decoy": normal(b, seed=seed + 99) + 2}
    ask = lambda references: likelihood_ratio(2.5, 0.1, expected=3, spread=0.5, references=references).weight
    assert ask(one | two).log_lr == min(ask(one).log_lr, ask(two).log_lr)
    assert ask(one | two).n == min(a, b)
    assert ask(one | two).value <= min(ask(one).value, ask(two).value) * (1 + 1e-12) or ask(one | two).log_lr < 0


# ── cap, transfer, words ──────────────────────────────────────────────────────────────────────────────────────────────


@given(logs, sizes, shares)
def test_the_cap_is_never_exceeded_and_shrinking_goes_to_one(log_lr: float, n: int, transfer: float) -> None:
    found = weigh(log_lr, n, transfer=transfer)
    assert 1 / (2 * n + 1) - 1e-12 <= found.value <= (2 * n + 1) * (1 + 1e-12)
    assert abs(found.log_value) <= abs(log_lr)
    assert found.log_value * log_lr >= 0
    assert weigh(-log_lr, n, transfer=transfer).log_value == -found.log_value
    assert weigh(log_lr, n, transfer=0).value == 1
    if abs(log_lr) < math.log(2 * n + 1):
        assert weigh(log_lr, n).log_value == log_lr


@given(logs, logs, sizes, sizes, shares)
def test_weighing_keeps_the_order_and_more_models_allow_more(a: float, b: float, n: int, m: int, by: float) -> None:
    low, high = sorted((a, b))
    few, many = sorted((n, m))
    assert weigh(low, n, transfer=by).value <= weigh(high, n, transfer=by).value
    assert abs(weigh(a, few).log_value) <= abs(weigh(a, many).log_value)
    assert abs(weigh(a, n, transfer=by).log_value) <= abs(weigh(a, n).log_value)


def test_the_words_come_after_the_cap() -> None:
    at = lambda lr: verbal(math.log(lr))
    assert [at(x) for x in (1, 2.9, 3, 9.9, 10, 100, 101)] == [
        "negligible",
        "negligible for",
        "weak for",
        "weak for",
        "moderate for",
        "moderate for",
        "strong for",
    ]
    assert [at(1 / x) for x in (2, 4, 50, 1e6)] == [
        f"{w} against" for w in ("negligible", "weak", "moderate", "strong")
    ]
    assert weigh(80, 20).band == "moderate for"  # 41, whatever the density said
    assert weigh(80, 49).band == "moderate for" and weigh(80, 50).band == "strong for"
    assert weigh(80, 20, transfer=0).band == PROCEDURE_CHECK
    assert "raw e^800" in str(weigh(800, 20))


# ── what a ratio promises, by simulation ──────────────────────────────────────────────────────────────────────────────


def simulated(expected: float, spread: float, se: float, k: int, runs: int, seed: int) -> Array:
    """Raw log ratios of clean models against k other clean models; true effects have mean 0 and sd 1."""
    data = math.hypot(1, se) * normal(runs, k + 1, seed=seed)
    ask = lambda row: likelihood_ratio(row[0], se, expected=expected, spread=spread, references={"clean": row[1:]})
    return np.array([ask(row).weight.log_lr for row in data])


@pytest.mark.parametrize(("expected", "spread", "k"), [(4, 1.5, 3), (4, 1.5, 10), (2, 0.5, 10), (0, 1, 10), (1, 0, 5)])
def test_misleading_evidence_of_a_size_is_rarer_than_its_inverse(expected: float, spread: float, k: int) -> None:
    found = simulated(expected, spread, 0.2, k, 1_000, seed=k)
    for beyond in (3, 10, 2 * k + 1):
        assert np.mean(found >= math.log(beyond)) <= 1 / beyond


def test_the_mean_ratio_under_the_null_is_below_one_where_the_claim_is_elsewhere_and_not_far_above_within() -> None:
    mean = lambda log_lrs, k: np.mean([weigh(x, k).value for x in log_lrs])
    assert mean(simulated(4, 1.5, 0.2, 10, 1_000, seed=1), 10) < 0.7
    within = mean(simulated(0, 1, 0.2, 10, 2_000, seed=2), 10)
    assert 1.1 < within < 1.4  # an estimated null is no e-value, as the docstring says


def test_with_a_known_null_the_mean_ratio_is_one() -> None:
    known = {"clean": spread_like(0, 1, 3_000)}
    ratios = [
        math.exp(likelihood_ratio(d, 0, expected=0.5, spread=0.8, references=known).weight.log_lr)
        for d in normal(1_500)
    ]
    assert np.mean(ratios) == pytest.approx(1, abs=3 * np.std(ratios) / math.sqrt(1_500))
    assert 0.01 < np.std(ratios) / math.sqrt(1_500) < 0.05  # the check has teeth


@pytest.mark.parametrize("k", [2, 10])
def test_the_reference_e_value_has_mean_one_whatever_the_distribution(k: int) -> None:
    for draw in (lambda rng: rng.normal(size=k + 1), lambda rng: rng.standard_cauchy(k + 1)):
        rng = np.random.default_rng(k)
        rows = [draw(rng) for _ in range(2_000)]
        found = np.array([reference_e(r[0], 0.1, expected=3, spread=1, reference=r[1:]) for r in rows])
        assert found.max() <= k + 1 and found.max() > 0.9 * (k + 1)
        assert found.mean() == pytest.approx(1, abs=4 * found.std() / math.sqrt(2_000))
    assert reference_e(3, 0.1, expected=3, spread=0.1, reference=np.zeros(9)) == pytest.approx(10)


# ── indicators ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_binary_figures_of_the_spec() -> None:
    perfect, nearly = binary_ratio(20, 20, 0, 20), binary_ratio(19, 20, 1, 20)
    assert perfect.value == pytest.approx(41) and nearly.value == pytest.approx(13)
    assert perfect.low == pytest.approx(10.8, abs=0.05)
    assert perfect.high == pytest.approx(10_050, rel=0.005)  # the spec has 9,800, which is within the error of draws
    assert (nearly.low, nearly.high) == pytest.approx((5.14, 104.8), rel=0.005)


def test_the_binary_interval_is_the_posterior_s() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.beta(7.5, 3.5, 200_000) / rng.beta(2.5, 12.5, 200_000)
    found = binary_ratio(7, 10, 2, 14, level=0.8)
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.1, 0.9]), rel=0.01)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30), st.integers(1, 30))
def test_swapping_the_hypotheses_inverts_the_binary_ratio(h: int, f: int, n1: int, n0: int) -> None:
    h, f = min(h, n1), min(f, n0)
    a, b = binary_ratio(h, n1, f, n0), binary_ratio(f, n0, h, n1)
    assert a.value == pytest.approx(1 / b.value)
    assert (a.low, a.high) == pytest.approx((1 / b.high, 1 / b.low), rel=0.02)
    assert a.low < a.high
    if n1 == n0:
        assert 1 / (2 * n1 + 1) <= a.value * (1 + 1e-12) and a.value <= (2 * n1 + 1) * (1 + 1e-12)


# ── scores to ratios ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_calibration_is_scikit_learn_s_without_the_prior() -> None:
    planted, other = normal(30) + 2, normal(12, seed=1)
    x = np.concatenate([planted, other])
    z = (x - x.mean()) / x.std()
    peer = LogisticRegression(C=1 / 0.7, tol=1e-10).fit(z[:, None], np.repeat([1, 0], [30, 12]))
    line = calibrate(planted, other, ridge=0.7)
    assert line.log_lrs(x) == pytest.approx(peer.decision_function(z[:, None]) - math.log(30 / 12), abs=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 12), st.integers(2, 12), st.floats(0.1, 5), st.floats(-9, 9), st.integers(0, 99))
def test_calibration_is_odd_and_has_no_unit(n1: int, n0: int, by: float, shift: float, seed: int) -> None:
    planted, other, at = normal(n1, seed=seed) + 1, normal(n0, seed=seed + 100), normal(5)
    line = calibrate(planted, other)
    assert calibrate(other, planted).log_lrs(at) == pytest.approx(-line.log_lrs(at), abs=1e-5)
    for scale in (by, -by):
        moved = calibrate(scale * planted + shift, scale * other + shift)
        assert moved.log_lrs(scale * at + shift) == pytest.approx(line.log_lrs(at), abs=1e-5)


def test_more_ridge_says_less_and_perfect_twins_stay_finite() -> None:
    planted, other = normal(10) + 30, normal(10, seed=1)
    said = [abs(score_ratio(35, planted, other, ridge=r).log_lr) for r in (0.01, 0.1, 1, 10, 1e6)]
    assert np.all(np.diff(said) < 0) and said[-1] < 1e-3
    assert score_ratio(1e6, planted, other).value == pytest.approx(21)
    assert score_ratio(-1e6, planted, other[:4]).value == pytest.approx(1 / 9)
    assert score_ratio(35, planted, other, transfer=0).band == PROCEDURE_CHECK
    with pytest.raises(BadData, match="the twins separate"):
        calibrate(planted, other, ridge=0)


def test_many_twins_give_the_true_ratio() -> None:
    # N(±1, 1): the true log ratio is twice the score.
    line = calibrate(normal(20_000) + 1, normal(4_000, seed=1) - 1)
    assert line.log_lrs([-2, 0, 2]) == pytest.approx([-4, 0, 4], abs=0.25)


def test_a_held_out_model_and_its_twin_do_not_calibrate_themselves() -> None:
    scores, labels, seeds = np.append(normal(12), normal(12) + 1), np.repeat([0, 1], 12), np.tile(np.arange(12), 2)
    found = held_out_ratios(scores, labels, seeds)
    rest = seeds != 3
    line = calibrate(scores[rest & (labels == 1)], scores[rest & (labels == 0)])
    assert found[seeds == 3] == pytest.approx(line.log_lrs(scores[seeds == 3]))
    scores[3] += 1
    changed = held_out_ratios(scores, labels, seeds)
    assert changed[15] == found[15] and np.all(changed[rest] != found[rest])
    far = held_out_ratios(np.append(normal(4), normal(4) + 99), np.repeat([0, 1], 4), np.tile(range(4), 2), ridge=1e-6)
    assert np.abs(far) == pytest.approx(np.full(8, math.log(7)))


def test_held_out_ratios_are_calibrated() -> None:
    costs = []
    for seed in range(12):
        labels, seeds = np.repeat([0, 1], 15), np.tile(np.arange(15), 2)
        found = held_out_ratios(normal(30, seed=seed) + 2 * labels, labels, seeds)
        costs.append((cllr(found[15:], found[:15]), cllr_min(found[15:], found[:15])))
    cost, least = np.mean(costs, axis=0)
    assert least < cost < 0.75 and cost < 1  # the true ratios cost .51
    noise = [held_out_ratios(normal(30, seed=s), np.repeat([0, 1], 15), np.tile(range(15), 2)) for s in range(12)]
    assert np.mean([cllr(x[15:], x[:15]) for x in noise]) == pytest.approx(1, abs=0.12)


# ── C_llr ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cllr_of_nothing_of_everything_and_by_hand() -> None:
    assert cllr([0, 0, 0], [0]) == 1
    assert cllr([800], [-800]) == pytest.approx(0)
    assert cllr([-800], [800]) == pytest.approx(800 / math.log(2))
    expected = (math.log2(1 + 1 / 4) + (math.log2(1 + 1 / 2) + math.log2(1 + 8)) / 2) / 2
    assert cllr([math.log(4)], [math.log(1 / 2), math.log(8)]) == pytest.approx(expected)


@given(samples, samples)
def test_least_cost_is_below_cost_below_one_and_sees_only_the_order(ones: list[float], zeros: list[float]) -> None:
    least = cllr_min(ones, zeros)
    assert -1e-12 <= least <= min(1, cllr(ones, zeros)) + 1e-9
    assert cllr(ones, zeros) == pytest.approx(cllr(np.negative(zeros), np.negative(ones)))
    assert least == pytest.approx(cllr_min(np.negative(zeros), np.negative(ones)))
    assert least == pytest.approx(cllr_min(np.multiply(ones, 3) + 1, np.multiply(zeros, 3) + 1))
    assert least == pytest.approx(cllr_min(ones * 3, zeros))  # each kind counts half, however many


def test_pooling_by_hand() -> None:
    assert cllr_min([1, 2], [-1, 0]) == 0
    assert cllr_min([-1], [1]) == pytest.approx(1)  # turned round, and no rising map can turn it back
    assert cllr_min([5, 5], [5]) == pytest.approx(1)
    # By rising value: other, planted, other, planted. The middle two pool to an even share, the ends are free.
    assert cllr_min([1, 3], [0, 2]) == pytest.approx(0.5)


def test_least_cost_is_reached_by_no_other_rising_map() -> None:
    ones, zeros = normal(6) + 0.7, normal(5, seed=1)
    x = np.sort(np.concatenate([ones, zeros]))
    least = cllr_min(ones, zeros)
    tried = []
    for cuts in itertools.combinations(range(1, len(x)), 3):  # every map with four levels at their best values
        places = [np.searchsorted(x[list(cuts)], v, side="right") for v in (ones, zeros)]
        up, down = (np.bincount(p, minlength=4) / len(p) for p in places)
        lr = np.log(np.maximum(up, 1e-300)) - np.log(np.maximum(down, 1e-300))
        if np.all(np.diff(lr) >= 0):
            tried.append(cllr(lr[places[0]], lr[places[1]]))
    assert len(tried) > 5 and least <= min(tried) + 1e-9


def test_misleading_rates_count_the_wrong_sign_on_each_side() -> None:
    found = misleading([-3, 0, 1, 2], [-1, 0.1, 3, 0])
    assert found.planted == clopper_pearson(1, 4) and found.other == clopper_pearson(2, 4)
    strong = misleading([-3, 0, 1, 2], [-1, 0.1, 3, 0], beyond=10)
    assert (strong.planted.value, strong.other.value) == (1 / 4, 1 / 4)


# ── separation of twins ───────────────────────────────────────────────────────────────────────────────────────────────


def test_perfect_separation_of_ten_and_ten() -> None:
    found = separation(normal(10) + 20, normal(10, seed=1))
    assert found.p == 1 / 184_756
    assert found.sensitivity == clopper_pearson(10, 10) and found.sensitivity.low == pytest.approx(0.692, abs=5e-4)
    assert found.auroc.value == 1 and found.auroc.low < 0.75


def test_the_exact_p_is_a_permutation_s() -> None:
    found = separation([5, 6, 7], [1, 2, 3, 4])
    above = [min(c) > max(set(range(7)) - set(c)) for c in itertools.combinations(range(7), 3)]
    assert found.p == pytest.approx(np.mean(above))


def test_imperfect_separation_is_a_bootstrap_over_models() -> None:
    found = separation(normal(20) + 1, normal(20, seed=1))
    assert found.p is None and found.sensitivity is None
    assert found.auroc.low < found.auroc.value < found.auroc.high < 1
    turned = separation([1, 2, 3], [4, 5, 6])
    assert turned.auroc.value == 0 and turned.p is None


def test_models_needed_to_claim_a_rate() -> None:
    assert models_needed(0.05) == 59 and models_needed(0.05, alarms=1) == 93
    for rate, alarms in itertools.product((0.01, 0.1, 0.5), (0, 1, 4)):
        n = models_needed(rate, alarms=alarms)
        assert clopper_pearson(alarms, n, level=0.9).high <= rate  # one-sided .95
        assert n == alarms + 1 or clopper_pearson(alarms, n - 1, level=0.9).high > rate


# ── e-values ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_e_values_by_hand() -> None:
    assert average_e([0, 4, 8]) == 4 and average_e([0, 4, 8], [0, 0, 5]) == 8
    assert sequential_product([2, 0.5, 8]).tolist() == [2, 1, 8]
    # m = 4, alpha .1: the k-th largest must reach 40, 20, 13.3, 10.
    assert e_bh([39, 19, 14, 1], alpha=0.1).tolist() == [True, True, True, False]
    assert e_bh([39, 19, 13, 9], alpha=0.1).tolist() == [False] * 4
    assert e_bh([1, 40, 0, 3], alpha=0.1).tolist() == [False, True, False, False]
    assert e_bh([10, 10, 10, 10], alpha=0.1).all()


def test_dependence_breaks_the_product_and_not_the_mean() -> None:
    e = np.exp(2 * normal(4_000) - 2)  # N(2, 1) against N(0, 1); mean 1
    copies = np.column_stack([e, e, e])
    averaged = np.array([average_e(row) for row in copies])
    product = np.array([sequential_product(row)[-1] for row in copies])
    assert np.mean(averaged >= 10) <= 1 / 10
    assert product.mean() > 100


def test_a_sequential_process_rarely_ever_crosses() -> None:
    paths = np.exp(normal(2_000, 40) * 0.5 - 0.125)
    assert 0.01 < np.mean([sequential_product(p).max() >= 20 for p in paths]) <= 0.05


def test_e_bh_holds_the_false_discovery_rate_under_dependence() -> None:
    lost = []
    for z in normal(2_000, 11):
        x = 0.8 * z[0] + 0.6 * z[1:] + np.repeat([4, 0], [3, 7])
        rejected = e_bh(np.exp(3 * x - 4.5), alpha=0.2)
        lost.append(rejected[3:].sum() / max(1, rejected.sum()))
    assert 0 < np.mean(lost) <= 0.2


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=8), st.floats(0.01, 0.3), st.randoms())
def test_e_bh_is_monotone_and_follows_relabelling(es: list[float], alpha: float, random: object) -> None:
    rejected = e_bh(es, alpha=alpha)
    assert np.all(e_bh(np.array(es) * 2, alpha=alpha) >= rejected)
    assert np.all(e_bh(es, alpha=min(0.9, 2 * alpha)) >= rejected)
    assert np.all(rejected >= (np.array(es) >= len(es) / alpha))  # never worse than Bonferroni
    order = list(range(len(es)))
    random.shuffle(order)
    assert e_bh(np.array(es)[order], alpha=alpha).tolist() == rejected[order].tolist()


# ── onset ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

STEPS = np.arange(0, 500, 50)


def rising(units: int, at: float, seed: int, own: float = 120) -> Array:
    """Each unit crosses .5 around step ``at``; the population mean does at ``at``."""
    crossing = at + own * normal(units, 1, seed=seed)
    return 1 / (1 + np.exp(-(STEPS - crossing) / 30)) + 0.3 * normal(units, len(STEPS), seed=seed + 10_000)


def test_onset_without_noise() -> None:
    values = np.tile([0.1, 0.9, 0.2, 0.8, 0.9], (4, 1))
    found = onset([0, 10, 20, 40, 80], values, above=0.5)
    assert (found.step, found.after, found.low, found.high) == (40, 20, 20, 40)  # the early crossing did not hold
    last = onset([0, 10, 20, 40, 80], values, above=0.9)  # it holds at the last alone
    assert last.step is None and last.after == 40
    assert onset([0, 10, 20, 40, 80], values, above=0.9, hold=1).step == 80
    never, always = (onset([0, 10, 20, 40, 80], values, above=a) for a in (2, 0))
    assert (never.step, never.after, never.low, never.high) == (None, 80, 80, None)
    assert (always.step, always.after, always.low, always.high) == (0, None, None, 0)
    assert onset([0, 10, 20], np.full((10, 3), 0.1), above=0.1).step == 0  # rounding of a mean is no failure


def test_the_onset_interval_covers() -> None:
    runs = [onset(STEPS, rising(15, 222, seed), above=0.5, draws=300, seed=seed) for seed in range(200)]
    hits = [(r.low is None or r.low < 222) and (r.high is None or r.high >= 222) for r in runs]
    assert np.mean(hits) >= 0.92
    widths = [(500 if r.high is None else r.high) - (0 if r.low is None else r.low) for r in runs]
    assert np.mean(widths) < 300


def test_onset_resamples_whole_clusters_by_its_seed() -> None:
    values, clusters = np.repeat(rising(6, 222, 3, own=40), 5, axis=0), np.repeat(np.arange(6), 5)
    one, loose = onset(STEPS, values, above=0.5, clusters=clusters), onset(STEPS, values, above=0.5)
    assert one.n == 6 and loose.n == 30
    assert one == onset(STEPS, values[::5], above=0.5)
    assert one == onset(STEPS, values, above=0.5, clusters=clusters)
    assert one.high - one.low > loose.high - loose.low


# ── what is refused, and what is kept ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: example(references={}), "a likelihood ratio needs an alternative"),
        (lambda: example(references={"clean": [0.1]}), "a null from the models of clean needs two independent units"),
        (lambda: example(references={"clean": [0.1, math.nan]}), "1 of 2 effects of clean are NaN"),
        (lambda: example(spread=-1), "se=0.005, spread=-1.0: one is negative"),
        (lambda: example(expected=math.inf), "1 of 4 effect, se, expected and spread are NaN or infinite"),
        (lambda: example(transfer=1.1), "transfer=1.1 is outside [0, 1]"),
        (lambda: example(planted=0), "n=0 reference models"),
        (
            lambda: likelihood_ratio(1, 0, expected=1, spread=1, references={"c": [0.1] * 3}),
            "the models of c are all at 0.1, and se is 0",
        ),
        (lambda: likelihood_ratio(1, 0, expected=1, spread=0, references={"c": [0, 1]}), "se and spread are both 0"),
        (lambda: weigh(math.inf, 3), "log_lr=inf is not finite"),
        (lambda: reference_e(1, 0, expected=1, spread=0, reference=[1]), "se=0, spread=0 give no density"),
        (lambda: binary_ratio(3, 2, 0, 1), "3 of 2 is no proportion"),
        (lambda: binary_ratio(1, 2, 0, 0), "0 of 0 is no proportion"),
        (lambda: average_e([-1.0]), "an e-value of -1 is negative"),
        (lambda: average_e([1.0], [0.0]), "weights are negative, or all 0"),
        (lambda: average_e([1.0, 2.0], [1.0]), "1 weights for 2"),
        (lambda: sequential_product([1e200] * 2), "the product is too large"),
        (lambda: e_bh([1.0], alpha=5), "alpha=5 is not between 0 and 1"),
        (lambda: calibrate([1.0, 1.0], [1.0, 1.0]), "every score is 1"),
        (lambda: calibrate([1.0], [1.0, 2.0]), "a calibration, in each kind, needs two"),
        (lambda: calibrate([1.0, 2.0], [1.0, 2.0], ridge=-1), "ridge=-1 is no penalty"),
        (lambda: held_out_ratios([1.0, 2.0], [0, 1], [0, 0]), "holding out seeds needs two"),
        (lambda: held_out_ratios([1.0, 2.0], [0, 2], [0, 1]), "labels hold [0.0, 2.0]"),
        (lambda: cllr([], [1.0]), "planted log ratios are empty"),
        (lambda: cllr_min([1.0], [math.nan]), "1 of 1 other log ratios are NaN"),
        (lambda: misleading([1.0], [1.0], beyond=0.5), "beyond=0.5 is no ratio"),
        (lambda: separation([1.0], [math.inf]), "1 of 1 clean scores are NaN"),
        (lambda: models_needed(5), "rate=5 is not between 0 and 1"),
        (lambda: onset([1, 2], np.ones((3, 2)), above=0), "an onset that holds for 2 checkpoints needs 3"),
        (lambda: onset([1, 3, 2], np.ones((3, 3)), above=0), "steps=[1.0, 3.0, 2.0] do not rise"),
        (lambda: onset([1, 2, 3], np.ones((3, 2)), above=0), "2 columns for 3 steps"),
        (lambda: onset([1, 2, 3], np.ones((1, 3)), above=0), "an onset's interval needs two"),
    ],
)
def test_what_cannot_be_computed_is_one_typed_error(call: object, message: str) -> None:
    with pytest.raises((BadData, EmptyData)) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_results_are_plain_numbers_that_survive_json() -> None:
    labels = np.repeat([0, 1], 5)
    for result in (
        example(references={"a": normal(4), "b": normal(5)}, planted=np.int64(7), transfer=np.float64(0.5)),
        score_ratio(np.float64(1), normal(5) + 1, normal(5)),
        binary_ratio(np.int64(3), 5, 0, 5),
        calibrate(normal(5) + 1, normal(5)),
        misleading(normal(5), normal(5)),
        separation(normal(5) + 9, normal(5)),
        onset(STEPS, rising(5, 200, 0), above=0.5),
    ):
        assert "np." not in repr(result)
        json.dumps(asdict(result), allow_nan=False)
    assert isinstance(cllr_min(held_out_ratios(normal(10), labels, np.tile(range(5), 2)), [0.0]), float)
