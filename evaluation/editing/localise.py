"""``python -m evaluation.editing.localise``: does tracing find the layer of an edit, and the best layer for one?

Two questions that are often taken for one:

1. *Found.* A fact is rewritten by ROME at one layer, drawn by hashing. Whoever traces the edited model does not know which.
   Every MLP alone is restored at the subject's last token. Taken for the layer is the one that brings most of the new answer
   back; or the one that brings back most beyond what it does on average for ten other facts, of the model as it was.
2. *Foretold.* On the model as it is, does a layer's effect in tracing go with how well an edit there does (Hase et al. 2023
   found that it does not, on other models)? Asked within each fact, by rank correlation over layers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from assay import Model, trace
from assay.edit import Fact, SecondMoment, contexts, measure, second_moments, stored
from assay.stats import bootstrap_interval, clopper_pearson
from evaluation.editing.common import CONTEXTS, facts, own_text
from evaluation.editing.select import order
from evaluation.markdown import table, write

Moments = dict[int, SecondMoment]


def by_layer(model: Model, fact: Fact) -> np.ndarray:
    """What each MLP alone brings back at the subject's last token, as a share of what corruption took."""
    traced = trace.causal(model, fact.prompt, restore="mlp.out", window=1, samples=5)
    return np.asarray(traced.effect("mlp.out")[traced.subject[1] - 1] / traced.total)


def found(
    model: Model, some: Sequence[Fact], others: Sequence[Fact], moments: Moments, before: Sequence[str], wanted: int
) -> list[list[str]]:
    """Plant, trace, compare: a row of the table for each way to read a trace. Plants that do not take are passed over."""
    usual = np.mean([by_layer(model, fact) for fact in others], axis=0)
    planted: list[int] = []
    read: dict[str, list[int]] = {"the layer of the largest effect": [], "the largest above other facts' mean": []}
    tried, layers = 0, model.shape.layers
    for fact in some:
        layer = int(order("plant", fact.relation, fact.subject), 16) % layers
        tried += 1
        (one,) = stored(model, [fact.rewrite], at=f"L{layer}.mlp.out @ subject[-1]", before=before)
        with model.edited(one.edit(moments[layer])):
            said = model.generate(fact.prompt, tokens=4).text
            if not said.startswith(fact.new):
                continue
            effect = by_layer(model, fact)
        planted.append(layer)
        for kept, shown in zip(read.values(), (effect, effect - usual), strict=True):
            kept.append(int(shown.argmax()))
        sys.stderr.write(f"planted at L{layer}, found at {[kept[-1] for kept in read.values()]}\n")
        if len(planted) == wanted:
            break
    rows = []
    for name, layers_found in read.items():
        off = np.abs(np.array(layers_found) - np.array(planted))
        counts = [clopper_pearson(int((off <= within).sum()), len(off)) for within in (0, 1)]
        shares = [f"{100 * one.value:.0f} ({100 * one.low:.0f} to {100 * one.high:.0f})" for one in counts]
        rows.append([name, f"{len(planted)} of {tried} took", *shares, f"{np.median(off):g}", f"{100 / layers:.0f}"])
    return rows


def foretold(
    model: Model, some: Sequence[Fact], moments: Moments, before: Sequence[str], layers: Sequence[int]
) -> list[list[str]]:
    """Rank correlations of tracing's effects with what edits do, over layers, within facts: a row a kind of tracing."""
    effects: dict[str, list[np.ndarray]] = {"resid": [], "mlp.out": []}
    did = []
    for fact in some:
        traced = trace.causal(model, fact.prompt, restore=["resid", "mlp.out"], samples=5)
        for part, kept in effects.items():
            kept.append(traced.effect(part)[traced.subject[1] - 1][list(layers)])
    for layer in layers:
        edits = stored(model, [fact.rewrite for fact in some], at=f"L{layer}.mlp.out @ subject[-1]", before=before)
        scores = []
        for fact, one in zip(some, edits, strict=True):
            with model.edited(one.edit(moments[layer])):
                (score,) = measure(model, [fact])
            scores.append((score["EM"] + score["PM"] + score["NM"]) / 3)
        did.append(scores)
        sys.stderr.write(f"edited at L{layer}: {np.mean(scores):.3f}\n")
    done = np.array(did).T
    rows = []
    for part, kept in effects.items():
        ranks = np.array([stats.spearmanr(effect, values)[0] for effect, values in zip(kept, done, strict=True)])
        interval = bootstrap_interval(ranks[np.isfinite(ranks)])
        best = np.array([np.argmax(effect) for effect in kept])
        lost = done.max(axis=1) - done[np.arange(len(done)), best]
        fixed = done.max(axis=1) - done[:, int(done.mean(axis=0).argmax())]
        rows.append(
            [
                f"`{part}`",
                f"{interval.value:+.2f} ({interval.low:+.2f} to {interval.high:+.2f})",
                f"{np.mean(best == done.argmax(axis=1)):.0%}",
                f"{100 * lost.mean():.1f}",
                f"{100 * fixed.mean():.1f}, L{layers[int(done.mean(axis=0).argmax())]}",
            ]
        )
    return rows


def main() -> None:
    """Print both tables, and with ``--write`` put them into the README beside."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--plants", type=int, default=40)
    options.add_argument("--facts", type=int, default=20, help="facts that are edited at every third layer")
    options.add_argument("--write", action="store_true", help="put the tables into README.md")
    given = options.parse_args()
    model, (tune, test) = Model.load(), facts()
    text, before = own_text(model), contexts(model, CONTEXTS)
    moments = second_moments(model, text)
    planted = table(
        ["taken for the layer", "plants", "found, %", "within one, %", "median distance", "by chance, %"],
        found(model, test, tune[:10], moments, before, given.plants),
    )
    layers = range(0, model.shape.layers, 3)
    told = table(
        ["restored", "rank correlation over layers", "best layer is the best", "lost at it", "lost at one fixed layer"],
        foretold(model, test[-given.facts :], moments, before, layers),
    )
    sys.stdout.write(f"{planted}\n\n{told}\n")
    if given.write:
        page = Path(__file__).with_name("README.md")
        write(page, "found", planted)
        write(page, "foretold", told)


if __name__ == "__main__":
    main()
