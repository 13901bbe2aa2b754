"""Nothing is skipped, and nothing is allowed to fail, except through ``skips.py``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import skips

TESTS = Path(__file__).parent
_OTHER_WAYS = re.compile(r"pytest\.(skip|xfail|importorskip)|mark\.(skip|skipif|xfail)|SkipTest|from pytest import")


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.name)
def test_skips_only_through_the_list(path: Path) -> None:
    if path.name in ("skips.py", "test_skips.py"):
        return
    found = [f"{n}: {line}" for n, line in enumerate(path.read_text().splitlines(), 1) if _OTHER_WAYS.search(line)]
    assert not found


def test_every_reason_is_used() -> None:
    used = {r for path in TESTS.rglob("*.py") for r in re.findall(r'\bskip\("([^"]+)"\)', path.read_text())}
    assert used - {"no such reason"} == set(skips.REASONS)


def test_an_unknown_reason_is_refused() -> None:
    with pytest.raises(KeyError):
        skips.skip("no such reason")
