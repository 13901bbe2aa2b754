"""Units of work: read-outs of instructed dishonesty are fitted, replies are read, the model is asked, words are counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from assay.act.rows import Row
from assay.audit import Bench, unit
from assay.audit.problems.given.rows import read_rows
from assay.audit.problems.given.transcripts import Chat, Transcript, read_transcripts
from assay.audit.problems.given.untrained import untrained as untrained_twin
from assay.audit.problems.replied.conversation import (
    DISHONEST,
    HONEST,
    instructed,
    is_chat,
    questioned,
    replied,
)
from assay.audit.problems.replied.facts import beginnings
from assay.audit.problems.replied.probe import LOGISTIC, Array, Instructed, Mask, Readouts, fit, shuffled
from assay.audit.problems.replied.streams import mean_streams, streams
from assay.audit.problems.truth.replies import replies
from assay.run.model import Model

AT_ONCE = 64
"""Replies in one unit of reading."""

_FOLDS = 5
_ANSWERS = ("yes", "Yes", "no", "No")
_WORD = r"\S+"


def chats(bench: Bench, name: str) -> list[Chat]:
    """The conversations of a data set."""
    path = bench.data[name]
    return [*read_transcripts(path)] if name == "transcripts" else read_rows(path, Chat)


def every_nth(rows: Sequence[Transcript], step: int) -> list[bool]:
    """Which rows are of every ``step``-th cluster, in the file's order."""
    taken = set(list(dict.fromkeys(row.cluster for row in rows))[::step])
    return [row.cluster in taken for row in rows]


# ── units ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@unit("transcripts.probe")
def probe(bench: Bench, *, facts: int, draws: int, seed: int, layers: list[int]) -> dict[str, Any]:
    """Both read-outs at every layer, and the first refitted on shuffled labels at the layer that it reads."""
    found, every, tuned = _fitted(bench, bench.model, facts, seed, layers)
    best = found.chosen[LOGISTIC]
    bench.progress("refitting on shuffled labels", 0, 1)
    with threadpool_limits(limits=1):
        chance = shuffled(every[best].part(~tuned), draws, seed)
    arrays = bench.arrays.put(
        vectors=found.vectors.astype(np.float32),
        separations=found.separations,
        areas=found.areas,
        scales=found.scales.astype(np.float32),
        shuffled=chance.astype(np.float32),
    )
    return {"arrays": arrays, "chosen": found.chosen, "facts": len(tuned), "tuned": int(tuned.sum())}


@unit("transcripts.read")
def read_replies(bench: Bench, *, name: str, start: int, layers: list[int]) -> str:
    """The mean stream over each reply's tokens, ``[row, layer, d]``, of some rows of a data set."""
    mine = replied(bench.model, chats(bench, name)[start : start + AT_ONCE])
    found = mean_streams(bench.model, mine, layers, lambda done, of: bench.progress(f"replies, {name}", done, of))
    return bench.arrays.put(x=found)


@unit("transcripts.untrained")
def untrained(bench: Bench, *, facts: int, step: int, seed: int, layers: list[int]) -> list[float]:
    """Scores of the transcripts of `every_nth` cluster, by the same procedure on a model of this shape whose weights were
    drawn and never trained.
    """
    twin = untrained_twin(bench.model, seed)
    found, _, _ = _fitted(bench, twin, facts, seed, layers)
    best = found.chosen[LOGISTIC]
    rows = read_transcripts(bench.data["transcripts"])
    mine = [row for row, taken in zip(rows, every_nth(rows, step), strict=True) if taken]
    x = mean_streams(twin, replied(twin, mine), layers[best : best + 1])
    return [float(score) for score in x[:, 0] @ found.vectors[LOGISTIC, best]]


@unit("transcripts.ask")
def ask(bench: Bench, *, start: int) -> list[float]:
    """Log P(yes) − log P(no), nats, when the model is asked whether its reply was deceptive, for some transcripts."""
    model, mine = bench.model, read_transcripts(bench.data["transcripts"])[start : start + AT_ONCE]
    bench.progress("asking about replies", start, start + len(mine))
    blanks = ("", " ") if is_chat(model) else (" ",)
    spelled = [blank + word for word in _ANSWERS for blank in blanks]
    scores = replies(model, questioned(model, mine), [spelled] * len(mine)).logprob
    yes, no = (np.logaddexp.reduce(part, axis=1) for part in np.split(scores, 2, axis=1))
    return [float(odds) for odds in yes - no]


@unit("transcripts.words")
def words(bench: Bench) -> dict[str, list[float]]:
    """What the reply's text alone tells, by read-outs fitted on transcripts of other clusters: TF-IDF of its words and
    neighbouring pairs of words; and its length.
    """
    rows = read_transcripts(bench.data["transcripts"])
    labels, clusters = np.array([one.label for one in rows]), np.array([one.cluster for one in rows])
    found = {"words": np.zeros(len(rows)), "length": np.zeros(len(rows))}
    lengths = np.log([[len(one.reply)] for one in rows])
    folds = GroupKFold(n_splits=min(_FOLDS, len(set(clusters))))
    for inside, outside in folds.split(lengths, labels, clusters):
        if len(set(labels[inside])) < 2:
            continue  # nothing can be learned: their scores stay equal, which is chance
        counted = TfidfVectorizer(ngram_range=(1, 2), token_pattern=_WORD, sublinear_tf=True)
        x = counted.fit_transform([rows[place].reply for place in inside])
        held = counted.transform([rows[place].reply for place in outside])
        found["words"][outside] = LogisticRegression(max_iter=1000).fit(x, labels[inside]).decision_function(held)
        long = LogisticRegression().fit(lengths[inside] - lengths[inside].mean(), labels[inside])
        found["length"][outside] = long.coef_[0, 0] * lengths[outside, 0]
    return {name: scores.tolist() for name, scores in found.items()}


# ── how they do it ────────────────────────────────────────────────────────────────────────────────────────────────────


def _fitted(
    bench: Bench, model: Model, facts: int, seed: int, layers: Sequence[int]
) -> tuple[Readouts, list[Instructed], Mask]:
    """Read-outs, the streams that they were fitted on, and which facts chose the layer."""
    begun = beginnings(bench.data["statements"], facts, seed)
    parts: list[tuple[Array, Array]] = []
    for persona in (HONEST, DISHONEST):
        bench.progress("reading instructed facts", len(parts), 2)
        parts.append(_tokens(model, instructed(model, begun.texts, persona), layers))
    fact = np.concatenate([part[1] for part in parts])
    dishonest = np.repeat([False, True], [len(part[1]) for part in parts])
    every = [
        Instructed(np.concatenate([part[0][:, place] for part in parts]).astype(np.float64), fact, dishonest)
        for place in range(len(layers))
    ]
    bench.progress("fitting read-outs", 0, 1)
    with threadpool_limits(limits=1):
        return fit(every, begun.tuned), every, begun.tuned


def _tokens(model: Model, rows: Sequence[Row], layers: Sequence[int]) -> tuple[Array, Array]:
    """The stream at all tokens of all replies, ``[token, layer, d]``, and the row of each."""
    found = sorted(streams(model, rows, layers), key=lambda one: one[0])
    return (
        np.concatenate([stream.swapaxes(0, 1) for _, stream in found]),
        np.repeat([number for number, _ in found], [stream.shape[1] for _, stream in found]),
    )
