"""A model as a graph: what writes to the stream, what reads it, and the places between.

Causal scrubbing and circuit search run on a `Graph`. `CausalGraph` is a `Model`'s; `ModuleGraph` is that of any torch
module whose places are declared. Both give back a model as it was.
"""

from __future__ import annotations

from assay.graph.causal import CausalGraph, graph_of
from assay.graph.edges import Edge, Edges
from assay.graph.module import ModuleGraph, Spot, given, made
from assay.graph.ports import Graph, Inputs, Port, Reader

__all__ = [
    "CausalGraph",
    "Edge",
    "Edges",
    "Graph",
    "Inputs",
    "ModuleGraph",
    "Port",
    "Reader",
    "Spot",
    "given",
    "graph_of",
    "made",
]
