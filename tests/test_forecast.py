"""Power and cost before the run: against simulation, against a known spread, and against the tokens of a real run."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay import Model
from assay.audit import Plan, told
from assay.audit.forecast import Outlook, Prior, Wants, forecast_of, least_effect, spread_of
from assay.audit.problems.deception import DATA, deception, on_statements
from assay.audit.problems.truth import forecasts, lies
from assay.cli import main
from assay.errors import AssayError, BadData
from assay.evidence import Outcome
from assay.model.engine import Engine
from assay.scale import executor, local
from assay.stats import items_needed, paired_effect, sign_flip_p
from tests.fixtures.toy_audit import toy

SMALL = dict(clusters=30, draws=39, fit=9, items=8, paraphrases=2)
SAYS = dict(clusters=160, items=30, paraphrases=6, yes_no=20, seed=0)
TOPICS = ("topic", "capitals", "animals", "uses")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The deception audit, small, on three topics."""
    path = tmp_path_factory.mktemp("data") / "few.csv"
    rows = [one for one in csv.reader((DATA / "statements.csv").open(encoding="utf-8")) if one[0] in TOPICS]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return on_statements(path)(**SMALL)


@pytest.fixture(scope="module")
def llama(loaded: Any) -> Model:
    model: Model = loaded("llama")
    return model


def wants(**more: Any) -> Wants:
    return Wants(deception.data, **more)


# ── arithmetic ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("items", "alpha", "power"), [(7, 0.05, 0.8), (30, 0.0125, 0.8), (200, 0.025, 0.9)])
def test_the_least_effect_is_the_one_that_needs_just_these_items(items: int, alpha: float, power: float) -> None:
    least = least_effect(0.3, items, alpha=alpha, power=power)
    assert least is not None
    assert items_needed(0.3, least * 1.001, alpha=alpha, power=power, tail="greater") == items
    assert items_needed(0.3, least * 0.98, alpha=alpha, power=power, tail="greater") > items
    assert least_effect(0.3, 1, alpha=alpha) is None


def test_an_interval_gives_back_the_spread_that_it_was_made_from() -> None:
    values = np.random.default_rng(0).normal(0.2, 0.37, size=23)
    made = told.effect("a rise", paired_effect(values, level=0.9).interval)
    assert spread_of(made) == pytest.approx(values.std(ddof=1))
    assert spread_of(made.model_copy(update=dict(n=1))) == 0


def test_a_rise_that_is_forecast_is_found_as_often_as_was_said() -> None:
    """The claim's own rule on simulated clusters: sign flips after correction, and the rise that has to be observed."""
    made = forecasts.says_false(SAYS, wants())
    assert made.detects is not None
    rng, alpha = np.random.default_rng(0), lies.ALPHA / 4

    def found(rise: float) -> float:
        every = rng.normal(rise, forecasts.WORST_CHANGE, size=(400, made.items))
        tests = [sign_flip_p(one, tail="greater", draws=999) <= alpha and one.mean() >= lies.MATTERS for one in every]
        return float(np.mean(tests))

    assert found(made.detects) == pytest.approx(0.8, abs=0.06)
    assert found(0.7 * made.detects) < 0.65


def test_a_rise_near_the_least_that_counts_needs_the_items_to_observe_it() -> None:
    """Far smaller a spread: then what limits is the rule that .1 be observed."""
    outcome = rose(0.3, spread=0.05)
    made = forecasts.says_false(SAYS, wants(like=outcome, source="before", effect=0.105))
    rng = np.random.default_rng(0)
    assert made.needs is not None
    assert made.detects == pytest.approx(lies.MATTERS + 0.842 * 0.05 / 30**0.5, abs=1e-3)
    seen = rng.normal(0.105, 0.05, size=(2000, made.needs)).mean(axis=1) >= lies.MATTERS
    assert seen.mean() == pytest.approx(0.8, abs=0.04)
    assert forecasts.says_false(SAYS, wants(effect=lies.MATTERS)).needs is None


def rose(by: float, spread: float, items: int = 12) -> Outcome:
    """What an earlier run says, whose clusters have this mean and this standard deviation."""
    values = np.random.default_rng(1).normal(size=items)
    values = by + spread * (values - values.mean()) / values.std(ddof=1)
    return Outcome(
        claim="0" * 64,
        verdict="supported",
        because="It rose.",
        effects=tuple(told.effect(f"rise, {name}", paired_effect(values).interval) for name in ("told", "paid")),
    )


def test_an_earlier_run_gives_its_spread_only_where_something_rose() -> None:
    worst = forecasts.says_false(SAYS, wants())
    seen = forecasts.says_false(SAYS, wants(like=rose(0.3, spread=0.25), source="before", effect=0.3))
    assert seen.needs == items_needed(0.25, 0.3, alpha=0.0125, tail="greater")
    assert seen.detects == pytest.approx(least_effect(0.25, 30, alpha=0.0125))
    assert "standard deviation of 0.25: as 12 clusters do in “rise, told” of before" in seen.rests_on[0]
    flat = forecasts.says_false(SAYS, wants(like=rose(0.0, spread=0.02), source="before"))
    assert flat.detects == worst.detects
    assert "before does not show a rise" in flat.rests_on[0]


def test_what_nothing_bounds_is_not_guessed() -> None:
    params = dict(clusters=160, fit=60, items=24, seed=0)
    made = forecasts.moves_answers(params, wants(effect=1.0))
    assert (made.detects, made.needs) == (None, None)
    assert "slope in nats has no worst case" in made.rests_on[0]
    seen = forecasts.moves_answers(params, wants(effect=1.0, like=rose(2.0, spread=3.0), source="before"))
    assert seen.needs == items_needed(3.0, 1.0, alpha=0.05, tail="greater")


def test_draws_that_cannot_reach_alpha_find_nothing() -> None:
    params = dict(clusters=160, draws=38, untrained=53, seed=0)
    made = forecasts.decodes_truth(params, wants())
    assert made.detects is None
    assert not made.reach[0].enough
    assert forecasts.decodes_truth(params | dict(draws=39), wants()).detects is not None
    assert not forecasts.says_false(SAYS | dict(items=lies.LEAST_CLUSTERS - 1), wants()).reach[0].enough
    assert forecasts.says_false(SAYS | dict(items=lies.LEAST_CLUSTERS), wants()).reach[0].enough


def test_no_auroc_over_clusters_varies_more_than_the_worst_case() -> None:
    """Clusters whose falsehoods mirror their truths: the AUROC is then a signed-rank statistic, which varies most."""
    rng = np.random.default_rng(0)
    up = rng.normal(size=(2000, 40))
    areas = (up[:, :, None] > -up[:, None, :]).mean(axis=(1, 2))
    assert 0.5 < areas.std() * 40**0.5 < forecasts.WORST_AREA


# ── tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def ran(plan: Plan, llama: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[str]]:
    """A real run, and the tokens that its units put through the model: padding not counted, half a pass half."""
    spent: Counter[str] = Counter()
    forward, perform, now = Engine.forward, executor.perform, [""]

    def counting(engine: Engine, tokens: Any, positions: Any, **how: Any) -> Any:
        layers, start, end = engine.shape.layers, how.get("start"), how.get("end")
        blocks = (layers if end is None else end) - (start.entry if start else 0)
        spent[now[0]] += int((positions >= 0).sum()) * blocks / layers  # type: ignore[assignment]
        return forward(engine, tokens, positions, **how)

    def named(task: Any, *rest: Any) -> Any:
        now[0] = task.name
        return perform(task, *rest)

    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "forward", counting)
        patch.setattr(local, "perform", named)
        plan.run(llama, into=folder).close()
    return folder, spent


def test_tokens_are_those_of_a_real_run(plan: Plan, llama: Model, ran: tuple[Path, Counter[str]]) -> None:
    """Within a factor of two in all. Plain passes are exact; a direction's layer is not known before, and of three layers
    the last may be chosen, which costs next to nothing.
    """
    _, spent = ran
    outlook = forecast_of(plan, model=llama)
    work = {one.unit: one.tokens for row in outlook.claims if row.forecast for one in row.forecast.work}
    assert set(spent) - {"deception.decode"} == set(work)
    assert outlook.tokens == sum(work.values())
    assert 0.5 < outlook.tokens / spent.total() < 2
    for unit in ("deception.say", "deception.choose-readout", "deception.yes-or-no"):
        assert work[unit] == spent[unit]
    for unit in ("deception.read", "deception.read-untrained", "deception.steer", "deception.write"):
        assert work[unit] == pytest.approx(spent[unit], rel=0.15)


def test_what_claims_share_is_counted_once(plan: Plan) -> None:
    outlook = forecast_of(plan)
    by_key = {one.claim.key: one for one in outlook.claims}
    assert by_key["survives-negation"].adds == by_key["marks-false"].adds == 0
    marks = by_key["marks-false"].forecast
    assert marks is not None
    assert marks.tokens > 0
    assert outlook.tokens == sum(one.adds for one in outlook.claims)


def test_an_earlier_run_is_read_from_its_ledger(plan: Plan, ran: tuple[Path, Counter[str]]) -> None:
    folder, _ = ran
    outlook = forecast_of(plan, like=folder)
    assert outlook.like is not None
    assert outlook.like.seconds
    slope = Prior.read(folder / "ledger").outcome(outlook.claims[2].claim)
    assert slope is not None
    made = outlook.claims[2].forecast
    assert made is not None
    assert made.detects is not None
    assert made.detects >= (least_effect(spread_of(slope.effects[0]), made.items, alpha=0.05) or 0)


def test_with_a_model_work_and_time_are_known(plan: Plan, llama: Model) -> None:
    outlook = forecast_of(plan, model=llama, measure=True)
    size = sum(weight.numel() for weight in llama.hf.parameters())
    assert outlook.flop(10) == 20 * size
    assert outlook.pace is not None
    assert outlook.pace > 0
    assert outlook.seconds(10) == 10 * outlook.pace
    assert Outlook(plan, (), outlook.reader).seconds(10) is None
    assert forecast_of(plan).flop(10) is None


# ── what is refused, and what is said ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(effects={"says-flase": 0.2}), "there is no claim 'says-flase'"),
        (dict(effect=0.0), "cannot be planned for"),
        (dict(effect=float("nan")), "cannot be planned for"),
        (dict(power=1.0), "is no chance"),
        (dict(measure=True), "no model to measure"),
    ],
)
def test_what_cannot_be_planned_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BadData, match=said):
        forecast_of(deception(), **wrong)


def test_data_on_which_a_claim_cannot_be_tested_say_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("statement,label\n" + "".join(f"It is {number}.,{number % 2}\n" for number in range(40)))
    rows = {one.claim.key: one for one in forecast_of(on_statements(path)()).claims}
    assert rows["decodes"].forecast is not None
    assert rows["says-false"].forecast is None
    assert "cannot be tested: 0 clusters hold a true and a false" in rows["says-false"].reason


def test_a_measure_without_a_forecast_is_not_guessed() -> None:
    outlook = forecast_of(toy())
    assert [one.forecast for one in outlook.claims] == [None, None]
    assert "toy.grows has no forecast" in outlook.claims[0].reason
    assert outlook.tokens == 0


def test_planning_itself_needs_no_torch() -> None:
    """A measure's module may: the deception audit's do."""
    code = "import sys, assay.audit.forecast, assay.cli.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["assay", "plan", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    printed = capsys.readouterr()
    return int(left.value.code or 0), printed.out + printed.err


def test_the_command_says_what_is_claimed_seen_and_spent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = command(
        capsys, monkeypatch, "deception", "--set", "items=20", "--effect", ".2", "--effect", "says-false=.1"
    )
    assert code == 0
    assert "5 claims will be recorded before the first look" in said
    rows = {line.split()[0]: line for line in said.splitlines() if line.startswith("  ") and line.split()}
    assert "20 clusters" in said
    told_of = [line for line in said.splitlines() if line.split()[:1] == ["says-false"]]
    assert "no number for 0.1" in told_of[0]
    needed = items_needed(0.5, 0.2, alpha=0.0125, tail="greater")
    assert f"{needed} for 0.2" in next(line for line in said.splitlines() if line.split()[:1] == ["marks-false"])
    assert "TFLOP for each million parameters" in rows["compute"]
    assert "total" in rows


@pytest.mark.parametrize("wrong", ["much", "says-false=", "nobody=.2", "-1"])
def test_the_command_refuses_an_effect_that_is_none(
    wrong: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = command(capsys, monkeypatch, "deception", f"--effect={wrong}")
    assert code == 2
    assert said.startswith("BadData")
    assert AssayError.__name__ not in said
