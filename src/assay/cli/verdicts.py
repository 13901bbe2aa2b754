"""What findings come to, a line for each threat model."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from assay.cli.terminal import show_rows
from assay.evidence import Findings
from assay.report.words import visible

STYLES = {"supported": "bold", "not supported": "", "not testable": "dim", "no outcome yet": "dim", "withheld": "dim"}


def show_verdicts(console: Console, findings: Findings) -> None:
    """The question, and one line per threat model."""
    console.print()
    console.print(Text(visible(findings.audit.question), style="bold"))
    rows = [(found.threat.key, found.verdict, found.because) for found in findings.threats]
    show_verdict_rows(console, rows)


def show_verdict_rows(
    console: Console, rows: Sequence[tuple[str, str, str]], names: Sequence[str] | None = None
) -> None:
    """Rows of a name, a verdict and why, in columns that are as wide as any of ``names`` and verdicts."""
    widths = max(map(len, names or [name for name, *_ in rows] or [""])), max(map(len, STYLES))
    show_rows(console, [tuple(map(visible, row)) for row in rows], styles=STYLES, widths=widths, indent=2)
