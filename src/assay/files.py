"""Files that are written whole or not at all, and read up to a limit; JSON that is read with one kind of error."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from assay.errors import CorruptFile, Unwritable


def write_whole(path: str | Path, data: bytes | str, *, mode: int = 0o644, fresh: bool = False) -> Path:
    """Write a file so that a reader, or a power cut, finds all of it or what was there before. Gives its path.

    Args:
        path: where to; folders on the way are made.
        data: what to write; text as UTF-8.
        mode: who may read it, from the first byte on.
        fresh: refuse to replace a file that is there. Needs a file system with hard links.

    Raises:
        Unwritable: it cannot be written, or is there already where ``fresh`` was asked; what was there is as it was.
    """
    path = Path(path)
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.")
        beside = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            beside.chmod(mode)
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        if fresh:
            path.hardlink_to(beside)  # unlike a rename, it fails where something is
        else:
            beside.replace(path)
        _sync(path.parent)
    except FileExistsError as error:
        hint = "choose another name, or move what is there away yourself; it was left as it was"
        raise Unwritable(f"{str(path)!r} is there already", hint=hint) from error
    except (OSError, ValueError) as error:
        hint = "choose a folder that you may write in, on a local disk"
        raise Unwritable(f"cannot write {str(path)!r}", hint=hint, found=_why(error)) from error
    finally:
        if beside is not None:
            with contextlib.suppress(OSError):  # a disk that fails at this too has been told of already
                beside.unlink(missing_ok=True)
    return path


def read_bytes(path: str | Path, *, most: int) -> bytes:
    """All of a file, which may be ``most`` bytes long.

    Raises:
        CorruptFile: there is no such file, it cannot be read, or it is longer.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        hint = "give the path of a file that exists and that you may read"
        raise CorruptFile(f"{str(path)!r} cannot be read", hint=hint, found=_why(error)) from error
    if len(data) > most:
        raise CorruptFile(
            f"{str(path)!r} is too long",
            hint="give the file that its name says, which is shorter",
            found=f"more than {most:,} bytes",
        )
    return data


def parse_json(text: str) -> Any:
    """A JSON value. Raises ``ValueError`` for whatever is none, is nested too deeply, or has text that no file can hold."""
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate reads, and is not written again
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _sync(folder: Path) -> None:
    """The folder's own entry, which is what a new name is; Windows has no way to ask for it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
