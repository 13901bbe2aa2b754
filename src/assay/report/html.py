"""The report as one self-contained HTML file: no script, no request, and foreign text only ever as text.

Two nets hold hostile text. Every value that a template prints is first made visible (``words.visible``), then escaped
by Jinja; only SVG that ``figures`` drew, from text treated the same way, goes in as markup. And the page's
Content-Security-Policy forbids everything but inline style, should the first net ever tear.
"""

from __future__ import annotations

import itertools
import json
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from assay.evidence import Figure, Record
from assay.report import words
from assay.report.figures import figure_svg, figure_table, interval_svg, quantiles
from assay.report.page import read_page

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


def render_html(record: Record) -> str:
    """The whole report as one HTML file.

    Raises:
        LedgerBroken: the chain does not verify.
        BadData: the record holds no audit.
    """
    marks = (f"figure-{place}" for place in itertools.count(1))

    def figure(data: Figure) -> Markup:
        return Markup(figure_svg(data, titled=False, mark=next(marks)))  # noqa: S704  drawn by us, its text escaped

    return _templates().get_template("report.html.j2").render(page=read_page(record), figure=figure, check=CHECK)


@cache
def _templates() -> Environment:
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
    made.filters["is_digest"] = lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{40,}", value))
    made.globals |= {
        "count": words.count,
        "sized": words.sized,
        "quantiles": quantiles,
        "figure_table": figure_table,
        "interval_svg": lambda effect: Markup(interval_svg(effect)),  # noqa: S704  numbers alone
        "style": Markup((here / "report.css").read_text("utf-8")),  # noqa: S704
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True),
    }
    return made


def _shown(value: object) -> object:
    return words.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
