"""The record's second half: who may see what of a ledger, signed, sealed and verified. Needs no torch."""

from __future__ import annotations

from assay.disclose.policy import in_words, load_policy, read_policy, shipped_policies
from assay.disclose.release import Desk
from assay.disclose.verify import Release, check_against, check_model, check_previous, open_sealed, verify
from assay.evidence import Policy

__all__ = [
    "Policy", "load_policy", "read_policy", "shipped_policies", "in_words",
    "Desk", "Release", "verify", "open_sealed", "check_against", "check_model", "check_previous",
]  # fmt: skip
