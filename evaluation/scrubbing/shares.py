"""The table of a ladder over trained seeds, beside what was published."""

from __future__ import annotations

from collections.abc import Mapping

from assay.scrub import Ladder
from evaluation.markdown import table


def shares(found: Mapping[int, Ladder], published: Mapping[str, int]) -> str:
    """Loss recovered in percent with its interval, a row for each rung and a column for each seed."""
    first = next(iter(found.values()))
    rows = [[name, str(published.get(name, "")), *(_cell(one, name) for one in found.values())] for name in first.rungs]
    return table(["claims", "published", *(f"seed {seed}" for seed in found)], rows)


def _cell(ladder: Ladder, name: str) -> str:
    share = ladder.rungs[name].share
    return f"{100 * share.value:.0f} ({100 * share.low:.0f} to {100 * share.high:.0f})"
