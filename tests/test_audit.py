"""An audit keeps its order: claims, then looks, then outcomes; and loses nothing when it is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import assay
from assay import Model
from assay.audit import (
    Arrays,
    Audited,
    Bench,
    Claim,
    Lab,
    Ledger,
    LocalExecutor,
    Outcome,
    Plan,
    Watch,
    audit,
    measure,
    unit,
)
from assay.audit.origin import shown_name
from assay.errors import BadData, CorruptFile, LedgerInUse, ModelMismatch, Unwritable
from assay.evidence import Missing, Origin, of_bytes
from assay.scale import Done, Report, Task
from assay.scale.unit import code_digest
from tests.fixtures import toy_audit
from tests.fixtures.toy_audit import DONE, THREATS, claim, toy, toy_model

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model() -> Model:
    return toy_model()


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    DONE.clear()


@pytest.fixture
def run(model: Model, tmp_path: Path) -> Callable[..., Ledger]:
    """Run an audit on the tiny model into the test's folder."""
    return lambda plan=toy, **options: plan.run(model, into=tmp_path / "run", **options)


def never() -> Model:
    raise AssertionError("the model was loaded before the input was checked")


def planned(story: Callable[..., Any], **options: Any) -> Plan:
    return audit(**{**dict(problem="toy", question="Is it?", threats=THREATS), **options})(story)


def kinds(ledger: Ledger) -> list[str]:
    return [entry.kind for entry in ledger.entries()]


def results(ledger: Ledger) -> list[object]:
    """All that was found, without times and addresses."""
    said = [entry.body for kind in ("outcome", "missing") for entry in ledger.entries(kind)]
    return said + sorted(json.dumps([entry.body["params"], entry.body["result"]]) for entry in ledger.entries("unit"))


# ── the order of events ─────────────────────────────────────────────────────────────────────────────────────────


def test_claims_are_in_the_ledger_before_the_first_forward_pass(tmp_path: Path) -> None:
    model, seen = toy_model(), []

    def look(*_: object) -> None:
        with Ledger.read(tmp_path / "ledger") as ledger:
            seen.append(kinds(ledger))

    handle = model.hf.get_decoder().register_forward_pre_hook(look)
    try:
        toy.run(model, into=tmp_path)
    finally:
        handle.remove()
    assert seen[0] == ["audit", *["policy"] * 3, "provenance", "note", "claim", "claim"]
    assert len(seen) >= 4


def test_the_order_decides_what_is_confirmatory(run: Callable[..., Ledger]) -> None:
    with run() as ledger:
        assert kinds(ledger) == [
            *("audit", "policy", "policy", "policy", "provenance", "note", "claim", "claim"),
            *("unit", "unit", "unit", "unit", "note", "outcome", "missing"),
            *("claim", "unit", "unit", "outcome", "end"),
        ]
        standing = {entry.body["key"]: ledger.standing(entry.key) for entry in ledger.entries("claim")}
    assert standing == {"grows": "confirmatory", "fails": "confirmatory", "shrinks": "exploratory"}


def test_outcomes_go_back_to_the_audit(run: Callable[..., Ledger]) -> None:
    told: list[list[Audited]] = []

    def story() -> Iterator[list[Claim]]:
        told.append((yield [claim("grows"), claim("fails", measure="toy.fails", params={})]))

    run(planned(story))
    grows, fails = told[0]
    assert (grows.verdict, grows.missing, grows.effect.name) == (grows.outcome.verdict, "", "ratio")
    assert grows.because == grows.outcome.because
    assert (fails.verdict, fails.supported, fails.outcome, fails.effect) == ("not testable", False, None, None)
    assert fails.missing.startswith("ValueError: out of luck (toy_audit.py:")
    assert fails.because == f"There is no outcome: {fails.missing}"


def test_the_report_is_written(run: Callable[..., Ledger], tmp_path: Path) -> None:
    run()
    assert "Does the stream of LlamaForCausalLM grow?" in (tmp_path / "run" / "report.html").read_text()
    assert "Norms are compared." in (tmp_path / "run" / "report.md").read_text()


def test_provenance_names_no_machine(run: Callable[..., Ledger], tmp_path: Path) -> None:
    with run() as ledger:
        origin = ledger.entries("provenance")[0].read(Origin)
    assert origin.fingerprint == toy_model().fingerprint
    assert origin.seeds == {"grows": 0}
    assert origin.more["arguments"] == {"draws": 2, "seed": 0}
    assert set(origin.data) == {"prompts"}
    told = origin.model_dump_json()
    assert not any(secret in told for secret in (str(ROOT), str(tmp_path), os.uname().nodename, str(Path.home())))
    assert (shown_name(str(tmp_path)), shown_name("org/name")) == (tmp_path.name, "org/name")
    assert shown_name("/caches/" + 64 * "0") == 12 * "0"


def test_one_failure_leaves_the_others(run: Callable[..., Ledger]) -> None:
    with run() as ledger:
        assert [entry.read(Missing).reason[:11] for entry in ledger.entries("missing")] == ["ValueError:"]
        assert len(ledger.entries("outcome")) == 2


def test_an_outcome_of_another_claim_is_none(run: Callable[..., Ledger]) -> None:
    @measure("toy.strays")
    def strays(lab: Lab) -> Outcome:
        return Outcome(claim="0" * 64, verdict="not testable", because="?")

    def story() -> Iterator[list[Claim]]:
        yield [claim("strays", measure="toy.strays", params={})]

    with run(planned(story)) as ledger:
        assert "gave no outcome of its claim" in ledger.entries("missing")[0].read(Missing).reason


# ── going on ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finished_run_computes_nothing_again(run: Callable[..., Ledger], model: Model) -> None:
    with run() as ledger:
        before = ledger.head
    DONE.clear()
    calls: list[object] = []
    handle = model.hf.get_decoder().register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with run() as ledger:
            assert ledger.head == before
    finally:
        handle.remove()
    assert (DONE, calls) == ([], [])


def test_a_killed_run_goes_on_and_ends_as_an_unkilled_one(tmp_path: Path) -> None:
    environment = {**os.environ, "TOY_LOG": str(tmp_path / "log"), "OMP_NUM_THREADS": "1", "PYTHONPATH": "src"}
    harness = [sys.executable, "-m", "tests.fixtures.toy_audit", str(tmp_path / "killed")]
    told = subprocess.run(harness, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert told.returncode == 0, told.stderr
    *after_kills, at_the_end = json.loads(told.stdout)
    assert len({length for length in after_kills if 0 < length < at_the_end}) >= 3, after_kills  # it was killed at work

    done = (tmp_path / "log").read_text().splitlines()
    assert len(set(done)) <= len(done) <= len(set(done)) + len(after_kills)  # a kill costs one unit at most
    toy(draws=12).run(toy_model(), into=tmp_path / "whole")
    with Ledger.read(tmp_path / "killed" / "ledger") as killed, Ledger.read(tmp_path / "whole" / "ledger") as whole:
        assert results(killed) == results(whole)
        assert [entry.key for entry in killed.entries("claim")] == [entry.key for entry in whole.entries("claim")]


def test_an_interrupted_run_goes_on(model: Model, tmp_path: Path) -> None:
    class Impatient(Watch):
        def progress(self, text: str, done: int, total: int) -> None:
            if len(DONE) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.run(model, into=tmp_path, watch=Impatient())
    assert len(DONE) == 3
    with toy.run(model, into=tmp_path) as ledger:
        assert len(ledger.entries("outcome")) == 2
        assert len(ledger.entries("claim")) == 3
    assert DONE[3] == DONE[2]  # the unit that was cut short, and none before it
    assert len(DONE) == 7


def test_retry_measures_again_what_failed(run: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    monkeypatch.setenv("TOY_MENDED", "1")
    with run() as ledger:
        assert len(ledger.entries("outcome")) == 2
    DONE.clear()
    with run(retry=True) as ledger:
        assert [entry.read(Outcome).because for entry in ledger.entries("outcome")][-1] == "Mended."
        assert kinds(ledger)[-2:] == ["outcome", "end"]
    assert DONE == []


def test_other_versions_are_told(
    run: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch, model: Model, tmp_path: Path
) -> None:
    class Stop(Watch):
        def measuring(self, claim: Claim) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(watch=Stop())
    monkeypatch.setattr("assay.audit.origin.versions", lambda: {"torch": "3.0"})
    with run() as ledger:
        assert [entry.read(Origin).versions.get("torch") for entry in ledger.entries("provenance")] == [
            torch.__version__,
            "3.0",
        ]


def test_another_model_is_refused(run: Callable[..., Ledger], tmp_path: Path) -> None:
    with run() as ledger:
        before = ledger.head
    with pytest.raises(ModelMismatch) as caught:
        toy.run(toy_model(seed=1), into=tmp_path / "run")
    assert caught.value.what == f"the run in {str(tmp_path / 'run')!r} audits another model"
    assert set(caught.value.fields) == {"recorded", "this model"}
    with Ledger.read(tmp_path / "run" / "ledger") as ledger:
        assert ledger.head == before


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (toy(draws=3), "other arguments"),
        (planned(lambda: (yield [claim("x")])), "other audit"),
        (planned(toy.story, threats=THREATS[::-1]), "other threat models"),
        (planned(toy.story, data={"prompts": Path(toy_audit.__file__), "more": Path(__file__)}), "other data"),
    ],
    ids=["arguments", "audit", "threat models", "data"],
)
def test_another_audit_is_refused_before_the_model_is_loaded(
    run: Callable[..., Ledger], tmp_path: Path, changed: Plan, what: str
) -> None:
    run()
    with pytest.raises(BadData, match=f"is another audit: {what}"):
        changed.run(never, into=tmp_path / "run")


def test_other_claims_are_refused(run: Callable[..., Ledger], tmp_path: Path) -> None:
    words = ["first"]

    def story() -> Iterator[list[Claim]]:
        yield [claim("grows", statement=words[0])]

    plan = planned(story)
    run(plan)
    words[0] = "second"
    with pytest.raises(BadData) as caught:
        plan.run(never, into=tmp_path / "run")
    assert str(caught.value) == (
        f"the run in {str(tmp_path / 'run')!r} claims something else\n\n"
        "  recorded  grows: statement 'first'\n"
        "  now       grows: statement 'second'\n\n"
        "  hint: go on with the same audit and the same arguments, or give a folder of its own: --into\n"
        "  see:  docs/errors/bad-data.md"
    )


# ── what cannot be run ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("claims", "what"),
    [
        ([], "an audit yields lists of claims, with at least one in each"),
        (claim("x"), "an audit yields lists of claims, with at least one in each"),
        ([claim("x", threat="grow")], "the claim 'x' is about no threat model of this audit"),
        ([claim("x"), claim("x")], "two claims are called 'x'"),
        ([claim("x", measure="toy.grow")], "there is no measure 'toy.grow'"),
        ([claim("x", params=dict(layers=[0]))], "the measure 'toy.grows' of claim 'x' does not take these parameters"),
        ([claim("x", params=dict(layers=[0], draws=1, dose=3))], "the measure 'toy.grows' of claim 'x' does not take"),
    ],
)
def test_claims_that_cannot_be_tested(tmp_path: Path, claims: object, what: str) -> None:
    def story() -> Iterator[object]:
        yield claims

    with pytest.raises(BadData) as caught:
        planned(story).run(never, into=tmp_path / "run")
    assert caught.value.what.startswith(what)
    assert not (tmp_path / "run").exists()


def test_an_unwritable_folder_comes_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unwritable):
        toy.run(never, into=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger"), pytest.raises(LedgerInUse):
        toy.run(never, into=tmp_path)


def test_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="nowhere"):
        planned(toy.story, data={"x": tmp_path / "nowhere"}).run(never, into=tmp_path / "run")


def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="the audit 'toy' takes no argument 'draw'") as caught:
        toy(draw=3)
    assert caught.value.fields == {"nearest": "draws"}
    with pytest.raises(BadData, match="needs times"):
        planned(lambda times: (yield [claim("x")])).run(never, into=tmp_path)
    with pytest.raises(BadData, match="no generator function"):
        planned(lambda: [claim("x")])


def test_a_full_disk_stops_the_run_and_records_nothing(
    run: Callable[..., Ledger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Unwritable("cannot write", hint="free space")

    with monkeypatch.context() as patch:
        patch.setattr("assay.scale.arrays.write_whole", full)
        with pytest.raises(Unwritable):
            run()
    with Ledger.read(tmp_path / "run" / "ledger") as ledger:
        assert kinds(ledger)[-1] == "claim"
    with run() as ledger:
        assert kinds(ledger)[-1] == "end"


# ── units and executors ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def lab(model: Model, tmp_path: Path) -> Iterator[Lab]:
    with Ledger.open(tmp_path / "ledger") as ledger:
        yield lab_of(model, ledger, LocalExecutor(model, {}, tmp_path / "arrays"))


def lab_of(model: Model, ledger: Ledger, executor: Any) -> Lab:
    arrays = Arrays(ledger.path.parent / "arrays")
    return Lab(model, {}, arrays, lambda *_: None, claim("x"), {}, executor, ledger)


def test_a_unit_is_done_once(lab: Lab) -> None:
    first = lab.unit("toy.lengths", layer=1)
    assert lab.unit(toy_audit.lengths, layer=1) == first
    assert lab.units("toy.lengths", [dict(layer=1), dict(layer=0), dict(layer=1)])[::2] == [first, first]
    assert DONE == ["lengths 1 0", "lengths 0 0"]
    assert len(lab.ledger.entries("unit")) == 2


def test_a_unit_gives_the_same_again(lab: Lab) -> None:
    first = lab.unit("toy.lengths", layer=1)
    lab.arrays.path(first["states"]).unlink()
    assert lab.unit("toy.lengths", layer=1) == first
    assert len(DONE) == 2
    assert len(lab.ledger.entries("unit")) == 1
    np.testing.assert_array_equal(lab.arrays.get(first["states"])["states"].shape, [3, 32])


def test_a_unit_that_gives_something_else_is_refused(lab: Lab) -> None:
    drawn = iter((1.0, 2.0))

    @unit("toy.draws")
    def draws(bench: Bench) -> dict[str, object]:
        return {"drawn": next(drawn), "file": bench.arrays.put(x=np.zeros(1))}

    first = lab.unit(draws)
    lab.arrays.path(first["file"]).unlink()
    with pytest.raises(BadData, match=r"the unit 'toy\.draws' gave another result than it did before"):
        lab.unit(draws)


@pytest.mark.parametrize(
    ("name", "params", "what"),
    [
        ("toy.length", dict(layer=1), "there is no unit 'toy.length'"),
        ("toy.lengths", dict(layers=1), "the unit 'toy.lengths' does not take these parameters"),
        ("toy.lengths", dict(layer=1, seed=float("nan")), "a value has no JSON form"),
        (len, {}, "the function 'len' is no unit"),
    ],
)
def test_units_that_cannot_be_done(lab: Lab, name: Any, params: dict[str, Any], what: str) -> None:
    with pytest.raises(BadData) as caught:
        lab.unit(name, **params)
    assert caught.value.what.startswith(what[:20])
    assert DONE == []


def test_a_result_without_a_json_form_is_refused(lab: Lab) -> None:
    @unit("toy.nan")
    def nan(bench: Bench) -> float:
        return float("nan")

    with pytest.raises(BadData):
        lab.unit(nan)
    assert lab.ledger.entries("unit") == []


def test_one_name_one_function() -> None:
    with pytest.raises(BadData, match=r"two functions want to be the unit 'toy\.lengths'"):
        unit("toy.lengths")(lambda bench: None)
    assert unit("toy.lengths")(toy_audit.lengths) is toy_audit.lengths


def test_an_address_covers_what_a_result_depends_on(tmp_path: Path) -> None:
    task = Task("a", "m", {"x": 1}, "model", {"d": "1"}, "code")
    others = [
        Task("b", "m", {"x": 1}, "model", {"d": "1"}, "code"),
        Task("a", "m", {"x": 1.0}, "model", {"d": "1"}, "code"),
        Task("a", "m", {"x": 1}, "other", {"d": "1"}, "code"),
        Task("a", "m", {"x": 1}, "model", {"d": "2"}, "code"),
        Task("a", "m", {"x": 1}, "model", {"d": "1"}, "other"),
    ]
    assert len({task.address, *(other.address for other in others)}) == 6
    assert Task("a", "elsewhere", {"x": 1}, "model", {"d": "1"}, "code").address == task.address


def test_the_code_digest_follows_the_file(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        (tmp_path / "mine.py").write_text(text)
        space: dict[str, Any] = {}
        exec(compile(text, str(tmp_path / "mine.py"), "exec"), space)
        return code_digest(space["work"])

    first = digest("def work(bench):\n    return 1\n")
    assert digest("def work(bench):\n    return 1\n") == first
    assert digest("N = 2\ndef work(bench):\n    return 1\n") != first


def test_without_a_file_the_bytecode_counts() -> None:
    def digest(text: str) -> str:
        space: dict[str, Any] = {}
        exec(compile(text, "<cell>", "exec"), space)
        return code_digest(space["work"])

    first = digest("def work(bench):\n    return [x for x in (1, 2)]\n")
    assert digest("def work(bench):\n    return [x for x in (1, 2)]\n") == first
    assert digest("def work(bench):\n    return [x for x in (1, 3)]\n") != first


class Elsewhere:
    """Stands for a cluster: tasks travel as JSON, come back as JSON, and in another order."""

    def __init__(self, local: LocalExecutor) -> None:
        self.local = local

    def run(self, tasks: Sequence[Task], report: Report) -> Iterator[Done]:
        sent = [json.loads(json.dumps(vars(task))) for task in tasks]
        for fields in reversed(sent):
            task = Task(**{name: fields[name] for name in Task.__dataclass_fields__})
            (done,) = self.local.run([task], report)
            yield Done(task, json.loads(json.dumps(done.result)), dict(done.artefacts), done.seconds)


def test_another_executor_gives_the_same(model: Model, tmp_path: Path) -> None:
    far = Elsewhere(LocalExecutor(model, toy.data, tmp_path / "far" / "arrays"))
    with toy.run(model, into=tmp_path / "far", executor=far) as there, toy.run(model, into=tmp_path / "near") as here:
        assert results(there) == results(here)


def test_arrays_are_found_by_their_digest(tmp_path: Path) -> None:
    arrays = Arrays(tmp_path)
    digest = arrays.put(x=torch.arange(6.0).reshape(2, 3).T, y=np.array([True, False]))
    assert arrays.put(y=np.array([True, False]), x=np.arange(6, dtype=np.float32).reshape(2, 3).T) == digest
    assert arrays.made == [digest, digest]
    found = arrays.get(digest)
    np.testing.assert_array_equal(found["x"], [[0, 3], [1, 4], [2, 5]])
    assert found["y"].tolist() == [True, False]
    assert [path.name for path in tmp_path.iterdir()] == [f"{digest}.safetensors"]


def test_arrays_that_are_none(tmp_path: Path) -> None:
    for value in (torch.ones(2, dtype=torch.bfloat16), np.array(["a"]), [[1], [2, 3]]):
        with pytest.raises(BadData):
            Arrays(tmp_path).put(x=value)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_array_is_found_out(tmp_path: Path) -> None:
    arrays = Arrays(tmp_path)
    digest = arrays.put(x=np.ones(4))
    data = bytearray(arrays.path(digest).read_bytes())
    data[-1] ^= 1
    arrays.path(digest).write_bytes(data)
    with pytest.raises(CorruptFile, match="do not read"):
        arrays.get(digest)
    arrays.path(digest).unlink()
    with pytest.raises(CorruptFile, match="No such file"):
        arrays.get(digest)


def test_an_array_of_more_dimensions_than_numpy_has_is_refused(tmp_path: Path) -> None:
    """Found by fuzzing: safetensors reads its header, and NumPy raises."""
    header = json.dumps({"x": {"dtype": "BOOL", "shape": [0] * 5001, "data_offsets": [0, 0]}}).encode()
    data = len(header).to_bytes(8, "little") + header
    (tmp_path / f"{of_bytes(data)}.safetensors").write_bytes(data)
    with pytest.raises(CorruptFile, match="do not read"):
        Arrays(tmp_path).get(of_bytes(data))


# ── the room ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_room_is_its_own_decorator() -> None:
    assert assay.audit.audit is audit
    made = assay.audit(problem="p", question="q", threats=THREATS)(toy.story)
    assert (made.name, made.problem, made.defaults) == ("toy", "p", {"draws": 2, "seed": 0})
    assert assay.Claim is Claim


def test_the_room_needs_no_torch() -> None:
    code = "import sys, assay.audit; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": "src"})
