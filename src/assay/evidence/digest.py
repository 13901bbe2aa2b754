"""What a value is, in one line: SHA-256 over canonical JSON, bytes, files and folders.

Canonical JSON here: keys sorted by code point, no spaces, UTF-8, floats in Python's shortest form that reads back
the same, integers and floats kept apart (``1`` is not ``1.0``), no NaN and no infinity. It is not RFC 8785: what
was hashed is always kept as text beside its digest, so that nobody has to print a number again to check one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import JsonValue

from assay.errors import BadData, CorruptFile

_CHUNK = 1 << 20


def canonical(value: object) -> str:
    """The one JSON text of ``value``.

    Mappings with string keys, lists, tuples, strings, finite numbers, booleans and None; a tuple is written as a list.

    Raises:
        BadData: anything else in it, named by its place (``$.effects[0].low``).
    """
    try:
        return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise BadData("a value has no JSON form", hint="write it as text", found=error) from None


def plain(value: object) -> JsonValue:
    """``value`` as JSON values alone, copied. Raises ``BadData`` as ``canonical`` does."""
    try:
        return _checked(value, "$")
    except RecursionError:
        raise BadData("a value is nested too deeply to be written as JSON", hint="flatten it") from None


def of_json(value: object) -> str:
    """SHA-256 (64 hex digits) of a JSON value's canonical text. Raises ``BadData`` as ``canonical`` does."""
    return of_text(canonical(value))


def of_text(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes."""
    return of_bytes(text.encode())


def of_bytes(data: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def of_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, read in pieces.

    Raises:
        CorruptFile: there is no file that can be read at ``path``.
    """
    total = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while piece := file.read(_CHUNK):
                total.update(piece)
    except OSError as error:
        raise CorruptFile(
            f"{str(path)!r} cannot be read", hint="give the path of a file that exists", found=error.strerror
        ) from error
    return total.hexdigest()


def of_folder(folder: str | Path, *, leave_out: Collection[str] = (".git", ".cache")) -> dict[str, str]:
    """The manifest of a folder: SHA-256 per file, by path relative to the folder, with forward slashes.

    Names are part of it, so that two files cannot trade places (OpenSSF model signing's root digest leaves names
    out). ``of_json(manifest)`` is the folder's own digest. Links are followed: a Hugging Face snapshot is all links.

    Args:
        folder: where to look, at any depth.
        leave_out: names of files and folders to pass over.

    Raises:
        CorruptFile: no folder at that path, or no file in it.
    """
    top = Path(folder)
    files = sorted(path for path in top.rglob("*") if path.is_file())
    inside = {path.relative_to(top): path for path in files}
    manifest = {name.as_posix(): of_file(path) for name, path in inside.items() if not set(name.parts) & set(leave_out)}
    if not manifest:
        raise CorruptFile(
            f"{str(folder)!r} holds no files",
            hint="give the folder that the files lie in",
            found="no such folder" if not top.is_dir() else "an empty folder",
        )
    return manifest


def _checked(value: object, place: str) -> JsonValue:
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return float(value)  # a numpy float is one too, but prints otherwise
        case str() if _is_text(value):
            return str(value)
        case list() | tuple():
            return [_checked(item, f"{place}[{index}]") for index, item in enumerate(value)]
        case Mapping() if all(isinstance(key, str) and _is_text(key) for key in value):
            return {key: _checked(item, f"{place}.{key}") for key, item in value.items()}
    raise BadData(
        "a value has no JSON form",
        hint="write a missing outcome as missing(reason), and arrays as lists of numbers",
        found=f"{place} = {value!r:.80} ({type(value).__name__})",
    )


def _is_text(value: str) -> bool:
    """Whether it encodes: a lone surrogate does not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
