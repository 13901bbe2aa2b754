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
from assay.errors import BadData
from assay.model.core import Core
from assay.model.encode import continuation, encode
from assay.prompt import Prompt
from assay.run.passes import passes

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
        """First answer minus second, ``[prompt, condition]``."""
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
    told = _by_prompt(answers, len(prompts))
    rows, reads = _rows(core, prompts, told)
    by_base: dict[int, list[_Read]] = {}
    for read in reads:
        by_base.setdefault(read.base, []).append(read)
    widest = max(len(options) for options in told)
    total = np.zeros((len(prompts), len(conditions), widest))
    tokens = np.zeros((len(prompts), widest), dtype=int)
    for read in reads:
        tokens[read.prompt, read.answer] += 1
    for number, options in enumerate(told):
        total[number, :, len(options) :] = -np.inf
    receipts: dict[tuple[int, int], list[Receipt]] = {}
    for done in passes(core, rows, conditions, memory, progress):
        index, wanted, into = [], [], []
        for place, cell in enumerate(done.cells):
            for read in by_base[int(done.base.rows[cell.base].name)]:
                index.append((place, read.at - done.first))
                wanted.append(read.token)
                into.append((read.prompt, cell.condition, read.answer))
            prompt = by_base[int(done.base.rows[cell.base].name)][0].prompt
            receipts.setdefault((prompt, cell.condition), []).extend(done.receipts[place])
        found = logprobs(core, done.final, index, wanted)
        np.add.at(total, tuple(np.array(into).T), found)
    return Scores(total, tokens, told, receipts)


def logprobs(core: Core, final: Tensor, index: Sequence[tuple[int, int]], tokens: Sequence[int], most: int = 1024) -> np.ndarray:
    """Log-probabilities of ``tokens`` at ``index`` (row, column) of a final stream; the head runs there only."""
    where = torch.tensor(index, device=final.device)
    rows, inverse = torch.unique(where, dim=0, return_inverse=True)
    wanted = torch.tensor(tokens, device=final.device)
    found = torch.empty(len(tokens), dtype=torch.float64)
    for start in range(0, len(rows), most):
        logits = core.engine.unembed(final[rows[start : start + most, 0], rows[start : start + most, 1]]).float()
        mine = ((inverse >= start) & (inverse < start + most)).nonzero()[:, 0]
        local = inverse[mine] - start
        found[mine.cpu()] = (logits[local, wanted[mine]] - torch.logsumexp(logits, dim=-1)[local]).double().cpu()
    return found.numpy()


def _by_prompt(answers: Answers, prompts: int) -> tuple[tuple[str, ...], ...]:
    if isinstance(answers, str):
        return ((answers,),) * prompts
    listed = list(answers)
    if all(isinstance(answer, str) for answer in listed) and listed:
        return (tuple(listed),) * prompts  # type: ignore[arg-type]
    if len(listed) != prompts or not all(listed):
        raise BadData(
            "the answers do not match the prompts",
            found=f"{prompts} prompts, {len(listed)} lists of answers",
            hint="give one answer, the same answers for all, or one non-empty list per prompt",
        )
    return tuple(tuple(options) for options in listed)


def _rows(core: Core, prompts: Sequence[str | Prompt], answers: Sequence[Sequence[str]]) -> tuple[list[Row], list[_Read]]:
    """One row per prompt and prefix of an answer; the last answer token is read, never fed."""
    rows: list[Row] = []
    reads: list[_Read] = []
    known: dict[tuple[int, tuple[int, ...]], int] = {}
    for number, (prompt, options) in enumerate(zip(prompts, answers, strict=True)):
        asked = Prompt.of(prompt)
        row = encode(core.tokenizer, asked, str(number))
        for choice, answer in enumerate(options):
            tokens = continuation(core.tokenizer, asked, row.tokens, answer)
            key = (number, tokens[:-1])
            if key not in known:
                known[key] = len(rows)
                rows.append(Row(str(len(rows)), (*row.tokens, *tokens[:-1]), row.prompt, row.spans, room=1))
            reads += [_Read(number, choice, known[key], row.prompt - 1 + step, token) for step, token in enumerate(tokens)]
    return rows, reads
