"""Second moments of keys: what an MLP's down projection has learned to keep apart (Meng et al. 2022, eq. 2 and appendix E).

``C = E[k kᵀ]`` over tokens of text, not centred, k being what the projection receives (``mlp.act``). An edit along
``C⁻¹k`` disturbs the keys of ordinary text least. Only the blocks up to the layer run, and nothing but sums is kept. Few
tokens leave C near singular, so it is solved with a ridge of ``1e-4 · tr(C)/d``, which the published code does without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from assay.errors import BadData, EmptyData, NoSuchSite
from assay.model.load import cache_folder
from assay.provenance import digest_of
from assay.run.capture import Moments
from assay.run.model import Model
from assay.site import Site

RIDGE = 1e-4
_PORTION = 16_384
"""Tokens after which what has been summed is put on disk."""


@dataclass(frozen=True, eq=False)
class SecondMoment:
    """C of one site, and what it was measured on.

    Attributes:
        site: what was read.
        matrix: ``[d, d]``, float64.
        count: tokens.
        model, data: fingerprints.
    """

    site: Site
    matrix: Tensor
    count: int
    model: str
    data: str

    @cached_property
    def ridged(self) -> Tensor:
        """C with its ridge, ``[d, d]``: what edits use."""
        return self.matrix + RIDGE * self.matrix.diagonal().mean() * torch.eye(len(self.matrix), dtype=torch.float64)

    @cached_property
    def _factor(self) -> Tensor:
        factor, wrong = torch.linalg.cholesky_ex(self.ridged)
        if int(wrong):
            raise BadData(
                f"the second moment at {self.site} is singular",
                found=f"{self.count} tokens for {len(self.matrix)} coordinates",
                hint="give more text",
            )
        return factor

    def solve(self, k: Tensor) -> Tensor:
        """``C⁻¹ k`` for ``k [d]`` or ``[d, n]``, float64. Raises `BadData` where C is singular all the same."""
        columns = k.double().cpu()
        return torch.cholesky_solve(columns[:, None] if k.dim() == 1 else columns, self._factor).view(k.shape)


def second_moment(
    model: Model,
    texts: Sequence[str],
    *,
    at: str | Site,
    progress: Callable[[int, int], None] | None = None,
) -> SecondMoment:
    """C at one layer's ``mlp.act`` over all tokens of the texts but each one's first, an attention sink.

    It is kept in the user's cache, by model, site and text; a measurement that was broken off goes on where it was.
    Raises `NoSuchSite` where the family has no ``mlp.act``, `EmptyData` without texts.
    """
    (site,) = model.sites(at).expect(1)
    (found,) = second_moments(model, texts, at=site, progress=progress).values()
    return found


def second_moments(
    model: Model,
    texts: Sequence[str],
    *,
    at: str | Site = "L:.mlp.act",
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, SecondMoment]:
    """The same for several layers in one pass, by layer. ``progress`` is called with texts done and texts in all."""
    sites = list(model.sites(at))
    for site in sites:
        if site.part != "mlp.act":
            raise NoSuchSite(
                f"{site} is no key of an edit", nearest=f"L{site.layer}.mlp.act", hint="keys are at mlp.act"
            )
    if not texts:
        raise EmptyData("there is no text to measure on", hint="give some hundred sentences, the more the better")
    data = digest_of(text.encode() for text in texts)
    sums = [_Sum.of(model, site, data) for site in sites]
    while (done := min(one.done for one in sums)) < len(texts):
        # Layers that were broken off later wait until the others have come as far.
        mine = [one for one in sums if one.done == done]
        ends = min((one.done for one in sums if one.done > done), default=len(texts))
        portion = _portion(model, texts[done:ends])
        found = model.moments(portion, [one.place for one in mine])
        for one in mine:
            one.add(found[one.place], len(portion))
        if progress:
            progress(done + len(portion), len(texts))
    made = [SecondMoment(one.site, one.total / one.count, one.count, model.fingerprint, data) for one in sums]
    return {one.site.layer: one for one in made if isinstance(one.site.layer, int)}


@dataclass
class _Sum:
    """What has been summed of one site, and the file that keeps it."""

    site: Site
    place: Site
    path: Path
    done: int
    count: int
    total: Tensor

    @classmethod
    def of(cls, model: Model, site: Site, data: str) -> _Sum:
        place = Site.parse(f"{str(site).partition(' @')[0]} @ 1:")
        key = digest_of([model.fingerprint.encode(), str(place).encode(), data.encode()])
        path = cache_folder() / "moments" / f"{key[:32]}.safetensors"
        state = _read(path)
        return cls(site, place, path, int(state["done"]), int(state["count"]), state["total"])

    def add(self, found: Moments, texts: int) -> None:
        assert found.mean is not None and found.scatter is not None
        added = (found.scatter + found.count * torch.outer(found.mean, found.mean)).cpu()
        self.total = self.total + added if self.count else added
        self.done, self.count = self.done + texts, self.count + found.count
        _write(self.path, self.done, self.count, self.total)


def _portion(model: Model, texts: Sequence[str]) -> list[str]:
    """As many texts as make a portion, one at least."""
    made: list[str] = []
    tokens = 0
    for text in texts:
        length = len(model.row(text).tokens)
        if length < 2:
            raise BadData("a text has fewer than two tokens", found=repr(text[:60]), hint="leave such texts out")
        if made and tokens + length > _PORTION:
            break
        made.append(text)
        tokens += length
    return made


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return {"done": torch.tensor(0), "count": torch.tensor(0), "total": torch.zeros(0)}


def _write(path: Path, done: int, count: int, total: Tensor) -> None:
    """Whole or not at all; a cache that cannot be written is done without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".half")
        save_file({"done": torch.tensor(done), "count": torch.tensor(count), "total": total}, half)
        half.replace(path)
    except (OSError, SafetensorError):
        pass
