"""``assay keys``: keys for signing, keys for sealing, and what a key is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli.terminal import out, show_rows

app = typer.Typer(
    no_args_is_help=True, help="Make keys that sign releases or open seals, and show what a key is called."
)
Where = Annotated[Path, typer.Argument(metavar="NAME", help="Where to write them, without ending: keys/auditor.")]


@app.command()
def new(name: Where) -> None:
    """Make an Ed25519 key that signs: NAME.key, to be kept secret, and NAME.pub, to be published."""
    from assay.disclose.keys import new_signing_key, read_public, thumbprint

    secret, public = new_signing_key(name)
    _show({"secret": str(secret), "public": str(public), "thumbprint": thumbprint(read_public(public))})


@app.command()
def recipient(name: Where) -> None:
    """Make an age key that opens seals: NAME.identity, to be kept secret, and NAME.recipient, to be given to auditors."""
    from assay.disclose.keys import new_recipient

    secret, public = new_recipient(name)
    _show({"secret": str(secret), "public": str(public), "recipient": public.read_text("utf-8").strip()})


@app.command()
def show(key: Annotated[Path, typer.Argument(metavar="FILE", help="A .pub or .key file.")]) -> None:
    """Say what a signing key is called: its thumbprint (RFC 7638), to be compared over the telephone."""
    from assay.disclose.keys import public_of, read_private, read_public, thumbprint

    found = public_of(read_private(key)) if key.suffix == ".key" else read_public(key)
    _show({"thumbprint": thumbprint(found)})


def _show(rows: dict[str, str]) -> None:
    show_rows(out(), list(rows.items()))
