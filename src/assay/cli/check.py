"""``assay check`` and ``assay report``: what anybody can do with a run's folder, without its model."""

from __future__ import annotations

import webbrowser
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.options import Run
from assay.cli.terminal import Row, out, show_checks
from assay.errors import CorruptFile

if TYPE_CHECKING:
    from assay.evidence import Ledger

Open = Annotated[bool, typer.Option("--open", help="Show the page in the browser.")]
Head = Annotated[str | None, typer.Option(help="A head that was published earlier; the ledger must contain it.")]


def check(run: Run, head: Head = None) -> None:
    """Check a run's chain of entries, its files, and that its reports say what its ledger says."""
    with _ledger(run) as ledger:
        tip = ledger.verify(head)
        kinds = Counter(entry.kind for entry in ledger.entries())
        rows = [
            Row(True, "chain", f"{kinds.total()} entries, head {tip}"),
            Row(True, "entries", ", ".join(f"{number} {kind}" for kind, number in kinds.items())),
            Row(True, "claims", _claims(ledger)),
            _arrays(ledger),
            *_reports(ledger),
        ]
    show_checks(out(), rows)


def report(run: Run, show: Open = False) -> None:
    """Write a run's reports anew from its ledger, finished or not."""
    from assay.evidence import read_findings
    from assay.report import write_reports

    with _ledger(run) as ledger:
        paths = write_reports(read_findings(ledger), ledger.path.parent)
    for path in paths:
        out().print(str(path))
    if show:
        webbrowser.open(paths[0].resolve().as_uri())


def _ledger(run: Run) -> Ledger:
    from assay.evidence import Ledger

    return Ledger.read(run / "ledger" if run.is_dir() else run)


def _claims(ledger: Ledger) -> str:
    keys = [entry.key for entry in ledger.entries("claim")]
    standings = Counter(ledger.standing(key) for key in keys)
    answered = {entry.key for kind in ("outcome", "missing") for entry in ledger.entries(kind)}
    waiting = len(set(keys) - answered)
    told = [f"{number} {standing}" for standing, number in standings.items()]
    return ", ".join([*told, *([f"{waiting} without an outcome yet"] if waiting else [])]) or "none yet"


def _arrays(ledger: Ledger) -> Row:
    from assay.evidence import Unit, of_file

    folder = ledger.path.parent / "arrays"
    named = {name: digest for entry in ledger.entries(Unit.kind) for name, digest in entry.read(Unit).artefacts.items()}
    wrong = []
    for name, digest in named.items():
        try:
            if of_file(folder / name) != digest:
                wrong.append(f"{name} is not what was written")
        except CorruptFile:
            wrong.append(f"{name} is not there")
    hint = "bring back a copy, or remove the files: what made them is run again when the run goes on"
    return Row(not wrong, "arrays", "; ".join(wrong) or f"{len(named)} files, as their digests say", hint)


def _reports(ledger: Ledger) -> list[Row]:
    from assay.evidence import read_findings
    from assay.report import render_html, render_markdown

    rows, folder = [], ledger.path.parent
    for name, render in (("report.html", render_html), ("report.md", render_markdown)):
        path = folder / name
        if not path.is_file():
            found = "is not there"
        elif path.read_text("utf-8") != render(read_findings(ledger)):
            found = "is not what this version of Assay makes of the ledger"
        else:
            found = ""
        rows.append(Row(not found, name, found or "says what the ledger says", f"write it anew: assay report {folder}"))
    return rows
