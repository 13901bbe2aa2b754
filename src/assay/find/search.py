"""Choosing among directions on tuning pairs: what was tried, how each cell did, which one won."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sklearn.metrics import roc_auc_score

from assay.act.intervention import Condition, add
from assay.direction import Direction
from assay.errors import BadData, BadDose, EmptyData
from assay.find.contrast import contrast
from assay.pairs import Pairs
from assay.prompt import Prompt
from assay.provenance import Provenance
from assay.run.model import Model
from assay.run.score import Answers
from assay.run.sweep import Progress
from assay.site import Site, Span
from assay.sites import Sites

DOSES = (0.5, 1.0, 2.0)
"""Strengths tried unless others are given, each in both signs, in the unit of `add`."""

Asked = tuple[Sequence[Prompt], Answers]
"""Prompts and the answers that are scored after them."""


@dataclass(frozen=True)
class Cell:
    """One thing tried: the site read, its score, the strength where there was one, why it was dropped if it was."""

    site: Site
    score: float | None
    dose: float | None = None
    notes: Mapping[str, float] = field(default_factory=dict)
    dropped: str = ""


@dataclass(frozen=True, repr=False)
class Search:
    """A search and its winner; ``print(search)`` shows every cell.

    Attributes:
        by: what the cells' scores are.
        cells: all that was tried.
        won: the winning cell.
        best: its direction. The provenance counts the tuning pairs as used, and says of how much it is the best.
    """

    by: str
    cells: tuple[Cell, ...]
    won: Cell
    best: Direction

    def __repr__(self) -> str:
        return f"{self.best!r}\n{told(self.cells, self.by)}"


def concluded(
    by: str, cells: Sequence[Cell], winner: Cell, directions: Sequence[Direction], on: Pairs, acting: str | None
) -> Search:
    """The search that ``winner`` has won. Its direction now acts where it was judged."""
    best = next(direction for direction in directions if direction.site == winner.site)
    space = spelled([direction.site for direction in directions])
    doses = list(dict.fromkeys(cell.dose for cell in cells if cell.dose is not None))
    space += f" × doses {', '.join(f'{dose:g}' for dose in doses)}" if doses else ""
    result = f"{by} {winner.score:.4g}" + ("" if winner.dose is None else f" at dose {winner.dose:g}")
    made = tuned(best.provenance, on, f"best of {len(cells)} cells ({space}): {result}")
    site = best.site if acting is None else best.site.at(acting)
    return Search(by, tuple(cells), winner, replace(best, site=site, provenance=made))


def tuned(made: Provenance, on: Pairs, choice: str) -> Provenance:
    """A provenance after a choice on tuning pairs, which count as used from now on."""
    return made.then(
        f"{choice}, on {len(on)} tuning pairs {on.digest[:12]}", Provenance(method="tuned", used=on.digests)
    )


def steered(
    model: Model,
    directions: Sequence[Direction],
    asked: Asked,
    doses: Sequence[float],
    acting: str | None,
    progress: Progress | None = None,
) -> list[Cell]:
    """The effect of every direction at every dose; all cells are one sweep."""
    doses = magnitudes(doses)
    places = [direction.site if acting is None else direction.site.at(acting) for direction in directions]
    cells = [(direction, place, dose) for direction, place in zip(directions, places, strict=True) for dose in doses]
    pushes = [(add(direction, dose=dose, at=at), add(direction, dose=-dose, at=at)) for direction, at, dose in cells]
    found = effects(model, asked, pushes, progress)
    return [Cell(direction.site, score, dose) for (direction, _, dose), score in zip(cells, found, strict=True)]


def effects(
    model: Model,
    asked: Asked,
    pushes: Sequence[tuple[Condition, Condition]],
    progress: Progress | None = None,
) -> list[float]:
    """Half the difference between the mean scores under the two sides of each push, in nats.

    What a push does whatever its sign, such as wrecking the stream, cancels.
    """
    prompts, answers = asked
    conditions = [condition for push in pushes for condition in push]
    scores = model.sweep(prompts, conditions, score=answers, progress=progress).scores
    plus, minus = scores.reshape(len(prompts), len(pushes), 2).mean(axis=0).T
    return [float(effect) for effect in (plus - minus) / 2]


def separated(model: Model, directions: Sequence[Direction], on: Pairs) -> list[Cell]:
    """How far apart the two sides of pairs lie along each direction: d′, and the AUROC beside it.

    Raises `EmptyData` for a single pair, which has no spread.
    """
    if len(on) < 2:
        raise EmptyData("a separation needs more than one pair", found=repr(on), hint="give at least two tuning pairs")
    read = contrast(model, on, Sites(tuple(direction.site for direction in directions)))
    cells = []
    for direction in directions:
        plus, minus = (side @ direction.unit.double() for side in read[direction.site])
        spread = float(((plus.var() + minus.var()) / 2).sqrt())
        labels = np.repeat([1, 0], len(on))
        auroc = float(roc_auc_score(labels, np.concatenate([plus.numpy(), minus.numpy()])))
        gap = float(plus.mean() - minus.mean())
        cells.append(Cell(direction.site, gap / spread if spread else 0.0, notes={"AUROC": auroc}))
    return cells


def questions(on: Pairs, score: Answers | None) -> Asked | None:
    """The questions of pairs and the answers to score; None where no pair asks anything. Raises `BadData` for a
    mixture.
    """
    asking = [pair for pair in on if pair.question is not None]
    if not asking:
        return None
    ready = [pair for pair in asking if score is not None or pair.answers is not None]
    if len(ready) < len(on):
        raise BadData(
            f"{len(on) - len(ready)} of {len(on)} tuning pairs cannot be scored",
            found=f"{len(asking)} have a question, {len(ready)} a question with answers",
            hint="give every pair a question and answers, or the same answers for all with score=",
        )
    prompts = [pair.question for pair in ready if pair.question is not None]
    return prompts, [pair.answers for pair in ready if pair.answers is not None] if score is None else score


def magnitudes(doses: Sequence[float]) -> list[float]:
    """The distinct sizes of strengths, without zero. Raises `BadDose` where none is left."""
    found = sorted({abs(float(dose)) for dose in doses} - {0.0})
    if not found:
        raise BadDose(
            f"no strength to try in {list(doses)}", hint="give at least one that is not 0; each is tried in both signs"
        )
    return found


def spelled(sites: Sequence[Site]) -> str:
    """``L8:24.resid @ last`` where that says it all, otherwise how many sites there are and the first of them."""
    layers = [site.layer for site in sites if isinstance(site.layer, int)]
    in_a_row = len(layers) == len(sites) and layers == list(range(layers[0], layers[0] + len(sites)))
    if len(sites) > 1 and in_a_row and len({site.on(0) for site in sites}) == 1:
        return str(replace(sites[0], layer=Span(layers[0], layers[-1] + 1)))
    return str(sites[0]) if len(sites) == 1 else str(Sites(tuple(sites)))


def told(cells: Sequence[Cell], by: str) -> str:
    """Cells as a table."""
    return table(
        [{"site": one.site, "dose": one.dose, by: one.score, **one.notes, "dropped": one.dropped} for one in cells]
    )


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows in aligned columns; columns that are empty throughout are left out."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [[name, *(_text(row.get(name)) for row in rows)] for name in names]
    columns = [column for column in columns if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in zip(*columns, strict=True)]
    return "\n".join(lines)


def _text(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
