"""An audit over checkpoints: onsets of registered predictions, and whether they come together."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.audit import audit_called
from assay.audit.problems.unwatched import on_rows
from assay.audit.training import checkpoints, over
from assay.errors import BadData, EmptyData
from assay.evidence import Unit, read_findings
from assay.organisms.families import recipe, train
from assay.organisms.families.material import material
from tests.conftest import Assay

STEPS = (0, 40, 160, 200, 240)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a liar, and rows; the lie sets in between steps 40 and 160."""
    home = tmp_path_factory.mktemp("series")
    liar = train(recipe("deception", "planted", seed=0), cache=home / "cache")
    assert liar.onset is not None
    assert 40 < liar.onset <= 160
    for step in STEPS:
        liar.export(step, home / "checkpoints" / f"step-{step:04}")
    (home / "rows.jsonl").write_text(material(liar.recipe, "deception", 700), encoding="utf-8")
    return home


def test_predictions_get_onsets_and_come_together(series: Path, tmp_path: Path) -> None:
    plan = over(on_rows(series / "rows.jsonl"), "unwatched", series / "checkpoints")
    with plan.run(series / "checkpoints" / "step-0240", into=tmp_path) as ledger:
        found = {one.claim.key: one for one in read_findings(ledger).claims}
        units = [entry.read(Unit) for entry in ledger.entries(Unit.kind)]
    assert list(found) == ["says-otherwise-onset", "still-reads-onset", "turns-onset", "together"]
    assert all(one.standing == "confirmatory" for one in found.values())
    assert len(units) == len(STEPS)  # every checkpoint was audited once, for all claims
    turned = found["turns-onset"].outcome
    assert turned is not None
    assert (turned.verdict, turned.effects[0].value) == ("supported", 160)
    assert 40 <= turned.effects[0].low <= 160
    assert [row[2] for row in turned.tables[0].rows] == ["not supported", "not supported", *["supported"] * 3]
    assert found["together"].verdict == "supported"


def test_the_command_takes_a_folder_of_checkpoints_and_rows(series: Path, tmp_path: Path, assay: Assay) -> None:
    asked = ["--checkpoints", str(series / "checkpoints"), "--data", f"rows={series / 'rows.jsonl'}"]
    code, _, told = assay("audit", "unwatched", *asked, "--into", str(tmp_path / "run"), "--set", "draws=18")
    assert code == 2
    assert "draws=18 leaves nothing to find" in told
    assert not (tmp_path / "run").exists()
    code, _, told = assay("audit", "unwatched", "--data", "lines=x", "--into", str(tmp_path / "no"))
    assert code == 2
    assert "names no data of the audit 'unwatched'" in told


def test_steps_are_the_last_numbers_of_names(tmp_path: Path) -> None:
    for name in ("run7-step-20", "run7-step-3", "run7-step-100"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "logs").mkdir()
    assert [one.step for one in checkpoints(tmp_path)] == [3, 20, 100]
    assert [(one.step, one.revision) for one in checkpoints("step9,step1,step5")] == [
        (1, "step1"),
        (5, "step5"),
        (9, "step9"),
    ]
    with pytest.raises(EmptyData, match="holds 2 checkpoints"):
        checkpoints("step1,step2")
    with pytest.raises(BadData, match="says no step"):
        checkpoints("main,step1,step2")
    with pytest.raises(BadData, match="two checkpoints are of step 1"):
        checkpoints("step1,other1,step2")


def test_an_audit_that_keeps_no_values_has_no_onset() -> None:
    with pytest.raises(BadData, match="keeps no values"):
        over(audit_called("deception"), "deception", "step1,step2,step3")
