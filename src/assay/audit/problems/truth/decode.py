"""Units of work for the first threat model: statements are read, and truth is read from what they leave in the stream.

Statements stand alone, as plain text, and are read at the full stop that ends them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from assay.audit import Bench, Lab, unit
from assay.audit.problems.data.build import Statement
from assay.audit.problems.given.untrained import untrained as untrained_twin
from assay.audit.problems.truth.readout import (
    METHODS,
    REGIONS,
    Array,
    Fold,
    Labelled,
    areas,
    centred,
    directions,
    folds,
    search,
)  # fmt: skip
from assay.audit.problems.truth.replies import replies
from assay.audit.problems.truth.statements import read, sample
from assay.audit.problems.truth.subspaces import consistent, couples_of, truth_and_polarity
from assay.errors import EmptyData
from assay.prompt import Prompt
from assay.run.model import Model

_MOST_LAYERS = 16
_TOPICS_AT_ONCE = 2
_WORD = r"\S+"


def layers_of(model: Model) -> list[int]:
    """At most sixteen layers, evenly spaced, the last among them."""
    count = model.shape.layers
    step = -(-count // _MOST_LAYERS)
    return list(range((count - 1) % step, count, step))


def places(layers: Iterable[int]) -> tuple[str, ...]:
    """The stream at the full stop after each of these layers, as sites, in order."""
    return tuple(f"L{layer}.resid @ last" for layer in sorted(set(layers)))


def chosen(bench: Bench, clusters: int, seed: int) -> list[Statement]:
    """The sampled statements, topic by topic."""
    parts = sample(read(bench.data["statements"]), clusters, seed)
    return sorted((one for part in parts.values() for one in part), key=lambda one: one.topic)


def labelled(statements: Sequence[Statement]) -> Labelled:
    """What the numerics need to know of them."""
    topics, clusters = (
        np.unique(names, return_inverse=True)[1]
        for names in zip(*((s.topic, s.cluster) for s in statements), strict=True)
    )
    negated = np.array([one.polarity == "negated" for one in statements])
    return Labelled(np.array([one.label == 1 for one in statements]), negated, topics, clusters)


# ── units of work ─────────────────────────────────────────────────────────────────────────────────────────────────────


@unit("deception.read")
def read_statements(bench: Bench, *, topics: list[str], clusters: int, seed: int, layers: list[int]) -> dict[str, Any]:
    """The stream at each statement's last token, and the statement's log-probability after its first word."""
    mine = [one for one in chosen(bench, clusters, seed) if one.topic in topics]
    return _read(bench, bench.model, mine, layers)


@unit("deception.read-untrained")
def read_untrained(bench: Bench, *, clusters: int, seed: int, layers: list[int]) -> dict[str, Any]:
    """The same statements in a model of this architecture whose weights were drawn and never trained."""
    twin = untrained_twin(bench.model, seed)
    return _read(bench, twin, chosen(bench, clusters, seed), layers)


def read_in_parts(
    lab: Lab, statements: Sequence[Statement], clusters: int, seed: int, layers: Sequence[int]
) -> list[dict[str, Any]]:
    """All sampled statements, read in units of two topics each."""
    topics = list(dict.fromkeys(one.topic for one in statements))
    some = [topics[start : start + _TOPICS_AT_ONCE] for start in range(0, len(topics), _TOPICS_AT_ONCE)]
    return lab.units(
        read_statements, [dict(topics=few, clusters=clusters, seed=seed, layers=list(layers)) for few in some]
    )


def _read(bench: Bench, model: Model, statements: Sequence[Statement], layers: Sequence[int]) -> dict[str, Any]:
    first, rest = zip(*(one.statement.split(" ", 1) for one in statements), strict=True)
    found = replies(
        model,
        [Prompt(word) for word in first],
        [[f" {text}"] for text in rest],
        [f"L{layer}.resid" for layer in layers],
    )
    x = np.stack([end[:, 0] for end in found.ends.values()], axis=1)
    return {"arrays": bench.arrays.put(x=x, logprob=found.logprob[:, 0]), "tokens": found.tokens}


@unit("deception.decode")
def decode(bench: Bench, *, readings: list[str], clusters: int, seed: int, draws: int) -> dict[str, Any]:
    """The search, on true and on shuffled labels, and everything that it is compared with."""
    statements = chosen(bench, clusters, seed)
    about, splits = labelled(statements), splits_of(statements)
    x = np.concatenate([bench.arrays.get(one)["x"] for one in readings])
    bench.progress("reading truth where it was not learned", 0, 2)
    with threadpool_limits(limits=1):  # many small products: on a busy machine waiting threads cost more than they give
        found = search(x, about, splits, draws, seed)
        bench.progress("reading truth where it was not learned", 1, 2)
        chance = _by_chance(x, about, splits, found.chosen, draws, seed)
        logistic, words = _logistic(x, about, splits, found.chosen), _words(statements, about, splits)
        others = _subspaces(x, statements, about, splits, found.chosen, seed)
        stability = _stability(x, about, found.chosen, seed)
    arrays = bench.arrays.put(
        cells=found.cells,
        scores=found.scores,
        shuffled=np.stack([found.null(region) for region in range(len(REGIONS))]),
        random=chance[0],
        covariance=chance[1],
        logistic=logistic,
        words=words,
        **others,
    )
    return {"arrays": arrays, "chosen": [list(cell) for cell in found.chosen], "stability": stability}


def splits_of(statements: Sequence[Statement]) -> list[Fold]:
    """Folds over topics; over clusters where there are fewer than three topics."""
    about = labelled(statements)
    groups = about.topics if about.topics.max() >= 2 else about.clusters
    if groups.max() < 2:
        raise EmptyData(
            f"{int(groups.max()) + 1} groups of statements cannot be left out in turn",
            found=f"{len(statements)} statements",
            hint="give a column topic, or a column cluster, with at least three values",
        )
    return folds(groups)


def _by_chance(
    x: Array, about: Labelled, splits: Sequence[Fold], cells: Sequence[tuple[int, int]], draws: int, seed: int
) -> Array:
    """AUROC of random directions at the chosen layers, isotropic and covariance-matched, ``[2, draws]``."""
    rng = np.random.default_rng([seed, 2])
    found = np.zeros((2, draws))
    for fold, (layer, _) in zip(splits, cells, strict=True):
        inside = centred(x[fold.fit, layer], about.topics[fold.fit])
        drawn = rng.standard_normal((x.shape[2], draws)), inside.T @ rng.standard_normal((len(inside), draws))
        truth = np.repeat(about.truth[fold.test, None], draws, axis=1)
        for place, vectors in enumerate(drawn):
            found[place] += areas(x[fold.test, layer] @ vectors, truth, about.topics[fold.test]) / len(splits)
    return found


def _logistic(x: Array, about: Labelled, splits: Sequence[Fold], cells: Sequence[tuple[int, int]]) -> Array:
    """Read-out of a logistic regression at the layers that the search has chosen, ``[n]``."""
    scores = np.zeros(len(x))
    for fold, (layer, _) in zip(splits, cells, strict=True):
        inside = centred(x[fold.fit, layer], about.topics[fold.fit])
        scale = np.maximum(inside.std(axis=0), 1e-9)
        fitted = LogisticRegression(C=0.01, max_iter=300).fit(inside / scale, about.truth[fold.fit])
        scores[fold.test] = x[fold.test, layer] / scale @ fitted.coef_[0]
    return scores


def _subspaces(
    x: Array,
    statements: Sequence[Statement],
    about: Labelled,
    splits: Sequence[Fold],
    cells: Sequence[tuple[int, int]],
    seed: int,
) -> dict[str, Array]:
    """Read-outs that are made for negation, at the layers that the search has chosen, ``[n]`` each."""
    found = {"ttpd": np.zeros(len(x)), "ccs": np.zeros(len(x))}
    couples = couples_of([one.question for one in statements], about)
    for fold, (layer, _) in zip(splits, cells, strict=True):
        here = x[:, layer].astype(np.float64)
        found["ttpd"][fold.test] = truth_and_polarity(here, about, fold.fit)[fold.test]
        scores = consistent(here, about, fold.fit, couples, seed)
        if scores is None:
            found.pop("ccs", None)
        elif "ccs" in found:
            found["ccs"][fold.test] = scores[fold.test]
    return found


def _words(statements: Sequence[Statement], about: Labelled, splits: Sequence[Fold]) -> Array:
    """Read-out of a logistic regression on words and neighbouring pairs of words, in the same folds, ``[n]``."""
    counts = CountVectorizer(ngram_range=(1, 2), token_pattern=_WORD).fit_transform(
        [one.statement for one in statements]
    )
    scores = np.zeros(len(statements))
    for fold in splits:
        fitted = LogisticRegression(max_iter=300).fit(counts[fold.fit], about.truth[fold.fit])
        scores[fold.test] = fitted.decision_function(counts[fold.test])
    return scores


def _stability(x: Array, about: Labelled, cells: Sequence[tuple[int, int]], seed: int, halvings: int = 10) -> float:
    """Mean cosine between the read-outs of two random halves of the clusters, all topics, at the cell chosen most."""
    layer, method = Counter(cells).most_common(1)[0][0]
    rng, inside = np.random.default_rng([seed, 3]), centred(x[:, layer], about.topics)
    cosines = []
    for _ in range(halvings):
        half = rng.permutation(int(about.clusters.max()) + 1)[about.clusters] % 2 == 0
        one, other = (
            directions(inside[side], about.signs[side, None])[METHODS[method]][:, 0] for side in (half, ~half)
        )
        lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
        cosines.append(float(one @ other) / max(lengths, 1e-12))
    return float(np.mean(cosines))
