"""``python -m reliability``: every part, or those of ``--only``, and exit status 1 if a bar is missed."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from evaluation.markdown import table, write
from reliability import PARTS, Row

HEADER = ("", "found", "holds")


def rows_of(part: str, scale: float) -> list[Row]:
    """What a part finds. One whose module is not there, or that breaks off, has not shown what it should."""
    try:
        return list(importlib.import_module(f"reliability.{part}").run(scale))
    except Exception as error:
        sys.stderr.write(f"{part}: {type(error).__name__}: {error}\n")
        return [Row("the part itself", f"{type(error).__name__}: {error}".partition("\n")[0], holds=False)]


def main() -> int:
    """Run the parts, print a table for each; with --write put them into README.md."""
    parser = argparse.ArgumentParser(prog="python -m reliability", description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument(
        "--rounds", type=int, default=1000, help="rounds of kills; the other parts are scaled with them"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into reliability/README.md")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    missed = 0
    for part in chosen:
        began = time.monotonic()
        rows = rows_of(part, options.rounds / 1000)
        missed += sum(not row.holds for row in rows)
        text = table(HEADER, [(row.what, row.found.replace("|", "/"), "yes" if row.holds else "NO") for row in rows])
        sys.stdout.write(f"{part} ({time.monotonic() - began:.0f} s)\n\n{text}\n\n")
        sys.stdout.flush()
        if options.write:
            write(Path(__file__).with_name("README.md"), part, text)
    sys.stdout.write("every bar is held\n" if not missed else f"{missed} bars are missed\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
