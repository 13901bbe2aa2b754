"""Threat models before anything is measured: what each predicts must be tested, and by what it can be told from its benign twin."""

from __future__ import annotations

from collections.abc import Sequence

from assay.errors import BadData, nearest
from assay.evidence import Claim, Threat


def refuse_unpredicted(threats: Sequence[Threat], claims: Sequence[Claim]) -> None:
    """Raise `BadData` where a prediction is tested by none of the first claims, or by one about another threat model.

    Only the first claims are made before any outcome. That one prediction is risky, the `Threat` itself sees to.
    """
    about = {claim.key: claim.threat for claim in claims}
    for threat in threats:
        for one in threat.predictions:
            if about.get(one.claim) != threat.key:
                raise BadData(
                    f"the threat model {threat.key!r} predicts what no claim tests: {one.effect!r}",
                    found=f"its claim {one.claim!r} is {'about another' if one.claim in about else 'not made'}",
                    nearest=nearest(one.claim, about),
                    hint="name in Prediction(claim=...) a claim that the audit yields first, about this threat model",
                )
