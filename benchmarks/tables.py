"""Measurements as Markdown and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Series
from evaluation.markdown import table as markdown_table

HEADER = ("", "median s", "range", "× reference", "peak MB", "discarded", "agrees", "notes")


@dataclass(frozen=True)
class Table:
    """One job's measurements; ``reference`` is the label of the entry that the others are divided by."""

    title: str
    reference: str
    series: Sequence[Series]

    def ratio(self, one: Series) -> float | None:
        """Times the reference's median."""
        base = next((other.seconds for other in self.series if other.label == self.reference), None)
        return None if base is None or one.seconds is None else one.seconds / base


def markdown(tables: Sequence[Table], versions: Mapping[str, str], notes: Sequence[str]) -> str:
    """The tables, what was measured, and what is missing."""
    parts = [_table(table) for table in tables]
    parts.append("\n".join(f"- {name}: {version}" for name, version in versions.items()))
    parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def save(path: Path, text: str, tables: Sequence[Table], versions: Mapping[str, str], notes: Sequence[str]) -> None:
    """``path.md``, and ``path.json`` with every single run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }
    content = {
        "machine": machine,
        "versions": dict(versions),
        "notes": list(notes),
        "tables": [_plain(table) for table in tables],
    }
    path.with_suffix(".md").write_text(text)
    path.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


def _table(table: Table) -> str:
    rows = [_row(table, one) for one in table.series]
    return f"### {table.title}\n\n{markdown_table(HEADER, rows)}"


def _row(table: Table, one: Series) -> tuple[str, ...]:
    if one.error:
        return (one.label, "failed", "", "", "", "", "", one.error.replace("|", "/"))
    if one.seconds is None:
        return (
            one.label,
            "too noisy",
            "",
            "",
            "",
            str(one.discarded),
            one.agreement,
            "no run had the machine to itself",
        )
    times, notes = [reply.seconds for reply in one.replies], one.replies[-1].notes
    ratio, memory = table.ratio(one), None if "estimate" in notes else one.memory
    return (
        one.label,
        f"{one.seconds:.2f}",
        f"{min(times):.2f}–{max(times):.2f}",
        "" if ratio is None else f"{ratio:.2f}",
        "" if memory is None else f"{memory / 1e6:.0f}",
        str(one.discarded or ""),
        one.agreement,
        ", ".join(f"{name} {value}" for name, value in notes.items() if name not in ("estimate", "what")),
    )


def _plain(table: Table) -> dict[str, Any]:
    lines = [
        {
            "label": one.label,
            "median_s": one.seconds,
            "ratio": table.ratio(one),
            "peak_bytes_above_model": one.memory,
            "runs_s": [reply.seconds for reply in one.replies],
            "others_cores": one.others,
            "discarded": one.discarded,
            "agreement": one.agreement,
            "notes": one.replies[-1].notes if one.replies else {},
            "error": one.error,
        }
        for one in table.series
    ]
    return {"title": table.title, "reference": table.reference, "lines": lines}
