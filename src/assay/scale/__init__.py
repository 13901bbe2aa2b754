"""Units of work and where they run: pure data goes out, JSON and files come back. Imports no torch by itself."""

from __future__ import annotations

from assay.scale.arrays import Arrays
from assay.scale.executor import Bench, Done, Executor, Report, Task
from assay.scale.local import LocalExecutor
from assay.scale.ray import RayExecutor
from assay.scale.unit import unit

__all__ = ["Arrays", "Bench", "Done", "Executor", "LocalExecutor", "RayExecutor", "Report", "Task", "unit"]
