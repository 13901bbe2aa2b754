"""The report as one self-contained HTML file: no script, no request, and foreign text only ever as text.

Two nets hold hostile text. Every value that a template prints is first made visible (``words.visible``), then escaped
by Jinja; only SVG that ``figures`` and ``intervals`` drew, from text treated the same way, goes in as markup. And the
page's Content-Security-Policy forbids everything but inline style, should the first net ever tear.

The report's headings follow Audit Cards (Staufer et al. 2025, arXiv 2504.13839).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from assay.disclose.policy import SUBJECTS
from assay.evidence import Control, Effect, Figure, Findings
from assay.report import words
from assay.report.diff import SAYS, Diff
from assay.report.figures import figure_svg, figure_table, quantiles
from assay.report.intervals import controls_behind, interval_svg, pair_svg
from assay.report.shown import Shown

if TYPE_CHECKING:
    from assay.disclose.verify import Release

CHECK = """import hashlib, json, sqlite3
sha = lambda text: hashlib.sha256(text.encode()).hexdigest()
head = "0" * 64
for seq, kind, key, at, body, prev, digest in sqlite3.connect("ledger").execute("SELECT * FROM entry ORDER BY seq"):
    entry = dict(at=at, body=sha(body), key=key, kind=kind, prev=prev, seq=seq)
    line = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert prev == head and digest == sha(line), f"entry {seq} was changed"
    head = digest
print(head)"""
"""Checks a ledger's chain without Assay, by Python's standard library alone."""


def render_html(findings: Findings, release: Release | None = None) -> str:
    """The whole report as one HTML file.

    Args:
        findings: of a ledger (`read_findings`), or of a release.
        release: the verified release that the findings are of, if they are of one.
    """
    marks = (f"figure-{place}" for place in itertools.count(1))

    def figure(data: Figure) -> Markup:
        return Markup(figure_svg(data, titled=False, mark=next(marks)))  # noqa: S704  drawn by us, its text escaped

    template = templates().get_template("report.html.j2")
    return template.render(found=findings, shown=Shown(findings, release), figure=figure, check=CHECK)


def render_diff(diff: Diff) -> str:
    """Two runs side by side as one HTML file."""
    return templates().get_template("diff.html.j2").render(diff=diff, says=SAYS)


@cache
def templates() -> Environment:
    """The pages' templates, with what all of them print with."""
    here = Path(__file__).parent
    made = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {name: getattr(words, name) for name in ("number", "p_value", "short", "interval", "cell", "cells")}
    made.filters["is_digest"] = lambda value: (
        isinstance(value, str) and bool(re.fullmatch("(sha256:)?[0-9a-f]{40,}", value))
    )
    made.globals |= {
        "count": words.count,
        "discord": words.discord,
        "prediction": words.prediction,
        "sized": words.sized,
        "quantiles": quantiles,
        "figure_table": figure_table,
        "controls_behind": controls_behind,
        "draws": _draws,
        "interval_svg": _interval,
        "pair_svg": lambda one, other: Markup(pair_svg(one, other)),  # noqa: S704  numbers alone
        "style": Markup((here / "report.css").read_text("utf-8")),  # noqa: S704
        "subjects": SUBJECTS,
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True),
    }
    return made


def _interval(effect: Effect, controls: Sequence[Control] = ()) -> Markup:
    return Markup(interval_svg(effect, controls))  # noqa: S704  numbers alone


def _draws(controls: Sequence[Control]) -> str:
    drawn = sum(len(control.values) for control in controls)
    return f"{words.count(drawn, 'draw')} of {', '.join(control.name for control in controls)}"


def _shown(value: object) -> object:
    return words.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
