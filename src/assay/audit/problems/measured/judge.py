"""The unit that fits every probe, with its controls, and says of every row how suspicious it is.

It is given neither `known.truths` nor anything made from them. What is compared with the hidden truth afterwards is in
``techniques.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from assay.audit import Bench, unit
from assay.audit.problems.measured import blind
from assay.audit.problems.measured.known import Array, Known, Mask, known_of, rows_of
from assay.audit.problems.measured.probe import area, erased, space
from assay.audit.problems.measured.reading import Read, joined

_WORD, _MOST_WORDS = r"\S+", 4000
_LEAST_GOOD = 10
"""Rows that look good, to put a threshold on and to judge by."""


def enough(known: Known) -> str:
    """Why no probe can be fitted or judged on these rows, or nothing. A sentence without its full stop."""
    wanted = {
        "trusted rows with all sensors up": (known.good, (blind.LEAST_FIT, _LEAST_GOOD, _LEAST_GOOD)),
        "trusted rows with a sensor down": (known.bad, (blind.LEAST_FIT, blind.LEAST, blind.LEAST)),
        "untrusted rows with all sensors up": (known.asked, (0, 0, _LEAST_GOOD)),
    }
    for what, (mine, least) in wanted.items():
        for part, fewest in zip(("fit", "tune", "test"), least, strict=True):
            if (count := int((mine & (known.part == part)).sum())) < fewest:
                return f"{count} {what} in the {part} part are too few; it takes {fewest}"
    return ""


@unit("tampering.judge")
def judge(
    bench: Bench, *, readings: list[str], untrained: list[str], untrained_rows: list[int], draws: int, seed: int
) -> dict[str, Any]:
    """Every probe and control: arrays by name (see `judged`), and what was chosen."""
    known = known_of(rows_of(bench), seed)
    with threadpool_limits(limits=1):  # many small products: on a busy machine waiting threads cost more than they give
        arrays, said = judged(known, joined(bench, readings), draws, seed)
        if untrained:
            fresh = np.concatenate([bench.arrays.get(one)["stream"] for one in untrained])
            arrays["untrained"] = np.array([_untrained(known, fresh, untrained_rows)])
    return {"arrays": bench.arrays.put(**arrays), **said}


def judged(known: Known, read: Read, draws: int, seed: int) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays by name, and what was chosen (JSON).

    The text-only twin that decides counts single words, and the length. Pairs of neighbours hold some of the order of
    events, which is what a model has to understand; what they tell is told and decides nothing.

    =====================  ==========================================================================================
    ``outcome``            suspicion by the probe of trusted rows, ``[n]``; ``outcome-words``, ``-pairs``: by the text
    ``outcome-tune``       its AUROC on the tune part, ``[layer]``; ``outcome-test`` on trusted test rows
    ``outcome-null``       AUROC on trusted test rows, labels shuffled, ``[draws]``; ``outcome-random`` of directions
    ``suspect``            suspicion by the probe of the score, ``[n]``; ``suspect-words``, ``-pairs``: by the text
    ``suspect-tune``       its AUROC on the tune part, ``[layer]``
    ``flagged``            suspicious and foreseen, ``[n]``; ``flagged-words``, ``flagged-loose`` (by false alarms alone)
    ``score-null``         the score with the trusted flag shuffled, ``[draws]``; ``score-random`` of directions
    ``way-…``              suspicion by the other techniques, ``[n]``
    =====================  ==========================================================================================
    """
    spaces = [space(read.stream[:, layer], known.in_part("fit")) for layer in range(read.stream.shape[1])]
    words = [space(_words(known, most), known.in_part("fit")) for most in (1, 2)]
    outcome, outcome_said = _outcome(known, spaces, words, draws, seed)
    score, score_said = _score(known, read, spaces, words, draws, seed)
    ways = _ways(known, read, spaces, blind.task_of(known, read.odds)[1:3], score_said["layer"])
    return outcome | score | ways, {"outcome_layer": outcome_said, **score_said}


def _outcome(
    known: Known, spaces: Sequence[Array], words: Sequence[Array], draws: int, seed: int
) -> tuple[dict[str, Array], int]:
    """Does a probe of trusted rows read how they came out?"""
    test = known.in_part("test")
    labels = blind.shuffled(known.all_up, known.trusted, known, draws, seed)
    up = np.column_stack([known.all_up, labels])
    good, bad = up & known.trusted[:, None], ~up & known.trusted[:, None]
    found = blind.search(spaces, (good, bad), known)
    reached = [area(found.scores[:, c], bad[:, c] & test, good[:, c] & test) for c in range(draws + 1)]
    layer = int(found.layer[0])
    random = _random(spaces[layer], (good[:, :1], bad[:, :1]), known, draws, seed)
    single = (good[:, :1], bad[:, :1])
    each = [blind.search([z], single, known).scores[:, 0] for z in spaces]
    told, pairs = (blind.search([z], single, known).scores[:, 0] for z in words)
    return {
        "outcome": found.scores[:, 0],
        "outcome-words": told,
        "outcome-pairs": pairs,
        "outcome-tune": found.tune[:, 0],
        "outcome-test": np.array([area(one, known.bad & test, known.good & test) for one in each]),
        "outcome-null": np.array(reached[1:]),
        "outcome-random": np.array([area(one, known.bad & test, known.good & test) for one in random.T]),
    }, layer


def _score(
    known: Known, read: Read, spaces: Sequence[Array], words: Sequence[Array], draws: int, seed: int
) -> tuple[dict[str, Array], dict[str, Any]]:
    """The blind score, with the trusted flag of rows that look good shuffled, by directions at random, by the words."""
    kind, good, bad, near = blind.task_of(known, read.odds)
    foreseen = blind.foreseen(read.odds)[:, None]
    trusted = np.column_stack([known.trusted, blind.shuffled(known.trusted, known.all_up, known, draws, seed)])
    task = (trusted & known.all_up[:, None], np.repeat(bad, draws + 1, axis=1))
    found = blind.search(spaces, task, known)
    told, pairs = (blind.search([z], (good, bad), known).scores for z in words)
    close = np.repeat(near, draws + 1, axis=1)
    flagged = (found.scores > blind.bars(found.scores, (task[0], close), known)) & foreseen
    layer = int(found.layer[0])
    random = _random(spaces[layer], (good, bad), known, draws, seed)
    every = (np.repeat(good, draws, axis=1), close[:, 1:])
    wild = (random > blind.bars(random, every, known)) & foreseen
    loose = found.scores[:, :1] > blind.bars(found.scores[:, :1], (good, near), known, nearer=False)
    return {
        "suspect": found.scores[:, 0],
        "suspect-words": told[:, 0],
        "suspect-pairs": pairs[:, 0],
        "suspect-tune": found.tune[:, 0],
        "flagged": flagged[:, 0].astype(float),
        "flagged-words": ((told > blind.bars(told, (good, near), known)) & foreseen)[:, 0].astype(float),
        "flagged-loose": (loose & foreseen)[:, 0].astype(float),
        "score-null": blind.shares(flagged[:, 1:], trusted[:, 1:], known),
        "score-random": blind.shares(wild, np.repeat(known.trusted[:, None], draws, axis=1), known),
    }, {"kind": kind, "layer": layer, "evidence": int(near.sum()) if kind != "trusted rows" else 0}


def _ways(known: Known, read: Read, spaces: Sequence[Array], task: blind.Task, layer: int) -> dict[str, Array]:
    """Suspicion by techniques that decide nothing."""
    fit = known.in_part("fit")
    evidence = (known.inconsistent & blind.foretold(read.odds, known))[:, None]
    logistic = LogisticRegression(C=0.1, max_iter=300, class_weight="balanced")
    mine = (task[0] | task[1])[:, 0] & fit
    logistic.fit(spaces[layer][mine], task[1][mine, 0])
    untrusted = ~known.trusted & fit
    cleaned = [erased(z, known.all_up, untrusted) for z in spaces] if known.all_up[untrusted].std() > 0 else []
    log_p = -np.logaddexp(0, -read.odds).sum(axis=1)
    made = {
        "predicted": -log_p,
        "logistic": logistic.decision_function(spaces[layer]),
        "length": np.array([float(len(text)) for text in known.texts]),
    }
    tasks = {
        "evidence": (spaces, known.good[:, None], evidence),
        "trusted": (spaces, known.good[:, None], known.bad[:, None]),
        "erased": (cleaned, known.good[:, None], known.bad[:, None]),
        "untrusted": (spaces, known.good[:, None], known.asked[:, None]),
    }
    for name, (where, good, bad) in tasks.items():
        if where and all(int((bad[:, 0] & known.in_part(part)).sum()) >= blind.LEAST for part in ("fit", "tune")):
            made[name] = blind.search(where, (good, bad), known).scores[:, 0]
    return {f"way-{name}": scores for name, scores in made.items()}


def _random(z: Array, task: blind.Task, known: Known, draws: int, seed: int) -> Array:
    """Scores along random directions, each turned so that bad fit rows lie higher, ``[n, draws]``."""
    drawn = z @ np.random.default_rng([seed, 8]).standard_normal((z.shape[1], draws))
    good, bad = (mine[:, 0] & known.in_part("fit") for mine in task)
    return np.asarray(drawn * np.where(drawn[bad].mean(axis=0) >= drawn[good].mean(axis=0), 1.0, -1.0))


def _words(known: Known, most: int) -> Array:
    """Counts of runs of up to ``most`` words, and the length, ``[n, feature]``."""
    counts = CountVectorizer(ngram_range=(1, most), token_pattern=_WORD, lowercase=False, max_features=_MOST_WORDS)
    found = counts.fit_transform(known.texts).toarray()
    return np.column_stack([found, [len(text) for text in known.texts]]).astype(np.float64)


def _untrained(known: Known, stream: np.ndarray[Any, Any], rows: Sequence[int]) -> float:
    """AUROC of the trusted probe, on trusted test rows of those that an untrained twin has read; .5 where there are too few."""
    some = Known(
        tuple(known.ids[n] for n in rows), tuple(known.texts[n] for n in rows), known.clusters[rows], known.part[rows],
        known.sensors[rows], known.trusted[rows],
    )  # fmt: skip
    kinds = (some.good, some.bad)
    if any(not (mine & some.in_part(part)).any() for mine in kinds for part in ("fit", "tune", "test")):
        return 0.5
    spaces = [space(stream[:, layer], some.in_part("fit")) for layer in range(stream.shape[1])]
    scores = blind.search(spaces, (some.good[:, None], some.bad[:, None]), some).scores[:, 0]
    test: Mask = some.in_part("test")
    return area(scores, some.bad & test, some.good & test)
