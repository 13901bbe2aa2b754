"""The grammar of places: ``L<layer>.<part> @ <positions>``. The printed form is the parsed form.

::

    L12.resid @ last            the residual stream after block 12, at the last prompt token
    L8:24.mlp.out               what the MLPs of blocks 8 to 23 add, everywhere
    L3.head[5].z @ subject[-1]  head 5's mixed values at the last token of the span "subject"
    embed, logits               before block 0; the scores

The stream before block 3 is ``L2.resid``; it has no second name. Positions count tokens of the unpadded row, from the
front (``2``, ``2:6``), from the end of the prompt (``-2``, ``last``, ``last:`` = from the last prompt token on, through
the answer), or inside a named span; ``response`` is every token after the prompt; ``all`` is every token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from assay.errors import BadSite, NoSuchPosition, nearest

PARTS = ("embed", "head.pattern", "head.z", "attn.out", "mid", "mlp.act", "mlp.out", "resid", "logits")
"""Every part, in the order in which a forward pass computes them."""

_LAYERLESS = ("embed", "logits")
END = 1 << 40
"""Stands for "no end" in a half-open interval of positions."""

_INDEX = r"-?\d+"
_RANGE = r"(?:-?\d+)?:(?:-?\d+)?"
_PLACE = re.compile(
    rf"^L(?P<layer>{_RANGE}|\d+)\.(?:head\[(?P<head>{_RANGE}|\d+)\]\.(?P<of>z|pattern)|(?P<part>[a-z.]+))$"
)
_WHERE = re.compile(rf"^(?P<name>[A-Za-z_]\w*)?(?:\[(?P<inner>{_RANGE}|{_INDEX})\])?$")


@dataclass(frozen=True)
class Span:
    """A half-open range whose ends may be open; how a selection names several layers or heads."""

    start: int | None = None
    stop: int | None = None

    def __str__(self) -> str:
        return f"{'' if self.start is None else self.start}:{'' if self.stop is None else self.stop}"

    def indices(self, length: int) -> range:
        """The members below ``length``, by Python's slice rules."""
        return range(*slice(self.start, self.stop).indices(length))


@dataclass(frozen=True)
class Positions:
    """Which tokens: an index or range, counted from the row's front, the prompt's end, or inside a span."""

    span: str | None = None
    start: int | None = None
    stop: int | None = None
    single: bool = False
    response: bool = False

    @classmethod
    def parse(cls, text: str | int) -> Positions:
        """Read the part after ``@``. Raises `BadSite`."""
        text = str(text).strip()
        if text == "all":
            return cls()
        if text == "response":
            return cls(response=True)
        if text == "last":
            return cls(start=-1, single=True)
        if text == "last:":
            return cls(start=-1)
        if re.fullmatch(_INDEX, text):
            return cls(start=int(text), single=True)
        if re.fullmatch(_RANGE, text):
            start, stop = _ends(text)
            return cls(start=start, stop=stop)
        found = _WHERE.match(text)
        if found is None or found["name"] is None:
            raise BadSite(
                f"positions {text!r} do not parse",
                nearest=nearest(text, ["all", "last", "last:", "response", "-2", "2:6", "subject", "subject[-1]"]),
                hint="positions are all, last, last:, response, an index, a range a:b, or a span's name, name[-1], name[0:2]",
            )
        if found["inner"] is None:
            return cls(span=found["name"])
        if ":" in found["inner"]:
            start, stop = _ends(found["inner"])
            return cls(span=found["name"], start=start, stop=stop)
        return cls(span=found["name"], start=int(found["inner"]), single=True)

    def __str__(self) -> str:
        if self.response:
            return "response"
        if self.single:
            inner = str(self.start)
        elif self.start is None and self.stop is None:
            inner = ""
        else:
            inner = str(Span(self.start, self.stop))
        if self.span is not None:
            return f"{self.span}[{inner}]" if inner else self.span
        return {"": "all", "-1": "last", "-1:": "last:"}.get(inner, inner)

    def resolve(self, prompt: int, spans: Mapping[str, tuple[int, int]], total: int | None = None) -> tuple[int, int]:
        """The half-open interval of absolute positions in one row.

        ``prompt`` is the prompt's length in tokens, ``spans`` its named spans, ``total`` the row's length with its
        answer where that is already known. An open end is `END`. Raises `NoSuchPosition` where the row has none.
        """
        if self.response:
            return prompt, END
        first, last = 0, prompt
        if self.span is not None:
            if self.span not in spans:
                raise NoSuchPosition(
                    f"the row has no span named {self.span!r}",
                    spans=", ".join(f"{name} {a}:{b}" for name, (a, b) in spans.items()) or "none",
                    nearest="@ last, @ -1, @ 0:" + str(prompt),
                    hint='mark the span: Prompt("The {subject} is in", subject=...)',
                )
            first, last = spans[self.span]
        bounded = self.span is not None
        length = last - first
        if self.single:
            assert self.start is not None
            at = self.start if self.start >= 0 else length + self.start
            beyond = length if bounded or total is None else total - first
            if not 0 <= at < max(beyond, length):
                raise self._missing(length)
            return first + at, first + at + 1
        start = 0 if self.start is None else self.start if self.start >= 0 else max(0, length + self.start)
        if self.stop is None:
            stop = length if bounded else END
        else:
            stop = self.stop if self.stop >= 0 else length + self.stop
            stop = min(stop, length) if bounded or total is None else min(stop, max(total - first, length))
        if start >= stop:
            raise self._missing(length)
        return first + start, END if stop == END else first + stop

    def _missing(self, length: int) -> NoSuchPosition:
        where = "the prompt" if self.span is None else f"the span {self.span!r}"
        return NoSuchPosition(
            f"@ {self} names no token",
            found=f"{where} has {length} tokens",
            nearest=f"0 to {length - 1}, -{length} to -1",
            hint="positions count tokens of the unpadded row; negative ones count from the end of the prompt",
        )


@dataclass(frozen=True)
class Site:
    """A place in a model, or with ranges a family of places. ``Site.parse(str(site)) == site``."""

    part: str
    layer: int | Span | None = None
    head: int | Span | None = None
    positions: Positions = Positions()

    def __post_init__(self) -> None:
        whole = self.part in PARTS and (self.layer is None) == (self.part in _LAYERLESS)
        whole = whole and (self.head is None) == (not self.part.startswith("head."))
        if not whole or any(isinstance(index, int) and index < 0 for index in (self.layer, self.head)):
            raise BadSite(
                f"a site cannot be made of part {self.part!r}, layer {self.layer} and head {self.head}",
                nearest=nearest(self.part, PARTS),
                hint="embed and logits have no layer, every other part has one, and head.z and head.pattern have a head too",
            )

    @classmethod
    def parse(cls, text: str | Site) -> Site:
        """Read ``L<layer>.<part> @ <positions>``; without ``@`` every position. Raises `BadSite`."""
        if isinstance(text, Site):
            return text
        if not isinstance(text, str):
            raise BadSite(f"{text!r} is no site", hint="a site is text, as in L12.resid @ last, or a Site")
        place, at, where = text.partition("@")
        place = place.strip()
        positions = Positions.parse(where) if at else Positions()
        if place in _LAYERLESS:
            return cls(place, positions=positions)
        found = _PLACE.match(place)
        part = None if found is None else f"head.{found['of']}" if found["of"] else found["part"]
        if found is None or part not in PARTS or part in _LAYERLESS or (part.startswith("head.") and not found["of"]):
            known = ["embed", "logits", "L0.head[0].z", "L0.head[0].pattern"]
            known += [f"L0.{name}" for name in PARTS if name not in _LAYERLESS and not name.startswith("head.")]
            raise BadSite(
                f"{text!r} is no site",
                nearest=nearest(place, known),
                hint="a site reads L12.resid, L3.head[5].z, L8:24.mlp.out, embed or logits, then optionally @ positions",
            )
        return cls(part, _number_or_span(found["layer"]), _number_or_span(found["head"]), positions)

    def __str__(self) -> str:
        place = self.place
        return place if self.positions == Positions() else f"{place} @ {self.positions}"

    @property
    def place(self) -> str:
        """The site without its positions."""
        if self.layer is None:
            return self.part
        part = self.part.replace("head.", f"head[{self.head}].") if self.head is not None else self.part
        return f"L{self.layer}.{part}"

    @property
    def one(self) -> bool:
        """Whether it names a single place rather than a range of them."""
        return not isinstance(self.layer, Span) and not isinstance(self.head, Span)

    @property
    def address(self) -> tuple[int | None, str]:
        """Layer and part of a single place: what a hook is put on. Heads are an axis of the activation there."""
        assert not isinstance(self.layer, Span)
        return self.layer, self.part

    @property
    def index(self) -> int:
        """The head of a single place, 0 where the part has none."""
        return self.head if isinstance(self.head, int) else 0

    def at(self, positions: str | int | Positions) -> Site:
        """The same place at other positions."""
        return replace(self, positions=positions if isinstance(positions, Positions) else Positions.parse(positions))

    def on(self, layer: int) -> Site:
        """The same part and positions at another layer."""
        return replace(self, layer=layer)

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts places in the order in which a forward pass reaches them."""
        layer = -1 if self.part == "embed" else END if self.layer is None else self.layer
        assert isinstance(layer, int) and not isinstance(self.head, Span)
        return layer, PARTS.index(self.part), -1 if self.head is None else self.head


def _ends(text: str) -> tuple[int | None, int | None]:
    start, _, stop = text.partition(":")
    return (int(start) if start else None), (int(stop) if stop else None)


def _number_or_span(text: str | None) -> int | Span | None:
    if text is None:
        return None
    return Span(*_ends(text)) if ":" in text else int(text)


def sorted_sites(sites: Sequence[Site]) -> list[Site]:
    """Sites in the order of the forward pass."""
    return sorted(sites, key=lambda site: site.order)
