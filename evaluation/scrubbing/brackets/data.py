"""``python -m evaluation.scrubbing.brackets.data``: strings of brackets like those published, and what can be asked of each.

The published set is not at hand; its figures are. Strings of each length are drawn as theirs seem to have been: uniformly
among all, and then more uniformly among balanced ones. The command prints our figures beside theirs.
"""

from __future__ import annotations

import sys
from functools import cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from evaluation.markdown import table

START, PAD, END, OPEN, CLOSE = range(5)
LONGEST = 40
TOKENS = LONGEST + 2
"""Tokens of a row: START, brackets, END, PAD."""

COUNTS = {2: 11733, 4: 7633, 6: 6324, 8: 5543, 10: 5117, 12: 4873, 40: 3976}
BALANCED = {2: 8760, 4: 4350, 6: 2747, 8: 1881, 10: 1465, 40: 190}
TOTAL, TOTAL_BALANCED = 100_000, 26_410
"""Published counts, of some lengths and of all."""

PUBLISHED = {
    "strings": TOTAL,
    "balanced": TOTAL_BALANCED,
    "starts with (": 62_050,
    "passes count": 39_460,
    "passes horizon": 39_340,
    "passes count alone": 13_050,
    "passes horizon alone": 12_929,
    "unique": 61_385,
}


@cache
def sizes() -> dict[int, tuple[int, int]]:
    """Balanced and other strings of each length.

    What was published stands. Between lengths 10 and 40 the balanced ones follow a parabola in log-log that meets their
    sum; the others are what so many uniform draws leave, as many draws at each length, that meets theirs.
    """
    lengths = np.arange(2, LONGEST + 1, 2)
    between = lengths[(lengths > 10) & (lengths < LONGEST)]
    share = np.log(between / 10) / np.log(LONGEST / 10)
    line = np.log(BALANCED[10]) * (1 - share) + np.log(BALANCED[LONGEST]) * share
    low, high = 0.0, 4.0
    for _ in range(60):
        bend = (low + high) / 2
        found = np.exp(line + bend * share * (1 - share))
        low, high = (bend, high) if found.sum() < TOTAL_BALANCED - sum(BALANCED.values()) else (low, bend)
    whole = _rounded(found, TOTAL_BALANCED - sum(BALANCED.values()))
    balanced = BALANCED | dict(zip(between.tolist(), whole.tolist(), strict=True))
    others = {length: COUNTS[length] - balanced[length] for length in COUNTS}
    rest = [length for length in lengths.tolist() if length not in COUNTS]
    left = np.array([1 - _catalan(length // 2) / 2**length for length in rest])
    meant = TOTAL - TOTAL_BALANCED - sum(others.values())
    others |= dict(zip(rest, _rounded(left * meant / left.sum(), meant).tolist(), strict=True))
    return {length: (balanced[length], others[length]) for length in lengths.tolist()}


def _catalan(half: int) -> int:
    return comb(2 * half, half) // (half + 1)


def _rounded(values: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers near, with this sum: the largest remainders are rounded up."""
    whole = np.floor(values).astype(np.int64)
    whole[np.argsort(whole - values, kind="stable")[: total - whole.sum()]] += 1
    return whole


def strings(seed: int = 0, count: int = TOTAL) -> NDArray[np.int64]:
    """Rows of tokens ``[row, 42]``, shuffled. For another count the shares of lengths and of balanced stay, rounded."""
    rng = np.random.default_rng(seed)
    meant = np.array(list(sizes().values()), dtype=float).ravel()
    cells = _rounded(meant * count / meant.sum(), count).reshape(-1, 2)
    rows = np.full((count, TOKENS), PAD)
    rows[:, 0], done = START, 0
    for length, (many, others) in zip(sizes(), cells.tolist(), strict=True):
        drawn = np.concatenate([_balanced(rng, many, length), _unbalanced(rng, others, length)])
        rows[done : done + len(drawn), 1 : length + 1] = np.where(drawn, OPEN, CLOSE)
        rows[done : done + len(drawn), length + 1] = END
        done += len(drawn)
    return rng.permutation(rows)


def _balanced(rng: np.random.Generator, count: int, length: int) -> NDArray[np.bool_]:
    """Uniformly among balanced strings ``[row, length]``: of the ways to end level, the share that begins by opening."""
    opens, height = np.zeros((count, length), dtype=bool), np.zeros(count)
    for at in range(length):
        left = length - at
        opens[:, at] = rng.random(count) < (height + 2) * (left - height) / (2 * (height + 1) * left)
        height += np.where(opens[:, at], 1, -1)
    return opens


def _unbalanced(rng: np.random.Generator, count: int, length: int) -> NDArray[np.bool_]:
    """Uniformly among the others ``[row, length]``."""
    found = np.zeros((0, length), dtype=bool)
    while len(found) < count:
        drawn = rng.random((2 * count, length)) < 0.5
        found = np.concatenate([found, drawn[~_level(drawn)]])
    return found[:count]


def _level(opens: NDArray[np.bool_]) -> NDArray[np.bool_]:
    heights = np.where(opens, 1, -1).cumsum(1)
    return (heights.min(1) >= 0) & (heights[:, -1] == 0)


def p_open_after(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of opening brackets from each position on ``[row, pos]``: at START that of all, at END and PAD 0.

    There are no brackets from END on, and the published code has NaN there. 0 passes every test, and equals itself.
    """
    opens = (tokens == OPEN)[:, ::-1].cumsum(1)[:, ::-1]
    every = (tokens >= OPEN)[:, ::-1].cumsum(1)[:, ::-1]
    return opens / np.maximum(every, 1)


def horizon_values(tokens: NDArray[np.int64], p: NDArray[np.float64]) -> NDArray[np.int64]:
    """What each position says about balance ``[row, pos]``: 0 at PAD; at END −1 after an opening bracket and 1 after a
    closing one; else −2 where more than half is open from there on, and 2 where not.
    """
    before = np.roll(tokens, 1, axis=1)
    found = np.where(p > 0.5, -2, 2)
    found = np.where(tokens == END, np.where(before == OPEN, -1, 1), found)
    return np.where(tokens == PAD, 0, found)


def columns(tokens: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """What can be asked of strings; one value a row, of ``p`` and ``hvals`` one a position.

    ``balanced``: heights never fall below 0, and end there. ``count``: as many open as close. ``horizon``: nowhere are more
    than half open from there on. ``opens``: starts with an opening bracket. ``length``: brackets. ``p``: `p_open_after`.
    ``p1``: of those that open, p at position 1, which is that of all; −1 for the rest, which the published hypothesis
    takes as one class. ``hvals``: `horizon_values`. ``horizon_all``: none of them is negative.
    """
    heights = np.where(tokens == OPEN, 1, np.where(tokens == CLOSE, -1, 0)).cumsum(1)
    p, opens = p_open_after(tokens), tokens[:, 1] == OPEN
    hvals = horizon_values(tokens, p)
    return {
        "balanced": (heights.min(1) >= 0) & (heights[:, -1] == 0),
        "count": p[:, 0] == 0.5,
        "horizon": p.max(1) <= 0.5,
        "opens": opens,
        "length": (tokens >= OPEN).sum(1),
        "p": p,
        "p1": np.where(opens, p[:, 1], -1.0),
        "hvals": hvals,
        "horizon_all": (hvals >= 0).all(1),
    }


def figures(tokens: NDArray[np.int64]) -> dict[str, int]:
    """Counts, by the names of `PUBLISHED`."""
    has = columns(tokens)
    balanced, count, horizon = (has[name].astype(bool) for name in ("balanced", "count", "horizon"))
    ways = {
        "balanced": balanced,
        "starts with (": has["opens"],
        "passes count": count,
        "passes horizon": horizon,
        "passes count alone": count & ~horizon,
        "passes horizon alone": horizon & ~count,
    }
    unique = len(np.unique(tokens, axis=0))
    return {"strings": len(tokens), **{name: int(one.sum()) for name, one in ways.items()}, "unique": unique}


def main() -> None:
    """Print the figures beside those published."""
    tokens = strings()
    found, has = figures(tokens), columns(tokens)
    rows = [[name, f"{found[name]:,}", f"{PUBLISHED[name]:,}"] for name in PUBLISHED]
    rows += [
        [f"{told}, length {length}", f"{int((which & (has['length'] == length)).sum()):,}", f"{of[length]:,}"]
        for told, of, which in (
            ("strings", COUNTS, np.ones(len(tokens), dtype=bool)),
            ("balanced", BALANCED, has["balanced"]),
        )
        for length in of
    ]
    sys.stdout.write(f"{table(['', 'ours', 'published'], rows)}\n")


if __name__ == "__main__":
    main()
