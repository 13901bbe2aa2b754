"""A grid is one call: prompts × conditions, scored or generated, as a tidy table with receipts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pyarrow as pa

from assay.act.intervention import Condition, Intervention, flat
from assay.act.receipt import Receipt
from assay.errors import BadData
from assay.model.core import Core
from assay.prompt import Prompt
from assay.run.generate import Sampling, generate
from assay.run.score import Answers, by_prompt, score

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Grid:
    """The cells of a sweep.

    Attributes:
        table: one row per cell (Arrow): ``prompt``, ``condition`` (indices), ``text`` of the prompt, ``under`` (the
            condition as text), ``op``, ``layer``, ``dose``, ``times``; then ``score`` (log-probability of the first
            answer, or first minus second) and ``logprob_<i>``, or ``generated`` and its ``tokens``; then of the receipts ``touched``,
            ``relative`` (‖Δ‖/‖h‖), ``before`` and ``after`` (projection).
        shape: ``(prompts, conditions)``.
    """

    table: pa.Table
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        return f"Grid({self.shape[0]} prompts × {self.shape[1]} conditions: {', '.join(self.table.column_names)})"

    @property
    def scores(self) -> np.ndarray:
        """The score of every cell, ``[prompt, condition]``."""
        return np.asarray(self.table["score"].to_numpy()).reshape(self.shape)

    @property
    def generated(self) -> list[list[str]]:
        """The text of every cell, by prompt, then condition."""
        texts = self.table["generated"].to_pylist()
        return [texts[start : start + self.shape[1]] for start in range(0, len(texts), self.shape[1])]

    def frame(self, library: str = "pandas") -> Any:
        """The table as a data frame of an installed library, ``"pandas"`` or ``"polars"``."""
        frame = nw.from_native(self.table, eager_only=True)
        return frame.to_pandas() if library == "pandas" else frame.to_polars()


def sweep(
    core: Core,
    prompts: Sequence[str | Prompt],
    conditions: Sequence[Condition],
    score_answers: Answers | None,
    tokens: int | None,
    sampling: Sampling | None,
    memory: int | None,
    progress: Progress | None,
) -> Grid:
    """See `assay.Model.sweep`."""
    if (score_answers is None) == (tokens is None):
        raise BadData(
            f"a sweep takes either score= or generate=; {'neither' if tokens is None else 'both'} given",
            hint="score=' Paris' for log-probabilities, generate=32 for text",
        )
    if not conditions:
        raise BadData("a sweep without conditions", hint="give at least one; an empty tuple () is the model as it is")
    flattened = [flat(condition) for condition in conditions]
    if score_answers is not None:
        if len({min(2, len(options)) for options in by_prompt(score_answers, len(prompts))}) > 1:
            raise BadData(
                "some prompts have one answer and some have several, so that a score would mean two things",
                hint="give every prompt one answer, or every prompt at least two",
            )
        scores = score(core, prompts, score_answers, flattened, memory, progress)
        total = scores.total
        columns: dict[str, Any] = {"score": (scores.difference if total.shape[-1] > 1 else total[..., 0]).ravel()}
        columns |= {f"logprob_{index}": total[..., index].ravel() for index in range(total.shape[-1])}
        receipts: Mapping[tuple[int, int], Sequence[Receipt]] = scores.receipts
    else:
        made = generate(core, core.rows(prompts, room=tokens or 0), flattened, sampling, memory, progress)
        columns = {"generated": [cell.text for cell in made], "tokens": [list(cell.tokens) for cell in made]}
        receipts = {(cell.prompt, cell.condition): cell.receipts for cell in made}
    return _table(prompts, flattened, columns, receipts)


def _table(
    prompts: Sequence[str | Prompt],
    conditions: Sequence[tuple[Intervention, ...]],
    columns: Mapping[str, Any],
    receipts: Mapping[tuple[int, int], Sequence[Receipt]],
) -> Grid:
    cells = [(prompt, condition) for prompt in range(len(prompts)) for condition in range(len(conditions))]
    firsts = [condition[0] if condition else None for condition in conditions]
    told = [" + ".join(map(str, condition)) or "nothing" for condition in conditions]
    layers = [_layer(first) for first in firsts]
    table = pa.table(
        {
            "prompt": [prompt for prompt, _ in cells],
            "condition": [condition for _, condition in cells],
            "text": [str(prompts[prompt]) for prompt, _ in cells],
            "under": [told[condition] for _, condition in cells],
            "op": pa.array([getattr(firsts[condition], "op", None) for _, condition in cells], pa.string()),
            "layer": pa.array([layers[condition] for _, condition in cells], pa.int64()),
            "dose": pa.array([getattr(firsts[condition], "dose", None) for _, condition in cells], pa.float64()),
            "times": pa.array([getattr(firsts[condition], "times", None) for _, condition in cells], pa.float64()),
            **columns,
            "touched": [sum(receipt.touched for receipt in receipts.get(cell, ())) for cell in cells],
            **{
                name: pa.array(
                    [_mean([getattr(receipt, name) for receipt in receipts.get(cell, ())]) for cell in cells],
                    pa.float64(),
                )
                for name in ("relative", "before", "after")
            },
        }
    )
    return Grid(table, (len(prompts), len(conditions)))


def _layer(intervention: Intervention | None) -> int | None:
    layer = intervention.sites[0].layer if intervention and len(intervention.sites) == 1 else None
    return layer if isinstance(layer, int) else None


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
