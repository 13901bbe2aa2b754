"""What a finder gives back: one direction per site, and the choice among them on other data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from assay.act.intervention import Place
from assay.direction import Direction
from assay.errors import BadData, BadDose, NoSuchSite, nearest
from assay.find.contrast import contrast, reading
from assay.find.filters import BY, refusal
from assay.find.search import DOSES, Cell, Search, concluded, questions, separated, steered, table
from assay.pairs import Pairs, refuse_leak
from assay.provenance import Provenance
from assay.run.model import Model
from assay.run.score import Answers
from assay.run.sweep import Progress
from assay.site import Site


@dataclass(frozen=True)
class Fit:
    """What a method's formula gives at one site: a vector ``[d]``, and numbers that belong to it."""

    vector: Tensor
    notes: Mapping[str, float] = field(default_factory=dict)


Formula = Callable[[Tensor, Tensor], Fit]
"""From positive and negative activations, ``[pair, d]`` each in float64."""


@dataclass(frozen=True, eq=False, repr=False)
class Directions:
    """Directions by site: iterates over sites, ``found[site]`` is a `Direction`, ``print(found)`` a table.

    Attributes:
        model: the model they were found on.
        fits: vectors and notes by the site that was read.
        name: what the directions are called in plots and receipts.
        provenance: how all of them were found. Each direction's own has the arguments that find just that one again.
    """

    model: Model
    fits: Mapping[Site, Fit]
    name: str
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.fits)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.fits)

    def __contains__(self, site: object) -> bool:
        return isinstance(site, str | Site) and bool(self._matching(Site.parse(site)))

    def __getitem__(self, site: str | Site) -> Direction:
        """The direction found at a site; its position may be left out where only one was read. Raises `NoSuchSite`."""
        site = Site.parse(site)
        return self._direction(self._only(self._matching(site), str(site)))

    @property
    def directions(self) -> tuple[Direction, ...]:
        """All of them, in the order of iteration."""
        return tuple(self._direction(site) for site in self)

    def __repr__(self) -> str:
        rows = [{"site": site, "norm": float(fit.vector.norm()), **fit.notes} for site, fit in self.fits.items()]
        return f"{len(self)} directions from {self.provenance}\n{table(rows)}"

    def _refuse_used(self, on: Pairs) -> None:
        sides = (side for pair in on for side in (pair.positive, pair.negative, pair.question))
        refuse_leak(self.provenance.used, [side for side in sides if side is not None], repr(self.name))

    def _matching(self, site: Site) -> list[Site]:
        return [site] if site in self.fits else [one for one in self.fits if one.place == str(site)]

    def _only(self, sites: Sequence[Site], wanted: str) -> Site:
        if len(sites) != 1:
            raise NoSuchSite(
                f"{len(sites) or 'no'} directions were found at {wanted}",
                found=", ".join(map(str, list(sites or self.fits)[:6])),
                nearest=nearest(wanted, map(str, self.fits)),
                hint='name one site that was read: found["L12.resid @ last"]',
            )
        return sites[0]

    def _direction(self, site: Site, **arguments: Any) -> Direction:
        fit = self.fits[site]
        made = self.provenance.model_copy(
            update={"arguments": {**self.provenance.arguments, "at": str(site), **arguments}}
        )
        if fit.notes:
            made = made.then(", ".join(f"{name} {value:.6g}" for name, value in fit.notes.items()))
        return Direction(fit.vector, site, made, self.name, fit.notes.get("sigma"))


@dataclass(frozen=True, eq=False, repr=False)
class Found(Directions):
    """Directions of one method at several sites. `best` chooses one of them on data that did not find it.

    As found, each is as long as the mean difference of the two sides is along it, so that ``times=1`` carries the mean
    of one side to the mean of the other, whatever the method.
    """

    def at(self, layer: int) -> Direction:
        """The direction found at a layer. Raises `NoSuchSite` where there is none, or more than one."""
        return self._direction(self._only([site for site in self if site.layer == layer], f"layer {layer}"))

    def best(
        self,
        on: Pairs,
        *,
        score: Answers | None = None,
        doses: Sequence[float] | None = None,
        acting: str | None = "last:",
        filters: Literal["refusal"] | None = None,
        progress: Progress | None = None,
    ) -> Direction:
        """The winner of `search`. Its provenance counts the tuning pairs as used, and says of what it is the best."""
        return self.search(on, score=score, doses=doses, acting=acting, filters=filters, progress=progress).best

    def search(
        self,
        on: Pairs,
        *,
        score: Answers | None = None,
        doses: Sequence[float] | None = None,
        acting: str | None = "last:",
        filters: Literal["refusal"] | None = None,
        progress: Progress | None = None,
    ) -> Search:
        """Judge every direction on tuning pairs.

        Where the pairs ask a question, by the *effect* of each direction at each dose: half the difference between
        the scores at +dose and −dose, mean over items, where a score is log P(matching answer) − log P(other) in
        nats. Where they ask none, by the *separation* d′ of their two sides along each direction, which says that it
        can be read there, not that it is used. With filters, by the score under ablation; see `assay.find.filters`.

        Args:
            on: pairs that had no part in the finding.
            score: answers to score after every question, instead of the pairs' own.
            doses: strengths, each tried in both signs; `assay.find.search.DOSES` unless given.
            acting: the positions at which directions act while they are judged, and at which the winner acts from then
                on. ``last:`` is the last prompt token and every answer token; None is where each was read. The filters
                judge at every position, so their winner acts at ``all``.
            filters: ``"refusal"`` or none.
            progress: called with cells done and cells in all.

        Raises `LeakedData` for pairs that found the directions, `BadData`, `BadDose`, and `EmptyData` where the filters
        leave nothing.
        """
        self._refuse_used(on)
        if filters not in (None, "refusal"):
            raise BadData(f"there are no filters {filters!r}", nearest="refusal", hint="filters='refusal', or none")
        directions, asked = self.directions, questions(on, score)
        if doses is not None and (filters is not None or asked is None):
            raise BadDose(
                f"doses={list(doses)} are given, and nothing here has a dose",
                found="the refusal filters add the raw vector once"
                if filters
                else "pairs without questions are only read",
                hint="leave doses out, or give pairs with questions and answers and no filters",
            )
        if filters is not None:
            cells = refusal(self.model, directions, on, score, progress)
            return concluded(
                BY, cells, min([one for one in cells if not one.dropped], key=_score), directions, on, "all"
            )
        if asked is not None:
            cells = steered(self.model, directions, asked, DOSES if doses is None else doses, acting, progress)
        elif score is None:
            cells = separated(self.model, directions, on)
        else:
            raise BadData(
                "score= needs pairs that ask a question",
                found=repr(on),
                hint="give the pairs questions; or leave score out, and directions are judged by separation",
            )
        by = "separation" if asked is None else "effect"
        return concluded(by, cells, max(cells, key=_score), directions, on, acting)


def fitted(model: Model, pairs: Pairs, at: Place, formula: Formula, name: str) -> Found:
    """A formula at every site, from one pass over all prompts.

    Raises what `reading` and `contrast` raise.
    """
    sites = reading(model, at)
    read = contrast(model, pairs, sites)
    return Found(model, {site: formula(*read[site]) for site in sites}, name, origin(model, pairs))


def _score(cell: Cell) -> float:
    assert cell.score is not None
    return cell.score


def origin(model: Model, pairs: Pairs) -> Provenance:
    """What a direction was found on; `finder` adds how."""
    return Provenance(method="", model=model.fingerprint, data=pairs.digest, used=pairs.digests)
