"""Circuits: what components say, where heads look, what their weights could do, and what the model loses without them.

=================  ===========================================================================  =============================
`lens`             what each layer would say: the final norm and scores on every stream         nostalgebraist 2020
`direct`           a logit as the sum of what every head and MLP itself says for it             Elhage et al. 2021; Nanda 2022
`attention`        where heads look on one prompt
`heads`            induction, previous-token, duplicate-token and copying scores of all heads   Olsson et al. 2022
`ablation`         the loss of repeated text without some heads, beside as many random ones     Olsson et al. 2022
`weights`          a head's OV and QK as thin factors; QK at stated offsets                     Elhage et al. 2021
`composition`      how much a head could read of what an earlier one writes, above chance       Elhage et al. 2021
`acdc`             edges removed one by one as long as nothing changes                           Conmy et al. 2023
`estimate`         every edge's first-order effect (EAP, EAP-IG)                                Syed et al. 2023; Hanna et al. 2024
`curve`, `roc`     faithfulness over size; recovery of edges known to be true                   Mueller et al. 2025
`draw`             a circuit as a graph
`copying`          copying by the eigenvalues of each head's map from tokens to tokens          Elhage et al. 2021
=================  ===========================================================================  =============================
"""

from __future__ import annotations

from assay.circuits.ablation import Ablation, ablation
from assay.circuits.attention import Attention, attention
from assay.circuits.composition import Composition, composition, copying
from assay.circuits.curves import Curve, curve, roc
from assay.circuits.direct import DirectEffects, direct
from assay.circuits.drawing import draw
from assay.circuits.heads import heads
from assay.circuits.lens import Lens, lens
from assay.circuits.scored import HeadScores
from assay.circuits.search import Ranking, Task, acdc, estimate
from assay.circuits.weights import Factored, HeadWeights, weights

__all__ = [
    "Ablation",
    "Attention",
    "Composition",
    "Curve",
    "DirectEffects",
    "Factored",
    "HeadScores",
    "HeadWeights",
    "Lens",
    "Ranking",
    "Task",
    "acdc",
    "ablation",
    "attention",
    "composition",
    "copying",
    "curve",
    "direct",
    "draw",
    "estimate",
    "heads",
    "lens",
    "roc",
    "weights",
]
