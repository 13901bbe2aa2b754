"""Any torch module as a graph: its places are declared, ten lines for a transformer of one's own::

    graph = ModuleGraph(
        net,
        stages=net.blocks,                                   # optional: lets a pass start in the middle
        sites={"embed": given(net.blocks[0])}                # what a module is given, or what it makes
        | {f"L{i}.head.out": made(b.attn.each) for i, b in enumerate(net.blocks)}   # [row, pos, head, d_model]
        | {f"L{i}.mlp.out": made(b.mlp) for i, b in enumerate(net.blocks)}
        | {f"L{i}.resid": made(b) for i, b in enumerate(net.blocks)},
        readers={f"L{i}.attn": given(b.attn) for i, b in enumerate(net.blocks)},
    )

Names are free, but a part named ``head.<…>`` has heads on its third axis, ``L<i>.`` says which stage a place is in, and
``L<i>.resid`` is what stage i makes. Order is that in which the modules run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from assay.errors import BadData, NeverFired, NoSuchSite, nearest
from assay.graph.ports import Key, Port, Reader
from assay.model.hooks import on_input, on_output, only
from assay.model.taps import Tap
from assay.site import Positions

_NAME = re.compile(r"^(?:L(?P<layer>\d+)\.)?(?P<part>[\w.]+?)(?:\[(?P<head>\d+)\](?P<rest>\.\w+)?)?$")
WRITERS = ("embed", "head.out", "attn.out", "mlp.out")
"""Parts that are added to the stream, unless `ModuleGraph` is told otherwise."""


@dataclass(frozen=True, eq=False)
class Spot:
    """What is hooked: the first thing that a module is given, or what it makes."""

    module: nn.Module
    side: Literal["given", "made"]


def given(module: nn.Module) -> Spot:
    """A module's first argument."""
    return Spot(module, "given")


def made(module: nn.Module) -> Spot:
    """What a module makes; of a tuple the first."""
    return Spot(module, "made")


@dataclass(frozen=True, eq=False)
class Tensors:
    """A module's arguments, rows first."""

    arguments: tuple[Tensor, ...]
    features: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(self.arguments[0])


class ModuleGraph:
    """See `Graph`. The module's parameters and modes are its owner's; only hooks are put on it, and taken off."""

    def __init__(
        self,
        module: nn.Module,
        *,
        sites: Mapping[str, Spot],
        readers: Mapping[str, Spot] | None = None,
        stages: Sequence[nn.Module] = (),
        writers: Sequence[str] = WRITERS,
        read: Callable[[Any], Tensor] = lambda output: output,
    ) -> None:
        """``writers`` are the parts that are added to the stream; ``read`` makes scores ``[row, pos, outputs]`` of what
        the module gives.
        """
        self.module, self.blocks, self.stages = module, list(stages), len(stages)
        self.sites, self.told = dict(sites), dict(readers or {})
        if self.blocks:
            self.told.setdefault("logits", made(self.blocks[-1]))
        self._writers, self._read = tuple(writers), read
        self._times: dict[str, int] = {}
        self._heads: dict[str, int] = {}
        self._length = 0

    def inputs(self, data: Tensor | Sequence[Tensor]) -> Tensors:
        """Arguments as tensors, rows first. One row is run, which shows the order of the places.

        Raises `BadData`, and `NeverFired` for a place that does not run.
        """
        arguments = (data,) if isinstance(data, Tensor) else tuple(data)
        if not arguments or len({len(one) for one in arguments}) > 1 or not len(arguments[0]):
            raise BadData(
                "the inputs are no rows", found=str([tuple(one.shape) for one in arguments]), hint="rows first"
            )
        ready = Tensors(arguments, {"input": [tuple(row.flatten().tolist()) for row in arguments[0]]})
        self._look(ready)
        return ready

    def _look(self, inputs: Tensors) -> None:
        times: dict[str, int] = {}

        def at(name: str) -> Tap:
            def tap(h: Tensor) -> None:
                times[name] = len(times)
                if ".head." in name:
                    self._heads[name] = h.shape[2]
                self._length = h.shape[1]

            return tap

        with torch.no_grad(), ExitStack() as stack:
            # A reader that is a stream too reads it last.
            for name, spot in [*self.sites.items(), *((f"-> {name}", spot) for name, spot in self.told.items())]:
                _put(stack, spot, at(name))
            self.module(*(one[:1] for one in inputs.arguments))
        missed = [name for name in self.sites if name not in times]
        if missed:
            raise NeverFired(f"{missed[0]} did not run", hint="declare a module that the forward pass calls")
        self._times = times

    def targets(self, inputs: Tensors, given: Any) -> Tensor:
        """Classes ``[row]``, or tokens ``[row, pos]``. Raises `BadData`."""
        targets = torch.as_tensor(given)
        if len(targets) != len(inputs) or targets.dim() > 2 or targets.is_floating_point():
            raise BadData(
                "the targets are no classes",
                found=f"{targets.dtype}, {tuple(targets.shape)}, of {len(inputs)} inputs",
                hint="give whole numbers, [row] or [row, pos]",
            )
        return targets if targets.dim() == 2 else targets[:, None]

    def port(self, name: str) -> Port:
        """Raises `NoSuchSite`."""
        found = _NAME.match(name.strip())
        part = "" if found is None else found["part"] + (found["rest"] or "")
        key = f"L{found['layer']}.{part}" if found and found["layer"] else part
        if found is None or key not in self.sites or (found["head"] is not None) != (".head." in key):
            known = [key.replace(".head.", ".head[0].") for key in self.sites]
            raise NoSuchSite(
                f"this graph has no place {name!r}", nearest=nearest(name, known), hint=", ".join(known[:8])
            )
        head = None if found["head"] is None else int(found["head"])
        if head is not None and head >= self._heads[key]:
            raise NoSuchSite(
                f"this graph has no place {name!r}", found=f"{self._heads[key]} heads", hint="heads count from 0"
            )
        layer = int(found["layer"] or 0)
        entry = min(layer + (part == "resid"), self.stages)
        end = entry + (part not in ("embed", "resid")) if self.stages and (part == "embed" or found["layer"]) else None
        return Port(name.strip(), key, entry, end, (self._times[key], 0), head, part in self._writers)

    def reader(self, name: str) -> Reader:
        """Raises `NoSuchSite`."""
        found = _NAME.match(name.strip())
        whole = name if found is None or found["head"] is None else f"L{found['layer']}.{found['part']}{found['rest']}"
        key = f"-> {whole}"
        if whole in self.told and (whole == name) == (key not in self._heads):
            head = int(found["head"]) if found and whole != name else None
            if head is None or head < self._heads[key]:
                return Reader(name, key, (self._times[key], 0), head)
        if name in self.sites and name.endswith("resid"):
            port = self.port(name)
            return Reader(name, port.key, port.order)
        known = [reader.name for reader in self.readers()]
        raise NoSuchSite(
            f"nothing named {name!r} reads the stream",
            nearest=nearest(name, known),
            hint=f"readers are {', '.join(known[:8]) or 'not declared'}",
        )

    def ports(self) -> list[Port]:
        """All places, head by head."""
        return sorted(
            (self.port(one) for name in self.sites for one in self._each(name, name)), key=lambda port: port.order
        )

    def readers(self) -> list[Reader]:
        """All declared readers, head by head."""
        names = [one for name in self.told for one in self._each(name, f"-> {name}")]
        return sorted(map(self.reader, names), key=lambda reader: reader.order)

    def _each(self, name: str, key: str) -> list[str]:
        if key not in self._heads:
            return [name]
        return [name.replace(".head.", f".head[{head}].") for head in range(self._heads[key])]

    def below(self, entry: int) -> Port | None:
        """What the block below makes, where blocks are declared and their streams are places."""
        name = f"L{entry - 1}.resid"
        return self.port(name) if 0 < entry <= self.stages and name in self.sites else None

    def written(self, port: Port, change: Tensor) -> Tensor:
        """Itself: what writes is declared as it is added."""
        return change

    def bounds(self, inputs: Tensors, ids: Sequence[int], positions: Positions) -> list[tuple[int, int]]:
        """Rows are equally long, and have no spans. Raises `NoSuchPosition`."""
        start, stop = positions.resolve(self._length, {}, self._length)
        return [(start, min(stop, self._length))] * len(ids)

    def forward(
        self,
        inputs: Tensors,
        ids: Sequence[int],
        taps: Mapping[Key, Tap],
        start: tuple[int, Tensor] | None = None,
        end: int | None = None,
        gradients: bool = False,
    ) -> Tensor | None:
        """Scores ``[row, pos, outputs]``."""
        index = torch.as_tensor(ids)
        spots = {**self.sites, **{f"-> {name}": spot for name, spot in self.told.items()}}
        with torch.set_grad_enabled(gradients), ExitStack() as stack:
            if start is not None or end is not None:
                entry, stream = start or (0, None)
                stack.enter_context(only(self.blocks, entry, stream, end, tuples=False))
            for key in sorted(taps, key=lambda key: self._times[str(key)]):
                _put(stack, spots[str(key)], taps[key])
            output = self.module(*(one[index] for one in inputs.arguments))
        if end is not None:
            return None
        scores = self._read(output)
        return scores[:, None] if scores.dim() == 2 else scores


def _put(stack: ExitStack, spot: Spot, tap: Tap) -> None:
    (on_input if spot.side == "given" else on_output)(stack, spot.module, tap)
