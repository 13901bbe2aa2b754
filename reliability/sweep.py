"""One fault at every system call that a piece of work makes, in turn: the first, the second, and so on to the last.

What SQLite's own tests do with I/O errors and crashes. The work runs in a forked child whose calls wait for a judge
(`reliability.seccomp`); the judge lets the call number k fail once, lets all calls from k on fail, or kills the process.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.errors import AssayError
from reliability.child import Child, Tell
from reliability.seccomp import KILL, judged

WRITING = ("sync", "write", "remove", "cut", "rename")
PIPE = 100


@dataclass
class Tally:
    """Cases that were tried, the errors that came of them by name, and in words what was not as promised."""

    cases: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    note: str = ""

    def __str__(self) -> str:
        if self.wrong:
            return f"{self.cases:,} cases, {len(self.wrong)} WRONG: {self.wrong[0]}"
        told = self.note or ", ".join(f"{name} {count:,}" for name, count in sorted(self.errors.items()) if name)
        return f"{self.cases:,} cases, nothing lost" + (f"; {told}" if told else "")

    def add(self, told: str, wrong: str = "") -> None:
        """One case: the error's name, or nothing; and what was wrong with it, or nothing."""
        self.cases += 1
        self.errors[told] += 1
        if wrong:
            self.wrong.append(wrong)


@dataclass(frozen=True)
class Fault:
    """What happens at call number ``at``: ``error`` (an errno, or KILL), ``lasting`` to all calls after it too."""

    at: int
    error: int
    lasting: bool = False

    def __str__(self) -> str:
        what = "SIGKILL" if self.error == KILL else os.strerror(self.error)
        return f"{what} at call {self.at}{' and after' if self.lasting else ''}"

    def judge(self, number: int, name: str) -> int:
        """For `seccomp.judged`."""
        return self.error if number == self.at or (self.lasting and number > self.at) else 0


@dataclass(frozen=True)
class Ending:
    """How a child with a fault ended: what it told before, the name of the error that stopped it, its status."""

    told: list[Any]
    error: str
    status: int
    calls: int


def calls_of(work: Callable[[Tell], None], calls: Sequence[str] = WRITING) -> int:
    """How many such calls the work makes when nothing goes wrong."""
    ending = suffer(work, Fault(at=0, error=0), calls)
    assert not ending.error, ending
    assert ending.status == 0, ending
    return ending.calls


def suffer(work: Callable[[Tell], None], fault: Fault, calls: Sequence[str] = WRITING) -> Ending:
    """Run ``work(tell)`` in a child with the fault. An error of Assay's tree ends it in order; another is status 1."""

    def child(tell: Tell) -> None:
        seen = [0]

        def judge(number: int, name: str) -> int:
            seen[0] = number
            return fault.judge(number, name)

        judged(calls, judge, spare=(2, PIPE))
        try:
            work(tell)
        except AssayError as error:
            tell({"error": type(error).__name__})
        except Exception as error:
            tell({"error": f"{type(error).__name__}: {error}"})
        tell({"calls": seen[0]})

    told, status = Child(child, pipe=PIPE).end()
    error = next((one["error"] for one in told if isinstance(one, dict) and "error" in one), "")
    count = next((one["calls"] for one in told if isinstance(one, dict) and "calls" in one), 0)
    return Ending([one for one in told if not isinstance(one, dict)], error, status, count)


def faults(calls: int, errors: Sequence[int], *, step: int = 1) -> Iterator[Fault]:
    """At every ``step``-th of so many calls: each error once, and each from there on."""
    for at in range(1, calls + 1, step):
        for error in errors:
            yield Fault(at, error)
            if error != KILL:
                yield Fault(at, error, lasting=True)


def fresh(folder: Path, name: str) -> Path:
    """A folder of its own for each case."""
    made = folder / name
    made.mkdir(parents=True)
    return made
