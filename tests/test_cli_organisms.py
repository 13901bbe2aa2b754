"""Organisms from the command line: trained, listed, checked; one whose plant did not take is said to be so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Assay


def test_train_list_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assay: Assay) -> None:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path))
    short = ("--set", "base_steps=4", "--set", "steps=4", "--set", "every=2")
    code, out, _ = assay("organisms", "train", "deception", "--seeds", "2", *short)
    assert code == 0
    first, second = out.splitlines()
    assert first.startswith("deception planted, seed 0: did not take")
    folder = first.rpartition(", ")[2]
    assert Path(folder, "card.json").is_file()

    code, out, _ = assay("organisms", "list")
    assert (code, folder in out, second.rpartition(", ")[2] in out) == (0, True, True)
    assert out.splitlines()[-1] == "deception planted: 0 of 2 took"

    code, out, _ = assay("organisms", "check", folder, "--rebuild")
    assert code == 1, "its figures do not hold"
    assert "ok  card" in out
    assert "every bit equal" in out
    assert assay("organisms", "train", "deceptoin")[0] == 2
