"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WHICH_MODEL = "org/name, a folder or a .gguf file; SmolLM2-135M-Instruct unless given."

ModelOption = Annotated[str | None, typer.Option("--model", help=WHICH_MODEL)]
ModelArgument = Annotated[str | None, typer.Argument(metavar="MODEL", help=WHICH_MODEL)]
Revision = Annotated[str | None, typer.Option(help="Of a model on the hub.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder, or its ledger.")]
Audience = Annotated[
    str, typer.Option("--for", metavar="NAME", help="To whom of the audience: a name, signed with the rest.")
]
