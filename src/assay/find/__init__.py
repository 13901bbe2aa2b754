"""Finders: one method per file, each read beside its paper.

==================  ==============================================  ==========================================
`pair`              activation addition, one pair, by position      Turner et al. 2023
`mean_difference`   CAA, many pairs; `equal_norms` across several   Panickssery et al. 2024
`pca`               first component, pairs centred on midpoints     Zou et al. 2023
`probe`             logistic regression                             Alain and Bengio 2016
`heads`             ITI, a few heads chosen by their probes         Li et al. 2023
==================  ==============================================  ==========================================

``pair`` gives a `Direction`, ``heads`` gives `Heads`, the others `Found`: a direction per site, and ``best`` of them.
"""

from __future__ import annotations

from assay.find.found import Found
from assay.find.heads import Heads, heads
from assay.find.mean_difference import equal_norms, mean_difference
from assay.find.pair import pair
from assay.find.pca import pca
from assay.find.probe import probe
from assay.find.search import Search

__all__ = ["Found", "Heads", "Search", "equal_norms", "heads", "mean_difference", "pair", "pca", "probe"]
