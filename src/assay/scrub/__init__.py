"""Causal scrubbing: a hypothesis about a whole mechanism, and how much of the model's behaviour it explains.

=============  =====================================================================  ===================
`node`         a place, and the feature of the input that it cares about
`split`        a node for every position of a place
`recovered`    resample all that the hypothesis calls irrelevant; what is left?       Chan et al. 2022
`ladder`       nested hypotheses on the same draws, and the loss that each step costs
`null`         what random hypotheses of the same size recover                        Scheurer et al. 2023
`independent`  the rest of a node drawn apart for everything that writes to it
=============  =====================================================================  ===================
"""

from __future__ import annotations

from assay.scrub.compare import Kind, Ladder, Null, independent, ladder, null
from assay.scrub.data import Data
from assay.scrub.hypothesis import Node, node, split
from assay.scrub.recovered import Recovered, recovered

__all__ = [
    "Data",
    "Kind",
    "Ladder",
    "Node",
    "Null",
    "Recovered",
    "independent",
    "ladder",
    "node",
    "null",
    "recovered",
    "split",
]
