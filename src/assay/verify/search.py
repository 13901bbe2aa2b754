"""What a direction was chosen among by its effect: the places at which every draw is to be run as well."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from assay.direction import Direction
from assay.errors import BadData
from assay.run.model import Model
from assay.site import Site

_CHOSEN = re.compile(r"best of \d+ cells \((?P<sites>.*?)(?: × doses .*?)?\): (?P<by>\w+)")
"""The step that `best` leaves in a direction's provenance."""


@dataclass(frozen=True)
class Spot:
    """A place of the search: where its candidate acts, where it was read, and itself (None: to be found again)."""

    at: Site
    read: Site
    direction: Direction | None


def spots(
    model: Model, direction: Direction, search: Sequence[Direction] | None, refits: bool
) -> tuple[tuple[Spot, ...], int]:
    """The places of the search, and which of them is the direction's own; just that one where there was no search.

    ``search`` are the candidates; without them the record says which they were, and they are found again if ``refits``
    are possible. Raises `BadData` where neither says enough, or the two do not agree.
    """
    own = Spot(direction.site, reading(direction), direction)
    recorded = _recorded(model, direction)
    if search is None:
        if recorded is None or (len(recorded) > 1 and not refits):
            raise BadData(
                f"{direction.name!r} was chosen by its effect among other candidates",
                found="a record from which they cannot be found again",
                hint="search=found.directions: the candidates pay for the choice",
            )
        candidates = [Spot(_acting(own, site), site, None) for site in recorded]
    else:
        candidates = [Spot(_acting(own, reading(one)), reading(one), one) for one in search]
    if not candidates and search is None:
        return (own,), 0
    found = [own if (spot.at, spot.read) == (own.at, own.read) else spot for spot in candidates]
    missing = {own.read, *(recorded or ())} - {spot.read for spot in found}
    if missing or len(set(found)) < len(found):
        raise BadData(
            f"the candidates of the search are not those that {direction.name!r} was chosen among",
            found=", ".join(str(spot.read) for spot in found) or "none",
            missing=", ".join(map(str, sorted(missing, key=str))),
            hint="search=found.directions: every direction that .best chose among, each once",
        )
    return tuple(found), found.index(own)


def reading(direction: Direction) -> Site:
    """The one position at which the activations that made a direction were read; ``@ last`` where none is recorded."""
    text = direction.provenance.arguments.get("at")
    site = Site.parse(text) if isinstance(text, str) else direction.site
    if not site.one or site.place != direction.site.place:
        site = direction.site.at(site.positions)
    return site if site.positions.single else site.at("last")


def _acting(own: Spot, read: Site) -> Site:
    """Where another candidate acts: where it was read, if the direction does so too, otherwise at its positions."""
    return read if own.at == own.read else read.at(own.at.positions)


def _recorded(model: Model, direction: Direction) -> list[Site] | None:
    """The places among which `best` has chosen by a causal score, if it has; None where the record is cut short."""
    for step in direction.provenance.steps:
        found = _CHOSEN.search(step)
        if found is None or found["by"] == "separation":
            continue
        listed = found["sites"].partition(" sites: ")[2]
        if "…" in listed:
            return None
        return list(model.sites(*listed.split(", ")) if listed else model.sites(found["sites"]))
    return []
