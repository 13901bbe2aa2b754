"""One forward pass over named rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from assay.act.intervention import Condition, flat
from assay.act.program import Place
from assay.act.receipt import Receipt, check
from assay.act.rows import Row
from assay.errors import EmptyData, NeverFired, NoSuchRow, NoSuchSite, nearest
from assay.model.clock import right_padded
from assay.model.core import Core
from assay.model.taps import Tap, keeper
from assay.site import Site


@dataclass(frozen=True)
class RowResult:
    """What came of one row.

    Attributes:
        row: its tokens, prompt length and spans.
        logits: ``[pos, vocab]`` over its own tokens.
        sites: what was read, by the site's text: ``[pos, d]`` of the positions that the site names.
    """

    row: Row
    logits: Tensor
    sites: Mapping[str, Tensor]

    def __getitem__(self, site: str | Site) -> Tensor:
        text = str(Site.parse(site))
        if text not in self.sites:
            raise NoSuchSite(
                f"{text} was not read",
                found=", ".join(self.sites) or "no site",
                nearest=nearest(text, self.sites),
                hint=f"ask for it in the call: model.run(…, read=[{text!r}])",
            )
        return self.sites[text]


@dataclass(frozen=True)
class Run:
    """The rows of one forward pass by name, and the receipts of what was done to them."""

    rows: Mapping[str, RowResult]
    receipts: tuple[Receipt, ...]

    def __getitem__(self, name: str) -> RowResult:
        if name not in self.rows:
            raise NoSuchRow(
                f"the run has no row {name!r}",
                found=", ".join(self.rows),
                nearest=nearest(name, self.rows),
                hint="name the rows in the call: model.run(clean=prompt, hurt=prompt)",
            )
        return self.rows[name]

    @property
    def logits(self) -> Tensor:
        """The logits ``[pos, vocab]`` of a run that has one row. Raises `NoSuchRow` where there are several."""
        if len(self.rows) > 1:
            raise NoSuchRow(
                "the run has several rows", found=", ".join(self.rows), hint="say which: run['clean'].logits"
            )
        (only,) = self.rows.values()
        return only.logits


def forward(core: Core, rows: Sequence[Row], under: Condition | None, read: Sequence[str | Site] = ()) -> Run:
    """Run the rows together under one condition (its ``into`` says which rows). Receipts are checked.

    Raises whatever does not fit, before compute is spent, and `NeverFired` after it.
    """
    if not rows:
        raise EmptyData("there are no rows", hint="give a prompt, or named ones: model.run(clean=prompt, hurt=prompt)")
    wanted = [site for text in read for site in core.shape.expand(text)]
    bounds = {(row.name, str(site)): row.bounds(site) for row in rows for site in wanted}
    interventions = (*core.active, *flat(under))
    wide, twins = _with_twins(rows, any(one.op == "freeze" for one in interventions))
    conditions = [flat(under) if index < len(rows) else () for index in range(len(wide))]
    program = core.program(wide, conditions, twins)
    tokens, positions = right_padded([row.tokens for row in wide])
    seen: dict[Place, Tensor] = {}
    reads: dict[Place, Tap] = {site.address: keeper(seen, site.address) for site in wanted}
    logits = core.engine.forward(tokens, positions, program=program, reads=reads, scores=True)
    receipts = [receipt for index, receipt in program.receipts() if index < len(rows)]
    check(receipts)
    unseen = [str(site) for site in wanted if site.address not in seen]
    if unseen:
        raise NeverFired(
            f"{unseen[0]} was not reached",
            found="the module behind this site did not run",
            hint="check with `assay sites MODEL`; some configurations compute attention where its weights cannot be seen",
        )
    results = {}
    for index, row in enumerate(rows):
        length = len(row.tokens)
        sites = {}
        for site in wanted:
            h = seen[site.address][index, slice(*bounds[row.name, str(site)])]
            h = h[:, site.index] if h.dim() == 3 else h
            sites[str(site)] = (h[:, :length] if site.part == "head.pattern" else h).clone()
        results[row.name] = RowResult(row, logits[index, :length], sites)
    return Run(results, tuple(receipts))


def _with_twins(rows: Sequence[Row], needed: bool) -> tuple[list[Row], dict[int, int]]:
    """The rows, each followed at the end by a copy without interventions when something is to be frozen."""
    if not needed:
        return list(rows), {}
    copies = [replace(row, name=f"natural twin of {row.name}") for row in rows]
    return [*rows, *copies], {index: len(rows) + index for index in range(len(rows))}
