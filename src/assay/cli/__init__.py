"""The command ``assay``. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command line and leave: 0 done, 1 something does not hold, 2 bad input, 130 stopped."""
    # OpenMP's busy waiting makes two threads several times slower as soon as a neighbour needs a core; read when torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from assay.cli.app import run

    run()
