"""Every error prints in one form, stands in the tree, has its page, and survives the way between processes."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest

from assay import errors
from assay.errors import AssayError, NeverFired, nearest

PAGES = Path(__file__).parents[1] / "docs" / "errors"
CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, AssayError)]
LEAVES = [kind for kind in CLASSES if not kind.__subclasses__()]


def _name(kind: type[AssayError]) -> str:
    return kind.__name__


def _tree() -> dict[str, str]:
    """The classes drawn in the module's docstring, each with the one that it hangs from."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for indent, name in re.findall(r"^    ((?:│   |    |├── |└── )*)(\w+)", errors.__doc__ or "", re.MULTILINE):
        del path[len(indent) // 4 :]
        if path:
            parents[name] = path[-1]
        path.append(name)
    return parents


def _printed(text: str) -> str | None:
    """What the error in ``text`` would print, made anew from its parts; None where ``text`` is not of the form."""
    found = re.fullmatch(r"(\w+): ([^\n]+)\n\n((?:  [^\n]+\n)*)\n?  hint: (.+?)\n  see:  \S+", text, re.DOTALL)
    kind = getattr(errors, found[1], None) if found else None
    if found is None or kind is None:
        return None
    for width in range(9, 40):  # how wide the names' column is depends on the longest one
        fields: dict[str, str] = {}
        for line in found[3].splitlines():
            name = line[2 : 2 + width].rstrip() or next(reversed(fields), "")  # a value may go on over more lines
            fields[name] = "\n".join([*([fields[name]] if name in fields else []), line[3 + width :]])
        again = f"{found[1]}: {kind(found[2], hint=found[4], **fields)}"
        if again == text:
            return again
    return None


def test_the_tree_in_the_docstring() -> None:
    assert _tree() == {_name(kind): _name(kind.__base__) for kind in CLASSES if kind is not AssayError}


def test_errors_live_in_one_file() -> None:
    source = Path(errors.__file__).parent
    derived = re.compile(rf"^class \w+\(.*\b({'|'.join(map(_name, CLASSES))})\b", re.MULTILINE)
    assert [path.name for path in source.rglob("*.py") if derived.search(path.read_text())] == ["errors.py"]


def test_the_printed_form() -> None:
    error = NeverFired("add(honest, dose=3) touched no activation", hint="mark the span", rows="clean", this_model=3)
    assert str(error) == (
        "add(honest, dose=3) touched no activation\n"
        "\n"
        "  rows       clean\n"
        "  this model 3\n"
        "\n"
        "  hint: mark the span\n"
        "  see:  docs/errors/never-fired.md"
    )


def test_fields_without_content_are_left_out_and_zero_is_content() -> None:
    error = NeverFired("nothing", hint="look", nearest="", found=None, layer=0)
    assert error.fields == {"layer": "0"}
    assert str(NeverFired("nothing", hint="look")) == "nothing\n\n  hint: look\n  see:  docs/errors/never-fired.md"


@pytest.mark.parametrize("kind", CLASSES, ids=_name)
def test_an_error_survives_copies_and_processes(kind: type[AssayError]) -> None:
    error = kind("what", hint="do this", found_on="here", nearest="there")
    for again in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is kind
        assert str(again) == str(error)
        assert (again.what, again.hint, again.fields) == (error.what, error.hint, error.fields)


def test_every_leaf_has_its_page_and_every_page_its_error() -> None:
    pages = {f"docs/errors/{path.name}" for path in PAGES.glob("*.md")} - {"docs/errors/README.md"}
    assert pages == {kind.page() for kind in LEAVES}


def test_the_index_names_every_page_once() -> None:
    links = re.findall(r"\]\(([\w-]+\.md)\)", (PAGES / "README.md").read_text())
    assert sorted(links) == sorted(Path(kind.page()).name for kind in LEAVES)


@pytest.mark.parametrize("kind", LEAVES, ids=_name)
def test_a_page_has_its_parts_and_shows_the_error_as_it_prints(kind: type[AssayError]) -> None:
    page = (PAGES / Path(kind.page()).name).read_text()
    assert re.findall(r"^#+ .+", page, re.MULTILINE) == [
        f"# {_name(kind)}",
        "## Usual causes",
        "## What to do",
        "## What is left as it was",
    ]
    examples = re.findall(r"^```text\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        assert example.startswith(f"{_name(kind)}: ")
        assert _printed(example) == example


def test_nearest() -> None:
    known = ["L0.resid", "L0.mlp.out", "embed"]
    assert nearest("L0.residual", known).startswith("L0.resid")
    assert nearest("zzz", known) == "L0.resid, L0.mlp.out, embed"
    assert nearest("zzz", []) == ""
