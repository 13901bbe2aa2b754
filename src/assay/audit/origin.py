"""What was audited, and with what: the provenance that an audit's ledger opens with."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.evidence import Claim, Origin, of_file, of_folder, of_text
from assay.provenance import versions
from assay.scale.executor import data_digest
from assay.scale.unit import laboratory_digest

if TYPE_CHECKING:
    from assay.run.model import Model


_CONVERSATION = [
    {"role": "user", "content": "Is water wet?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Is fire?"},
]


def origin_of(model: Model, data: Mapping[str, str], claims: Sequence[Claim], arguments: Mapping[str, Any]) -> Origin:
    """The provenance of a run. It names no machine, no user and no path."""
    loaded, engine = model.loaded, model.engine
    tested = () if model.tested is None else model.tested.checks
    return Origin(
        model=shown_name(model.name),
        revision=loaded.revision or None,
        fingerprint=model.fingerprint,
        model_files=_manifest(loaded.files),
        prompt_format={
            "tokenizer": loaded.tokenizer_digest,
            "chat template": of_text(str(getattr(model.tokenizer, "chat_template", None))),
            "chat template, rendered": _rendered(model.tokenizer),
            "BOS": getattr(model.tokenizer, "bos_token", None),
        },
        data=dict(data),
        versions=versions(),
        seeds={claim.key: seed for claim in claims if isinstance(seed := claim.params.get("seed"), int)},
        machine={
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "device": engine.device.type,
            "numbers": str(engine.dtype).removeprefix("torch."),
        },
        selftest={check.name: check.deviation for check in tested},
        more={
            "arguments": dict(arguments),
            "code of the laboratory": laboratory_digest(),
            "the model's own code was allowed to run": loaded.remote_code,
        },
    )


def _manifest(files: Path | None) -> dict[str, str]:
    """SHA-256 of each of the model's files, with names bound, by the rules of OpenSSF model signing; empty where unknown."""
    if files is None:
        return {}
    return {files.name: of_file(files)} if files.is_file() else of_folder(files)


def _rendered(tokenizer: Any) -> str | None:
    """The digest of one fixed conversation as the chat template renders it; a template's text alone leaves defaults open."""
    if getattr(tokenizer, "chat_template", None) is None:
        return None
    try:
        return of_text(tokenizer.apply_chat_template(_CONVERSATION, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # templates are programs, and may refuse anything
        return f"does not render: {type(error).__name__}"


def data_digests(data: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 per file or folder. Raises `CorruptFile` for one that is not there."""
    return {name: data_digest(path) for name, path in data.items()}


def shown_name(name: str) -> str:
    """A model's name as others should see it: of a local path only the last part, which says nothing of the machine, and of
    a digest, under which caches keep models, its first digits.
    """
    last = Path(name).name if Path(name).is_absolute() or Path(name).exists() else name
    return last[:12] if re.fullmatch("[0-9a-f]{40,}", last) else last
