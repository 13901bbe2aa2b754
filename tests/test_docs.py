"""The documentation's code runs.

Each file's blocks run in order, in one namespace and an empty folder. The word after the language says what is done:

=================  ======================================================================================
python             runs
python raises      runs and raises an error of Assay, which prints as the ``text`` block that follows
python no-run      is only compiled, where running it takes what a test cannot have
anything else      is left alone
=================  ======================================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from assay.errors import AssayError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(?P<kind>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: its info string, its text, the line of the file on which the text begins."""

    kind: str
    body: str
    line: int


def blocks(text: str) -> list[Block]:
    return [
        Block(m["kind"].strip(), m["body"], text.count("\n", 0, m.start("body")) + 1) for m in _FENCE.finditer(text)
    ]


def execute(text: str, name: str) -> None:
    """Runs a page's blocks as described above; a traceback names the page and its line."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for block, following in pairwise([*blocks(text), Block("", "", 0)]):
        language, _, how = block.kind.partition(" ")
        if language != "python":
            continue
        code = compile("\n" * (block.line - 1) + block.body, name, "exec")
        if how == "":
            exec(code, space)
        elif how == "raises":
            with pytest.raises(AssayError) as caught:
                exec(code, space)
            printed = f"{type(caught.value).__name__}: {caught.value}\n"
            assert following.kind == "text"
            assert following.body == printed
        else:
            assert how == "no-run", f"{name}:{block.line}: what is a block of {block.kind!r}?"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    execute(page.read_text(), str(page.relative_to(ROOT)))


@pytest.mark.parametrize(
    "page",
    sorted({*PAGES, *ROOT.glob("*.md"), *ROOT.glob("[a-z]*/*.md")}),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_lead_somewhere(page: Path) -> None:
    prose = _FENCE.sub("", page.read_text())
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_blocks_share_one_namespace() -> None:
    execute("```python\nx = 1\n```\n\n```python\nassert x == 1\n```\n", "page.md")


def test_no_run_is_compiled_only() -> None:
    execute("```python no-run\nraise RuntimeError\n```\n", "page.md")
    with pytest.raises(SyntaxError):
        execute("```python no-run\nan error\n```\n", "page.md")


def test_other_languages_are_left_alone() -> None:
    execute("```console\nmake test\n```\n\n```text\nraise RuntimeError\n```\n", "page.md")


def test_a_failure_names_its_line() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        execute("one\n\n```python\nx = 1\nx / 0\n```\n", "page.md")
    assert (str(caught.traceback[-1].path), caught.traceback[-1].lineno + 1) == ("page.md", 5)


def test_a_raising_block_must_raise_and_print_what_the_page_shows() -> None:
    raising = 'from assay.errors import BadSite\nraise BadSite("no", hint="look")\n'
    shown = "BadSite: no\n\n  hint: look\n  see:  docs/errors/bad-site.md\n"
    execute(f"```python raises\n{raising}```\n\n```text\n{shown}```\n", "page.md")
    for code, text in ((raising, shown.replace("look", "see")), ("pass\n", shown)):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            execute(f"```python raises\n{code}```\n\n```text\n{text}```\n", "page.md")


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(AssertionError):
        execute("```python norun\npass\n```\n", "page.md")
