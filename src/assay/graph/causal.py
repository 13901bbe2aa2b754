"""A `Model` as a graph. Its inputs are prompts; scores are those at each prompt's last token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from assay.act.program import Place
from assay.act.rows import Row
from assay.errors import BadData, BadSite, NoSuchSite, nearest
from assay.graph.ports import Graph, Key, Port, Reader
from assay.model.anatomy import matrix, module_at
from assay.model.clock import right_padded
from assay.model.encode import answer_token
from assay.model.engine import Start
from assay.model.taps import Tap
from assay.prompt import Prompt
from assay.run.model import Model
from assay.site import PARTS, Positions, Site


def graph_of(model: Model | Graph) -> Graph:
    """A model's graph; a graph is its own."""
    return CausalGraph(model) if isinstance(model, Model) else model


@dataclass(frozen=True)
class Prompts:
    """Prompts as rows of tokens; a span's text, and ``length`` in tokens, are features of each."""

    prompts: tuple[Prompt, ...]
    rows: tuple[Row, ...]
    features: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(self.rows)


class CausalGraph:
    """See `Graph`."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.stages = model.shape.layers

    def inputs(self, data: Sequence[str | Prompt]) -> Prompts:
        """Raises what does not tokenise."""
        prompts = tuple(map(Prompt.of, data))
        rows = tuple(self.model.rows(prompts))
        spans = set.intersection(*(set(row.spans) for row in rows)) if rows else set()
        texts = {
            name: [self.model.decode(row.tokens[slice(*row.spans[name])]).strip() for row in rows]
            for name in sorted(spans)
        }
        return Prompts(
            prompts, rows, {**texts, "input": [row.tokens for row in rows], "length": [len(row.tokens) for row in rows]}
        )

    def targets(self, inputs: Prompts, given: Sequence[str]) -> Tensor:
        """Answers of one token. Raises `BadData`."""
        if len(given) != len(inputs):
            raise BadData(f"{len(given)} answers to {len(inputs)} prompts", hint="give an answer to every prompt")
        pairs = zip(inputs.prompts, inputs.rows, given, strict=True)
        tokenizer = self.model.tokenizer
        return torch.tensor([[answer_token(tokenizer, prompt, row.tokens, answer)] for prompt, row, answer in pairs])

    def port(self, name: str) -> Port:
        """Raises `BadSite`, `NoSuchSite`."""
        (site, *others) = self.model.shape.expand(name)
        if others:
            raise NoSuchSite(f"{name} is {len(others) + 1} places", found=f"{site} first", hint="name one place")
        return self._port(site)

    def _port(self, site: Site) -> Port:
        layer, part = site.address
        entry = self.stages if layer is None and part != "embed" else (layer or 0) + (part == "resid")
        writes = part in ("embed", "attn.out", "mlp.out") or (part == "head.z" and self.model.engine.anatomy.heads_add)
        head = site.head if isinstance(site.head, int) else None
        end = entry + (part not in ("embed", "resid")) if entry < self.stages or part == "resid" else None
        return Port(site.place, site.address, entry, end, self._order(layer, part), head, writes)

    def _order(self, layer: int | None, part: str) -> tuple[int, int]:
        if part == "attn.in" or (part == "mlp.in" and self.model.engine.anatomy.parallel):
            return layer or 0, -1
        at = 2 * PARTS.index("mid") + 1 if part == "mlp.in" else 2 * PARTS.index(part)
        return (-1 if part == "embed" else self.stages if layer is None else layer), at

    def reader(self, name: str) -> Reader:
        """Raises `NoSuchSite`."""
        known = {reader.name: reader for reader in self.readers()}
        if name in known:
            return known[name]
        try:
            port = self.port(name)
        except BadSite:
            port = None
        if port is None or not str(port.key).endswith("'resid')"):
            raise NoSuchSite(
                f"nothing named {name!r} reads the stream",
                nearest=nearest(name, known),
                hint="readers are L3.attn, L3.mlp, logits, and streams such as L3.resid",
            )
        return Reader(name, port.key, port.order)

    def ports(self) -> list[Port]:
        """All single places of heads, MLPs and streams."""
        shape = self.model.shape
        names = ["embed", *(f"L:.{part}" for part in ("head[:].z", "attn.out", "mid", "mlp.out", "resid"))]
        kept = [name for name in names if not (name.endswith("mid") and "mid" in shape.lacks)]
        return sorted((self._port(site) for name in kept for site in shape.expand(name)), key=lambda port: port.order)

    def readers(self) -> list[Reader]:
        """Attentions, each head's queries, keys and values, MLPs, and the logits.

        Where heads share keys and values, each still reads them by itself. Where attention and MLP read through one norm
        (GPT-J), only the two together do.
        """
        apart, found = self.model.engine.anatomy.mlp_in is not None, []
        for layer in range(self.stages):
            ends: list[tuple[str, str, int | None]] = [("attn", "attn.in", None)]
            if apart:
                heads = range(self.model.shape.heads)
                ends += [(f"head[{head}].{role}", f"head[{head}].{role}.in", head) for head in heads for role in "qkv"]
                ends += [("mlp", "mlp.in", None)]
            for name, part, head in ends:
                order = self._order(layer, part if head is None else "attn.in")
                found.append(Reader(f"L{layer}.{name}", (layer, part), order, head, own=True))
        top = self.stages - 1
        return [*found, Reader("logits", (top, "resid"), self._order(top, "resid"))]

    def below(self, entry: int) -> Port:
        """The stream."""
        return self.port("embed" if entry == 0 else f"L{entry - 1}.resid")

    def written(self, port: Port, change: Tensor) -> Tensor:
        """Of a head through its part of the output projection."""
        if port.head is None:
            return change
        engine, width = self.model.engine, self.model.shape.d_head
        layer = port.key[0]  # type: ignore[index]
        weight = matrix(module_at(engine.hooks.blocks[layer], engine.anatomy.o_proj))
        return change @ weight[:, port.head * width : (port.head + 1) * width].T

    def bounds(self, inputs: Prompts, ids: Sequence[int], positions: Positions) -> list[tuple[int, int]]:
        """Raises `NoSuchPosition`."""
        rows = [inputs.rows[i] for i in ids]
        ends = [positions.resolve(row.prompt, row.spans, len(row.tokens)) for row in rows]
        return [(start, min(stop, len(row.tokens))) for (start, stop), row in zip(ends, rows, strict=True)]

    def forward(
        self,
        inputs: Prompts,
        ids: Sequence[int],
        taps: Mapping[Key, Tap],
        start: tuple[int, Tensor] | None = None,
        end: int | None = None,
        gradients: bool = False,
    ) -> Tensor | None:
        """Scores at each prompt's last token, ``[row, 1, vocab]``."""
        rows, engine = [inputs.rows[i].tokens for i in ids], self.model.engine
        tokens, positions = right_padded(rows)
        begin, tapped = None if start is None else Start(*start), cast(Mapping[Place, Tap], taps)
        final = engine.forward(tokens, positions, reads=tapped, start=begin, end=end, gradients=gradients)
        if end is not None:
            return None
        last = torch.tensor([len(row) - 1 for row in rows], device=final.device)
        return engine.unembed(final[torch.arange(len(rows), device=final.device), last], gradients)[:, None]
