"""``assay sites``: a model's places, what others call them, and the proof that the names are true."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.cli.options import ModelArgument, Revision
from assay.cli.terminal import out, show_rows
from assay.site import PARTS, Site, Span

if TYPE_CHECKING:
    from assay.model.anatomy import Anatomy
    from assay.run.model import Model

CONVENTIONS = """
L0 is the first block. One dose of add is the typical norm there, from the first block to the last.
hidden_states[i] of transformers is what block i receives, L(i−1).resid; hidden_states[0] is embed.
L{last}.resid is before the final norm; hidden_states[{blocks}] is after it.

Self-test: how far this model is from what the names promise
"""


def sites(model: ModelArgument = None, revision: Revision = None) -> None:
    """List a model's sites, and prove that their names are true."""
    from assay.run.model import Model

    console = out()
    with console.status("loading the model"):
        loaded = Model.load(model, revision=revision)
        rows = site_rows(loaded)
    blocks = loaded.shape.layers
    console.print(f"{loaded!r}\n")
    show_rows(console, rows, heads=("site", "one row", "one dose", "in its own modules"))
    console.print(CONVENTIONS.format(last=blocks - 1, blocks=blocks), end="")
    checks = () if loaded.tested is None else loaded.tested.checks
    show_rows(console, [(one.name, f"{one.deviation:.1e}", f"at most {one.limit:.0e}", one.where) for one in checks])


def site_rows(model: Model) -> list[tuple[str, str, str, str]]:
    """One row per part: its sites on all layers, one row's shape, the dose from first to last, the module behind."""
    from assay.report.words import number

    shape, own, rows = model.shape, _own_terms(model.engine.anatomy), []
    for part in PARTS:
        if part in shape.lacks:
            rows.append((part, "–", "–", shape.lacks[part]))
            continue
        layers = None if part in ("embed", "logits") else Span(0, shape.layers)
        heads = Span(0, shape.heads) if part.startswith("head.") else None
        site, width = Site(part, layers, heads), shape.width(part)
        first, last = shape.expand(site)[0], shape.expand(site)[-1]
        norms = () if width is None else (number(model.typical_norm(first)), number(model.typical_norm(last)))
        dose = " to ".join(dict.fromkeys(norms)) or "–"
        rows.append((str(site), f"pos × {'pos' if width is None else width}", dose, own[part]))
    return rows


def _own_terms(anatomy: Anatomy) -> dict[str, str]:
    return {
        "embed": f"input of {anatomy.blocks}.0",
        "head.pattern": f"weights of {anatomy.attn} (eager)",
        "head.z": f"input of {anatomy.o_proj}",
        "attn.out": f"output of {anatomy.attn_out}",
        "mid": "between the two, no module",
        "mlp.act": f"input of {anatomy.down}",
        "mlp.out": f"output of {anatomy.mlp_out}",
        "resid": f"output of {anatomy.blocks}.i",
        "logits": "scores over the vocabulary",
    }
