"""The record's first half: what was claimed, what came out, and a ledger that keeps both in order. Needs no torch."""

from __future__ import annotations

from assay.evidence.digest import canonical, of_bytes, of_file, of_folder, of_json, of_text
from assay.evidence.entry import (
    Audit,
    Body,
    Claim,
    Correction,
    End,
    Entry,
    Grant,
    Missing,
    Note,
    Origin,
    Outcome,
    Policy,
    Prediction,
    Threat,
    Unit,
)
from assay.evidence.findings import Finding, Findings, ThreatFinding, Word, read_findings
from assay.evidence.ledger import Ledger, Record, Standing
from assay.evidence.measured import (
    BarFigure,
    Control,
    DoseFigure,
    Effect,
    Example,
    Figure,
    LayerFigure,
    NullFigure,
    Series,
    SideEffect,
    TableData,
)

__all__ = [
    "Ledger", "Record", "Standing", "Entry", "Body",
    "Audit", "Policy", "Grant", "Threat", "Prediction", "Claim", "Origin", "Unit", "Outcome", "Missing", "Note", "Correction", "End",
    "Findings", "Finding", "ThreatFinding", "Word", "read_findings",
    "Effect", "Control", "SideEffect", "Example",
    "Figure", "NullFigure", "DoseFigure", "LayerFigure", "BarFigure", "Series", "TableData",
    "canonical", "of_json", "of_text", "of_bytes", "of_file", "of_folder",
]  # fmt: skip
