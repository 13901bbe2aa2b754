"""How a run looks while it runs, and what it says at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from assay.audit import Audited, Claim, Ledger, Watch
from assay.cli.terminal import show_rows
from assay.cli.verdicts import show_verdict_rows, show_verdicts
from assay.evidence import read_findings
from assay.report.words import count, sized, visible

PLAIN_EVERY = 15.0
"""Seconds between two lines on how far the work is, where no bar can be drawn."""


class Screen(Watch):
    """Shows a run: a bar that comes and goes on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.said = time.monotonic()
        self.claims: list[Claim] = []
        self.answers = 0
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()

    def opened(self, folder: Path, resumed: bool) -> None:
        """The folder is good; the model comes next."""
        self.console.print(f"into {folder}" + (", where a run goes on" if resumed else ""))
        self._doing("loading the model")

    def claimed(self, claims: Sequence[Claim]) -> None:
        """Claims are in the ledger."""
        told = "made after an outcome: exploratory" if self.claims else "recorded before the first forward pass"
        self.claims += claims
        self.console.print(f"{count(len(claims), 'claim')} {told}")

    def measuring(self, claim: Claim) -> None:
        """The work on a claim begins."""
        self.said = time.monotonic()
        self._doing(self._now())

    def progress(self, text: str, done: int, total: int) -> None:
        """How far it is."""
        self.bar.update(self.task, description=f"{self._now()}: {visible(text)}", completed=done, total=total)
        if not self.console.is_terminal and time.monotonic() - self.said > PLAIN_EVERY:
            self.said = time.monotonic()
            self.console.print(f"  {self._now()}: {visible(text)}, {done} of {total}")

    def answered(self, answer: Audited) -> None:
        """A claim has its outcome."""
        self.answers += 1
        told = answer.missing
        if (effect := answer.effect) is not None:
            value, interval = sized(effect.value, effect.low, effect.high)
            told = " ".join(filter(None, [effect.name, value, effect.unit, interval and f"({interval})"]))
        show_verdict_rows(
            self.console, [(answer.claim.key, answer.verdict, told)], [claim.key for claim in self.claims]
        )

    def stopped(self) -> None:
        """Ctrl-C."""
        self.bar.stop()
        done = f"{self.answers} of {count(len(self.claims), 'claim')}"
        self.console.print(f"stopped after {done}; the same command goes on from here")

    def verdicts(self, ledger: Ledger) -> None:
        """One line per threat model, where the report is, and how to check it."""
        self.bar.stop()
        findings, folder = read_findings(ledger), ledger.path.parent
        show_verdicts(self.console, findings)
        self.console.print()
        told = {"report": folder / "report.html", "check": f"assay check {folder}", "head": findings.head}
        show_rows(self.console, [(what, str(value)) for what, value in told.items()])

    def _doing(self, text: str) -> None:
        """Something new: its bar pulses until it says how much there is to do."""
        self.bar.remove_task(self.task)
        self.task = self.bar.add_task(visible(text), total=None)

    def _now(self) -> str:
        return f"claim {self.answers + 1} of {len(self.claims)}, {self.claims[self.answers].key}"
