"""A hypothesis about a model, as a tree: each node names a place and the feature of the input that it cares about.

::

    answer = scrub.node("input", parts=[                              # the output; the reference itself
        scrub.node("subject", at="L12.mlp.out @ subject[-1]"),        # all paths from there to the node above
        scrub.node("count", at="L1.head[0].out -> logits"),           # the direct path alone
        scrub.node("p[3]", at="L1.resid @ 3"),                        # one of the positions that a place is split over
        scrub.node("side", at="L8.resid @ last", along=[v]),          # the part along directions, the rest resampled
        scrub.node("p", at="L0.head[0].out @ 1", estimate="phi"),     # a stated function of the input, the rest resampled
    ])

A feature is a column of the data; ``"a & b"`` is both together, ``"p[3]"`` a column of a table, ``"input"`` the input
itself (nothing is resampled), ``"anything"`` no feature at all. What a node is computed from and no part of it claims
comes from one other input, drawn for the node: any, or one that agrees in the feature ``others``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assay.errors import BadHypothesis, CorruptFile, Unwritable
from assay.figure import save
from assay.files import parse_json
from assay.scrub.plot import tree

INPUT, ANYTHING = "input", "anything"
_FORMAT = "assay-hypothesis-1"


@dataclass(frozen=True)
class Node:
    """One node of a hypothesis.

    Attributes:
        feature: what about the input its value may depend on.
        at: the place it speaks of, then ``@`` positions and ``->`` a reader where wanted; None for the output.
        parts: the nodes that it is computed from.
        others: the feature in which the input that gives the rest agrees with the node's own.
        along: directions ``[k][d]``; only the part of the activation in their span is claimed.
        estimate: the name of a table of the data that stands for the activation; only what it gives is claimed.
        pool: how often what lies below is drawn for each of the node's inputs; for every reference anew unless given.
    """

    feature: str
    at: str | None = None
    parts: tuple[Node, ...] = ()
    others: str = ANYTHING
    along: tuple[tuple[float, ...], ...] | None = None
    estimate: str | None = None
    pool: int | None = None

    def walk(self, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Node]]:
        """Itself and all below, each with its path from here."""
        yield path, self
        for index, part in enumerate(self.parts):
            yield from part.walk((*path, index))

    def mapped(self, change: Callable[[Node], Node]) -> Node:
        """The tree with every node changed, parts first."""
        return change(replace(self, parts=tuple(part.mapped(change) for part in self.parts)))

    def __len__(self) -> int:
        return sum(1 for _ in self.walk())

    @property
    def label(self) -> str:
        """Place and feature, as one line."""
        more = [f"{len(self.along)} directions of it"] if self.along else []
        more += [f"by {self.estimate}"] if self.estimate else []
        more += [f"others agree in {self.others}"] if self.others != ANYTHING else []
        more += [f"drawn {self.pool} times"] if self.pool is not None else []
        return f"{self.at or 'output'}: {', '.join([self.feature, *more])}"

    def picture(self, mark: tuple[int, ...] | None = None, note: str = "") -> str:
        """The tree as text; siblings that differ in one number are drawn as a line. ``mark`` points at one node."""
        lines = [self.label + (f"   ◄ {note}" if mark == () else "")]
        keep = self.parts[mark[0]] if mark else None
        shown = self.drawn(keep)
        for number, (part, more) in enumerate(shown):
            last = number == len(shown) - 1
            below = mark[1:] if mark and part is keep else None
            text = f"⋮ {more} more of this form" if part is None else part.picture(below, note)
            first, *rest = text.splitlines()
            lines += [("└─ " if last else "├─ ") + first, *((("   " if last else "│  ") + line) for line in rest)]
        return "\n".join(lines)

    def drawn(self, keep: Node | None = None) -> list[tuple[Node | None, int]]:
        """Parts as a picture has them: of a long run of leaves that differ in numbers alone the first, None with how many
        follow, and the last; but ``keep`` is always there.
        """
        shown: list[tuple[Node | None, int]] = []
        start = 0
        while start < len(self.parts):
            stop = start + 1
            while (
                stop < len(self.parts)
                and _form(self.parts[stop]) == _form(self.parts[start])
                and not self.parts[stop].parts
            ):
                stop += 1
            members = list(self.parts[start:stop])
            if len(members) > 4 and not any(one is keep for one in members[1:-1]):
                shown += [(members[0], 0), (None, len(members) - 2), (members[-1], 0)]
            else:
                shown += [(one, 0) for one in members]
            start = stop
        return shown

    def __str__(self) -> str:
        return self.picture()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values that `from_json` reads back; what is not set is left out."""
        fields: dict[str, Any] = {"feature": self.feature, "at": self.at, "along": self.along}
        fields |= {"estimate": self.estimate, "pool": self.pool}
        told = {name: value for name, value in fields.items() if value is not None}
        told |= {"others": self.others} if self.others != ANYTHING else {}
        return told | ({"parts": [part.to_json() for part in self.parts]} if self.parts else {})

    @classmethod
    def from_json(cls, state: Any) -> Node:
        """Raises `BadHypothesis` for what is no node."""
        known = ("feature", "at", "parts", "others", "along", "estimate", "pool")
        if not isinstance(state, dict) or "feature" not in state or set(state) - set(known):
            raise BadHypothesis(
                "a node of the hypothesis does not read",
                found=json.dumps(state, ensure_ascii=False)[:80],
                hint=f"a node is an object with a feature, and {', '.join(known[1:])} where they are needed",
            )
        try:
            return node(**{**state, "parts": [cls.from_json(part) for part in state.get("parts", ())]})
        except (TypeError, ValueError, OverflowError) as error:
            raise BadHypothesis(
                "a node of the hypothesis does not read",
                found=f"{error}"[:120],
                hint="parts are a list of nodes, along is a matrix of numbers",
            ) from error

    def plot(self, path: str | Path, title: str = "") -> Path:
        """Draw the tree as SVG. Raises `Unwritable`."""
        return save(path, tree(self, title))

    def save(self, path: str | Path) -> Path:
        """Write as JSON. Raises `Unwritable`."""
        path = Path(path)
        try:
            told = {"format": _FORMAT, "hypothesis": self.to_json()}
            path.write_text(json.dumps(told, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise Unwritable(
                f"{str(path)!r} cannot be written", found=str(error), hint="give a folder that exists"
            ) from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> Node:
        """Read what `save` wrote. Raises `CorruptFile`, `BadHypothesis`."""
        try:
            state = parse_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CorruptFile(
                f"{str(path)!r} does not read as a hypothesis",
                found=str(error),
                hint="give a file that Node.save wrote",
            ) from error
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise CorruptFile(
                f"{str(path)!r} holds no hypothesis",
                found=f"format {state.get('format')!r}" if isinstance(state, dict) else type(state).__name__,
                hint=f'it begins {{"format": "{_FORMAT}", "hypothesis": …}}',
            )
        return cls.from_json(state.get("hypothesis"))


def node(
    feature: str,
    at: str | None = None,
    parts: Iterable[Node] = (),
    *,
    others: str = ANYTHING,
    along: Any = None,
    estimate: str | None = None,
    pool: int | None = None,
) -> Node:
    """A node of a hypothesis; see `Node`. Raises `BadHypothesis` for what can be no node of any model."""
    made = Node(feature, at, tuple(parts), others, _rows(along), estimate, pool)
    texts = {"feature": feature, "others": others, **({"at": at} if at is not None else {})}
    wrong = {name: value for name, value in texts.items() if not isinstance(value, str) or not value.strip()}
    if wrong:
        raise BadHypothesis(
            f"a node's {next(iter(wrong))} is no text", found=repr(wrong), hint='node("subject", at="L3.resid")'
        )
    if pool is not None and (not isinstance(pool, int) or pool < 1):
        raise BadHypothesis(f"a pool of {pool!r} draws", hint="give a whole number, or leave it out")
    if estimate is not None and (made.parts or made.along):
        raise BadHypothesis(
            "an estimate stands for the whole activation",
            picture=made.picture((), "has parts or directions too"),
            hint="leave out parts and along, or the estimate",
        )
    return made


def split(feature: str, at: str, positions: Sequence[int], **more: Any) -> list[Node]:
    """A node for every position of a place: ``split("p", "L1.resid", range(42))`` reads columns ``p[0]``, ``p[1]``, …"""
    return [node(f"{feature}[{pos}]", at=f"{at} @ {pos}", **more) for pos in positions]


def _rows(along: Any) -> tuple[tuple[float, ...], ...] | None:
    if along is None:
        return None
    try:
        rows = [[float(value) for value in row] for row in (along.tolist() if hasattr(along, "tolist") else along)]
    except TypeError as error:
        raise BadHypothesis(
            "along is no list of directions", found=repr(along)[:60], hint="give [v], a row each"
        ) from error
    if not rows or len({len(row) for row in rows}) > 1 or not rows[0]:
        raise BadHypothesis(
            "along is no list of directions", found=repr(along)[:60], hint="give [v], rows of one length"
        )
    return tuple(map(tuple, rows))


def _form(one: Node) -> str:
    return re.sub(r"\d+", "#", one.label)
