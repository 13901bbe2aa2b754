"""Selections of sites: printable, countable values. ``|``, ``&``, ``-``, ``where``, ``expect``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from assay.errors import NoSuchSite
from assay.site import PARTS, Site, Span, sorted_sites


@dataclass(frozen=True)
class Shape:
    """What a model has: the sizes that say which sites exist and how wide each is.

    Attributes:
        layers, heads, kv_heads: blocks; query heads; key/value heads.
        d_model, d_head, d_mlp, vocab: widths of stream, head, MLP neurons and scores.
        lacks: parts that this architecture does not have, each with the reason.
    """

    layers: int
    heads: int
    kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    vocab: int
    lacks: Mapping[str, str] = field(default_factory=dict)

    def width(self, part: str) -> int | None:
        """The last axis at a part; None for attention patterns, whose width is the row's length."""
        return {
            "head.z": self.d_head,
            "head.pattern": None,
            "mlp.act": self.d_mlp,
            "logits": self.vocab,
        }.get(part, self.d_model)

    def expand(self, site: Site | str) -> tuple[Site, ...]:
        """The single places that a site names, in the order of the forward pass. Raises `NoSuchSite`."""
        site = Site.parse(site)
        if site.part in self.lacks:
            raise NoSuchSite(
                f"this model has no {site}",
                found=self.lacks[site.part],
                nearest=", ".join(part for part in PARTS if part not in self.lacks),
                hint="read or write a neighbouring site instead",
            )
        layers = self._members(site, site.layer, self.layers, "layer")
        heads = self._members(site, site.head, self.heads, "head")
        return tuple(replace(site, layer=layer, head=head) for layer in layers for head in heads)

    def _members(self, site: Site, wanted: int | Span | None, length: int, word: str) -> Iterable[int | None]:
        if wanted is None:
            return (None,)
        if isinstance(wanted, Span):
            found = wanted.indices(length)
            if len(found) and all(end is None or -length <= end <= length for end in (wanted.start, wanted.stop)):
                return found
        elif 0 <= wanted < length:
            return (wanted,)
        raise NoSuchSite(
            f"this model has no {site}",
            found=f"{length} {word}s, 0 to {length - 1}",
            nearest=f"{word} {length - 1}",
            hint=f"{word}s count from 0; the last block is L{self.layers - 1}, and ranges exclude their end",
        )


@dataclass(frozen=True)
class Sites:
    """Single places in the order of the forward pass, without repetition."""

    members: tuple[Site, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(dict.fromkeys(sorted_sites(self.members))))

    def __iter__(self) -> Iterator[Site]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> Site:
        return self.members[index]

    def __contains__(self, site: object) -> bool:
        return site in self.members

    def __or__(self, other: Sites) -> Sites:
        return Sites(self.members + other.members)

    def __and__(self, other: Sites) -> Sites:
        return Sites(tuple(site for site in self.members if site in other))

    def __sub__(self, other: Sites) -> Sites:
        return Sites(tuple(site for site in self.members if site not in other))

    def where(self, keep: Callable[[Site], bool]) -> Sites:
        """The places for which ``keep`` holds."""
        return Sites(tuple(site for site in self.members if keep(site)))

    def expect(self, count: int) -> Sites:
        """The same selection, or `NoSuchSite` when it does not hold exactly ``count`` places."""
        if len(self) != count:
            raise NoSuchSite(
                f"expected {count} sites", found=f"{len(self)}: {self}", hint="print the selection before using it"
            )
        return self

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.members[:4]))
        return f"{len(self)} sites: {shown}{', …' if len(self) > 4 else ''}"

    __repr__ = __str__
