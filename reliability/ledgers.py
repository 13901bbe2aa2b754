"""What a reader finds in a ledger after something happened to its writer."""

from __future__ import annotations

from pathlib import Path

from assay.errors import CorruptFile
from assay.evidence import Entry, Ledger


def entries(path: Path) -> list[Entry]:
    """All entries, the chain verified; none where the ledger was never made, or its making was rolled back."""
    if not path.exists() or not path.stat().st_size:
        return []
    try:
        with Ledger.read(path) as ledger:
            ledger.verify()
            return ledger.entries()
    except CorruptFile:
        if path.stat().st_size:
            raise
        return []  # the reader has rolled back what was begun
