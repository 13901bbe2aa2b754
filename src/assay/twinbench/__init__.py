"""TwinBench: how often the audits are wrong, on models of which it is known.

`subjects` says which organisms, `blind` audits one without telling what it is, `run` does all of them, and `Rates` is what
comes of it. The unit of replication is the trained model.
"""

from __future__ import annotations

from assay.twinbench.rates import Rates, rates
from assay.twinbench.run import PROBLEMS, bench, table_of
from assay.twinbench.subjects import Subject, subjects

__all__ = ["PROBLEMS", "Rates", "Subject", "bench", "rates", "subjects", "table_of"]
