"""``assay sites``: the places of a model, how wide they are, what others call them, and the proof that the names are true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.terminal import out, show_rows
from assay.site import PARTS, Site, Span

if TYPE_CHECKING:
    from assay.model.anatomy import Anatomy
    from assay.run.model import Model


def sites(
    model: Annotated[
        str | None, typer.Argument(help="org/name, a folder or a .gguf file; SmolLM2-135M-Instruct unless given.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of a model on the hub.")] = None,
) -> None:
    """List a model's sites, and prove that their names are true."""
    from assay.run.model import Model

    console = out()
    with console.status("loading the model"):
        loaded = Model.load(model, revision=revision)
    with console.status("measuring typical norms"):
        rows = site_rows(loaded)
    last = loaded.shape.layers - 1
    console.print(f"{loaded!r}\n")
    show_rows(console, rows, heads=("site", "one row", "one dose", "in its own modules"))
    console.print(
        f"\nL0 is the first block. L{last}.resid is the last, before the final norm; hidden_states[{last + 1}] is after it."
    )
    console.print(
        "hidden_states[i] of transformers is L(i−1).resid: what block i receives. So hidden_states[0] is embed."
    )
    console.print("One dose of add is the typical norm there, from the first block to the last.\n")
    console.print("Self-test: the largest deviation from what the names promise")
    checks = () if loaded.tested is None else loaded.tested.checks
    show_rows(
        console, [(check.name, f"{check.deviation:.1e}", f"at most {check.limit:.0e}", check.where) for check in checks]
    )


def site_rows(model: Model) -> list[tuple[str, str, str, str]]:
    """One row per part: its sites on all layers, their shape, the typical norm from first to last, the module behind."""
    from assay.report.words import number

    shape, own, rows = model.shape, _own_terms(model.engine.anatomy), []
    for part in PARTS:
        if part in shape.lacks:
            rows.append((part, "–", "–", shape.lacks[part]))
            continue
        layers = None if part in ("embed", "logits") else Span(0, shape.layers)
        heads = Span(0, shape.heads) if part.startswith("head.") else None
        site, width = Site(part, layers, heads), shape.width(part)
        norms = (
            []
            if width is None
            else [number(model.typical_norm(one)) for one in (shape.expand(site)[0], shape.expand(site)[-1])]
        )
        rows.append(
            (
                str(site),
                f"pos × {'pos' if width is None else width}",
                " to ".join(dict.fromkeys(norms)) or "–",
                own[part],
            )
        )
    return rows


def _own_terms(anatomy: Anatomy) -> dict[str, str]:
    return {
        "embed": f"input of {anatomy.blocks}.0",
        "head.pattern": f"attention weights of {anatomy.attn} (eager)",
        "head.z": f"input of {anatomy.o_proj}, by head",
        "attn.out": f"output of {anatomy.attn_out}",
        "mid": "between the two, no module",
        "mlp.act": f"input of {anatomy.down}",
        "mlp.out": f"output of {anatomy.mlp_out}",
        "resid": f"output of {anatomy.blocks}.i",
        "logits": "output of the head over the vocabulary",
    }
