"""Verdicts: does a direction carry a behaviour, beyond what control directions do?

::

    verdict = verify.direction(model, honest, on=pairs.test, fit=pairs.fit)
    verdict.holds, verdict.because, verdict.p, verdict.interval
    print(verdict)
"""

from assay.verify.rule import GATES
from assay.verify.trial import direction
from assay.verify.verdict import Verdict

__all__ = ["GATES", "Verdict", "direction"]
