"""The local executor: one task after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assay.scale.executor import Done, Report, Task, perform

if TYPE_CHECKING:
    from assay.run.model import Model


class LocalExecutor:
    """Works in this process, on a model that is loaded. Arrays go into ``folder``."""

    def __init__(self, model: Model, data: Mapping[str, Path], folder: Path) -> None:
        self.model, self.data, self.folder = model, data, folder

    def run(self, tasks: Sequence[Task], report: Report) -> Iterator[Done]:
        """Every task in order; each is done when its result is asked for."""
        for task in tasks:
            yield perform(task, self.model, self.data, self.folder, report)
