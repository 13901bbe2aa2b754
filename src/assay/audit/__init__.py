"""Where the laboratory and the record meet: claims, the measures that test them, and the runner that keeps the order.

Everything that an audit's author needs is here. Importing it loads no torch. As a decorator, the room itself stands for
its `audit` function: ``@assay.audit(problem=..., question=..., threats=[...])``.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from assay.audit.claim import Audited, measure
from assay.audit.lab import Lab
from assay.audit.plan import Plan, audit, audit_called, audit_names
from assay.audit.runner import Watch
from assay.evidence import (
    BarFigure,
    Claim,
    Control,
    DoseFigure,
    Effect,
    Example,
    LayerFigure,
    Ledger,
    NullFigure,
    Outcome,
    Prediction,
    Series,
    SideEffect,
    TableData,
    Threat,
)
from assay.scale import Arrays, Bench, Executor, LocalExecutor, unit

__all__ = [
    "audit", "measure", "unit", "Plan", "Lab", "Bench", "Audited", "Watch", "audit_called", "audit_names",
    "Threat", "Prediction", "Claim", "Outcome", "Effect", "Control", "SideEffect", "Example", "Ledger",
    "NullFigure", "DoseFigure", "LayerFigure", "BarFigure", "Series", "TableData",
    "Arrays", "Executor", "LocalExecutor",
]  # fmt: skip


class _Room(ModuleType):
    """Python binds ``assay.audit`` to this package once it is imported; being called, it is its own decorator."""

    def __call__(self, **asked: Any) -> Any:
        return audit(**asked)


sys.modules[__name__].__class__ = _Room
