"""The benchmarks: ``python benchmarks/run.py [--peers]``. README.md says what is measured and how."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
if not __package__:  # run as a file, whose own folder is on the path instead of the root
    sys.path[0] = str(HERE.parent)

from benchmarks import jobs, tables  # noqa: E402
from benchmarks.jobs import Facts, Job  # noqa: E402
from benchmarks.measure import Session, entries_of  # noqa: E402
from benchmarks.model import facts_of, prepare  # noqa: E402
from benchmarks.peers import envs  # noqa: E402

OURS, REFERENCE, HOOKS = "assay", "transformers", "plain hooks"
MODULES = {
    REFERENCE: "benchmarks.peers.transformers_reference",
    HOOKS: "benchmarks.peers.plain_hooks",
    OURS: "benchmarks.ours",
}
JOBS = ("sweep4", "sweep1", "capture", "scores", "trace1", "trace3")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and leave them in ``benchmarks/results``."""
    options = _options().parse_args(arguments)
    if options.quick:
        options.rounds, options.busy = 1, float("inf")
    if options.peers:
        envs.main([])
    folder = prepare(options.model)
    made = []
    session = Session(folder, options.threads, HERE / ".logs", busy=options.busy, retries=options.retries)
    try:
        names = list(_start(session, options.only))
        for title, job, only in _work(facts_of(folder), options):
            taking = [name for name in names if only is None or name in only]
            entries, reference = entries_of(job, taking, REFERENCE, HOOKS)
            made.append(tables.Table(title, reference, session.measure(job, entries, options.rounds, expected=HOOKS)))
    finally:
        session.close()
    notes = [f"{options.threads} threads, {options.rounds} rounds", *session.absent]
    text = tables.markdown(made, session.versions, notes)
    print(text)
    if not options.quick:
        tables.save(HERE / "results" / options.name, text, made, session.versions, notes)
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Speed and memory, beside the limit and beside other libraries.")
    add = parser.add_argument
    add("--peers", action="store_true", help="first build the environments of other libraries that are missing")
    add("--jobs", nargs="+", choices=[*JOBS, "growth", "trace-growth"], default=JOBS, help="default: all but growth")
    add("--only", nargs="+", metavar="NAME", help="these candidates, and those that the others are compared with")
    add("--rounds", type=int, default=3, help="measured runs of each candidate, in turn (default 3)")
    add("--prompts", type=int, default=8, help="how many of its 64 prompts the log-probability sweep takes (default 8)")
    add("--threads", type=int, default=2, help="of each candidate (default 2)")
    add("--busy", type=float, default=0.1, help="discard a run when others used more cores than this (default 0.1)")
    add("--retries", type=int, default=5, help="repeat a discarded run at most so many times (default 5)")
    add(
        "--quick",
        action="store_true",
        help="tiny jobs, once, on a machine however busy: does everything run, and agree?",
    )
    add(
        "--model",
        type=Path,
        default=HERE / ".model",
        help="the model's folder; made where it is missing",
    )
    add("--name", default="latest", help="of the files in benchmarks/results (default latest)")
    return parser


def _start(session: Session, only: Sequence[str] | None) -> Iterator[str]:
    """Start the candidates that are there; say which are not."""
    for name, module in MODULES.items():
        if name == OURS and not (HERE / "ours.py").exists():
            session.absent.append(f"{OURS} is left out: there is no benchmarks/ours.py")
        elif name != OURS or only is None or name in only:
            session.start(name, sys.executable, module)
            yield name
    for name in envs.PEERS:
        if only is not None and name not in only:
            continue
        if not envs.ready(name):
            session.absent.append(f"{name} is left out: its environment is not built (--peers builds it)")
        else:
            session.start(name, envs.python(name), f"benchmarks.peers.{name}")
            yield name


def _work(facts: Facts, options: argparse.Namespace) -> Iterator[tuple[str, Job, tuple[str, ...] | None]]:
    """A title, a job, and whom it is for (None: everybody)."""
    if options.quick:
        yield (
            "Steered sweep, 2 prompts × 2 conditions × 4 tokens",
            jobs.sweep(facts, 2, layers=(5, 20), doses=(0.4,), new=4),
            None,
        )
        yield "Capture, 6 prompts", jobs.capture(facts, 6, longest=24), None
        yield (
            "Log-probability sweep, 4 prompts × 3 layers × 1 dose",
            jobs.scores(facts, 4, layers=(0, 15, 29), doses=(0.4,)),
            None,
        )
        yield "Causal tracing, 8 tokens, 1 sample, single states", jobs.traced(facts, samples=1, parts=["resid"]), None
        return
    layers, prompts = len(facts.norms), options.prompts
    if "sweep4" in options.jobs:
        yield "Steered sweep, 4 prompts × 30 conditions × 32 tokens", jobs.sweep(facts), None
    if "sweep1" in options.jobs:
        yield "Steered sweep, 1 prompt × 30 conditions × 32 tokens", jobs.sweep(facts, prompts=1), None
    if "capture" in options.jobs:
        yield "Capture, 256 prompts of 8–64 tokens, all layers, last token", jobs.capture(facts), None
    if "scores" in options.jobs:
        part = "" if prompts == 64 else f" (of 64: times {64 // prompts} for the whole)"
        yield (
            f"Log-probability sweep, {prompts} prompts{part} × {layers} layers × 4 doses",
            jobs.scores(facts, prompts),
            None,
        )
    if "trace1" in options.jobs:
        states = jobs.traced(facts, parts=["resid"])
        yield f"Causal tracing of single states, 8 tokens × {layers} layers × 10 samples", states, None
    if "trace3" in options.jobs:
        yield f"Causal tracing of 3 kinds, 8 tokens × {layers} layers × 10 samples", jobs.traced(facts), None
    few = (REFERENCE, HOOKS, OURS)
    if "growth" in options.jobs:
        for doses in ((0.4,), (-0.4, 0.4), (-0.6, -0.2, 0.2, 0.6), tuple(i / 10 for i in range(-8, 9) if i)):
            grid = jobs.sweep(facts, doses=doses)
            yield f"Growth: steered sweep of {grid.rows} rows", grid, few
        for count in (1, 2, 4, 8):
            cells = jobs.scores(facts, count)
            yield f"Growth: log-probability sweep of {cells.rows} cells", cells, few
    if "trace-growth" in options.jobs:
        for tokens in (8, 10, 12):
            yield (
                f"Growth: causal tracing of single states, {tokens} tokens",
                jobs.traced(facts, tokens, parts=["resid"]),
                few,
            )


if __name__ == "__main__":
    sys.exit(main())
