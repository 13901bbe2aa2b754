"""Arrays that are too large for a ledger: safetensors files in the run's folder, named by the digest of their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from assay.errors import BadData, CorruptFile
from assay.evidence import of_bytes
from assay.files import write_whole

_SUFFIX = ".safetensors"


class Arrays:
    """A folder of arrays. What is put twice lies there once; nothing is ever changed. ``made`` are the digests of what
    was put through this very object.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.made: list[str] = []

    def put(self, **arrays: Any) -> str:
        """Keep named arrays (NumPy, or tensors on any device) in one file, and give the digest that finds them again.

        Raises:
            BadData: a value that is no array of numbers or booleans. bfloat16 is none: cast it first.
            Unwritable: the folder cannot be written.
        """
        data = save({name: _array(name, value) for name, value in arrays.items()})
        digest = of_bytes(data)
        path = self.path(digest)
        if not path.exists():
            write_whole(path, data)
        self.made.append(digest)
        return digest

    def get(self, digest: str) -> dict[str, np.ndarray]:
        """The arrays of a digest, checked against it.

        Raises:
            CorruptFile: the file is not there, or its bytes are not what was put.
        """
        path = self.path(digest)
        try:
            data = path.read_bytes()
            found = of_bytes(data)
            if found == digest:
                return load(data)
        except (OSError, ValueError, SafetensorError) as error:  # ValueError: shapes that NumPy has not
            found = str(error)
        raise CorruptFile(
            f"the arrays {digest[:12]}… do not read",
            found=found,
            hint="bring back the run's whole folder, or remove the file: the unit that made it is then run again",
        )

    def path(self, digest: str) -> Path:
        """Where the file of a digest lies."""
        return self.folder / f"{digest}{_SUFFIX}"

    def __contains__(self, digest: str) -> bool:
        return self.path(digest).is_file()


def _array(name: str, value: Any) -> np.ndarray:
    try:
        made = np.ascontiguousarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    except (TypeError, ValueError) as error:
        raise BadData(f"{name!r} is no array", found=error, hint="cast it to float32 first") from error
    if made.dtype.kind not in "fiub":
        raise BadData(
            f"{name!r} is no array of numbers", found=f"dtype {made.dtype}", hint="keep text in the unit's result"
        )
    return made
