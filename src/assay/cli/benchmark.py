"""``assay benchmark``: how often an audit is wrong, on models of which it is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from assay.cli.audit import On
from assay.cli.terminal import out, show_rows

Class = Annotated[
    list[str] | None,
    typer.Option(
        "--class", metavar="CLASS", help="deception, tampering or backdoor; may be repeated. All unless given."
    ),
]
Seeds = Annotated[int, typer.Option(help="Planted, clean and decoy models each.")]
Hard = Annotated[int, typer.Option(help="Hard twins.")]
Others = Annotated[int, typer.Option(help="Planted models of each other class, on which the audit should stay silent.")]
Series = Annotated[int, typer.Option(help="Planted models of which every checkpoint is audited.")]
Sealed = Annotated[
    bool, typer.Option("--sealed", help="On the seeds that nothing was chosen by: for the table of a release.")
]
Into = Annotated[Path, typer.Option(help="Where results are kept; a benchmark there goes on.")]
Write = Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the rates, with every score.")]


def benchmark(
    problem: Class = None,
    seeds: Seeds = 20,
    hard: Hard = 0,
    others: Others = 0,
    series: Series = 0,
    sealed: Sealed = False,
    into: Into = Path("runs/twinbench"),
    write: Write = None,
    on: On = "local",
) -> None:
    """Audit organisms blind, and print how often the audit finds what is planted and nothing where nothing is.

    Models that are not in the cache are trained first.
    """
    from assay.files import write_whole
    from assay.provenance import versions
    from assay.scale.unit import laboratory_digest
    from assay.twinbench import PROBLEMS, bench, subjects, table_of
    from assay.twinbench.run import on as executor_on
    from assay.twinbench.subjects import SEALED

    first, found = SEALED if sealed else 0, {}
    asked = [(name, subjects(name, seeds, first=first, hard=hard, others=others)) for name in problem or PROBLEMS]
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
    if write is not None:
        about = {"sealed": sealed, "first_seed": first, "code": laboratory_digest(), "versions": versions()}
        text = json.dumps({**about, "rates": {name: one.to_json() for name, one in found.items()}}, indent=1)
        write_whole(write, text + "\n")
