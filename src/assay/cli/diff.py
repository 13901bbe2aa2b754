"""``assay diff``: two runs of one audit side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.options import Run
from assay.cli.terminal import out, show_rows

if TYPE_CHECKING:
    from assay.evidence import Findings
    from assay.report.diff import ClaimPair, Diff

Other = Annotated[Path, typer.Argument(metavar="RUN", help="The other run: another checkpoint, or another model.")]
Into = Annotated[Path | None, typer.Option("--into", metavar="FILE.html", help="Write it as a page too.")]


def diff(run: Run, other: Other, into: Into = None) -> None:
    """Compare two runs of one audit, claim by claim, with intervals on the differences (second minus first)."""
    from assay.report.diff import SAYS, compare

    found = compare(_findings(run), _findings(other))
    console = out()
    for which, findings, path in (("first", found.one, run), ("second", found.other, other)):
        console.print(f"{which:<6}  {_told(findings)}  {path}")
    for text in found.circumstances:
        console.print(f"not the same: {text}")
    console.print()
    rows = list(_rows(found))
    if rows:
        show_rows(console, rows, heads=("first", "second", "difference", "of"), styles={"another verdict": "bold"})
    for which, alone in (("first", found.only_one), ("second", found.only_other)):
        for view in alone:
            console.print(_shown(f"only in the {which}: {view.claim.key}, {view.verdict}: {view.claim.statement}"))
    console.print()
    console.print("* leaves out 0")
    for text in SAYS:
        console.print(text)
    if into is not None:
        from assay.files import write_whole
        from assay.report.html import render_diff

        console.print(str(write_whole(into, render_diff(found))))


def _findings(run: Path) -> Findings:
    from assay.evidence import Ledger, read_findings

    with Ledger.read(run / "ledger" if run.is_dir() else run) as ledger:
        return read_findings(ledger)


def _told(findings: Findings) -> str:
    from assay.report.words import short

    origin = findings.origin
    if origin is None:
        return "no provenance yet"
    told = [origin.model, *([short(origin.revision)] if origin.revision else []), f"({short(origin.fingerprint)})"]
    return _shown(" ".join((*told, *([] if findings.end else ["interim"]))))


def _rows(found: Diff) -> Iterator[tuple[str, str, str, str]]:
    for one, other in found.threats:
        yield one.verdict, other.verdict, _changed(one.verdict, other.verdict), _shown(f"threat model {one.threat.key}")
        for pair in found.about(one):
            yield from _claim(pair)
    for pair in found.strays:
        yield from _claim(pair)


def _claim(pair: ClaimPair) -> Iterator[tuple[str, str, str, str]]:
    from assay.report.words import sized

    differ = f", settings differ: {'; '.join(pair.settings)}" if pair.settings else ""
    one, other = pair.one.verdict, pair.other.verdict
    yield one, other, _changed(one, other), _shown(f"claim {pair.one.claim.key}{differ}")
    for effects in pair.effects:
        sides = ["{} ({})".format(*sized(side.value, side.low, side.high)) for side in (effects.one, effects.other)]
        gap, name = effects.difference, effects.one.name
        names = name if name == effects.other.name else f"{name}; {effects.other.name}"
        told, why = "–", f" (no difference: {effects.why_not})"
        if gap is not None:
            told, why = "{} ({})".format(*sized(gap.value, gap.low, gap.high)), f" {gap.unit}" if gap.unit else ""
        yield sides[0], sides[1], told + ("" if gap is None or not gap.excludes_zero else " *"), _shown(names + why)


def _changed(one: str, other: str) -> str:
    return "" if one == other else "another verdict"


def _shown(text: str) -> str:
    from assay.report.words import visible

    return visible(text).replace("\n", " ")
