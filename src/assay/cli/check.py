"""``assay check`` and ``assay report``: what anybody can do with a run's folder, without its model and without torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.terminal import HOLDS, out, show_rows

if TYPE_CHECKING:
    from assay.evidence import Ledger

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder, or its ledger.")]


def check(
    run: Run,
    head: Annotated[
        str | None, typer.Option(help="A head that was published earlier; the ledger must still contain it.")
    ] = None,
) -> None:
    """Check a run's chain of entries, its files, and that its reports say what its ledger says."""
    console = out()
    with _ledger(run) as ledger:
        tip = ledger.verify(head)
        entries = ledger.entries()
        kinds = Counter(entry.kind for entry in entries)
        rows = [
            (HOLDS[True], "chain", f"{len(entries)} entries, head {tip}"),
            (HOLDS[True], "entries", ", ".join(f"{number} {kind}" for kind, number in kinds.items())),
            (HOLDS[True], "claims", _claims(ledger)),
            *_arrays(ledger),
            *_reports(ledger),
        ]
    show_rows(console, rows, styles={HOLDS[False]: "bold red"})
    if any(mark == HOLDS[False] for mark, *_ in rows):
        raise typer.Exit(1)


def report(run: Run) -> None:
    """Write a run's reports anew from its ledger, finished or not."""
    from assay.report import write_reports

    with _ledger(run) as ledger:
        for path in write_reports(ledger, ledger.path.parent):
            out().print(str(path))


def _ledger(run: Path) -> Ledger:
    from assay.evidence import Ledger

    return Ledger.read(run / "ledger" if run.is_dir() else run)


def _claims(ledger: Ledger) -> str:
    standing = Counter(ledger.standing(entry.key) for entry in ledger.entries("claim"))
    answered = {entry.key for kind in ("outcome", "missing") for entry in ledger.entries(kind)}
    told = [f"{number} {word}" for word, number in standing.items()]
    waiting = sum(standing.values()) - len(answered)
    return ", ".join([*told, *([f"{waiting} without an outcome yet"] if waiting else [])]) or "none"


def _arrays(ledger: Ledger) -> list[tuple[str, str, str]]:
    from assay.errors import CorruptFile
    from assay.evidence import Unit, of_file

    folder, wrong, names = ledger.path.parent / "arrays", [], set()
    for entry in ledger.entries(Unit.kind):
        for name, digest in entry.read(Unit).artefacts.items():
            names.add(name)
            try:
                if of_file(folder / name) != digest:
                    wrong.append(f"{name[:12]}… is not what was written")
            except CorruptFile:
                wrong.append(f"{name[:12]}… is not there")
    told = f"{len(names)} files, as their digests say" if not wrong else "; ".join(dict.fromkeys(wrong))
    return [(HOLDS[not wrong], "arrays", told)]


def _reports(ledger: Ledger) -> list[tuple[str, str, str]]:
    from assay.report import render_html, render_markdown

    rows = []
    for name, render in (("report.html", render_html), ("report.md", render_markdown)):
        path = ledger.path.parent / name
        same = path.is_file() and path.read_text("utf-8") == render(ledger)
        told = (
            "says what the ledger says"
            if same
            else "is not there"
            if not path.is_file()
            else "differs from what this version of Assay writes"
        )
        rows.append((HOLDS[same], name, told if same else f"{told}; assay report {ledger.path.parent} writes it anew"))
    return rows
