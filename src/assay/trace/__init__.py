"""Tracing: which places of a model carry a decision.

==================  =================================================================  ==========================
`causal`            corrupt the subject, restore single states and windows of modules  Meng et al. 2022, §2
`average`           the same over prompts, with intervals
`patching`          put activations of one run into another, place by place            Heimersheim and Nanda 2024
`attribution`       the same to first order, all places at once; with layers dropped   Nanda 2023; Kramár et al. 2024
`queries_and_keys`  queries and keys likewise, through their own softmax               Kramár et al. 2024
`edges`             every edge between components, to first order (EAP, EAP-IG)        Syed et al. 2023; Hanna et al. 2024
`paths`             any set of edges patched in one forward pass                       Miller et al. 2024
==================  =================================================================  ==========================
"""

from __future__ import annotations

from assay.trace.attention import QueryKeyScores, queries_and_keys
from assay.trace.attribution import attribution
from assay.trace.causal import causal
from assay.trace.contrast import Patched
from assay.trace.edges import EdgeScores, edges, paths
from assay.trace.patching import patching
from assay.trace.traced import AverageTrace, CausalTrace, average

__all__ = [
    "AverageTrace",
    "CausalTrace",
    "EdgeScores",
    "Patched",
    "QueryKeyScores",
    "attribution",
    "average",
    "causal",
    "edges",
    "patching",
    "paths",
    "queries_and_keys",
]
