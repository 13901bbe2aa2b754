"""Each statistic against enumeration by hand, against scipy or scikit-learn, and against its own laws."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score

from assay.errors import BadData, EmptyData, OneClass
from assay.stats import (
    Array,
    Statistic,
    auroc,
    auroc_interval,
    bootstrap_interval,
    clopper_pearson,
    dose_response,
    dose_slopes,
    equivalence_p,
    holm,
    items_needed,
    least_draws,
    max_statistic_p,
    minimum_detectable_effect,
    paired_effect,
    permutation_p,
    sign_flip_p,
    weighted_mean,
)
from assay.stats.effects import _bca

numbers = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))
samples = st.lists(numbers, min_size=1, max_size=12)
tails = st.sampled_from(["greater", "two-sided", "mirrored"])


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([20, seed]).normal(size=shape)


def within(share: float, of: float, n: int) -> bool:
    """Whether a share of n trials agrees with its expectation, to three standard errors."""
    return abs(share - of) <= 3 * math.sqrt(of * (1 - of) / n)


# ── permutation p ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_permutation_p_counts_ties_and_itself() -> None:
    null = [-3, 0, 1, 2, 2]
    assert permutation_p(2, null) == 3 / 6
    assert permutation_p(9, null) == 1 / 6
    assert permutation_p(-9, null) == 1
    assert permutation_p(2.5, null, "two-sided") == 2 / 6
    assert permutation_p(2.5, null, "mirrored") == 2 / 12  # 2.5 itself, and the 3 that is -3 turned
    assert permutation_p(9, null, "mirrored") == 1 / 12
    assert permutation_p(-9, null, "mirrored") == 1


@given(numbers, samples, tails)
def test_permutation_p_is_a_probability_and_never_zero(observed: float, null: list[float], tail: str) -> None:
    assert 1 / (2 * len(null) + 2) <= permutation_p(observed, null, tail) <= 1


@given(numbers, numbers, samples)
def test_permutation_p_falls_as_the_statistic_rises(a: float, b: float, null: list[float]) -> None:
    low, high = sorted((a, b))
    for tail in ("greater", "mirrored"):
        assert permutation_p(high, null, tail) <= permutation_p(low, null, tail)


@given(numbers, samples, tails, st.randoms())
def test_permutation_p_does_not_depend_on_the_order_of_draws(
    observed: float, null: list[float], tail: str, random: object
) -> None:
    shuffled = null.copy()
    random.shuffle(shuffled)
    assert permutation_p(observed, shuffled, tail) == permutation_p(observed, null, tail)


@given(numbers, samples)
def test_two_sided_ignores_the_sign(observed: float, null: list[float]) -> None:
    assert permutation_p(observed, null, "two-sided") == permutation_p(-observed, np.negative(null), "two-sided")


@pytest.mark.parametrize("tail", ["greater", "two-sided", "mirrored"])
def test_permutation_p_is_uniform_under_the_null(tail: str) -> None:
    # With 19 draws p takes 20 values (40 if mirrored), each equally likely.
    ps = [permutation_p(row[0], row[1:], tail) for row in normal(4_000, 20)]
    cells = 40 if tail == "mirrored" else 20
    counts = np.bincount(np.rint(np.array(ps) * cells).astype(int), minlength=cells + 1)[1:]
    assert counts.sum() == 4_000
    assert scipy_stats.chisquare(counts).pvalue > 0.001


def test_least_draws_is_the_edge_of_what_a_p_can_reach() -> None:
    assert (least_draws(), least_draws(tail="mirrored"), least_draws(0.01), least_draws(0.9)) == (19, 9, 99, 1)
    for tail in ("greater", "mirrored"):
        for alpha in (0.05, 0.1, 0.013):
            n = least_draws(alpha, tail)
            assert permutation_p(9, [0] * n, tail) <= alpha < permutation_p(9, [0] * (n - 1), tail)


# ── the search over cells ─────────────────────────────────────────────────────────────────────────────────────────────


def test_max_statistic_by_hand() -> None:
    null = [[1, 5], [4, 0], [2, 2]]  # the largest cells: 5, 4, 2
    assert max_statistic_p([3, 6], null, scaled=False).tolist() == [3 / 4, 1 / 4]
    assert max_statistic_p([3, 3], null, scaled=False).tolist() == [3 / 4, 3 / 4]
    assert max_statistic_p([-6, 1], [[-1, 0]], "two-sided", scaled=False).tolist() == [1 / 2, 1]


def test_max_statistic_of_one_cell_is_permutation_p() -> None:
    data = normal(30)
    for tail, scaled in itertools.product(("greater", "two-sided", "mirrored"), (False, True)):
        adjusted = max_statistic_p(data[:1], data[1:, None], tail, scaled=scaled)
        assert adjusted == permutation_p(data[0], data[1:], tail)


@pytest.mark.parametrize("tail", ["greater", "two-sided", "mirrored"])
def test_max_statistic_holds_its_level_over_a_search_that_would_break_a_single_p(tail: str) -> None:
    cells = normal(1_500, 40, 8) * np.geomspace(1, 100, 8) + normal(1_500, 40, 1, seed=1)
    adjusted = np.array([max_statistic_p(trial[0], trial[1:], tail).min() <= 0.05 for trial in cells])
    picked = np.array([min(permutation_p(c[0], c[1:], tail) for c in trial.T) <= 0.05 for trial in cells[:300]])
    assert within(adjusted.mean(), 0.05, 1_500)
    assert picked.mean() > 0.2


def test_scaling_lets_a_quiet_cell_be_heard() -> None:
    null = normal(99, 2) * [1, 1_000]
    assert max_statistic_p([6, 0], null)[0] == 0.01
    assert max_statistic_p([6, 0], null, scaled=False)[0] > 0.4
    assert max_statistic_p([0, 0], np.zeros((9, 2))).tolist() == [1, 1]


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 99))
def test_max_statistic_never_goes_below_the_single_cell(cells: int, draws: int, seed: int) -> None:
    data = normal(draws + 1, cells, seed=seed)
    alone = [permutation_p(column[0], column[1:]) for column in data.T]
    assert np.all(max_statistic_p(data[0], data[1:], scaled=False) >= alone)


# ── sign flips and effects ────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(numbers, min_size=1, max_size=7))
def test_sign_flips_are_enumerated(values: list[float]) -> None:
    flipped = [np.dot(signs, values) for signs in itertools.product((1, -1), repeat=len(values))]
    assert sign_flip_p(values, tail="greater") == np.mean(np.array(flipped) >= sum(values) - 1e-9)


def test_sign_flips_agree_with_scipy_and_with_their_own_draws() -> None:
    values = normal(10) + 0.4
    peer = scipy_stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(values) == pytest.approx(peer.pvalue)
    assert sign_flip_p(values, draws=2**10 - 1) == sign_flip_p(values)
    assert sign_flip_p(values, draws=900) == pytest.approx(peer.pvalue, abs=0.05)
    assert sign_flip_p(values, draws=900) == sign_flip_p(values, draws=900)
    assert sign_flip_p(values, draws=900) != sign_flip_p(values, draws=900, seed=1)


def test_sign_flips_turn_whole_clusters() -> None:
    values, clusters = [1, 2, 3, 4, 5, 6], list("aabbcc")
    assert sign_flip_p(values, clusters, tail="greater") == 1 / 8
    assert sign_flip_p(values, clusters) == 2 / 8
    assert sign_flip_p([0.0, 0.0]) == 1
    assert sign_flip_p(np.ones(40), tail="greater", draws=99) == 1 / 100
    assert sign_flip_p([1.0, -1.0], tail="greater") == 3 / 4


def test_sign_flips_hold_their_level_under_clusters_where_a_naive_test_does_not() -> None:
    clusters = np.repeat(np.arange(12), 5)
    trials = [normal(12, seed=i)[clusters] + normal(60, seed=10_000 + i) for i in range(600)]
    share = np.mean([sign_flip_p(t, clusters) <= 0.05 for t in trials])
    naive = np.mean([scipy_stats.ttest_1samp(t, 0).pvalue <= 0.05 for t in trials])
    assert within(share, 0.05, 600)
    assert naive > 0.2


def test_paired_effect_without_clusters_is_the_t_interval() -> None:
    values = normal(17) + 1
    effect = paired_effect(values)
    peer = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (effect.interval.low, effect.interval.high) == pytest.approx((peer.low, peer.high))
    assert effect.se == pytest.approx(scipy_stats.sem(values))
    assert effect.interval.n == 17


def test_paired_effect_with_equal_clusters_is_that_of_the_cluster_means() -> None:
    values, clusters = normal(24), np.repeat(np.arange(6), 4)
    of_means = paired_effect(values.reshape(6, 4).mean(axis=1))
    found = paired_effect(values, clusters)
    assert (found.value, found.se) == pytest.approx((of_means.value, of_means.se))
    assert found.interval.n == 6


def test_paired_effect_with_unequal_clusters_by_hand() -> None:
    # Mean 3; residual sums -3, 1 and 2 of three clusters: sqrt(3/2 * (9 + 1 + 4)) / 4.
    found = paired_effect([0, 4, 3, 5], ["a", "b", "c", "c"])
    assert (found.value, found.se) == pytest.approx((3, math.sqrt(3 / 2 * (9 + 1 + 4)) / 4))


# ── bootstrap ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def variance(values: Array, weights: Array) -> Array:
    return weighted_mean(values**2, weights) - weighted_mean(values, weights) ** 2


@pytest.mark.parametrize(("ours", "theirs"), [(weighted_mean, np.mean), (variance, np.var)])
def test_bca_agrees_with_scipy_once_there_are_many_items(ours: Statistic, theirs: object) -> None:
    values = np.random.default_rng(3).exponential(size=200)
    found = bootstrap_interval(values, ours, draws=8_000)
    peer = scipy_stats.bootstrap((values,), theirs, n_resamples=8_000, rng=0).confidence_interval
    plain = bootstrap_interval(values, ours, draws=8_000, method="percentile")
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high), abs=0.05 * (peer.high - peer.low))
    assert found.low > plain.low and found.high > plain.high  # moved towards the long tail


def test_bca_shifts_twice_the_bias_and_stretches_by_the_skew() -> None:
    z, b = np.array([-1.0, 1.0]), scipy_stats.norm.ppf(0.75)  # three draws in four lie below the estimate
    drawn = np.array([0.0, 0.0, 0.0, 1.0])
    assert _bca(z, 0.5, drawn, np.array([-1.0, 1.0])) == pytest.approx(2 * b + z)
    a = (-8 + 1 + 1) / (6 * (4 + 1 + 1) ** 1.5)  # of the jackknife values 2, -1, -1
    assert _bca(z, 0.5, drawn, np.array([2.0, -1.0, -1.0])) == pytest.approx(b + (b + z) / (1 - a * (b + z)))


def test_with_few_items_the_bootstrap_is_as_wide_as_the_t_interval() -> None:
    values = scipy_stats.norm.ppf((np.arange(8) + 0.5) / 8)
    found, t = bootstrap_interval(values, draws=8_000, method="percentile"), paired_effect(values).interval
    assert found.high - found.low == pytest.approx(t.high - t.low, rel=0.04)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_bootstrap_covers_as_often_as_it_says(method: str) -> None:
    hits = [bootstrap_interval(normal(15, seed=i), draws=600, seed=i, method=method) for i in range(500)]
    assert within(np.mean([not found.excludes(0) for found in hits]), 0.95, 500)


def test_cluster_bootstrap_covers_where_an_item_bootstrap_does_not() -> None:
    clusters = np.repeat(np.arange(15), 4)
    trials = [normal(15, seed=i)[clusters] + 0.5 * normal(60, seed=10_000 + i) for i in range(300)]
    kept = [not bootstrap_interval(t, clusters=clusters, draws=500, seed=i).excludes() for i, t in enumerate(trials)]
    naive = [not bootstrap_interval(t, draws=500, seed=i).excludes() for i, t in enumerate(trials)]
    assert within(np.mean(kept), 0.95, 300)
    assert np.mean(naive) < 0.85


def test_bootstrap_takes_any_weighted_statistic() -> None:
    pairs = np.column_stack([normal(80) + 4, normal(80, seed=1) + 2])
    found = bootstrap_interval(pairs, lambda v, w: (w @ v[:, 0]) / (w @ v[:, 1]))
    assert found.value == pytest.approx(pairs[:, 0].mean() / pairs[:, 1].mean())
    assert found.low < 2 < found.high
    with pytest.raises(BadData, match="undefined in"):
        bootstrap_interval(normal(9), lambda v, w: np.where(w[:, 0] > 0, w @ v, np.nan))


def test_bootstrap_is_the_same_in_small_blocks_and_by_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = normal(30)
    whole = bootstrap_interval(values)
    assert bootstrap_interval(values) == whole
    assert bootstrap_interval(values, seed=1) != whole
    monkeypatch.setattr("assay.stats.values._BLOCK", 400)
    assert asdict(bootstrap_interval(values)) == pytest.approx(asdict(whole))


@given(st.integers(0, 10**6), st.floats(0.5, 4), st.floats(-9, 9))
def test_bootstrap_moves_with_the_values(seed: int, scale: float, shift: float) -> None:
    values = normal(12, seed=seed)
    a, b = bootstrap_interval(values, draws=200), bootstrap_interval(scale * values + shift, draws=200)
    assert a.low <= a.value <= a.high
    assert (b.low, b.high) == pytest.approx((scale * a.low + shift, scale * a.high + shift), abs=1e-9)


def test_few_or_constant_units_are_said_honestly() -> None:
    for few in ({}, {"clusters": ["a"]}):
        with pytest.raises(EmptyData, match="two independent units"):
            bootstrap_interval([1.0], **few)
        with pytest.raises(EmptyData, match="two independent units"):
            paired_effect([1.0], **few)
    with pytest.raises(EmptyData, match="in each stratum"):
        bootstrap_interval([1.0, 2.0, 3.0], strata=[0, 0, 1])
    for same in ([2.0, 2.0], [0.1] * 3, [0.1] * 13, [0.0, 0.0]):
        assert bootstrap_interval(same).method == "constant"
        assert paired_effect(same).se == 0
    two = bootstrap_interval([0.0, 1.0])
    assert (two.low, two.high) == (0, 1)


# ── proportions and ranking ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("n", "high"), [(10, 0.308), (20, 0.168), (50, 0.071), (100, 0.036)])
def test_clopper_pearson_of_no_event(n: int, high: float) -> None:
    found = clopper_pearson(0, n)
    assert found.low == 0
    assert found.high == pytest.approx(high, abs=5e-4)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / n))


def test_clopper_pearson_inverts_the_binomial_test() -> None:
    found = clopper_pearson(7, 20, level=0.9)
    assert scipy_stats.binom.cdf(7, 20, found.high) == pytest.approx(0.05)
    assert scipy_stats.binom.sf(6, 20, found.low) == pytest.approx(0.05)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_auroc_agrees_with_scikit_learn_with_ties(rows: list[tuple[int, bool]]) -> None:
    scores, labels = zip(*rows, strict=True)
    if len(set(labels)) == 1:
        with pytest.raises(OneClass, match="labels are"):
            auroc(scores, labels)
        return
    area = auroc(scores, labels)
    assert area == pytest.approx(roc_auc_score(labels, scores))
    assert auroc(np.negative(scores), labels) == pytest.approx(1 - area)
    assert auroc(np.exp(scores), labels) == pytest.approx(area)


def test_auroc_by_hand() -> None:
    assert auroc([1, 2, 2, 3], [0, 0, 1, 1]) == 3.5 / 4


def test_auroc_interval_covers() -> None:
    truth, labels = scipy_stats.norm.cdf(1 / math.sqrt(2)), np.repeat([0, 1], 25)
    found = [auroc_interval(normal(50, seed=i) + labels, labels, draws=400, seed=i) for i in range(250)]
    assert within(np.mean([not f.excludes(truth) for f in found]), 0.95, 250)


def test_auroc_interval_takes_clusters_of_one_class_and_of_both() -> None:
    labels = np.tile([0, 1], 30)
    scores = np.repeat(normal(30), 2) + 0.5 * labels + 0.1 * normal(60, seed=1)
    paired = auroc_interval(scores, labels, clusters=np.repeat(np.arange(30), 2))
    loose = auroc_interval(scores, labels)
    assert paired.n == 30 and loose.n == 60
    assert paired.high - paired.low < loose.high - loose.low  # within a pair the shared part cancels
    with pytest.raises(EmptyData, match="in each stratum"):
        auroc_interval([1, 2, 3, 0, 1.5], [1, 1, 1, 0, 0], clusters=["a", "a", "a", "b", "c"])


def test_perfect_separation_is_not_certainty() -> None:
    found = auroc_interval([1, 2, 3, 11, 12, 13, 14], [0, 0, 0, 1, 1, 1, 1])
    assert (found.value, found.high, found.n) == (1, 1, 3)
    assert found.low == pytest.approx(0.025 ** (1 / 3))
    turned = auroc_interval([11, 12, 13, 1, 2, 3], [0, 0, 0, 1, 1, 1])
    assert (turned.value, turned.low, turned.high) == pytest.approx((0, 0, 1 - 0.025 ** (1 / 3)))
    both = auroc_interval([0, 1, 0, 1, 0, 1, 0, 1], [0, 1] * 4, clusters=[0, 0, 1, 1, 2, 2, 3, 3])
    assert both.n == 2


# ── several tests, and planning ───────────────────────────────────────────────────────────────────────────────────────


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_never_lowers_keeps_the_order_and_follows_relabelling(ps: list[float], random: object) -> None:
    adjusted = holm(ps)
    assert np.all(adjusted >= ps) and adjusted.max() <= 1
    assert np.all(adjusted <= np.minimum(1, len(ps) * np.array(ps)) + 1e-15)  # never worse than Bonferroni
    assert np.all(np.diff(adjusted[np.argsort(ps)]) >= 0)
    order = list(range(len(ps)))
    random.shuffle(order)
    assert holm(np.array(ps)[order]) == pytest.approx(adjusted[order])


def test_equivalence_is_the_larger_of_two_one_sided_tests() -> None:
    values = normal(20) * 0.5 + 0.1
    sides = (
        scipy_stats.ttest_1samp(values, -0.6, alternative="greater").pvalue,
        scipy_stats.ttest_1samp(values, 0.6, alternative="less").pvalue,
    )
    assert equivalence_p(values, 0.6) == pytest.approx(max(sides))
    assert equivalence_p(-values, 0.6) == pytest.approx(max(sides))
    assert equivalence_p(values, 0.01) > 0.5
    assert equivalence_p(values, 0.6, np.arange(20) // 4) != equivalence_p(values, 0.6)
    with pytest.raises(BadData, match="no test is possible"):
        equivalence_p([0.1, 0.1, 0.1], 1)


def test_equivalence_holds_its_level_at_the_bound() -> None:
    share = np.mean([equivalence_p(normal(25, seed=i) + 1, 1) <= 0.05 for i in range(1_500)])
    assert within(share, 0.05, 1_500)


def test_planning_agrees_with_the_textbook() -> None:
    # Cohen 1988: a paired t test for d = 0.5 at power .8 needs 34 pairs, or 27 if one-sided; for d = 0.2, 199.
    assert items_needed(1, 0.5) == 34
    assert items_needed(2, -1, tail="greater") == 27
    assert items_needed(1, 0.2) == 199
    assert items_needed(1, 50) == 2
    assert minimum_detectable_effect(0.1) == pytest.approx(0.1 * (1.959964 + 0.841621))
    assert minimum_detectable_effect(0.1, power=0.95, tail="greater") == pytest.approx(0.1 * 2 * 1.644854)


def test_planned_power_is_reached() -> None:
    n = items_needed(1, 0.8, power=0.9)
    hits = np.mean([paired_effect(normal(n, seed=i) + 0.8).interval.low > 0 for i in range(1_000)])
    assert within(hits, 0.9, 1_000)


# ── dose and response ─────────────────────────────────────────────────────────────────────────────────────────────────

DOSES = (-4, -2, 0, 2, 4)


def test_mirrored_doses_cancel_the_baseline_and_what_both_signs_do() -> None:
    x, items = np.array(DOSES), normal(6, 1)
    odd, even = 0.3 * x + 0.01 * x**3, -0.5 * x**2
    slopes = dose_slopes(DOSES, items + odd + even)
    assert slopes == pytest.approx(np.full(6, odd @ x / (x @ x)))
    assert dose_slopes(DOSES, (items + odd + even)[:, ::-1]) == pytest.approx(-slopes)
    assert dose_slopes(DOSES, np.zeros((7, 6, 5))).shape == (7, 6)


def test_a_line_a_plateau_and_a_turn_are_told_apart() -> None:
    x, noise = np.array(DOSES), 0.05 * normal(40, 5)
    line = dose_response(DOSES, 3 + 0.5 * x + noise)
    flat = dose_response(DOSES, np.clip(x, -2, 2) + noise)
    turned = dose_response(DOSES, np.array([-1, -2, 0, 2, 1]) + noise)
    one_sided = dose_response(DOSES, np.maximum(x, 0) + noise)
    down = dose_response(DOSES, -0.5 * x + noise)
    assert line.slope.interval.low <= 0.5 <= line.slope.interval.high
    assert line.monotone and line.both_signs and line.saturation == pytest.approx(1, abs=0.1)
    assert flat.monotone and flat.saturation == pytest.approx(0, abs=0.05)
    assert not turned.monotone and turned.saturation < 0
    assert one_sided.monotone and not one_sided.both_signs
    assert down.monotone and down.both_signs and down.slope.value < 0 and down.saturation == pytest.approx(1, abs=0.1)
    assert [dose for dose, _ in line.curve] == sorted(DOSES) and line.curve[2] == (0, 0)
    assert max(t.p for t in (line, flat, down)) < 0.001


def test_both_signs_doing_the_same_is_no_trend() -> None:
    trend = dose_response(DOSES, np.abs(DOSES) + 0.3 * normal(30, 5))
    assert not trend.both_signs and not trend.monotone and trend.p > 0.01
    noisy = dose_response([-1, 1], [[9, 10], [-8, -7], [1, 2]])  # no step is significant, but the sides disagree
    assert not noisy.monotone


def test_doses_may_come_in_any_order_without_zero_or_on_one_side() -> None:
    x, noise = np.array(DOSES), 0.1 * normal(20, 5)
    noise[:, 2] = 0
    whole = dose_response(DOSES, x + noise)
    order = [3, 0, 4, 1]
    assert dose_response(x[order], (x + noise)[:, order]) == whole
    above = dose_response([1, 2], np.array([1.0, 2.0]) + noise[:, :2])
    assert above.below is None and not above.both_signs and above.monotone
    assert dose_response([3], noise[:, :1] + 3).saturation is None


def test_the_slope_test_is_uniform_under_the_null() -> None:
    ps = [dose_response(DOSES, normal(9, 5, seed=i), tail="greater", draws=600).p for i in range(500)]
    assert scipy_stats.kstest(ps, "uniform").pvalue > 0.001


def test_a_trend_in_clusters_is_as_sure_as_its_clusters() -> None:
    clusters = np.repeat(np.arange(4), 10)
    trend = dose_response(DOSES, np.array(DOSES) + 0.1 * normal(40, 5), clusters=clusters, tail="greater")
    assert trend.p == 1 / 16
    assert trend.slope.interval.n == 4


# ── what is refused, and what is kept ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "call",
    [
        lambda bad: permutation_p(0, bad),
        lambda bad: max_statistic_p([0.0], bad[:, None]),
        sign_flip_p,
        bootstrap_interval,
        paired_effect,
        lambda bad: auroc(bad, [0, 1, 1]),
        lambda bad: auroc_interval(bad, [0, 1, 1]),
        holm,
        lambda bad: equivalence_p(bad, 1),
        lambda bad: dose_slopes([1, 2, 3], bad),
        lambda bad: dose_response([1], bad[:, None]),
    ],
)
def test_nan_and_nothing_are_refused_everywhere(call: object) -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(BadData, match=r"1 of 3 .* NaN or infinite"):
            call(np.array([0.1, bad, 0.3]))
    with pytest.raises(EmptyData, match="are empty"):
        call(np.array([]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: permutation_p(math.nan, [1.0]), "1 of 1 observed are NaN"),
        (
            lambda: permutation_p(0, [1.0], "less"),
            "tail='less' is not known\n\n  nearest   greater, two-sided, mirrored",
        ),
        (lambda: max_statistic_p([1.0, 2.0], [[1.0]]), "1 null cells for 2"),
        (lambda: max_statistic_p([1.0], [1.0]), "null of shape (1,)"),
        (lambda: least_draws(0), "alpha=0 is not between 0 and 1\n\n  hint: write 95 % as 0.95"),
        (lambda: sign_flip_p([1.0], tail="mirrored"), "tail='mirrored' is not known"),
        (lambda: sign_flip_p([1.0], draws=0), "draws=0"),
        (lambda: paired_effect([1.0, 2.0], ["a"]), "labels of shape (1,) for 2 items"),
        (lambda: paired_effect([1.0, 2.0], [0, math.nan]), "labels hold NaN"),
        (lambda: paired_effect([1.0, 2.0], np.array(["a", 1], dtype=object)), "labels of several types"),
        (lambda: paired_effect([1.0, 2.0], level=95), "level=95 is not between 0 and 1"),
        (lambda: paired_effect(["a", "b"]), "values: could not convert"),
        (lambda: bootstrap_interval([1.0, 2.0], method="t"), "method='t' is not known"),
        (lambda: bootstrap_interval([1.0, 2.0], clusters=[0, 0], strata=[0, 1]), "a cluster lies in two strata"),
        (lambda: clopper_pearson(3, 2), "k=3 of n=2 is no proportion"),
        (lambda: clopper_pearson(0, 0), "k=0 of n=0 is no proportion"),
        (lambda: auroc([1.0], [1, 0]), "1 scores and 2 labels"),
        (lambda: auroc([1.0, 2.0], [1, 2]), "labels hold [1.0, 2.0]"),
        (lambda: holm([0.1, 1.1]), "ps run from 0.1 to 1.1"),
        (lambda: equivalence_p([1.0, 2.0], 0), "bound=0 is no positive number"),
        (lambda: minimum_detectable_effect(0), "se=0 is no positive number"),
        (lambda: items_needed(1, 0), "sd=1, effect=0: no plan follows"),
        (lambda: dose_slopes([0], [[1.0]]), "doses=[0.0] give no slope"),
        (lambda: dose_slopes([1, 1], [[1.0, 2.0]]), "doses=[1.0, 1.0] repeat"),
        (lambda: dose_response([1, 2], [[1.0]]), "1 columns for 2 doses"),
    ],
)
def test_what_cannot_be_computed_is_one_typed_error(call: object, message: str) -> None:
    with pytest.raises(BadData) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_results_are_plain_numbers_that_survive_json() -> None:
    trend = dose_response(DOSES, np.array(DOSES) + normal(8, 5))
    area = auroc_interval([1, 3, 2, 4], [0, 0, 1, 1])
    for result in (trend, area, clopper_pearson(1, 3), bootstrap_interval(normal(9)), paired_effect(normal(9))):
        assert "np." not in repr(result)
        json.dumps(asdict(result), allow_nan=False)


def test_the_caller_s_arrays_are_left_as_they_were() -> None:
    values, scores = normal(12), normal(4, 5)
    kept = values.copy(), scores.copy()
    bootstrap_interval(values, weighted_mean)
    sign_flip_p(values)
    holm(np.abs(values) / 9)
    dose_response(DOSES, scores)
    assert np.array_equal(values, kept[0]) and np.array_equal(scores, kept[1])
