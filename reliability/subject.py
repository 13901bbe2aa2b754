"""The audit that is killed, copied and repeated here: small, but with all that an audit has.

A real `Model` of random weights, units that run it and leave arrays, two rounds of claims, a measure that fails, a
figure, and the reports. Each unit, before anything else, appends one line to the file that ``RELIABILITY_LOG`` names and
syncs it: what was executed is counted there, independently of the ledger. ``RELIABILITY_END``, such as ``exit 2 1``,
names a unit that ends its process.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from datetime import datetime, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch

from assay import Model
from assay.audit import Bench, Claim, Effect, Lab, Ledger, Outcome, Threat, audit, measure, unit
from assay.evidence import DoseFigure, Series
from calibration.planted import planted

LOG, END = "RELIABILITY_LOG", "RELIABILITY_END"
PROMPTS = ["about1 so ask1", "about2 so ask2 about3 so", "ask3"]


@unit("reliability.norms")
def norms(bench: Bench, *, layer: int, seed: int) -> dict[str, Any]:
    """The stream's norms after one block, with seeded noise; the activations go into a file."""
    if log := os.environ.get(LOG):
        _note(log, f"{layer} {seed}")
    match os.environ.get(END, "").split():
        case ["exit", *which] if which == [str(layer), str(seed)]:
            os._exit(7)
        case ["kill", *which] if which == [str(layer), str(seed)]:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory ends
    site = f"L{layer}.resid @ last"
    states = bench.model.capture(PROMPTS, site)[site]
    noise = torch.randn(len(PROMPTS), generator=torch.Generator().manual_seed(seed))
    return {"norms": (states.norm(dim=-1) + 0.01 * noise).tolist(), "states": bench.arrays.put(states=states)}


@measure("reliability.grows")
def grows(lab: Lab, *, layers: list[int], draws: int, seed: int) -> Outcome:
    """Whether the stream is longer after the last of the layers than after the first."""
    over = [dict(layer=layer, seed=seed + draw) for layer in layers for draw in range(draws)]
    found = [lab.unit(norms, **params) for params in over]
    means = [sum(one["norms"]) / len(PROMPTS) for one in found]
    first, last = sum(means[:draws]) / draws, sum(means[-draws:]) / draws
    lab.note("limits", "A model of random weights says nothing about others.")
    x = tuple(float(layer) for layer in layers)
    line = Series(name="stream", x=x, means=(first, last), lows=(first - 1, last - 1), highs=(first + 1, last + 1))
    return Outcome(
        claim=lab.claim.digest,
        verdict="supported" if last > first else "not supported",
        because=f"The stream is {last / first:.2f} times as long.",
        effects=(
            Effect(name="ratio", value=last / first, unit="×", low=0, high=9, level=0.95, n=len(PROMPTS), chance=1),
        ),
        power="A ratio of 1.1 would have been seen.",
        figures=(DoseFigure(title="Length", x_label="layer", caption="It grows.", series=(line,)),),
    )


@measure("reliability.fails")
def fails(lab: Lab) -> Outcome:
    """Never an outcome."""
    raise ValueError("out of luck")


def claim(key: str, *, measure: str = "reliability.grows", **params: Any) -> Claim:
    """A claim about the small model."""
    return Claim(
        key=key,
        threat="grows",
        statement=f"The stream grows with depth ({key}).",
        method="Norms after two blocks are compared.",
        controls=(),
        refuted_by="A ratio of 1 or less.",
        measure=measure,
        params=params,
        problem="reliability",
        about="representation",
        grade="low",
    )


@audit(
    problem="reliability",
    question="Does the stream of {model} grow?",
    threats=[Threat(key="grows", statement="The stream grows.", scope="Three prompts.", benign="By chance.")],
    data={"prompts": Path(__file__)},
    notes={"method": ["Norms are compared."]},
)
def subject(draws: int = 6, seed: int = 0) -> Iterator[list[Claim]]:
    """Two claims at first; a third when they are answered."""
    yield [claim("grows", layers=[0, 2], draws=draws, seed=seed), claim("fails", measure="reliability.fails")]
    yield [claim("shrinks", layers=[2, 1], draws=draws, seed=seed + 100)]


UNITS = 4
"""Units of the whole audit, for each draw."""


def model() -> Model:
    """A three-layer Llama of random weights, on one thread."""
    torch.set_num_threads(1)
    return planted(0).model


def run(made: Model, folder: Path, draws: int, log: Path | None = None) -> None:
    """Run the audit into ``folder``, or go on with it; executions are counted in ``log``."""
    if log is not None:
        os.environ[LOG] = str(log)
    subject(draws=draws).run(made, into=folder).close()


def executed(log: Path) -> list[str]:
    """Every execution of a unit, in order, whether it came to its end or not."""
    return log.read_text().splitlines() if log.exists() else []


def findings(folder: Path, *kinds: str) -> list[str]:
    """All that a run says, without times: claims, outcomes and reasons in order, then units by what they are."""
    kinds = kinds or ("claim", "outcome", "missing")
    with Ledger.read(folder / "ledger") as ledger:
        ledger.verify()
        said = [json.dumps([e.kind, e.key, e.body]) for k in kinds for e in ledger.entries(k)]
        done = [{**entry.body, "seconds": None} for entry in ledger.entries("unit")]  # type: ignore[dict-item]
    return said + sorted(json.dumps(body, sort_keys=True) for body in done)


def still() -> None:
    """Stop the clocks of this process: the times of entries, and the seconds of units and of the run."""
    from assay.audit import runner
    from assay.evidence import ledger
    from assay.scale import executor

    class Still(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(2026, 1, 1, tzinfo=tz)

    ledger.datetime = Still  # type: ignore[attr-defined]
    executor.time = runner.time = SimpleNamespace(perf_counter=float, monotonic=float)  # type: ignore[attr-defined, assignment]


def main() -> int:
    """``python -m reliability.subject FOLDER DRAWS [--log FILE] [--still]``: run it there, or go on."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.subject", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("draws", type=int)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--still", action="store_true", help="with clocks that stand still")
    options = parser.parse_args()
    if options.still:
        still()
    run(model(), options.folder, options.draws, options.log)
    return 0


def _note(log: str, line: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, f"{line}\n".encode())
    os.fsync(file)
    os.close(file)


if __name__ == "__main__":
    # By import, so that its units are those of one module, whichever way it is begun.
    sys.exit(importlib.import_module("reliability.subject").main())
