"""Log-probabilities of continuations under interventions. Every answer token is computed under them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from assay.act.intervention import Intervention
from assay.act.receipt import Receipt
from assay.act.rows import Row
from assay.errors import BadData, EmptyData
from assay.model.core import Core
from assay.model.encode import continuation
from assay.prompt import Prompt
from assay.run.passes import passes
from assay.run.plan import refuse

Answers = str | Sequence[str] | Sequence[Sequence[str]]
"""One continuation for every prompt, several for every prompt, or several for each."""


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of continuations.

    Attributes:
        total: sum over the answer's tokens, natural log, ``[prompt, condition, answer]`` (ragged answers: NaN-free,
            padded with −inf).
        tokens: how many tokens each answer has, ``[prompt, answer]``.
        answers: the answers by prompt.
        receipts: by ``(prompt, condition)``, what was done.
    """

    total: np.ndarray
    tokens: np.ndarray
    answers: tuple[tuple[str, ...], ...]
    receipts: dict[tuple[int, int], list[Receipt]]

    @property
    def mean(self) -> np.ndarray:
        """Log-probability per token."""
        return self.total / np.maximum(self.tokens, 1)[:, None, :]

    @property
    def difference(self) -> np.ndarray:
        """First answer minus second, ``[prompt, condition]``. Raises `BadData` where a prompt has one answer only."""
        if min(map(len, self.answers)) < 2:
            raise BadData("a prompt with one answer has no difference", hint="give two answers for every prompt")
        return self.total[..., 0] - self.total[..., 1]


@dataclass(frozen=True)
class _Read:
    prompt: int
    answer: int
    base: int
    at: int
    token: int


def score(
    core: Core,
    prompts: Sequence[str | Prompt],
    answers: Answers,
    conditions: Sequence[Sequence[Intervention]],
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score ``answers`` after ``prompts`` under every condition.

    Answers of one prompt that share all tokens but the last share a row, so two one-token answers cost one pass.
    """
    told = by_prompt(answers, len(prompts))
    rows, reads = _rows(core, prompts, told)
    by_base: dict[int, list[_Read]] = {}
    for read in reads:
        by_base.setdefault(read.base, []).append(read)
    of_prompt: dict[int, list[Row]] = {}
    for base, row in enumerate(rows):
        of_prompt.setdefault(by_base[base][0].prompt, []).append(row)
    refuse(core, list(of_prompt.values()), conditions)
    widest = max(len(options) for options in told)
    total = np.zeros((len(prompts), len(conditions), widest))
    tokens = np.zeros((len(prompts), widest), dtype=int)
    for read in reads:
        tokens[read.prompt, read.answer] += 1
    for number, options in enumerate(told):
        total[number, :, len(options) :] = -np.inf
    receipts: dict[tuple[int, int], list[Receipt]] = {}
    head = _Head(core, total)
    for done in passes(core, rows, conditions, memory, progress):
        for place, cell in enumerate(done.cells):
            wanted = by_base[int(done.base.rows[cell.base].name)]
            for read in wanted:
                head.want(place, read.at - done.first, read.token, (read.prompt, cell.condition, read.answer))
            receipts.setdefault((wanted[0].prompt, cell.condition), []).extend(done.receipts[place])
        head.take(done.final)
    head.flush()
    return Scores(total, tokens, told, receipts)


class _Head:
    """Runs the head over the vocabulary only at positions that are read, and over many of them at once: a batch of cells
    that resumes at one block reads few, and a product with few rows costs little less than one with many.
    """

    def __init__(self, core: Core, total: np.ndarray, most: int = 512) -> None:
        self.core, self.total, self.most = core, total, most
        self.index: dict[tuple[int, int], int] = {}
        self.states: list[Tensor] = []
        self.held = 0
        self.wanted: list[tuple[int, int]] = []
        self.into: list[tuple[int, int, int]] = []

    def want(self, row: int, column: int, token: int, into: tuple[int, int, int]) -> None:
        """Add the log-probability of ``token`` at ``(row, column)`` of the next final stream to ``total[into]``."""
        place = self.index.setdefault((row, column), len(self.index))
        self.wanted.append((self.held + place, token))
        self.into.append(into)

    def take(self, final: Tensor) -> None:
        """Keep what is wanted of a final stream ``[row, pos, d_model]``."""
        where = torch.tensor(list(self.index), device=final.device)
        self.states.append(final[where[:, 0], where[:, 1]])
        self.held += len(self.index)
        self.index = {}
        if self.held >= self.most:
            self.flush()

    def flush(self) -> None:
        """Score what is kept."""
        if not self.held:
            return
        states, into = torch.cat(self.states), np.array(self.into)
        rows, tokens = torch.tensor(self.wanted, device=states.device).T
        for start in range(0, self.held, self.most):
            mine = ((rows >= start) & (rows < start + self.most)).nonzero()[:, 0]
            found = self.core.engine.log_p(states[start : start + self.most], rows[mine] - start, tokens[mine])
            np.add.at(self.total, tuple(into[mine.cpu().numpy()].T), found.double().cpu().numpy())
        self.states, self.held, self.wanted, self.into = [], 0, [], []


def by_prompt(answers: Answers, prompts: int) -> tuple[tuple[str, ...], ...]:
    """Each prompt's answers. Raises `EmptyData` for no prompts, `BadData` where the two do not match."""
    if not prompts:
        raise EmptyData("there are no prompts", hint="give at least one prompt")
    if isinstance(answers, str):
        return ((answers,),) * prompts
    listed = list(answers)
    if all(isinstance(answer, str) for answer in listed) and listed:
        return (tuple(str(answer) for answer in listed),) * prompts
    if len(listed) != prompts or not all(listed) or any(isinstance(options, str) for options in listed):
        raise BadData(
            "the answers do not match the prompts",
            found=f"{prompts} prompts, {len(listed)} lists of answers",
            hint="give one answer, the same answers for all, or one non-empty list per prompt",
        )
    return tuple(tuple(options) for options in listed)


def _rows(
    core: Core, prompts: Sequence[str | Prompt], answers: Sequence[Sequence[str]]
) -> tuple[list[Row], list[_Read]]:
    """One row per prompt and prefix of an answer; the last answer token is read, never fed."""
    rows: list[Row] = []
    reads: list[_Read] = []
    known: dict[tuple[int, tuple[int, ...]], int] = {}
    for number, (prompt, options) in enumerate(zip(prompts, answers, strict=True)):
        asked = Prompt.of(prompt)
        row = core.row(asked, str(number))
        for choice, answer in enumerate(options):
            tokens = continuation(core.tokenizer, asked, row.tokens, answer)
            key = (number, tokens[:-1])
            if key not in known:
                known[key] = len(rows)
                rows.append(Row(str(len(rows)), (*row.tokens, *tokens[:-1]), row.prompt, row.spans, room=1))
                core.refuse_long(rows[-1])
            reads += [
                _Read(number, choice, known[key], row.prompt - 1 + step, token) for step, token in enumerate(tokens)
            ]
    return rows, reads
