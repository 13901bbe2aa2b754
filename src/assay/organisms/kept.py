"""How trained organisms are kept: in folders that are there whole or not at all, with weights that have a digest."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from assay.errors import CorruptFile, Unwritable
from assay.provenance import digest_of


@contextlib.contextmanager
def whole(folder: Path, marks: Collection[str]) -> Iterator[Path]:
    """A folder beside ``folder`` that takes its name when all is in it, and is gone when it is not.

    A folder that is there without any of the files ``marks`` is left over from a kill, and is replaced. Raises `Unwritable`.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield work
        if folder.exists() and not any((folder / name).is_file() for name in marks):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(FileExistsError, NotADirectoryError):  # another process trained it meanwhile
            if not folder.exists():
                work.chmod(0o755)
                work.rename(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of every weight with its name."""
    parts: list[bytes] = []
    for name, weight in sorted(state.items()):
        parts += [f"{name}:{tuple(weight.shape)}".encode(), weight.detach().contiguous().numpy().tobytes()]
    return digest_of(parts)


def unwritable(folder: Path, error: OSError) -> Unwritable:
    """The error for a folder that cannot be written."""
    return Unwritable(
        f"the folder {str(folder)!r} cannot be written", found=str(error), hint="set ASSAY_CACHE to a writable folder"
    )


def broken(folder: Path, error: Exception, what: str) -> CorruptFile:
    """The error for a folder that should be ``what``, and does not read as that."""
    return CorruptFile(
        f"{str(folder)!r} does not read as {what}",
        found=f"{type(error).__name__}: {error}"[:200],
        hint="remove the folder and train the recipe again",
    )
