"""The report: an audit as a page for people, in HTML and in Markdown, and two audits side by side.

A report is made of findings alone: those of a ledger, or those of a verified release, which then says what it does not
show.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.evidence import Findings
from assay.files import write_whole
from assay.report.figures import figure_svg
from assay.report.html import render_html
from assay.report.markdown import render_markdown

if TYPE_CHECKING:
    from assay.disclose.verify import Release

__all__ = [
    "figure_svg", "render_html", "render_markdown", "write_reports",
]  # fmt: skip


def write_reports(findings: Findings, folder: str | Path, release: Release | None = None) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.md`` into ``folder``, each whole or not at all, and give their paths.

    Args:
        findings: of a ledger (`read_findings`), or of a release.
        folder: where to; made if it is not there.
        release: the verified release that the findings are of, if they are of one.

    Raises:
        Unwritable: the folder cannot be written.
    """
    html, markdown = render_html(findings, release), render_markdown(findings, release)
    return write_whole(Path(folder) / "report.html", html), write_whole(Path(folder) / "report.md", markdown)
