"""The command ``assay``. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations


def main() -> None:
    """Run the command line and leave: 0 done, 1 something does not hold, 2 bad input, 130 stopped."""
    from assay.cli.main import run

    run()
