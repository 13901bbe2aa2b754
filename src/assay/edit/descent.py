"""The value that brings a new answer about, found by gradient descent on what is added at the subject's last token.

ROME adds it to one MLP's output (Meng et al. 2022, §3.2), MEMIT to the stream (Meng et al. 2023, §4.2.1)::

    L(δ) = mean over contexts of −log P[new answer] per token
           + kl · KL(before ‖ after) on "{subject} is a", at the subject's last token
           + decay · ‖δ‖ / ‖v‖²

What precedes that token is unchanged by δ, and so is what lies below the place: both are run once, and a step computes the
tokens from there on, above the place, for many facts at a time. Every fact has a descent of its own all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from assay.act.program import Place
from assay.act.rows import Row
from assay.errors import BadData, NoSuchPosition
from assay.model.clock import SuffixCache, right_padded
from assay.model.engine import Engine, Start
from assay.model.taps import keeper
from assay.prompt import Prompt
from assay.run.model import Model
from assay.run.plan import token_budget

Rewrite = tuple[Prompt, str]
"""A prompt with the span ``subject``, and what it shall be answered with, blank included: ``" Rome"``."""
SUBJECT = "subject"


@dataclass(frozen=True)
class Descent:
    """How the value is found. The defaults are those of ROME's published code.

    Attributes:
        rate, steps: of Adam.
        enough: the loss at which it stops.
        clamp: the most that δ may be, in lengths of the value that it is added to.
        kl, decay: weights in the loss, see above.
        shrink: Adam's own weight decay, which the paper has in place of ``decay``.
    """

    rate: float = 0.5
    steps: int = 20
    enough: float = 0.05
    clamp: float = 4.0
    kl: float = 0.0625
    decay: float = 0.5
    shrink: float = 0.0


PAPER = Descent(kl=100.0, decay=0.0, shrink=1.5e-3)
"""As in ROME's appendix E.5, where it differs from the published code."""


@dataclass(frozen=True, eq=False)
class Goal:
    """What a fact's value is sought with: prompts that end in the new answer, the bare one first, and "{subject} is a"."""

    rows: tuple[Row, ...]
    drift: Row

    @classmethod
    def of(cls, model: Model, rewrite: Rewrite, before: Sequence[str]) -> Goal:
        """With texts before the prompt. Raises `NoSuchPosition` without the span, `BadData` without an answer."""
        prompt, to = rewrite
        if not to:
            raise BadData("there is no new answer", hint='give it with its blank: to=" Rome"')
        named = {name: prompt.text[start:end] for name, start, end in prompt.spans}
        if SUBJECT not in named or prompt.turns is not None or prompt.tokens is not None:
            raise NoSuchPosition(
                f"the prompt has no span {SUBJECT!r} that an edit could be about",
                found=", ".join(named) or "no spans",
                hint='write it as text, and mark it: Prompt("The {subject} is in the city of", subject="Eiffel Tower")',
            )
        prompts = [prompt, *(prompt.after(text) for text in before)]
        drift = model.row(Prompt("{subject} is a", subject=named[SUBJECT]), "drift")
        return cls(tuple(model.row(one, str(index), to) for index, one in enumerate(prompts)), drift)

    @property
    def all(self) -> list[Row]:
        """Every row, the drift's last."""
        return [*self.rows, self.drift]


@dataclass(frozen=True, eq=False)
class Value:
    """What was found for one fact.

    Attributes:
        read: activations at the subject's last token, ``[prompt, d]`` in float32, the bare prompt's first.
        delta: δ, ``[d_model]``.
        loss: at the end.
    """

    read: Mapping[Place, Tensor]
    delta: Tensor
    loss: float


@dataclass(frozen=True, eq=False)
class Answers:
    """The tokens of rows' answers, and where they are read.

    Attributes:
        row, column: in the stream, ``[token]``.
        token: its id.
        weight: one over the number of tokens that its answer has.
        rows: how many rows there are; one without an answer has no tokens.
    """

    row: Tensor
    column: Tensor
    token: Tensor
    weight: Tensor
    rows: int

    @classmethod
    def of(cls, rows: Sequence[Row], firsts: Sequence[int]) -> Answers:
        """Of rows of which the stream has the tokens from ``firsts`` on."""
        at = [(row, column) for row, one in enumerate(rows) for column in range(one.prompt, len(one.tokens))]
        told = [
            (row, column - 1 - firsts[row], rows[row].tokens[column], len(rows[row].tokens) - rows[row].prompt)
            for row, column in at
        ]
        row, column, token, length = torch.tensor(told).T
        return cls(row, column, token, 1 / length, len(rows))

    def part(self, rows: Tensor) -> Answers:
        """Of some rows, numbered anew."""
        number = torch.full((self.rows,), -1)
        number[rows] = torch.arange(len(rows))
        kept = number[self.row] >= 0
        return Answers(number[self.row[kept]], self.column[kept], self.token[kept], self.weight[kept], len(rows))

    def loss(self, engine: Engine, final: Tensor) -> Tensor:
        """−log P per token of each row's answer, ``[row]`` on the CPU, from the final stream ``[row, pos, d_model]``."""
        logits = engine.unembed(final[self.row, self.column], gradients=final.requires_grad).float()
        losses = functional.cross_entropy(logits, self.token.to(logits.device), reduction="none").cpu()
        return torch.zeros(self.rows).index_add(0, self.row, losses * self.weight)


def last_of(row: Row) -> int:
    """Where the subject's last token is."""
    return row.spans[SUBJECT][1] - 1


def values(
    model: Model,
    goals: Sequence[Goal],
    place: Place,
    descent: Descent,
    read: Sequence[Place] = (),
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Value]:
    """Find δ at ``place`` for every goal. ``progress`` is called with facts done and facts in all."""
    found: list[Value] = []
    for part in batches(goals, lambda row: len(row.tokens) - last_of(row), token_budget(model, memory)):
        found += Search(model, part, place, descent, read).run()
        if progress:
            progress(len(found), len(goals))
    return found


def batches(goals: Sequence[Goal], size_of: Callable[[Row], int], budget: int) -> Iterator[list[Goal]]:
    """Goals whose rows come to at most ``budget`` tokens together, as ``size_of`` counts them; one goal at least."""
    batch: list[Goal] = []
    size = 0
    for goal in goals:
        mine = sum(map(size_of, goal.rows))
        if batch and size + mine > budget:
            yield batch
            batch, size = [], 0
        batch.append(goal)
        size += mine
    if batch:
        yield batch


class Search:
    """The descent of a batch of facts.

    Attributes:
        seen: what was read of every row at the subject's last token, by place.
    """

    def __init__(
        self, model: Model, goals: Sequence[Goal], place: Place, descent: Descent, read: Sequence[Place] = ()
    ) -> None:
        layer, part = place
        assert layer is not None
        self.model, self.place, self.descent, self.goals = model, place, descent, goals
        rows = [row for goal in goals for row in goal.all]
        self.owner = torch.tensor([fact for fact, goal in enumerate(goals) for _ in goal.all])
        here = [last_of(row) for row in rows]
        self.entry = layer + (part == "resid")
        below: Place = (self.entry - 1, "resid")
        seen: dict[Place, Tensor] = {}
        tokens, positions = right_padded([row.tokens for row in rows])
        self.cache = model.engine.empty_cache(*tokens.shape)
        places = dict.fromkeys([place, *read, *([below] if self.entry else [])])
        final = model.engine.forward(
            tokens, positions, reads={one: keeper(seen, one) for one in places}, cache=self.cache
        )
        at, self.here = torch.arange(len(rows)), torch.tensor(here)
        self.seen = {one: seen[one][at, self.here].float().cpu() for one in (place, *read)}
        # Of the drift's row only the subject's last token is read.
        rest = [
            row.tokens[start:] if row.name != "drift" else row.tokens[start : start + 1]
            for row, start in zip(rows, here, strict=True)
        ]
        self.tokens, self.positions = right_padded(rest, here)
        columns = (self.here[:, None] + torch.arange(self.tokens.shape[1])).clamp(max=tokens.shape[1] - 1)
        self.below = seen[below][at[:, None], columns] if self.entry else None
        self.drifts = torch.tensor([index for index, row in enumerate(rows) if row.name == "drift"])
        self.natural = model.engine.unembed(final[self.drifts, self.here[self.drifts]]).float().log_softmax(dim=-1)
        self.answers = Answers.of(rows, here)
        self.counts = torch.tensor([len(goal.rows) for goal in goals])
        self.narrowed: tuple[Tensor, SuffixCache] | None = None

    def run(self) -> list[Value]:
        """Descend until every fact's loss is enough, or the steps are done."""
        way, first = self.descent, self.drifts.roll(1) + 1
        first[0] = 0
        lengths = self.seen[self.place][first].norm(dim=-1)
        delta = torch.zeros(len(self.goals), self.model.shape.d_model, requires_grad=True)
        adam = torch.optim.Adam([delta], lr=way.rate, weight_decay=way.shrink)
        open_ = torch.ones(len(self.goals), dtype=torch.bool)
        loss = torch.zeros(len(self.goals))
        for step in range(way.steps):
            with torch.enable_grad():
                now = self.loss(delta, open_) + way.decay * delta.norm(dim=-1)[open_] / lengths[open_] ** 2
            loss[open_] = now.detach()
            open_ = open_ & (loss >= way.enough)  # a new one: the old one is part of the graph
            if step == way.steps - 1 or not open_.any():
                break
            (slope,) = torch.autograd.grad(now.sum(), [delta])
            with torch.no_grad():
                before = delta.clone()
                delta.grad = torch.nan_to_num(slope)  # the norm has no slope at 0
                adam.step()
                delta *= (way.clamp * lengths / delta.norm(dim=-1)).clamp(max=1)[:, None]
                delta[~open_] = before[~open_]
        rows = [(self.owner == fact).nonzero()[:-1, 0] for fact in range(len(self.goals))]  # without the drift's
        read = [{place: kept[mine] for place, kept in self.seen.items()} for mine in rows]
        return [Value(*found) for found in zip(read, delta.detach(), loss.tolist(), strict=True)]

    def loss(self, delta: Tensor, wanted: Tensor) -> Tensor:
        """What is said and what drifts, of the facts ``wanted``: ``[those facts]``, for ``delta [fact, d_model]``."""
        engine, mine = self.model.engine, wanted[self.owner].nonzero()[:, 0]
        added = delta[self.owner[mine]][:, None]

        def push(h: Tensor) -> Tensor:
            return torch.cat([h[:, :1] + added.to(h), h[:, 1:]], dim=1)

        final = engine.forward(
            self.tokens[mine],
            self.positions[mine],
            reads={self.place: push},
            cache=self._prefixes(mine),
            start=None if self.below is None else Start(self.entry, self.below[mine]),
            gradients=True,
        )
        said = self.answers.part(mine).loss(engine, final)
        total = torch.zeros(len(wanted)).index_add(0, self.owner[mine], said / self.counts[self.owner[mine]])
        at = torch.isin(mine, self.drifts)
        after = engine.unembed(final[at, 0], gradients=True).float().log_softmax(dim=-1)
        drift = functional.kl_div(after, self.natural[wanted], log_target=True, reduction="none").sum(dim=-1)
        return total[wanted] + self.descent.kl * drift.cpu()

    def _prefixes(self, rows: Tensor) -> SuffixCache:
        """What precedes the subjects' last tokens, of some rows; the same as a rule from step to step."""
        if self.narrowed is None or not torch.equal(self.narrowed[0], rows):
            self.narrowed = rows, SuffixCache(self.cache.pick(rows), self.here[rows])
        return self.narrowed[1]
