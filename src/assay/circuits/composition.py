"""Which heads read what earlier heads write, and which heads copy: both read off the weights alone.

Composition of an earlier head 1 with a later head 2, by what the earlier one's output enters (Elhage et al. 2021)::

    Q: ‖QK₂ᵀ OV₁‖ / (‖QK₂‖ ‖OV₁‖)      K: ‖QK₂ OV₁‖ / (‖QK₂‖ ‖OV₁‖)      V: ‖OV₂ OV₁‖ / (‖OV₂‖ ‖OV₁‖)

with Frobenius norms. It is the share of directions that fit, and random ones fit too: for factors without any relation the
mean square of a score is 1/d_model, whatever their own spectra. ``excess`` is what is left above the mean of random matrices
of these shapes. With rotary positions QK is that of one offset. Every norm is that of two small triangles times thin factors.

Copying: the eigenvalues λ of ``W_U OV W_E``, tokens to tokens. ``Σλ / Σ|λ|`` is 1 where every direction of tokens raises itself,
0 where none does on the whole. W_U is taken without its mean over tokens: what raises all logits alike changes no probability,
and would be most of what is found where embeddings have a common part. The matrix is vocabulary squared; a head's d_head
eigenvalues are those of the small matrix ``W_V (W_E W_U) W_O``, and what is in brackets is the same for all heads.

It misleads: weights say what could be composed, not what is; MLPs and other heads stand between; norms between the two heads
are left out but for their gains; embeddings are not what later layers read; and of a large vocabulary few eigenvalues are most
of both sums, so that scores crowd at −1 and 1. Confirm by patching paths (`trace.paths`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.circuits.norms import final_norm, unembedding
from assay.circuits.scored import HeadScores
from assay.circuits.weights import HeadWeights, layer_weights
from assay.errors import BadData, EmptyData, UnknownArchitecture
from assay.run.model import Model
from assay.site import Site
from assay.sites import Sites

Kind = Literal["Q", "K", "V"]


@dataclass(frozen=True, eq=False)
class Composition:
    """Scores of pairs of heads.

    Attributes:
        kind: what the earlier head's output enters: ``Q``, ``K`` or ``V``.
        offset: of QK.
        writers, readers: the heads along the axes, by their ``z``.
        scores: ``[writer, reader]``; NaN where the reader is in no later layer.
        random: scores of random matrices of these shapes, ``[draw]``.
    """

    kind: Kind
    offset: int
    writers: tuple[Site, ...]
    readers: tuple[Site, ...]
    scores: NDArray[np.float64]
    random: NDArray[np.float64]

    @property
    def excess(self) -> NDArray[np.float64]:
        """Scores above the mean of random ones."""
        return np.asarray(self.scores - self.random.mean())

    def top(self, count: int = 10) -> list[tuple[Site, Site, float]]:
        """The pairs that compose most: writer, reader, excess."""
        sizes = np.nan_to_num(self.excess, nan=-np.inf)
        cells = [np.unravel_index(int(i), sizes.shape) for i in np.argsort(-sizes, axis=None, kind="stable")[:count]]
        return [(self.writers[u], self.readers[v], float(sizes[u, v])) for u, v in cells if np.isfinite(sizes[u, v])]


def composition(
    model: Model,
    kind: Kind,
    *,
    writers: str | Site | Sequence[str | Site] = "L:.head[:].z",
    readers: str | Site | Sequence[str | Site] = "L:.head[:].z",
    offset: int = 0,
    draws: int = 64,
    seed: int = 0,
) -> Composition:
    """How much each reader could take in of what each writer adds.

    Args:
        kind: ``Q``, ``K`` or ``V``.
        writers, readers: heads by their ``z``, ranges expanded.
        offset: of QK, how many tokens before its query a key stands.
        draws, seed: of the random matrices.

    Raises `BadData` for a kind that there is not, `NoSuchSite`, `EmptyData` where no reader is above a writer.
    """
    if kind not in get_args(Kind) or draws < 1:
        raise BadData(
            f"kind={kind!r}, draws={draws}", found="Q, K, V", hint="say what the earlier head's output enters"
        )
    into, out = (_heads(model, some) for some in (readers, writers))
    if min(site.order[0] for site in out) >= max(site.order[0] for site in into):
        raise EmptyData(
            "no reader is above a writer", found=f"{out} and {into}", hint="heads read what lower layers add"
        )
    scores = np.full((len(out), len(into)), np.nan)
    rows: list[int] = []
    written: list[Tensor] = []
    for layer in range(model.shape.layers):
        mine = [index for index, site in enumerate(into) if site.layer == layer and rows]
        theirs = [index for index, site in enumerate(out) if site.layer == layer]
        if not mine and not theirs:
            continue
        ready = layer_weights(model, layer, [offset])
        below = torch.cat(written) if mine else None
        for column in mine:
            assert below is not None
            reads = _reader(ready[into[column].index], kind, offset)
            scores[rows, column] = (below @ reads.T).unflatten(0, (len(rows), -1)).norm(dim=(1, 2)).cpu().numpy()
        for row in theirs:
            ov = ready[out[row].index].ov
            written.append(_unit(torch.linalg.qr(ov.right.T).R @ ov.left.T))
            rows.append(row)
    random = _random(model.shape.d_model, model.shape.d_head, draws, seed)
    return Composition(kind, offset, tuple(out), tuple(into), scores, random)


def copying(model: Model) -> HeadScores:
    """``Σλ / Σ|λ|`` of every head's ``W_U OV W_E``, from −1 to 1, as `HeadScores` without sequences.

    Raises `UnknownArchitecture` where embeddings are not as wide as the stream.
    """
    shape = model.shape
    W_E, (W_U, _) = model.hf.get_input_embeddings().weight.detach(), unembedding(model)
    if W_E.shape[1] != shape.d_model or W_U.shape[1] != shape.d_model:
        raise UnknownArchitecture(
            "the stream does not read tokens by their embeddings alone",
            found=f"embeddings of width {W_E.shape[1]} and {W_U.shape[1]}, a stream of width {shape.d_model}",
            hint='score copying on sequences: circuits.heads(model, "copying")',
        )
    rows = min(len(W_E), len(W_U))
    W_U = W_U[:rows].float() - W_U[:rows].float().mean(dim=0)
    between = final_norm(model).folded(W_E[:rows].float().T @ W_U)
    values = np.zeros((1, shape.layers, shape.heads))
    for layer in range(shape.layers):
        for head, mine in enumerate(layer_weights(model, layer)):
            small = mine.W_V.double().cpu() @ between @ mine.W_O.double().cpu()
            found = torch.linalg.eigvals(small)
            values[0, layer, head] = float(found.real.sum() / found.abs().sum().clamp_min(1e-300))
    return HeadScores("copying by eigenvalues", values, {}, model.fingerprint)


def _heads(model: Model, at: str | Site | Sequence[str | Site]) -> Sites:
    sites = model.sites(*([at] if isinstance(at, str | Site) else at))
    if not len(sites) or any(site.part != "head.z" for site in sites):
        raise BadData(f"{sites} are no heads", hint="name heads by their z: L3.head[5].z, L:.head[:].z")
    return sites


def _reader(mine: HeadWeights, kind: Kind, offset: int) -> Tensor:
    """What a head does to its input along one way in, ``[d_head, d_model]``: of norm 1, and turned so that the norms of its
    products are those of the whole map's.
    """
    way = mine.ov if kind == "V" else mine.qk(offset) if kind == "K" else mine.qk(offset).transposed
    return _unit(torch.linalg.qr(way.left).R @ way.right)


def _unit(matrix: Tensor) -> Tensor:
    return matrix / matrix.norm().clamp_min(1e-30)


def _random(width: int, rank: int, draws: int, seed: int) -> NDArray[np.float64]:
    """Scores of products of Gaussian factors, ``[draw]``."""
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        a, b, c, d = (torch.randn(width, rank, generator=generator) for _ in range(4))
        reads, written = _unit(torch.linalg.qr(a).R @ b.T), _unit(torch.linalg.qr(c).R @ d.T)
        found.append(float((written @ reads.T).norm()))
    return np.array(found)
