"""A value's tensors and its description in one ``.safetensors`` file, which runs nothing when it is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from assay.errors import CorruptFile, Unwritable

Value = TypeVar("Value")
_FORMAT = "assay-{}-1"


def save(path: str | Path, kind: str, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> Path:
    """Write tensors, and what is told of them as JSON. Raises `Unwritable`."""
    path = Path(path)
    try:
        save_file(dict(tensors), path, metadata={"format": _FORMAT.format(kind), kind: json.dumps(told)})
    except (OSError, SafetensorError) as error:
        raise Unwritable(
            f"{str(path)!r} cannot be written", found=str(error), hint="give a folder that exists and is writable"
        ) from error
    return path


def load(path: str | Path, kind: str, read: Callable[[dict[str, Tensor], dict[str, Any]], Value]) -> Value:
    """What ``read`` makes of the tensors and of what is told of them. Raises `CorruptFile`."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT.format(kind):
                raise CorruptFile(
                    f"{str(path)!r} holds no {kind}",
                    found=f"format {metadata.get('format')!r}",
                    hint=f"give a file that {kind.capitalize()}.save wrote",
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return read(tensors, json.loads(metadata[kind]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptFile(
            f"{str(path)!r} does not read as {'an' if kind[0] in 'aeiou' else 'a'} {kind}",
            found=str(error),
            hint="the file was cut short or altered; save it again",
        ) from error
