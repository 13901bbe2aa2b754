"""Ray does what this process does, with workers and drivers that are killed and units that fail. A real Ray."""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay import Model
from assay.audit import Bench, Lab, Ledger, Outcome, Plan, measure
from assay.audit.claim import MEASURES
from assay.errors import BadData, CorruptFile, MissingExtra, NoSuchSite
from assay.evidence import Missing, of_json
from assay.scale import Arrays, LocalExecutor, RayExecutor, Task, unit
from assay.scale import ray as scale_ray
from assay.scale.executor import data_digest
from assay.scale.unit import UNITS, code_digest, laboratory_digest
from tests.conftest import Assay
from tests.fixtures.toy_audit import THREATS, claim
from tests.skips import skip
from tests.test_audit import planned, results
from tests.tiny import tiny, tokenizer

ROOT = Path(__file__).parents[1]
TOY = str(ROOT / "tests" / "fixtures" / "toy_audit.py")


# ── units that say when and where they were done ────────────────────────────────────────────────────────────────────


def note(log: str, line: str) -> None:
    """One line, appended whole."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, f"{line}\n".encode())
    os.close(file)


def told(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


@unit("ray.works")
def works(bench: Bench, *, log: str, number: int, seconds: float = 0.0) -> dict[str, Any]:
    note(log, f"{number} {os.getpid()} {id(bench.model)}")
    time.sleep(seconds)
    states = bench.model.capture(["Berlin is the capital"], "L1.resid @ last")["L1.resid @ last"] + number
    return {"norm": float(states.norm()), "states": bench.arrays.put(states=states)}


@unit("ray.reads")
def reads(bench: Bench, *, of: list[dict[str, str]]) -> list[float]:
    """Looks at another unit's arrays, and at the data."""
    there = bench.data["folder"] / "inside" / "words.txt"
    return [float(np.abs(bench.arrays.get(one["states"])["states"]).sum()) for one in of] + [len(there.read_text())]


@unit("ray.dies")
def dies(bench: Bench, *, log: str) -> None:
    note(log, f"0 {os.getpid()} 0")
    os.kill(os.getpid(), signal.SIGKILL)


class Odd(Exception):
    """Cannot be made again from what it holds."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


@unit("ray.fails")
def fails(bench: Bench, *, how: str) -> None:
    match how:
        case "typed":
            raise BadData("the item 3 does not read", hint="mend it", found="nothing")
        case "deep":
            bench.model.capture(["Berlin"], "L99.resid @ last")
        case "plain":
            raise ValueError("out of luck")
        case "odd":
            raise Odd(1, 2)


def story(log: str, seconds: float = 0.3, units: int = 10) -> Iterator[Any]:
    yield [claim("works", measure="ray.all", params=dict(log=log, seconds=seconds, units=units))]


@measure("ray.all")
def every(lab: Lab, *, log: str, seconds: float, units: int) -> Outcome:
    lab.units(works, [dict(log=log, number=number, seconds=seconds) for number in range(units)])
    return Outcome(claim=lab.claim.digest, verdict="not testable", because="All is done.")


# ── what they share ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a local folder."""
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny("llama").save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def here(folder: Path) -> Model:
    return Model.load(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file, and a folder with a file in a folder."""
    top = tmp_path_factory.mktemp("data")
    (top / "folder" / "inside").mkdir(parents=True)
    (top / "folder" / "inside" / "words.txt").write_text("some words")
    (top / "file.txt").write_text("a file")
    return {"file": top / "file.txt", "folder": top / "folder"}


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Ray that an executor started; gone after it."""
    if importlib.util.find_spec("ray") is None:
        skip("ray")
    patch = pytest.MonkeyPatch()
    patch.setenv("ASSAY_CACHE", str(tmp_path_factory.mktemp("cache")))
    laboratory_digest()
    with RayExecutor(None, {}, tmp_path_factory.mktemp("none"), workers=4) as executor:
        executor._connect()  # four workers at most, on two cores
        yield executor._ray
        assert executor._ray.is_initialized()
    assert not executor._ray.is_initialized()
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ
    patch.undo()


@pytest.fixture(scope="module")
def crew(ray: Any, folder: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two workers with the tiny model."""
    with RayExecutor(folder, data, tmp_path_factory.mktemp("crew"), workers=2) as executor:
        yield executor


@pytest.fixture
def make(here: Model, data: dict[str, Path]) -> Callable[..., Task]:
    """A task as a `Lab` makes it."""

    def made(function: Callable[..., Any], **params: Any) -> Task:
        digests = {name: data_digest(path) for name, path in data.items()}
        name = UNITS.named(function)
        return Task(name, function.__module__, params, here.fingerprint, digests, code_digest(function))

    return made


def silent(*_: object) -> None:
    """Reports to nobody."""


def both_at_hand(crew: RayExecutor, make: Any, log: Path) -> None:
    """Give little tasks until both workers have done one, so that neither has anything left to import."""
    while len({pid for _, pid, _ in told(log)}) < 2:
        list(crew.run([make(works, log=str(log), number=number, seconds=0.2) for number in range(2)], silent))


# ── the same as here ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_model_is_loaded_once_for_each_worker(crew: RayExecutor, make: Any, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    tasks = [make(works, log=str(tmp_path / "log"), number=number, seconds=0.05) for number in range(24)]
    done = list(crew.run(tasks, lambda *progress: said.append(progress)))
    assert Counter(one.task.address for one in done) == Counter(task.address for task in tasks)
    assert {one.task.params["number"] for one in done} == set(range(24))
    lines = told(tmp_path / "log")
    assert len(lines) == 24
    assert len({pid for _, pid, _ in lines}) == len({(pid, model) for _, pid, model in lines}) <= 2
    assert str(os.getpid()) not in {pid for _, pid, _ in lines}
    assert said[0] == ("starting workers", 0, 1)


def test_units_give_what_they_give_here(
    crew: RayExecutor, make: Any, here: Model, data: dict[str, Path], tmp_path: Path
) -> None:
    first = [make(works, log=str(tmp_path / "log"), number=number) for number in range(4)]
    local = LocalExecutor(here, data, tmp_path / "arrays")
    near = {one.task.address: one for one in local.run(first, silent)}
    far = {one.task.address: one for one in crew.run(first, silent)}
    assert {a: (one.result, one.artefacts) for a, one in near.items()} == {
        a: (one.result, one.artefacts) for a, one in far.items()
    }
    second = [make(reads, of=[one.result for one in near.values()])]
    assert [one.result for one in crew.run(second, silent)] == [one.result for one in local.run(second, silent)]


class Apart(RayExecutor):
    """Its workers see nothing of the driver's files but the model, as on machines that share no folder."""

    def _order(self, task: Task) -> scale_ray.Order:
        order = super()._order(task)
        nowhere = {name: ("/nowhere", digest) for name, (_, digest) in order.data.items()}
        return replace(order, mark="/nowhere", folder="/nowhere", data=nowhere)


def test_files_travel_where_none_are_shared(
    ray: Any, make: Any, here: Model, folder: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    first = [make(works, log=str(tmp_path / "log"), number=number) for number in range(4)]
    near = list(LocalExecutor(here, data, tmp_path / "arrays").run(first[:2], silent))
    with Apart(folder, data, tmp_path / "arrays", workers=1) as executor:
        far = list(executor.run(first[2:], silent))
        names = {name for one in near + far for name in one.artefacts}
        assert {path.name for path in (tmp_path / "arrays").iterdir() if path.suffix != ".mark"} == names
        assert len(names) == 4
        states = [Arrays(tmp_path / "arrays").get(one.result["states"])["states"] for one in near + far]
        (read,) = executor.run([make(reads, of=[one.result for one in near + far])], silent)
        assert read.result == [*(float(np.abs(one).sum()) for one in states), len("some words")]
    assert not any(path.suffix == ".mark" for path in (tmp_path / "arrays").iterdir())


# ── kills ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_workers_killed_at_random_cost_a_unit_each(crew: RayExecutor, make: Any, tmp_path: Path) -> None:
    log, chance, killed = tmp_path / "log", random.Random(0), set[str]()
    tasks = [make(works, log=str(log), number=number, seconds=0.25) for number in range(16)]

    def kill(most: int = 2) -> None:
        while len(killed) < most:
            begun = [pid for _, pid, _ in told(log) if pid not in killed]
            if begun:
                time.sleep(chance.uniform(0, 0.25))
                os.kill(int(begun[-1]), signal.SIGKILL)
                killed.add(begun[-1])
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    done = list(crew.run(tasks, silent))
    killer.join()
    assert len(killed) == 2
    assert sorted(one.task.params["number"] for one in done) == list(range(16))
    assert len({one.result["norm"] for one in done}) == 16
    assert len(told(log)) <= 16 + len(killed)


def test_a_unit_that_ends_its_workers_is_an_answer(crew: RayExecutor, make: Any, tmp_path: Path) -> None:
    task = make(dies, log=str(tmp_path / "log"))
    with pytest.raises(BadData) as caught:
        list(crew.run([task], silent))
    assert caught.value.what == f"the unit 'ray.dies' at {task.address[:12]}… ended its worker 3 times"
    assert len(told(tmp_path / "log")) == 3
    assert list(caught.value.fields) == ["found"]


def plan_of(log: Path, **arguments: Any) -> Plan:
    return planned(story, threats=THREATS)(log=str(log), **arguments)


def test_a_killed_driver_goes_on(ray: Any, folder: Path, tmp_path: Path) -> None:
    address, log, into = ray.get_runtime_context().gcs_address, tmp_path / "log", tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.test_ray", address, str(folder), str(into), str(log)]
    driver = subprocess.Popen(command, cwd=ROOT, env=environment)
    until = time.monotonic() + 120
    while len(told(log)) < 4 and time.monotonic() < until:
        assert driver.poll() is None
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    with Ledger.read(into / "ledger") as ledger:
        kept = len(ledger.entries("unit"))
    assert 1 <= kept < 10

    with RayExecutor(folder, {}, into / "arrays", workers=1) as executor:
        plan_of(log).run(folder, into=into, executor=executor).close()
    lines = told(log)
    assert {number for number, *_ in lines} == {str(number) for number in range(10)}
    assert len(lines) <= 10 + 2  # those that were in work
    with Ledger.read(into / "ledger") as ledger:
        ledger.verify()
        found = {of_json(entry.body["params"]): entry.body["result"] for entry in ledger.entries("unit")}
        assert len(found) == len(ledger.entries("unit")) == 10
        assert [entry.kind for entry in ledger.entries()][-1] == "end"
    whole = plan_of(log).run(folder, into=tmp_path / "whole")
    with whole:
        assert {of_json(entry.body["params"]): entry.body["result"] for entry in whole.entries("unit")} == found


# ── what goes wrong ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_errors_arrive_as_they_were_raised(crew: RayExecutor, make: Any, here: Model, tmp_path: Path) -> None:
    for how, kind in (("typed", BadData), ("deep", NoSuchSite), ("plain", ValueError), ("odd", RuntimeError)):
        with pytest.raises(kind) as caught:
            list(crew.run([make(fails, how=how)], silent))
        assert type(caught.value) is kind
        at = caught.traceback[-1]
        assert (Path(at.path).name, at.name) != ("ray.py", "run")
        if how == "plain":
            assert (Path(at.path).name, at.name, at.lineno + 1) == ("test_ray.py", "fails", fails_at("ValueError"))
        if how != "odd":
            local = LocalExecutor(here, crew.data, tmp_path)
            with pytest.raises(kind) as near:
                list(local.run([make(fails, how=how)], silent))
            assert str(caught.value) == str(near.value)
    assert str(caught.value) == "Odd: odd"


def fails_at(what: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if f"raise {what}" in line)


def test_what_is_in_work_is_finished_before_an_error(crew: RayExecutor, make: Any, tmp_path: Path) -> None:
    both_at_hand(crew, make, tmp_path / "before")
    tasks = [make(works, log=str(tmp_path / "log"), number=1, seconds=0.5), make(fails, how="plain")]
    tasks += [make(works, log=str(tmp_path / "log"), number=number) for number in range(2, 9)]
    done: list[Any] = []
    with pytest.raises(ValueError, match="out of luck"):
        done.extend(crew.run(tasks, silent))
    assert [one.task.params["number"] for one in done] == [1]
    assert len(told(tmp_path / "log")) == 1


def test_a_run_that_nobody_finished_is_no_part_of_the_next(crew: RayExecutor, make: Any, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    both_at_hand(crew, make, tmp_path / "before")
    left = crew.run([make(works, log=log, number=number, seconds=0.3) for number in range(4)], silent)
    next(left)
    left.close()
    done = list(crew.run([make(works, log=log, number=9, seconds=1.0)], silent))  # longer than what is still in work
    assert [one.task.params["number"] for one in done] == [9]


@pytest.fixture
def order(crew: RayExecutor, make: Any) -> scale_ray.Order:
    return crew._order(make(works))


@pytest.mark.parametrize(
    ("changes", "kind", "what"),
    [
        (dict(versions={"torch": "1.0"}), MissingExtra, "a worker has other versions"),
        (dict(code="0" * 64), CorruptFile, "a worker has another Assay"),
        (dict(source="/no/where"), CorruptFile, "a worker cannot load the model: '/no/where' is no local model"),
        (dict(model="0" * 64), CorruptFile, "a worker has another model"),
    ],
)
def test_a_worker_that_is_another_refuses(
    order: scale_ray.Order, changes: dict[str, Any], kind: type[Exception], what: str
) -> None:
    with pytest.raises(kind, match=what):
        scale_ray.Worker().start(replace(order, **changes))


def test_data_that_are_others_are_refused(order: scale_ray.Order, data: dict[str, Path]) -> None:
    worker = scale_ray.Worker()
    assert worker.start(order)[:2] == (True, [])
    assert worker.start(replace(order, data={"file": ("/nowhere", order.data["file"][1])}))[1] == ["file"]
    with pytest.raises(CorruptFile, match="the data 'file' are not those that the run began with"):
        worker.receive("file", {"file.txt": b"another"})
    worker.receive("file", {"file.txt": b"a file"})
    assert worker.data["file"].read_text() == "a file"
    assert worker.home.is_dir()
    worker.leave()
    assert not worker.home.exists()


class Other(RayExecutor):
    """Its workers are asked to have other versions."""

    def _order(self, task: Task) -> scale_ray.Order:
        return replace(super()._order(task), versions={"torch": "1.0"})


def test_what_is_wrong_with_workers_stops_a_run(
    ray: Any, crew: RayExecutor, make: Any, folder: Path, tmp_path: Path
) -> None:
    task = make(works, log=str(tmp_path / "log"), number=0)
    with pytest.raises(CorruptFile, match=r"a worker has other code for the unit 'ray\.works'"):
        list(crew.run([replace(task, code="0" * 64)], silent))
    with pytest.raises(CorruptFile, match="an executor works for one run"):
        list(crew.run([replace(task, model="0" * 64)], silent))
    with (
        Other(folder, {}, tmp_path / "arrays", workers=1) as executor,
        pytest.raises(MissingExtra, match="other versions"),
    ):
        plan_of(tmp_path / "log").run(folder, into=tmp_path, executor=executor)
    assert told(tmp_path / "log") == []
    with Ledger.read(tmp_path / "ledger") as ledger:
        assert [entry.kind for entry in ledger.entries()][-1] == "claim"


def test_workers_that_never_start_are_an_error(ray: Any, make: Any, tmp_path: Path) -> None:
    class Ill(RayExecutor):
        def _order(self, task: Task) -> scale_ray.Order:
            return replace(super()._order(task), mark=Fatal())

    with Ill(None, {}, tmp_path, workers=1) as executor, pytest.raises(MissingExtra) as caught:
        list(executor.run([make(works, log="", number=0)], silent))
    assert caught.value.what == "workers end while they start"


class Fatal:
    """Ends the process that receives it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (7,)


def test_what_cannot_be_sent(crew: RayExecutor, make: Any, here: Model, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="a Model cannot be sent to workers"):
        RayExecutor(here, {}, tmp_path)
    with pytest.raises(BadData, match="no work is done by nobody"):
        RayExecutor(None, {}, tmp_path, workers=0)
    task = replace(make(works, log="", number=0), module="__main__")
    with pytest.raises(CorruptFile, match="is in no file that workers could import"):
        list(crew.run([task], silent))


def test_ray_that_is_not_there(ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    with pytest.raises(MissingExtra, match=r"no Ray answers at '127\.0\.0\.1:9'"), monkeypatch.context() as patch:
        patch.setattr("ray.is_initialized", lambda: False)
        RayExecutor(None, {}, tmp_path, address="127.0.0.1:9").__enter__()
    assert time.monotonic() - start < 60
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra) as caught:
        RayExecutor(None, {}, tmp_path)
    assert caught.value.hint == "pip install 'assay[ray]'"


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def command(assay: Assay) -> Iterator[Assay]:
    """The command, which reads the toy's file anew; whoever imported it before gets its units and measures back."""
    before = [(names, dict(names)) for names in (UNITS, MEASURES)]
    yield assay
    for names, known in before:
        names.clear()
        names.update(known)


def test_an_audit_from_a_file_gives_the_same(ray: Any, command: Any, folder: Path, tmp_path: Path) -> None:
    given = ("--model", folder, "--set", "draws=1")
    assert command("audit", TOY, *given, "--into", tmp_path / "far", "--on", "ray")[0] == 0
    assert command("audit", TOY, *given, "--into", tmp_path / "near")[0] == 0
    with Ledger.read(tmp_path / "far" / "ledger") as far, Ledger.read(tmp_path / "near" / "ledger") as near:
        assert results(far) == results(near)
        assert len(far.entries("unit")) == 3
        assert [entry.read(Missing).reason[:10] for entry in far.entries("missing")] == ["ValueError"]


def test_places_that_are_none(command: Any, folder: Path, tmp_path: Path) -> None:
    for place in ("cluster", "local:8", "rays", ""):
        code, _, err = command("audit", TOY, "--model", folder, "--into", tmp_path / "run", "--on", place)
        assert (code, err.splitlines()[0]) == (2, f"BadData: --on {place!r} is no place to work")
    assert not (tmp_path / "run").exists()


if __name__ == "__main__":  # the driver that is killed
    torch.set_num_threads(1)
    _, address, source, into, log = sys.argv
    with RayExecutor(source, {}, Path(into, "arrays"), address=address, workers=2) as executor:
        importlib.import_module("tests.test_ray").plan_of(Path(log)).run(source, into=into, executor=executor)
