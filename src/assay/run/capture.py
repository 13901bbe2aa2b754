"""Activations, streamed: the last token's in memory, moments on the fly, or everything in shards on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from assay.act.intervention import Intervention
from assay.act.program import Place
from assay.act.rows import Row
from assay.errors import BadData, BadSite, NoSuchSite, Unwritable, nearest
from assay.model.clock import right_padded
from assay.model.core import Core
from assay.run.passes import by_row
from assay.run.plan import refuse, token_budget
from assay.site import Site


@dataclass
class Moments:
    """Count, mean ``[d]`` and centred second moment ``[d, d]`` of a site's activations, in float64 (Chan et al. 1979)."""

    count: int = 0
    mean: Tensor | None = None
    scatter: Tensor | None = None

    def add(self, h: Tensor) -> None:
        """Take in ``[n, d]`` more activations."""
        h = h.double()
        count, mean = h.shape[0], h.mean(dim=0)
        scatter = (h - mean).T @ (h - mean)
        if self.mean is None or self.scatter is None:
            self.count, self.mean, self.scatter = count, mean, scatter
            return
        shift, total = mean - self.mean, self.count + count
        self.scatter += scatter + torch.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """The covariance ``[d, d]``."""
        assert self.scatter is not None
        return self.scatter / max(1, self.count - 1)


@dataclass(frozen=True)
class Captured:
    """Activations of single positions, by site: ``[prompt, d]`` on the CPU, in the order of the prompts."""

    values: Mapping[Site, Tensor]

    def __getitem__(self, site: str | Site) -> Tensor:
        wanted = Site.parse(site)
        if wanted not in self.values:
            known = [str(site) for site in self.values]
            raise NoSuchSite(
                f"{wanted} was not captured",
                found=", ".join(known),
                nearest=nearest(str(wanted), known),
                hint="capture it too",
            )
        return self.values[wanted]


def capture(
    core: Core,
    rows: Sequence[Row],
    sites: Sequence[Site],
    condition: Sequence[Intervention] = (),
    memory: int | None = None,
) -> Captured:
    """The activation at each site's one position in every row. Raises `BadData` where a site names several positions."""
    if any(not site.positions.single for site in sites):
        wide = next(site for site in sites if not site.positions.single)
        raise BadData(
            f"{wide} names many positions per prompt",
            hint="capture one position (@ last, @ -2, @ subject[-1]); for all of them use moments() or shards()",
        )
    _refuse_patterns(core, sites)
    values = {site: torch.empty(len(rows), core.shape.width(site.part) or 0) for site in sites}
    at = {site: torch.tensor([row.bounds(site)[0] for row in rows]) for site in sites}

    def take(site: Site, batch: Sequence[int], h: Tensor) -> None:
        values[site][list(batch)] = h[torch.arange(len(batch)), at[site][list(batch)]].float().cpu()

    for _ in _stream(core, rows, sites, condition, memory, take):
        pass
    return Captured(values)


def moments(
    core: Core,
    rows: Sequence[Row],
    sites: Sequence[Site],
    condition: Sequence[Intervention] = (),
    memory: int | None = None,
) -> dict[Site, Moments]:
    """Mean and covariance over all of each site's positions, without keeping any activation."""
    _refuse_patterns(core, sites)
    found = {site: Moments() for site in sites}

    def take(site: Site, batch: Sequence[int], h: Tensor) -> None:
        found[site].add(torch.cat([h[place, slice(*rows[index].bounds(site))] for place, index in enumerate(batch)]))

    for _ in _stream(core, rows, sites, condition, memory, take):
        pass
    return found


def shards(
    core: Core,
    rows: Sequence[Row],
    sites: Sequence[Site],
    into: str | Path,
    condition: Sequence[Intervention] = (),
    memory: int | None = None,
) -> Path:
    """Write all of each site's positions to safetensors shards, one a batch, with an index; never more than a batch in
    memory. Tensors are named ``<site>|<prompt>``, ``[pos, d]``. Raises `Unwritable`.
    """
    folder = Path(into)
    batch_values: dict[str, Tensor] = {}
    index: dict[str, list[str]] = {}

    def take(site: Site, batch: Sequence[int], h: Tensor) -> None:
        for place, number in enumerate(batch):
            values = h[place, slice(*rows[number].bounds(site))]
            values = values[:, : len(rows[number].tokens)] if site.part == "head.pattern" else values
            batch_values[f"{site}|{number}"] = values.cpu().clone(memory_format=torch.contiguous_format)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, _ in enumerate(_stream(core, rows, sites, condition, memory, take)):
            name = f"shard-{number:05d}.safetensors"
            save_file(batch_values, folder / name, metadata={"model": core.fingerprint})
            index[name] = sorted(batch_values)
            batch_values.clear()
        (folder / "index.json").write_text(json.dumps({"model": core.fingerprint, "shards": index}, indent=1))
    except OSError as error:
        raise Unwritable(
            f"{str(folder)!r} cannot be written", found=str(error), hint="give a writable folder with room"
        ) from error
    return folder


def _stream(
    core: Core,
    rows: Sequence[Row],
    sites: Sequence[Site],
    condition: Sequence[Intervention],
    memory: int | None,
    take: Callable[[Site, Sequence[int], Tensor], None],
) -> Iterator[None]:
    """Run the rows in batches of like length, without the head, and show each site's activations to ``take``."""
    refuse(core, [[row] for row in rows], [condition])
    for site in {site.positions: site for site in sites}.values():
        for row in rows:
            row.bounds(site)
    places: dict[Place, list[Site]] = {}
    for site in sites:
        places.setdefault(site.address, []).append(site)
    for batch in _by_length(rows, token_budget(core, memory)):
        mine = [rows[index] for index in batch]
        program = core.program(mine, [condition] * len(mine))

        def tap(place: Place, batch: Sequence[int] = batch) -> Callable[[Tensor], None]:
            def show(h: Tensor) -> None:
                for site in places[place]:
                    take(site, batch, h[:, :, site.index] if h.dim() == 4 else h)

            return show

        tokens, positions = right_padded([row.tokens for row in mine])
        core.engine.forward(
            tokens,
            positions,
            program=program,
            reads={place: tap(place) for place in places},
            end=_end([*places, *program.groups]),
            scores=(None, "logits") in places,
        )
        by_row(program, len(mine), [len(row.tokens) for row in mine])
        yield


def _end(places: Sequence[Place]) -> int | None:
    """The first block that none of the places needs; None where all are needed."""
    layers = [-1 if part == "embed" else layer for layer, part in places]
    return None if None in layers else 1 + max(layer for layer in layers if layer is not None)


def _refuse_patterns(core: Core, sites: Sequence[Site]) -> None:
    for site in sites:
        if core.shape.width(site.part) is None:
            raise BadSite(
                f"{site} is as wide as its row is long, so rows do not stack",
                hint="read patterns with model.run(…, read=[…]), or write them to shards()",
            )


def _by_length(rows: Sequence[Row], budget: int) -> Iterator[list[int]]:
    """Indices in batches of rows of like length: padding stays below a thirtieth of a batch, or a token a row."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index].tokens)):
        length = len(rows[index].tokens)
        shortest = len(rows[batch[0]].tokens) if batch else length
        if batch and ((len(batch) + 1) * length > budget or length > shortest * 1.03 + 1):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
