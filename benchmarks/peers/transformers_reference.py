"""The reference and the limits: transformers without any intervention, and the matrix products alone."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn import functional as F

from benchmarks.jobs import Capture, Job, Scores, Shape, Steered, Tokens, kind_of, least_macs, unshared_macs
from benchmarks.peers.batches import chunks, left_padded, load

RATE_TOKENS = 768
"""Rows of the products that the GEMM rate is measured with: enough for the rate to be flat."""


class Candidate:
    """``generate``, unsteered, over a sweep's rows; forward passes of bucketed lengths, no capture and no head.

    On the first call for a job it tries several batch sizes and keeps the best.
    """

    version = f"transformers {transformers.__version__}"

    def __init__(self, folder: Path) -> None:
        self.model = load(folder)
        self.shape = Shape.of(json.loads((folder / "config.json").read_text()))
        self.best: dict[tuple[str, int, int], int] = {}
        self.notes: dict[str, Any] = {}

    @torch.no_grad()
    def steered(self, job: Steered) -> None:
        """Each prompt as often as there are conditions, in batches of all rows, half or a quarter of them."""
        rows = list(job.prompts) * len(job.conditions)
        sizes = dict.fromkeys(math.ceil(len(rows) / parts) for parts in (1, 2, 4))
        self._at_best(job, list(sizes), lambda size: self._generate(job, chunks(rows, size)))

    @torch.no_grad()
    def capture(self, job: Capture) -> None:
        """Sorted by length, in batches of about 256, 512, 1024 or 2048 tokens."""
        sizes = [256, 512, 1024, 2048]
        self._at_best(job, sizes, lambda size: self._forward(job, buckets(job.prompts, size)))

    @torch.no_grad()
    def floor(self, job: Job) -> None:
        """Of a sweep the matrix products alone are run; elsewhere the fewest FLOPs are divided by the GEMM rate."""
        if isinstance(job, Steered):
            self.notes = {"what": "the matrix products alone, same rows"}
            self._products(job)
            return
        rate = self._gemm_rate()
        macs = least_macs(job, self.shape)
        self.notes = {
            "what": "fewest FLOPs at the GEMM rate",
            "GFLOP/s": round(rate / 1e9, 1),
            "GFLOP": round(2 * macs / 1e9, 1),
        }
        self.notes["estimate"] = 2 * macs / rate
        if isinstance(job, Scores):
            self.notes["GFLOP unshared"] = round(2 * unshared_macs(job, self.shape) / 1e9, 1)

    def _generate(self, job: Steered, batches: Iterable[Sequence[Tokens]]) -> None:
        for rows in batches:
            batch = left_padded(rows, job.stop)
            self.model.generate(**batch, max_new_tokens=job.new, do_sample=False, pad_token_id=job.stop)

    def _forward(self, job: Capture, batches: Iterable[Sequence[Tokens]]) -> None:
        for rows in batches:
            self.model.model(**left_padded(rows, job.stop), use_cache=False)

    def _at_best(self, job: Job, sizes: Sequence[int], run: Callable[[int], object]) -> None:
        key = kind_of(job), job.rows, len(job.prompts)
        if key not in self.best:
            run(sizes[-1])  # the first pass pays for page faults and thread starts
            self.best[key] = min(sizes, key=lambda size: _seconds(lambda: run(size)))
        else:
            run(self.best[key])
        self.notes = {"batch": self.best[key]}

    def _products(self, job: Steered) -> None:
        """Every linear layer of the prompt's pass and of each further token's, with the model's weights."""
        layers = [
            [m.weight for m in block.modules() if isinstance(m, torch.nn.Linear)] for block in self.model.model.layers
        ]
        head = self.model.lm_head.weight
        rows = job.rows
        total = sum(map(len, job.prompts)) * len(job.conditions)
        inputs = {m: {w.shape[1]: torch.randn(m, w.shape[1]) for w in [*layers[0], head]} for m in (total, rows)}
        for step in range(job.new):
            for weight in (weight for block in layers for weight in block):
                F.linear(inputs[rows if step else total][weight.shape[1]], weight)
            F.linear(inputs[rows][head.shape[1]], head)

    def _gemm_rate(self) -> float:
        """FLOP/s over one block's matrices at `RATE_TOKENS` rows, the median of some repetitions."""
        pairs = [(torch.randn(RATE_TOKENS, i), torch.randn(o, i)) for i, o in self.shape.matrices]
        flops = 2 * RATE_TOKENS * sum(i * o for i, o in self.shape.matrices)
        times = sorted(_seconds(lambda: [F.linear(x, w) for x, w in pairs]) for _ in range(40))
        return flops / times[len(times) // 2]


def buckets(prompts: Sequence[Tokens], size: int) -> list[list[Tokens]]:
    """Prompts sorted by length, longest first, cut into batches of at most ``size`` tokens with their padding."""
    made: list[list[Tokens]] = []
    for prompt in sorted(prompts, key=len, reverse=True):
        if not made or len(made[-1][0]) * (len(made[-1]) + 1) > size:
            made.append([])
        made[-1].append(prompt)
    return made


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
