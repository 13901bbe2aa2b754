"""``assay benchmark``: how often an audit is wrong, on models of which it is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.audit import On
from assay.cli.terminal import Row, out, show_checks, show_rows
from assay.errors import CorruptFile
from assay.files import parse_json, read_bytes, write_whole

Class = Annotated[
    list[str] | None,
    typer.Option(
        "--class", metavar="CLASS", help="deception, tampering or backdoor; may be repeated. All unless given."
    ),
]
Seeds = Annotated[int, typer.Option(help="Planted, clean and decoy models each.")]
Planted = Annotated[int, typer.Option(help="Planted models, where more of them are wanted: some plants do not take.")]
Hard = Annotated[int, typer.Option(help="Hard twins.")]
Others = Annotated[int, typer.Option(help="Planted models of each other class, on which the audit should stay silent.")]
Series = Annotated[int, typer.Option(help="Planted models of which every checkpoint is audited.")]
Sealed = Annotated[
    bool, typer.Option("--sealed", help="On the seeds that nothing was chosen by: for the table of a release.")
]
Into = Annotated[Path, typer.Option(help="Where results are kept; a benchmark there goes on.")]
Against = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json",
        help="Say whether an earlier benchmark, written to FILE, gave the same scores; else leave with 1.",
    ),
]
Write = Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the rates, with every score.")]


def benchmark(
    problem: Class = None,
    seeds: Seeds = 20,
    planted: Planted = 0,
    hard: Hard = 0,
    others: Others = 0,
    series: Series = 0,
    sealed: Sealed = False,
    into: Into = Path("runs/twinbench"),
    write: Write = None,
    against: Against = None,
    on: On = "local",
) -> None:
    """Audit organisms blind, and print how often the audit finds what is planted and nothing where nothing is.

    Models that are not in the cache are trained first.
    """
    from assay.provenance import versions
    from assay.scale.unit import laboratory_digest
    from assay.twinbench import PROBLEMS, bench, subjects, table_of
    from assay.twinbench.run import on as executor_on
    from assay.twinbench.subjects import SEALED

    first, found = SEALED if sealed else 0, {}
    asked = [
        (name, subjects(name, seeds, first=first, planted=planted, hard=hard, others=others))
        for name in problem or PROBLEMS
    ]
    with executor_on(on, into) as executor:
        for name, who in asked:
            home = into / f"{name}-{'sealed' if sealed else 'development'}"
            with out().status(f"{name}: {len(who)} models") as status:
                rows = bench(
                    name,
                    who,
                    into=home,
                    executor=executor,
                    series=series,
                    say=lambda done, of, name=name, status=status: status.update(f"{name}: {done} of {of} models"),  # type: ignore[misc]
                )
            found[name], table = table_of(name, rows)
            out().print(f"\n{table.title}{', sealed seeds' if sealed else ', development seeds'}")
            show_rows(out(), [[str(cell) for cell in row] for row in table.rows], heads=table.columns)
    result = {name: one.to_json() for name, one in found.items()}
    if write is not None:
        about = {"sealed": sealed, "first_seed": first, "code": laboratory_digest(), "versions": versions()}
        write_whole(write, json.dumps({**about, "rates": result}, indent=1) + "\n")
    if against is not None:
        _compare(result, against)


def _compare(now: dict[str, Any], file: Path) -> None:
    """Every score of every class beside those of a file."""
    try:
        was = parse_json(read_bytes(file, most=100_000_000).decode())["rates"]
        others = [name for name in now if was[name]["scores"] != now[name]["scores"]]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(
            f"{str(file)!r} is no benchmark of these classes",
            found=f"{type(error).__name__}: {error}"[:100],
            hint="give a file that assay benchmark --write wrote",
        ) from error
    show_checks(
        out(),
        [
            Row(name not in others, name, "every score the same" if name not in others else "other scores", "")
            for name in now
        ],
    )
    if others:
        raise typer.Exit(1)
