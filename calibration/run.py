"""How often `verify.direction` says that a direction holds: of null directions seldom, of a planted one nearly always.

    python -m calibration             the table of README.md: 200 null directions a row, 100 planted ones
    python -m calibration --quick     20 and 10, to see that it runs

Every trial makes a fresh model (`calibration/planted.py`), finds or draws candidates at every layer, lets `best` choose
among them by their effect on tuning items, and asks for a verdict on test items with fresh controls.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging

from assay import Direction, Pairs, Site, find, verify
from assay.find.found import Fit, Found
from assay.provenance import Provenance
from assay.stats import clopper_pearson, permutation_p
from assay.verify import Verdict
from assay.verify.rule import GATES
from calibration.planted import WIDTH, Planted, planted
from evaluation.markdown import table, write

SITES = "L0:3.resid @ last"
DOSES = (-1.0, 0.0, 1.0)
CONTROLS = dict(random=39, covariance=39, shuffled=39, orthogonal=0)
WORDS = 56
"""Items of an organism, each with its own words."""
NEUTRAL = ("about1 so ask1 about2 so", "about3 so ask3 about4 so")
ALPHA = 0.05
NULL, PLANTED = 200, 100
"""Trials a row. At a true rate of .05, more than 16 of 200 come up in 2 % of rows."""

Trial = Callable[[int], Verdict]


def judged(
    organism: Planted, best: Direction, fit: Pairs, seed: int, search: Sequence[Direction] | None = None
) -> Verdict:
    """The verdict on the winner of a search."""
    return verify.direction(
        organism.model, best, on=organism.test, fit=fit, doses=DOSES, controls=CONTROLS, alpha=ALPHA,
        search=search, neutral=NEUTRAL, seed=seed,
    )  # fmt: skip


def fitted(organism: Planted, fit: Pairs, seed: int) -> Verdict:
    """Found by the mean difference at every layer, the best of them by effect."""
    best = find.mean_difference(organism.model, fit, at=SITES).best(on=organism.tune)
    return judged(organism, best, fit, seed)


def drawn(organism: Planted, vectors: Mapping[Site, np.ndarray], seed: int) -> Verdict:
    """Vectors given by hand, one a layer, the best of them by effect."""
    fits = {site: Fit(torch.from_numpy(vector)) for site, vector in vectors.items()}
    found = Found(organism.model, fits, "drawn", Provenance(method="given", model=organism.model.fingerprint))
    return judged(organism, found.best(on=organism.tune), organism.fit, seed, found.directions)


def unrelated(seed: int) -> Verdict:
    """A concept that the model holds; the answer reads another direction."""
    organism = planted(seed, cosine=None)
    return fitted(organism, organism.fit, seed)


def shuffled(seed: int) -> Verdict:
    """The concept that the answer reads, but the sides of every pair are labelled by a coin."""
    organism = planted(seed)
    coins = np.random.default_rng([seed, 1]).random(len(organism.fit)) < 0.5
    labelled = Pairs(tuple(pair.swapped() if coin else pair for pair, coin in zip(organism.fit, coins, strict=True)))
    return fitted(organism, labelled, seed)


def covariant(seed: int) -> Verdict:
    """One draw with the covariance of each layer's activations, taken from prompts that nothing else uses."""
    organism, rng = planted(seed), np.random.default_rng([seed, 2])
    prompts = [f"about{rng.integers(WORDS)} so {word}{item}" for item in range(WORDS) for word in ("ask", "about")]
    read = organism.model.capture(prompts, SITES)
    z = rng.standard_normal(len(prompts))
    return drawn(organism, {site: z @ (h - h.mean(dim=0)).double().numpy() for site, h in read.values.items()}, seed)


def isotropic(seed: int) -> Verdict:
    """Drawn with no preference for any direction, and carried to every layer."""
    organism = planted(seed)
    vector = np.random.default_rng([seed, 3]).standard_normal(WIDTH)
    return drawn(organism, dict.fromkeys(organism.model.sites(SITES), vector), seed)


def displaced(seed: int) -> Verdict:
    """Drawn with the covariance of the embeddings, and carried to layers that blocks have filled otherwise."""
    organism = planted(seed, blocks=1.2)
    vector = organism.root @ np.random.default_rng([seed, 4]).standard_normal(WIDTH)
    return drawn(organism, dict.fromkeys(organism.model.sites(SITES), vector), seed)


def true(seed: int) -> Verdict:
    """The concept that the answer reads."""
    organism = planted(seed)
    return fitted(organism, organism.fit, seed)


def slanted(seed: int) -> Verdict:
    """The answer reads a direction at a cosine of .7 with the concept."""
    organism = planted(seed, cosine=0.7)
    return fitted(organism, organism.fit, seed)


ROWS: dict[str, tuple[Trial, bool]] = {
    "null: unrelated concept": (unrelated, True),
    "null: shuffled labels": (shuffled, True),
    "null: covariance draw": (covariant, True),
    "null: isotropic draw": (isotropic, True),
    "planted: cosine 1": (true, False),
    "planted: cosine .7": (slanted, False),
    "outside: another place's covariance": (displaced, True),
}

HEADER = (
    "",
    "holds",
    "rate",
    "95 % interval",
    "undecided",
    "items",
    "random",
    "covariance",
    "shuffled",
    "search unpaid",
)


def row(name: str, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """One line of the table: verdicts, then the share of trials that pass each test when it stands alone."""
    holds = clopper_pearson(sum(verdict.holds for verdict in verdicts), len(verdicts))
    undecided = sum(verdict.verdict == "undecided" for verdict in verdicts)
    unpaid = [permutation_p(one.effect.value, one.controls["random"].values, "mirrored") for one in verdicts]
    alone = [[one.items_p for one in verdicts]]
    alone += [[p for one in verdicts if (p := one.controls[gate].p) is not None] for gate in GATES]
    return (
        name,
        f"{sum(verdict.holds for verdict in verdicts)} of {len(verdicts)}",
        f"{holds.value:.3f}",
        f"{holds.low:.3f} to {holds.high:.3f}",
        str(undecided),
        *(_share(ps) for ps in [*alone, unpaid]),
    )


def _share(ps: Sequence[float]) -> str:
    return f"{sum(p <= ALPHA for p in ps) / len(ps):.3f}" if ps else "–"


def _quietly() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable_progress_bar()


def main() -> int:
    """Run the trials, print the table; with --write put it into README.md."""
    parser = argparse.ArgumentParser(prog="python -m calibration", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20 null directions a row and 10 planted ones")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--write", action="store_true", help="put the table into calibration/README.md")
    options = parser.parse_args()
    started, rows = time.monotonic(), []
    with ProcessPoolExecutor(options.jobs, initializer=_quietly) as pool:
        for name, (trial, null) in ROWS.items():
            count = (20 if null else 10) if options.quick else (NULL if null else PLANTED)
            verdicts = list(pool.map(trial, range(count), chunksize=5))
            rows.append(row(name, verdicts))
            sys.stderr.write(f"{' | '.join(rows[-1])} ({time.monotonic() - started:.0f} s)\n")
    text = table(HEADER, rows)
    sys.stdout.write(f"{text}\n")
    if options.write:
        write(Path(__file__).with_name("README.md"), "table", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
