"""Rows of one's own: what reads, what does not and says why, and how a prompt becomes what a model takes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from assay import Model
from assay.audit.problems.data import watched
from assay.audit.problems.given.answers import answered, parts
from assay.audit.problems.given.rows import Choice, Matched, Measured, Turn, prompt_of, read_rows, write_rows
from assay.errors import BadData, CorruptFile, EmptyData, OneClass
from tests.tiny import tiny, tokenizer

CHOICE = {"prompt": "the cat sat", "answers": [" on", " in"], "label": 1}
MEASURED = {"prompts": ["a b", "a c"], "answers": [" up", " down"], "sensors": [1, 0], "trusted": True}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_rows_read_and_are_their_own_clusters(tmp_path: Path) -> None:
    path = written(tmp_path, CHOICE, "", CHOICE | {"label": 0, "cluster": "c", "id": "x"})
    found = read_rows(path, Choice)
    assert [(one.cluster, one.label) for one in found] == [("line 1", 1), ("c", 0)]
    again = tmp_path / "again.jsonl"
    again.write_text(write_rows(found), encoding="utf-8")
    assert read_rows(again, Choice) == found


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({**CHOICE, "label": 2}, "label"),
        ({**CHOICE, "label": "1"}, "label"),
        ({**CHOICE, "answers": [" on"]}, "answers"),
        ({**CHOICE, "mood": "good"}, "mood"),
        ({"answers": [" on", " in"], "label": 1}, "prompt"),
        ("{", "Expecting"),
        ("[1]", "the whole"),
        ("[" * 100_000, "nested"),
    ],
)
def test_a_line_that_is_no_row_says_which_and_why(tmp_path: Path, row: Any, found: str) -> None:
    with pytest.raises(BadData, match=r"rows\.jsonl, line 2 is no row of the kind Choice") as error:
        read_rows(written(tmp_path, CHOICE, row), Choice)
    assert found in str(error.value)


def test_files_without_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EmptyData, match="holds no rows"):
        read_rows(written(tmp_path, "", " "), Choice)
    with pytest.raises(OneClass, match="all 2 rows"):
        read_rows(written(tmp_path, CHOICE, CHOICE), Choice)
    with pytest.raises(CorruptFile):
        read_rows(tmp_path / "none.jsonl", Choice)
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe\xe4")
    with pytest.raises(BadData, match="not UTF-8"):
        read_rows(tmp_path / "latin.jsonl", Choice)


def test_a_measured_row_has_a_prompt_for_each_sensor(tmp_path: Path) -> None:
    assert read_rows(written(tmp_path, MEASURED), Measured)[0].real is None
    with pytest.raises(BadData, match="line 1") as error:
        read_rows(written(tmp_path, MEASURED | {"sensors": [1]}), Measured)
    assert "2 prompts for 1 sensors" in str(error.value)


def test_the_rows_that_come_with_assay_are_what_their_script_writes() -> None:
    path = Path(watched.__file__).with_name("watched.jsonl")
    assert path.read_text(encoding="utf-8") == write_rows(watched.rows())
    rows = read_rows(path, Matched)
    assert sum(row.label for row in rows) == len(rows) / 2
    assert all(row.watched != row.unwatched for row in rows)


def test_parts_hold_whole_clusters_and_follow_the_seed() -> None:
    clusters = [f"c{n % 20}" for n in range(60)]
    found = parts(clusters, 0)
    for name in set(clusters):
        assert len({part for part, cluster in zip(found, clusters, strict=True) if cluster == name}) == 1
    assert [list(found).count(name) // 3 for name in ("fit", "tune", "test")] == [10, 4, 6]
    assert list(parts(clusters, 0)) == list(found) != list(parts(clusters, 1))


def test_a_turn_is_a_chat_where_the_model_has_a_template() -> None:
    said = Turn(user="ask", system="be", prefix="A:")
    chatty, plain = tokenizer(), copy.copy(tokenizer())
    plain.chat_template = None
    chat = prompt_of(Model.load(tiny("llama"), tokenizer=chatty, selftest=False), said)
    assert (chat.text, chat.turns, chat.prefix) == ("ask", (("system", "be"),), "A:")
    text = prompt_of(Model.load(tiny("llama"), tokenizer=plain, selftest=False), said)
    assert (text.text, text.turns) == ("be\n\nask\nA:", None)
    assert prompt_of(Model.load(tiny("llama"), tokenizer=chatty, selftest=False), "ask").turns is None


def test_answers_are_scored_as_the_model_scores_them() -> None:
    model = Model.load(tiny("llama"), tokenizer=tokenizer(), selftest=False)
    prompts, pairs = ["the cat sat on", "a dog ran"], [[" the", " a"], [" to", " in"]]
    found = answered(model, prompts, pairs, [0, 1])
    scores = model.score(prompts, pairs)
    assert found.odds.tolist() == scores.difference[:, 0].tolist()
    assert found.stream.shape == (2, 2, model.shape.d_model)
    assert ((found.mass > 0) & (found.mass < 1)).all()
