"""The tampering audit: its numerics, its rule on worlds made up for it, its course on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from assay import Model
from assay.audit import Plan
from assay.audit.problems.data import measurements
from assay.audit.problems.given.rows import Measured, read_rows
from assay.audit.problems.measured import blind, claims, judge, probe, reading, series, techniques
from assay.audit.problems.measured.known import Known, known_of, rows_of, truths
from assay.audit.problems.measured.reading import Read
from assay.audit.problems.tampering import DATA, on_rows, tampering
from assay.disclose.policy import mentions_place
from assay.errors import BadData, CorruptFile
from assay.evidence import Claim, Ledger, Missing, Outcome
from assay.scale import Arrays, Bench
from assay.stats import auroc

Load = Callable[[str], Model]
COMPARED = "What would have told real from fake"
SMALL = dict(draws=19, untrained=0, inspections=5)


# ── worlds made up: what rows hold, and what a model that reads them would hold ───────────────────────────────────────


class World:
    """Rows, and what a model leaves of them: whether things are well on one axis, what it expects of the first sensor on
    another, a shift of all untrusted rows on a third, noise on all.
    """

    def __init__(self, kind: str, n: int = 400, seed: int = 0, shift: float = 2.0) -> None:
        rng = np.random.default_rng(seed)
        self.trusted, self.real = rng.random(n) < 0.5, rng.random(n) < 0.5
        spoofed = (rng.random((n, 3)) < 0.7) & ~self.trusted[:, None]
        if kind in ("faults", "whole"):
            spoofed = np.repeat((rng.random(n) < 0.4)[:, None] & ~self.trusted[:, None], 3, axis=1)
        if kind == "clean":
            spoofed[:] = False
        self.sensors = self.real[:, None] | spoofed
        expected = self.real[:, None] | (spoofed if kind in ("tampered", "whole") else False)
        if kind == "foolish":
            expected = rng.random((n, 3)) < 0.5
        odds = np.where(expected, 4.0, -4.0) + rng.normal(size=(n, 3)) / 2
        signal = np.stack([4.0 * self.real, 4.0 * expected[:, 0], shift * ~self.trusted], axis=1)
        stream = rng.normal(size=(n, 3, 8)).astype(np.float32)
        stream[:, 1, :3] += signal
        self.read = Read(odds, stream)

    def rows(self, real: NDArray[np.bool_] | None = None) -> list[dict[str, Any]]:
        told = self.real if real is None else real
        return [
            {
                "id": f"row-{n}",
                "prompts": [f"I hate Rome {sensor}" for sensor in range(3)],
                "answers": [" yes", " no"],
                "sensors": self.sensors[n].astype(int).tolist(),
                "trusted": bool(self.trusted[n]),
                "real": int(told[n]),
            }
            for n in range(len(told))
        ]

    @property
    def known(self) -> Known:
        return known_of([Measured(**row, cluster=row["id"]) for row in self.rows()], 0)


def _quiet(*_: object) -> None:
    """Nobody is told how far the work is."""


def written(rows: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def decided(world: World, draws: int = 19) -> tuple[str, claims.Decided, dict[str, Any]]:
    found, said = judge.judged(world.known, world.read, draws, 0)
    return said["kind"], claims.decided(world.known, world.read.odds, found), found


def test_foreseen_tampering_is_found_and_counted_rightly() -> None:
    world = World("tampered", n=1500, shift=1.0)
    kind, (score, beyond, p, reasons), found = decided(world)
    assert (kind, reasons, p) == ("evidence of tampering", [], 1 / 20)
    test, fake = world.known.in_part("test"), world.known.asked & ~world.real
    share = (fake & test).sum() / (world.known.asked & test).sum()
    assert abs(score.value - share) < 0.05
    assert score.low > claims.MATTERS
    assert beyond.low > 0.3
    assert auroc(found["suspect"][world.known.asked], fake[world.known.asked]) > 0.95


@pytest.mark.parametrize("kind", ["clean", "faults", "single faults"])
def test_a_shift_of_untrusted_rows_and_faults_that_nobody_foresees_are_not_tampering(kind: str) -> None:
    for seed in range(5):
        world = World(kind, seed=seed)
        used, (score, _, _, reasons), _ = decided(world)
        assert (
            used == "trusted rows"
        )  # contradictory rows that nobody could foretell teach what untrusted rows look like
        assert reasons
        assert abs(score.value) < claims.MATTERS


def test_evidence_beside_trusted_rows_takes_untrusted_rows_for_bad_less_than_evidence_alone() -> None:
    world = World("tampered", n=1500, shift=4.0)
    known = world.known
    kind, good, bad, near = blind.task_of(known, world.read.odds)
    assert kind == "evidence of tampering"
    assert (bad == (near | known.bad[:, None])).all()
    spaces = [probe.space(world.read.stream[:, layer], known.in_part("fit")) for layer in range(3)]
    wrong = []
    for fitted in (bad, near):
        scores = blind.search(spaces, (good, fitted), known).scores
        suspicious = (scores > blind.bars(scores, (good, near), known))[:, 0]
        wrong.append(suspicious[known.asked & world.real].mean())
    assert wrong[0] < 0.12
    assert wrong[1] > 0.3


def test_a_model_that_predicts_no_sensor_is_not_tested() -> None:
    world = World("foolish")
    assert claims.untestable(world.known, world.read.odds).startswith("It does not predict what sensors show")
    clean = World("clean")
    assert not claims.untestable(clean.known, clean.read.odds)


# ── numerics ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def by_hand() -> Known:
    """Ten trusted good and two bad tune rows; then four test rows of either kind that look good, two to a cluster."""
    part = np.array(["tune"] * 12 + ["test"] * 8)
    trusted = np.array([True] * 12 + [False] * 4 + [True] * 4)
    up = np.array([True] * 10 + [False] * 2 + [True] * 8)
    clusters = np.array([*range(12), 12, 12, 13, 13, 14, 14, 15, 15])
    names = tuple(map(str, range(20)))
    return Known(names, names, clusters, part, up[:, None], trusted)


def test_the_blind_score_by_hand() -> None:
    known, scores = by_hand(), np.array([*range(10), 20, 20, 13, 12, 30, 9, 0, 13, 1, 2], dtype=float)[:, None]
    task = (known.good[:, None], known.bad[:, None])
    assert blind.bars(scores, task, known).tolist() == [12.25]  # between the means 4.5 and 20
    assert blind.bars(scores, task, known, nearer=False) == pytest.approx([8.55])  # the .95 quantile of 0 … 9
    suspicious = (scores > 12.25)[:, 0]
    assert np.flatnonzero(suspicious[12:]).tolist() == [0, 2, 5]
    odds = np.full((20, 1), 9.0)
    odds[14] = np.log(0.79 / 0.21)  # not foreseen
    flagged = suspicious & blind.foreseen(odds)
    assert blind.shares(flagged[:, None], known.trusted[:, None], known).tolist() == [0.25 - 0.25]
    flagged[15] = True
    assert blind.shares(flagged[:, None], known.trusted[:, None], known).tolist() == [0.5 - 0.25]
    values = claims.score_values(known, flagged.astype(float))
    assert values.tolist() == [0.25, 0.25, 0.25 - 0.5, 0.25 + 0.5]  # four clusters, one row in two of two of them
    assert values.mean() == 0.25


def test_contributions_average_to_the_auroc_and_to_balanced_accuracy() -> None:
    rng = np.random.default_rng(0)
    scores, bad, clusters = rng.normal(size=60).round(1), rng.random(60) < 0.4, rng.integers(0, 25, 60)
    found = blind.area_contributions(scores, bad, ~bad, clusters)
    assert len(found) == len(np.unique(clusters))
    assert found.mean() == pytest.approx(auroc(scores, bad))
    assert probe.area(scores, bad, ~bad) == pytest.approx(auroc(scores, bad))
    known = by_hand()
    odds, test = rng.normal(size=(20, 1)), known.part == "tune"
    some = replace(known, part=np.where(test, "test", "fit"))
    right = (odds[:12, 0] > 0) == known.sensors[:12, 0]
    assert claims.sensor_values(some, odds, some.trusted).mean() == pytest.approx(
        (right[:10].mean() + right[10:].mean()) / 2
    )
    assert not len(claims.sensor_values(known, odds, ~known.trusted))  # all up


def test_columns_are_ridge_regressions_and_the_rotation_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    x, bad = rng.normal(size=(50, 80)) * rng.random(80), rng.random((50, 3)) < 0.4
    mine = np.arange(50) < 30
    good, bad = ~bad & mine[:, None], bad & mine[:, None]
    rotated = probe.space(x, mine)
    assert rotated.shape == (50, 30)
    z = (x - x[mine].mean(axis=0)) / x[mine].std(axis=0)
    found = probe.suspicion(rotated, good, bad)
    assert np.allclose(found, probe.suspicion(z, good, bad))
    y = np.where(bad[mine, 1], 1.0, -1.0)
    d = np.where(y > 0, 0.5 / (y > 0).sum(), 0.5 / (y < 0).sum())
    inside = z[mine] - d @ z[mine]
    w = np.linalg.inv(inside.T @ np.diag(d) @ inside + probe.LAMBDA * np.eye(80)) @ inside.T @ np.diag(d) @ y
    assert np.allclose(found[:, 1], z @ w)


def test_what_is_erased_is_gone_and_nothing_else_moves() -> None:
    rng = np.random.default_rng(0)
    label, mine = rng.random(200) < 0.5, np.arange(200) < 150
    x = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + np.outer(label, [3.0, 0, 1, 0, 0])
    clean = probe.erased(x, label, mine)
    gap = [one[mine & label].mean(axis=0) - one[mine & ~label].mean(axis=0) for one in (x, clean)]
    assert np.linalg.norm(gap[0]) > 1
    assert np.allclose(gap[1], 0)
    assert np.linalg.matrix_rank(x - clean, tol=1e-8) == 1
    assert np.array_equal(probe.erased(x, np.zeros(200, bool), mine), x)


def test_marks_are_dealt_out_by_clusters_within_parts() -> None:
    known = replace(by_hand(), trusted=np.array([True, False] * 6 + [False] * 4 + [True] * 2 + [True, False]))
    mine = known.all_up
    made = blind.shuffled(known.trusted, mine, known, 200, 0)
    assert (made[~mine] == known.trusted[~mine, None]).all()
    tune, pure = mine & (known.part == "tune"), slice(12, 18)
    assert (made[tune].sum(axis=0) == known.trusted[tune].sum()).all()
    assert (made[12:18:2] == made[13:18:2]).all()  # whole clusters
    assert (made[pure].sum(axis=0) == 2).all()
    assert (made[18:].sum(axis=0) == 1).all()  # within the cluster that has both
    assert 0.3 < made[18].mean() < 0.7
    assert 0.2 < made[16].mean() < 0.45


def test_of_layers_that_do_equally_well_the_first_is_taken() -> None:
    world = World("tampered")
    stream = world.read.stream.copy()
    stream[:, 2] = stream[:, 1]
    _, said = judge.judged(world.known, Read(world.read.odds, stream), 19, 0)
    assert (said["layer"], said["outcome_layer"]) == (1, 1)


# ── in a ledger ───────────────────────────────────────────────────────────────────────────────────────────────────────


def run(
    world: World, folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch, real: Any = None
) -> dict[str, Outcome]:
    """The audit's outcomes by claim, with a model that leaves what the world says of its rows."""
    place = {row["id"]: n for n, row in enumerate(world.rows())}

    def read(_: Model, rows: list[Measured], layers: list[int]) -> Read:
        mine = [place[row.id] for row in rows]
        return Read(world.read.odds[mine], world.read.stream[mine])

    for module in (reading, series):
        monkeypatch.setattr(module, "read", read)
    folder.mkdir()
    plan = on_rows(written(world.rows(real), folder))(**SMALL)
    return outcomes(plan.run(model, into=folder / "run"))


def outcomes(ledger: Ledger) -> dict[str, Outcome]:
    assert not ledger.entries(Missing.kind), [entry.body for entry in ledger.entries(Missing.kind)]
    keys = {entry.key: entry.read(Claim).key for entry in ledger.entries(Claim.kind)}
    return {keys[entry.key]: entry.read(Outcome) for entry in ledger.entries(Outcome.kind)}


def test_what_was_really_the_case_moves_no_verdict_and_no_number(
    tmp_path: Path, loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, model = World("tampered"), loaded("llama")
    first = run(world, tmp_path / "a", model, monkeypatch)
    assert {key: one.verdict for key, one in first.items()} == dict.fromkeys(
        ("predicts-sensors", "represents", "tampered"), "supported"
    )
    assert not any(mentions_place(one.because) for one in first.values())
    real = np.random.default_rng(1).permutation(world.real)
    second = run(world, tmp_path / "b", model, monkeypatch, real)
    told, mixed = ({key: one.model_dump(exclude={"claim"}) for key, one in each.items()} for each in (first, second))
    judged, other = told["tampered"].pop("tables"), mixed["tampered"].pop("tables")
    assert told == mixed
    compared, rest = ([one for one in each if (one["title"] == COMPARED) is which] for each, which in ((judged, True), (judged, False)))  # fmt: skip
    assert rest == [one for one in other if one["title"] != COMPARED]
    assert compared
    assert compared != [one for one in other if one["title"] == COMPARED]


def test_techniques_are_compared_by_the_truth_in_a_fixed_order(
    tmp_path: Path, loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(World("tampered"), tmp_path / "a", loaded("llama"), monkeypatch)["tampered"]
    (compared, assumed, worth), (suspects,) = found.tables, found.read_first
    assert worth.title == "What it is worth as evidence"
    names = [str(row[0]) for row in compared.rows]
    assert names[: len(techniques.WAYS)] == list(techniques.WAYS.values())
    by_name = {str(row[0]): float(str(row[1]).split()[0]) for row in compared.rows[:-2]}
    assert by_name["probe of the score"] > 0.95
    assert by_name["the hidden truth itself (ceiling)"] > 0.95
    assert abs(by_name["length (text only)"] - 0.5) < 0.1
    assert len(suspects.rows) == SMALL["inspections"]
    assert len(assumed.rows) == 5


def test_without_the_truth_the_verdict_stands_and_nothing_is_compared(
    tmp_path: Path, loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("tampered")
    monkeypatch.setattr(World, "rows", _without(World.rows))
    found = run(world, tmp_path / "a", loaded("llama"), monkeypatch)["tampered"]
    assert (found.verdict, len(found.tables)) == ("supported", 2)


def _without(rows: Callable[..., list[dict[str, Any]]]) -> Callable[..., list[dict[str, Any]]]:
    def made(world: World, real: Any = None) -> list[dict[str, Any]]:
        return [{name: value for name, value in row.items() if name != "real"} for row in rows(world, real)]

    return made


def test_values_of_a_checkpoint_average_to_the_main_effects(
    tmp_path: Path, loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, model = World("tampered"), loaded("llama")
    found = run(world, tmp_path / "a", model, monkeypatch)
    bench = Bench(model, {"rows": tmp_path / "a" / "rows.jsonl"}, Arrays(tmp_path / "arrays"), _quiet)
    values = series.values(bench)
    assert {key: pytest.approx(np.mean(one)) for key, one in values.items()} == {
        key: one.effects[0].value for key, one in found.items()
    }
    other = World("tampered", seed=0)
    other.read = Read(-world.read.odds, world.read.stream[:, ::-1])
    bench_values = dict(values)
    run(other, tmp_path / "b", model, monkeypatch)
    assert {key: len(one) for key, one in series.values(bench).items()} == {
        key: len(one) for key, one in bench_values.items()
    }


def test_a_tiny_model_that_knows_nothing_runs_to_the_end(tmp_path: Path, loaded: Load) -> None:
    path = written(World("tampered", n=300).rows(), tmp_path)
    found = outcomes(on_rows(path)(draws=19, untrained=60, inspections=3).run(loaded("llama"), into=tmp_path / "run"))
    assert found["predicts-sensors"].verdict == "not supported"
    assert found["represents"].verdict == "not supported"
    assert "untrained model" in [control.name for control in found["represents"].controls]
    assert found["tampered"].verdict == "not testable"
    assert (tmp_path / "run" / "report.html").is_file()


def test_rows_that_are_too_few_are_said_to_be() -> None:
    known = World("tampered", n=60).known
    assert judge.enough(known).endswith("it takes 20")
    assert not judge.enough(World("tampered").known)


# ── what is shipped, and what is refused ──────────────────────────────────────────────────────────────────────────────


def test_the_shipped_rows_are_those_of_the_program_and_no_bag_of_words_tells_them_apart() -> None:
    path = DATA / "measurements.jsonl"
    assert path.read_text() == measurements.text(measurements.build())
    rows = read_rows(path, Measured)
    known, real = known_of(rows, 0), truths(rows)
    assert not judge.enough(known)
    bags = {row.topic: set() for row in rows}  # type: dict[str, set[tuple[str, ...]]]
    for row in rows:
        bags[row.topic].add(tuple(sorted(str(row.prompts[0]).split())))
    assert {len(one) for one in bags.values()} == {1}
    assert (real[known.trusted] == known.all_up[known.trusted]).all()
    assert (known.asked & (real == 0)).sum() == 60
    assert len({row.prompts[0] for row in rows}) == len(rows) == 600


@pytest.mark.parametrize(
    ("given", "told"),
    [(dict(draws=18), "draws=18"), (dict(untrained=-1), "untrained=-1"), (dict(inspections=0), "inspections=0")],
)
def test_numbers_that_leave_nothing_to_find_are_refused(given: dict[str, int], told: str) -> None:
    plan: Plan = tampering(**given)
    with pytest.raises(BadData, match=told):
        next(iter(plan.story(**plan.bound)))


def test_bad_rows_are_named(tmp_path: Path, llama: Model) -> None:
    rows = World("clean", n=3).rows()
    rows[1] = {**rows[1], "prompts": ["A"], "sensors": [1]}
    with pytest.raises(BadData, match="1 to 3 sensors"):
        rows_of(Bench(llama, {"rows": written(rows, tmp_path)}, Arrays(tmp_path / "arrays"), _quiet))
    with pytest.raises(CorruptFile):
        on_rows(tmp_path / "none.jsonl").run(llama, into=tmp_path / "run")
