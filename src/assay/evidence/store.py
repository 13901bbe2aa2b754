"""How a ledger lies on the disk: one SQLite table, the link from row to row, and the writer's lock."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.errors import CorruptFile, LedgerInUse, Unwritable
from assay.evidence.digest import of_json, of_text

try:
    import fcntl
except ImportError:  # Windows: ledgers can be read there, not written
    fcntl = None  # type: ignore[assignment]

GENESIS = "0" * 64
FILE_MARK = 0x41535359  # "ASSY", SQLite's application_id
FORMAT = 1
SCHEMA = (
    """CREATE TABLE entry (
        seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, at TEXT NOT NULL,
        body TEXT NOT NULL, prev TEXT NOT NULL, digest TEXT NOT NULL)""",
    "CREATE INDEX entry_by_key ON entry (kind, key)",
    "CREATE TRIGGER no_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'entries are never removed'); END",
    # Also what keeps INSERT OR REPLACE out, which fires no DELETE trigger.
    """CREATE TRIGGER in_order BEFORE INSERT ON entry
        WHEN NEW.seq != (SELECT coalesce(max(seq), 0) + 1 FROM entry)
        BEGIN SELECT RAISE(ABORT, 'entries are only added at the end'); END""",
    f"PRAGMA application_id = {FILE_MARK}",
    f"PRAGMA user_version = {FORMAT}",
)
Row = tuple[int, str, str, str, str, str, str]  # seq, kind, key, at, body, prev, digest


def link(seq: int, kind: str, key: str, at: str, body: str, prev: str) -> str:
    """An entry's digest. The body enters by its own digest, so the chain can be shown without what it holds."""
    return of_json({"seq": seq, "kind": kind, "key": key, "at": at, "body": of_text(body), "prev": prev})


def fault(number: int, prev: str, row: Row) -> str:
    """What is wrong with the row that should be entry ``number`` after ``prev``, or nothing."""
    seq, *rest, claimed_prev, digest = row
    if seq != number:
        return f"entry {seq} in its place"
    if claimed_prev != prev:
        return "it does not follow the entry before it"
    if not all(isinstance(value, str) for value in rest):
        return "a field that is no text"
    return "" if link(*row[:-1]) == digest else "its content is not what was written"


def locked(path: Path) -> int:
    """Hold the writer's lock; the kernel lets go of it when the process ends, however it ends."""
    if fcntl is None:
        raise Unwritable(f"cannot write {str(path)!r}", hint="write ledgers on Linux or macOS", found="Windows")
    beside = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Unwritable(
            f"cannot write in {str(path.parent)!r}", hint="choose a folder that you may write in", found=error.strerror
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        writer = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise LedgerInUse(
            f"another process is writing the ledger at {str(path)!r}",
            hint="wait for it to end, or write into another folder; readers need not wait",
            found=f"process {writer}",
        ) from error
    except OSError as error:  # a file system without locks, or one that is full
        os.close(lock)
        hint = "free space, or choose a folder on a local disk"
        raise Unwritable(f"cannot lock the ledger at {str(path)!r}", hint=hint, found=error.strerror) from error
    return lock


@contextmanager
def typed(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except UnicodeDecodeError as error:  # sqlite3 gives up on a damaged name before SQLite can say so
        raise no_ledger(path, error) from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        found = f"{error} ({name})"
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            hint = "try again when the other has ended"
            raise LedgerInUse(f"the ledger at {str(path)!r} is busy", hint=hint, found=found) from error
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            hint = "free space, or choose another folder; nothing was added"
            if name == "SQLITE_IOERR_DIR_FSYNC":  # the very last step: the journal is gone, so the commit stands
                hint = "free space, or choose another folder; what was to be added may be there: open the ledger to see"
            raise Unwritable(f"cannot write the ledger at {str(path)!r}", hint=hint, found=found) from error
        raise no_ledger(path, found) from error


def no_ledger(path: Path, found: object) -> CorruptFile:
    return CorruptFile(
        f"{str(path)!r} is no ledger that this version reads",
        hint="give the path of a run's ledger file, or bring back a copy of it",
        found=found,
    )
