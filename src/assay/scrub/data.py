"""The inputs that a hypothesis is tested on: what is right for each, and the features that nodes may name."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import BadData, BadHypothesis, EmptyData, nearest
from assay.files import parse_json
from assay.graph import Graph, Inputs
from assay.prompt import Prompt
from assay.scrub.hypothesis import ANYTHING, INPUT

IGNORED = -100
_HINT = 'write JSON lines: {"prompt": "{subject} is in", "subject": "Nara", "answer": " Japan", "continent": "Asia"}'
Ids = NDArray[np.int64]
_CELL = re.compile(r"^(?P<name>.+)\[(?P<column>\d+)\]$")


@dataclass(frozen=True, eq=False)
class Data:
    """Inputs with what is right for each.

    Attributes:
        inputs: prompts for a `Model`; a tensor, or several, rows first, for a module.
        targets: for a `Model` the answer to each prompt, one token with its blank; for a module the right class
            ``[row]``, or the next token at every position ``[row, pos]``, −100 where it does not count.
        features: columns by name, a value per input, or tables ``[row, column]``. Span texts, ``length`` and ``answer``
            are there by themselves.
        estimates: tables by name, ``[row, d]`` or ``[row, pos, d]``: what a node's ``estimate`` says an activation is.
    """

    inputs: Any
    targets: Any
    features: Mapping[str, Any] = field(default_factory=dict)
    estimates: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Data:
        """Read prompts as JSON lines: ``prompt`` and ``answer``, a value for each span that the prompt names in braces,
        and whatever else is a feature. Raises `BadData` naming the line.
        """
        prompts, answers, told = [], [], []
        for number, state in enumerate(_lines(Path(path)), start=1):
            missing = [name for name in ("prompt", "answer") if not isinstance(state.get(name), str)]
            if missing:
                raise BadData(f"line {number} of {str(path)!r} has no {missing[0]}", found=str(state)[:80], hint=_HINT)
            try:
                spans = {name: state[name] for _, name, _, _ in Formatter().parse(state["prompt"]) if name in state}
                prompts.append(Prompt(state["prompt"], **spans))
            except (TypeError, ValueError) as error:  # braces that do not match, a span that is no text
                what = f"the prompt of line {number} of {str(path)!r} does not read"
                raise BadData(what, found=f"{error}"[:120], hint=_HINT) from error
            answers.append(state["answer"])
            told.append({name: value for name, value in state.items() if name not in ("prompt", "answer", *spans)})
        names = sorted({name for one in told for name in one})
        lacking = [(number, name) for number, one in enumerate(told, start=1) for name in names if name not in one]
        if lacking:
            raise BadData(
                f"line {lacking[0][0]} of {str(path)!r} has no {lacking[0][1]!r}",
                hint="give a feature to every line, or to none",
            )
        return cls(prompts, answers, {name: [one[name] for one in told] for name in names})


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                state = parse_json(line)
                if not isinstance(state, dict):
                    raise BadData(f"line {number} of {str(path)!r} is no object", found=line[:60], hint=_HINT)
                found.append(state)
    except (OSError, ValueError) as error:
        raise BadData(f"{str(path)!r} does not read", found=str(error), hint=_HINT) from error
    if not found:
        raise EmptyData(f"{str(path)!r} holds no prompts", hint=_HINT)
    return found


class Items:
    """Data as one graph sees it: inputs made ready, targets as numbers, features as classes."""

    def __init__(self, graph: Graph, data: Data) -> None:
        """Raises `BadData` for columns of another length."""
        self.inputs: Inputs = graph.inputs(data.inputs)
        self.targets: Tensor = graph.targets(self.inputs, data.targets)
        self.estimates = {name: torch.as_tensor(table).float() for name, table in data.estimates.items()}
        answers = [tuple(row) for row in self.targets.tolist()]
        self.features: dict[str, Any] = {**self.inputs.features, "answer": answers, **data.features}
        self._classes: dict[str, Classes] = {}
        for name, column in {**self.features, **self.estimates}.items():
            if len(column) != len(self):
                raise BadData(
                    f"the column {name!r} has {len(column)} values",
                    found=f"{len(self)} inputs",
                    hint="give a value for every input",
                )

    def __len__(self) -> int:
        return len(self.inputs)

    def classes(self, feature: str) -> Classes:
        """The classes that a feature parts the inputs into. Raises `BadHypothesis` for one that the data lack."""
        if feature not in self._classes:
            codes = [self._codes(name.strip()) for name in feature.split(" & ")]
            self._classes[feature] = Classes(_distinct(list(zip(*codes, strict=True))) if len(codes) > 1 else codes[0])
        return self._classes[feature]

    def _codes(self, name: str) -> Ids:
        if name == ANYTHING:
            return np.zeros(len(self), dtype=np.int64)
        cell = _CELL.match(name)
        if name in self.features:
            return _distinct(self.features[name])
        table = self.features.get(cell["name"]) if cell else None
        if cell is None or table is None:
            raise BadHypothesis(
                f"the data have no feature {name!r}",
                nearest=nearest(name, [*self.features, INPUT, ANYTHING]),
                hint="give it a column: Data(…, features={" + repr(name) + ": […]})",
            )
        values = np.asarray(table)
        if values.ndim != 2 or int(cell["column"]) >= values.shape[1]:
            raise BadHypothesis(
                f"the feature {cell['name']!r} has no column {cell['column']}",
                found=f"a table of shape {values.shape}",
                hint="columns count from 0",
            )
        return _distinct(values[:, int(cell["column"])])


@dataclass(frozen=True)
class Classes:
    """Inputs parted into classes ``codes [input]``."""

    codes: Ids

    def __post_init__(self) -> None:
        order = np.argsort(self.codes, kind="stable")
        sizes = np.bincount(self.codes)
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "_starts", np.concatenate([[0], np.cumsum(sizes)[:-1]]))

    sizes: Ids = field(init=False)

    def draw(self, ids: Ids, random: np.random.Generator) -> Ids:
        """For each input one of its class, evenly, itself among them."""
        codes = self.codes[ids]
        at = np.floor(random.random(len(ids)) * self.sizes[codes]).astype(np.int64)
        drawn: Ids = self._order[self._starts[codes] + at]  # type: ignore[attr-defined]
        return drawn

    def alone(self, ids: Ids) -> float:
        """The share of inputs whose class holds nothing else."""
        return float((self.sizes[self.codes[ids]] == 1).mean())


def _distinct(values: Sequence[Any] | NDArray[Any]) -> Ids:
    """Numbers for values, equal ones for equal values."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    if isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype != object:
        return np.unique(array, return_inverse=True)[1].astype(np.int64)
    seen: dict[Hashable, int] = {}
    keys = (tuple(np.ravel(value).tolist()) if isinstance(value, np.ndarray | list) else value for value in array)
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)
