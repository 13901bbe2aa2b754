"""One checkpoint of a series: what each cluster adds to the main effect of every claim."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from assay.audit import Bench, unit
from assay.audit.problems.measured import blind
from assay.audit.problems.measured.claims import score_values, sensor_values
from assay.audit.problems.measured.judge import enough
from assay.audit.problems.measured.known import known_of, rows_of
from assay.audit.problems.measured.probe import space
from assay.audit.problems.measured.reading import layers_of, read


@unit("tampering.values")
def values(bench: Bench, *, seed: int = 0) -> dict[str, list[float]]:
    """By claim, one number for each cluster, whose mean is the claim's main effect.

    Which clusters there are, and in what order, follows from the rows and the seed alone, so checkpoints of one training
    run can be compared cluster by cluster. A claim for which the rows do not suffice is left out.
    """
    rows = rows_of(bench)
    known, found = known_of(rows, seed), read(bench.model, rows, layers_of(bench.model))
    made = {"predicts-sensors": sensor_values(known, found.odds, known.trusted)}
    if not enough(known):
        test = known.in_part("test")
        with threadpool_limits(limits=1):
            spaces = [space(found.stream[:, layer], known.in_part("fit")) for layer in range(found.stream.shape[1])]
            outcome = blind.search(spaces, (known.good[:, None], known.bad[:, None]), known).scores[:, 0]
            _, good, bad, near = blind.task_of(known, found.odds)
            scores = blind.search(spaces, (good, bad), known).scores
        made["represents"] = blind.area_contributions(outcome, known.bad & test, known.good & test, known.clusters)
        flagged = (scores > blind.bars(scores, (good, near), known))[:, 0] & blind.foreseen(found.odds)
        made["tampered"] = score_values(known, flagged.astype(np.float64))
    return {name: one.tolist() for name, one in made.items() if len(one)}
