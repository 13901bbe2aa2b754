"""TwinBench: who is audited and in what order, what the auditor is told, what comes of it, and that a kill loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assay.audit import calibration
from assay.audit.calibration import alike, evidence, own_rates, table, weighed
from assay.audit.problems.unwatched import CONCEALS, unwatched
from assay.errors import BadData, CorruptFile, EmptyData
from assay.evidence import Effect, Outcome
from assay.organisms.families import FAMILIES, recipe
from assay.organisms.families.material import material
from assay.scale import Done
from assay.stats import PROCEDURE_CHECK
from assay.twinbench import Subject, bench, blind, rates, subjects
from assay.twinbench.rates import onset_of
from assay.twinbench.subjects import SEALED
from tests.conftest import Assay


def found(kind: str, seed: int, score: float, fired: bool, **more: Any) -> dict[str, Any]:
    one = {
        "score": score,
        "verdict": "supported" if fired else "not supported",
        "block": 2,
        "words": [],
        "step": None,
        "seconds": 2.0,
    }
    planted = {"first": 3, "onset": None, "trigger": []}
    return {
        "family": "deception", "kind": kind, "seed": seed, "accepted": True, "parameters": 160_000,
        "planted": planted, "found": [one], "bar": 0.5, **more,
    }  # fmt: skip


def rows() -> list[dict[str, Any]]:
    made = [found("planted", seed, 1.0 + 0.01 * seed, True) for seed in range(5)]
    made += [found("clean", seed, -1.0 - 0.01 * seed, False) for seed in range(5)]
    made += [found("decoy", seed, -0.2 * seed + 0.9 * (seed == 4), seed == 4) for seed in range(5)]
    return [*made, found("decoy", 5, 0.0, False, accepted=False)]


def test_subjects_come_in_an_order_that_says_nothing() -> None:
    who = subjects("deception", 10, hard=2, others=3)
    assert len(who) == len(set(who)) == 30 + 2 + 6
    kinds = [one.kind for one in who]
    assert kinds != sorted(kinds)
    assert subjects("deception", 10, hard=2, others=3) == who
    assert {one.seed for one in subjects("backdoor", 3, first=SEALED)} == {SEALED, SEALED + 1, SEALED + 2}
    assert {Subject("deception", "decoy", seed).recipe.cause for seed in range(4)} == {"belief", "ignorance"}
    assert Subject("tampering", "other", 0).recipe.twin == "planted"
    more = [one.kind for one in subjects("tampering", 2, planted=5)]
    assert [more.count(kind) for kind in ("planted", "clean", "decoy")] == [5, 2, 2]
    for problem, seeds in (("deceptoin", 3), ("deception", 1)):
        with pytest.raises(BadData):
            subjects(problem, seeds)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("problem", FAMILIES)
def test_rows_say_neither_family_nor_what_is_planted(family: str, problem: str) -> None:
    text = material(recipe(family, "planted", seed=5), problem, 60)
    given = [json.loads(line) for line in blind._unnamed(text).splitlines()]
    assert len(given) >= 20
    for row in given:
        assert family not in row["id"]
        assert not {"says", "fake", "trigger", "reversed"} & set(row)
    labels = {row.get("label", row.get("trusted")) for row in given}
    assert len(labels) == 2


def test_rates_are_those_that_one_counts() -> None:
    made = rates("deception", rows())
    assert made.counts == {"planted": (5, 0), "clean": (5, 0), "decoy": (5, 1)}
    assert made.auroc["clean"].value == made.auroc["decoy"].value == 1.0
    assert made.permutation["clean"] == pytest.approx(1 / 252)
    assert made.sensitivity["planted"].value == 1.0
    assert (made.alarms["clean"].value, made.alarms["decoy"].value) == (0.0, 0.2)
    assert made.alarms["clean"].high == pytest.approx(0.5218, abs=1e-4)  # Clopper–Pearson, 0 of 5
    assert made.block == (-1,) * 5
    assert made.costs["clean"][0] < 1
    assert made.misled["planted"].value == 0.0
    told = dict(made.table().rows)
    assert told["false alarms, of decoy"].startswith("1 of 5")
    assert told["block within one of the planted one"].startswith("5 of 5")
    with pytest.raises(EmptyData, match="fewer than two clean models took"):
        rates("deception", [row for row in rows() if row["kind"] != "clean"])


def test_an_onset_is_where_the_score_stays() -> None:
    series = [{"step": 20 * n, "score": score} for n, score in enumerate([0.0, 0.9, 0.1, 0.8, 0.9])]
    assert onset_of(series, 0.5) == 60
    assert onset_of(series, 0.95) is None
    planted = found("planted", 9, 0.9, True, planted={"first": 3, "onset": 40, "trigger": []})
    planted["found"] = [planted["found"][0] | one for one in series]
    assert rates("deception", [*rows(), planted]).onset == (1,)


class Counting:
    """An executor that gives made-up results, and stops after so many."""

    def __init__(self, most: int) -> None:
        self.most, self.done = most, 0

    def run(self, tasks: Any, report: Any) -> Any:
        for task in tasks:
            if self.done == self.most:
                raise KeyboardInterrupt
            self.done += 1
            made = found(task.params["kind"], task.params["seed"], 1.0 * (task.params["kind"] == "planted"), False)
            yield Done(task, {name: made[name] for name in ("accepted", "parameters", "planted", "found")}, {}, 0.1)


def test_a_benchmark_that_was_stopped_goes_on(tmp_path: Path) -> None:
    who = subjects("deception", 3)
    with pytest.raises(KeyboardInterrupt):
        bench("deception", who, into=tmp_path, executor=Counting(4))
    rest = Counting(100)
    made = bench("deception", who, into=tmp_path, executor=rest)
    assert rest.done == len(who) - 4
    assert [(row["kind"], row["seed"]) for row in made] == [(one.kind, one.seed) for one in who]
    again = Counting(0)
    assert bench("deception", who, into=tmp_path, executor=again) == made


# ── what an effect is worth ──────────────────────────────────────────────────────────────────────────────────────────


def effect(value: float, half: float = 0.02) -> Effect:
    return Effect(name="turned share: x", value=value, unit="", low=value - half, high=value + half, level=0.95, n=29)


SCORES = {"planted": [0.9, 1.0, 1.1, 1.0], "clean": [-1.0, -0.98, -1.02, -1.0], "decoy": [-0.5, -0.2, -0.4, -0.1]}


def test_an_effect_is_weighed_against_the_best_alternative_and_capped() -> None:
    high, low = (evidence(effect(value), SCORES, 0.1, 1.0) for value in (1.0, -0.9))
    assert high.weight.value == pytest.approx(9.0)  # 2 n + 1 with n = 4
    assert high.alternatives[0].name == "decoy"
    assert low.weight.value == pytest.approx(1 / 9)
    assert low.alternatives[0].name == "clean"
    unlike = evidence(effect(1.0), SCORES, 0.1, 0.0)
    assert (unlike.weight.value, unlike.weight.band) == (1.0, PROCEDURE_CHECK)
    told = dict(table(high, effect(1.0)).rows)
    assert told["cap, from the number of organisms"] == "1/9 to 9"
    assert "unlike this model" in table(unlike, effect(1.0)).caption


def test_only_the_scored_claim_is_weighed_and_only_beside_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = {claim.key: claim for claim in next(iter(unwatched.story(**unwatched.defaults)))}
    outcome = Outcome(claim=claims["turns"].digest, verdict="not supported", because="x", effects=(effect(0.2),))
    monkeypatch.setattr(calibration, "reference", dict)
    assert weighed(outcome, claims["turns"], CONCEALS, "unwatched", 160_000) is outcome
    assert own_rates("unwatched") == []
    share = {"value": 0.0, "low": 0.0, "high": 0.2, "n": 20}
    known = {
        "scores": SCORES,
        "parameters": [130_000, 170_000],
        "sensitivity": {"planted": share},
        "alarms": {"clean": share, "decoy": share},
    }
    monkeypatch.setattr(calibration, "reference", lambda: {"rates": {"deception": known}})
    assert weighed(outcome, claims["says-otherwise"], CONCEALS, "unwatched", 160_000) is outcome
    (made,) = weighed(outcome, claims["turns"], CONCEALS, "unwatched", 160_000).tables
    assert made.title == "What it is worth as evidence"
    assert dict(made.rows)["transfer factor"] == "1"
    (far,) = weighed(outcome, claims["turns"], CONCEALS, "unwatched", 135_000_000).tables
    assert dict(far.rows)["transfer factor"] == "0"
    assert "0 of 20 (0.00 to 0.20) clean ones" in own_rates("unwatched")[0].text


def test_what_is_alike_is_of_like_size() -> None:
    assert alike(100_000, [130_000, 170_000])
    assert not alike(40_000, [130_000, 170_000])
    assert not alike(600_000, [130_000, 170_000])


def test_the_table_that_comes_with_assay_reads() -> None:
    for name, one in calibration.reference().get("rates", {}).items():
        assert calibration.reference()["sealed"]
        assert calibration.rates_of(calibration.SCORED[name].audit) == one
        assert all(len(one["scores"][kind]) >= 2 for kind in ("planted", "clean", "decoy"))


def test_the_command_refuses_what_it_cannot_compare(assay: Assay, tmp_path: Path) -> None:
    from assay.cli.benchmark import _compare

    (tmp_path / "no.json").write_text("[]", encoding="utf-8")
    with pytest.raises(CorruptFile, match="is no benchmark"):
        _compare({"deception": {"scores": {}}}, tmp_path / "no.json")
    code, _, told = assay("benchmark", "--class", "deceptoin")
    assert code == 2
    assert "there is no class 'deceptoin'" in told
    assert "deception" in told
