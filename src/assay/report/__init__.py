"""The report: a ledger as a page for people, in HTML and in Markdown. Everything in it comes from the ledger alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from assay.errors import Unwritable
from assay.evidence import Record
from assay.report.figures import figure_svg
from assay.report.html import render_html
from assay.report.markdown import render_markdown
from assay.report.page import ClaimView, Page, ThreatView, read_page

__all__ = [
    "ClaimView", "Page", "ThreatView",
    "figure_svg", "read_page", "render_html", "render_markdown", "write_reports",
]  # fmt: skip


def write_reports(record: Record, folder: str | Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.md`` into ``folder``, each whole or not at all, and give their paths.

    Raises:
        LedgerBroken: the chain does not verify; earlier reports stay as they are.
        BadData: the record holds no audit.
        Unwritable: the folder cannot be written.
    """
    texts = {"report.html": render_html(record), "report.md": render_markdown(record)}
    for name, text in texts.items():
        _replace(Path(folder) / name, text)
    html, markdown = (Path(folder) / name for name in texts)
    return html, markdown


def _replace(path: Path, text: str) -> None:
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        beside = Path(name)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(0o644)
        beside.replace(path)
    except OSError as error:
        if beside is not None:
            beside.unlink(missing_ok=True)
        hint = "choose a folder that you may write in"
        raise Unwritable(f"cannot write {str(path)!r}", hint=hint, found=error.strerror) from error
