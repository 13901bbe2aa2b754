"""Where heads look on one prompt: their patterns over its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assay.act.intervention import Condition
from assay.circuits.plot import patterns
from assay.errors import NoSuchSite
from assay.figure import save
from assay.prompt import Prompt
from assay.run.model import Model
from assay.site import Site


@dataclass(frozen=True, eq=False)
class Attention:
    """Patterns of some heads.

    Attributes:
        sites: the heads, by their ``z``.
        tokens: the prompt's, as text.
        pattern: ``[head, query, key]``; a query's row sums to 1.
    """

    sites: tuple[Site, ...]
    tokens: tuple[str, ...]
    pattern: NDArray[np.float32]

    def top(self, count: int = 5, head: int = 0) -> list[tuple[str, str, float]]:
        """Of one of these heads, the most attention paid to a token before: query, key, share. The first token, at which
        idle heads look, is left out.
        """
        earlier = np.tril(self.pattern[head], -1)
        earlier[:, 0] = 0
        cells = [
            np.unravel_index(int(i), earlier.shape) for i in np.argsort(-earlier, axis=None, kind="stable")[:count]
        ]
        return [(self.tokens[q], self.tokens[k], float(earlier[q, k])) for q, k in cells]

    def plot(self, path: str | Path) -> Path:
        """Draw a panel for each head, queries down and keys across, as SVG. Raises `Unwritable`."""
        return save(path, self._repr_svg_())

    def _repr_svg_(self) -> str:
        return patterns(self)


def attention(
    model: Model,
    prompt: str | Prompt,
    *,
    at: str | Site | Sequence[str | Site],
    under: Condition | None = None,
) -> Attention:
    """The patterns of heads, named by their ``z`` or their ``pattern``: ``L3.head[5].z``. Raises `NoSuchSite`."""
    sites = list(model.sites(*([at] if isinstance(at, str | Site) else at)))
    wrong = [site for site in sites if site.head is None]
    if wrong or not sites:
        raise NoSuchSite(
            f"{wrong[0] if wrong else at} is no head",
            nearest="L0.head[0].z",
            hint="name heads by their z: L3.head[5].z",
        )
    heads = list(dict.fromkeys(Site("head.z", site.layer, site.head) for site in sites))
    read = [Site("head.pattern", site.layer, site.head) for site in heads]
    found = model.run(prompt, under=under, read=read)["row"]
    tokens = tuple(model.decode([token]) for token in found.row.tokens)
    return Attention(tuple(heads), tokens, np.stack([found[site].float().cpu().numpy() for site in read]))
