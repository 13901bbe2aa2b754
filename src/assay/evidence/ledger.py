"""The ledger: an append-only, hash-chained SQLite file with one writer and any number of readers.

Each entry's digest covers its content and the digest of the entry before it, so one changed byte anywhere breaks
every later link, and whoever kept the head can tell. Claims carry their standing by position alone: a claim is
*confirmatory* when its entry comes before the first result in the ledger, else *exploratory*.

What a commit survives: kill -9 (SQLite's rollback journal) and power loss (``synchronous=EXTRA``: what FULL syncs,
and the folder after the journal is gone). The single writer holds an operating-system lock that dies with it; a
left-over ``.lock`` file means nothing. What the chain cannot show is a whole ledger written anew: publish the head.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from assay.errors import BadData, CorruptFile, LedgerBroken, Unwritable, nearest
from assay.evidence.digest import canonical
from assay.evidence.entry import KINDS, Body, Claim, Correction, Entry
from assay.evidence.store import FILE_MARK, FORMAT, GENESIS, SCHEMA, Row, fault, link, locked, no_ledger, typed

Standing = Literal["confirmatory", "exploratory"]

ONCE = frozenset(
    {"claim", "policy", "unit", "outcome"}
)  # the first one stands: running again until it pleases is no way out
RESULTS = ("unit", "outcome", "missing")  # whoever has seen one of these knows something
CORRECTABLE = frozenset({"provenance", "outcome", "missing", "note"})  # a changed claim is a new claim


class Record(Protocol):
    """What a report needs. A ledger has it."""

    @property
    def head(self) -> str: ...
    def entries(self, kind: str | None = None) -> list[Entry]: ...
    def standing(self, claim: Claim | str) -> Standing: ...
    def verify(self, head: str | None = None) -> str: ...


class Ledger:
    """One ledger file, opened by ``Ledger.open`` (the writer) or ``Ledger.read``; a context manager either way."""

    def __init__(
        self, path: Path, database: sqlite3.Connection, lock: int | None, clock: Callable[[], datetime]
    ) -> None:
        self.path = path
        self._database = database
        self._database.text_factory = lambda text: text.decode(errors="replace")  # bad bytes are verify's to report
        self._lock = lock
        self._clock = clock

    @classmethod
    def open(cls, path: str | Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Self:
        """The one writer of the ledger at ``path``, which is made if it is not there. The chain is verified first.

        ``clock`` gives the times that entries carry. They are information: order comes from the chain.

        Raises:
            LedgerInUse: another writer has it, named by its process id.
            Unwritable: the folder or the file cannot be written.
            CorruptFile: the file is no ledger, or SQLite cannot read it. It is left as it is.
            LedgerBroken: the chain does not verify. It is left as it is.
        """
        path = Path(path)
        lock = locked(path)
        try:
            with typed(path):
                database = sqlite3.connect(path, isolation_level=None, timeout=30)
        except BaseException:
            os.close(lock)
            raise
        ledger = cls(path, database, lock, clock)
        try:
            ledger._prepare()
            ledger.verify()
        except BaseException:
            ledger.close()
            raise
        return ledger

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """A reader of the ledger at ``path``; any number may read while one writes.

        Raises:
            CorruptFile: there is no ledger at ``path``.
        """
        path = Path(path)
        if not path.is_file():
            raise CorruptFile(f"there is no ledger at {str(path)!r}", hint="give the path of a run's ledger file")
        with typed(path):
            # Not mode=ro: a reader that comes after a killed writer has to roll its last, unfinished write back.
            database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=30)
        ledger = cls(path, database, None, lambda: datetime.now(UTC))
        try:
            with typed(path):
                database.execute("PRAGMA query_only = ON")
                if not ledger._is_ledger():
                    raise no_ledger(path, "an empty file")
        except BaseException:
            ledger.close()
            raise
        return ledger

    def close(self) -> None:
        """Give the file back. Closing twice is closing once."""
        self._database.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def append(self, kind: str, key: str, body: Body | object) -> Entry:
        """Add one entry. When this returns, it is on the disk.

        ``body`` is a value of ``assay.evidence`` or JSON; for a kind in ``KINDS`` it must read as that kind's class.
        A claim, a unit or an outcome is said once: the same again gives the entry that is there.

        Raises:
            BadData: no JSON, a body or key that its kind does not have, an outcome of a claim that was not recorded,
                a second and different outcome, or a correction of what cannot be corrected.
            Unwritable: the disk is full or failed, or the ledger was opened for reading. Nothing was added, unless the
                hint says that it may be there: only the last sync of the folder failed.
        """
        return self.extend([(kind, key, body)])[0]

    def record(self, body: Body) -> Entry:
        """``append`` under the kind and key that the value itself names."""
        return self.append(body.kind, body.entry_key, body)

    def extend(self, items: Iterable[tuple[str, str, Body | object]]) -> list[Entry]:
        """Add several entries ``(kind, key, body)``, all of them or none. Raises as ``append`` does."""
        ready = [(kind, key, _text(kind, key, body)) for kind, key, body in items]
        with self._transaction():
            return [self._add(kind, key, text) for kind, key, text in ready]

    def correct(self, entry: Entry, body: Body | None, *, author: str, reason: str) -> Entry:
        """Say an earlier entry again, or withdraw it (``body`` None). What was said first stays in the ledger.

        Raises:
            BadData: an entry that is not in this ledger, a kind that is not corrected (a changed claim is a new claim),
                or a body of another kind or about something else.
        """
        new = None if body is None else body.model_dump(mode="json")
        return self.record(Correction(corrects=entry.digest, author=author, reason=reason, body=new))

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────

    def entries(self, kind: str | None = None) -> list[Entry]:
        """All entries in order, or those of one kind."""
        if kind is None:
            return self._select("SELECT * FROM entry ORDER BY seq")
        return self._select("SELECT * FROM entry WHERE kind = ? ORDER BY seq", kind)

    def latest(self, kind: str, key: str) -> Entry | None:
        """The last entry of that kind and key, or None."""
        query = "SELECT * FROM entry WHERE kind = ? AND key = ? ORDER BY seq DESC LIMIT 1"
        found = self._select(query, kind, key)
        return found[0] if found else None

    @property
    def head(self) -> str:
        """The digest of the last entry, which stands for everything before it; 64 zeros for an empty ledger."""
        return self._tip()[1]

    def standing(self, claim: Claim | str) -> Standing:
        """``confirmatory`` if the claim (or its digest) was recorded before the first result, else ``exploratory``.

        Results are entries of the kinds in ``RESULTS``; what was measured of the model before that, such as its
        self-test, belongs in provenance.

        Raises:
            BadData: the claim is not in this ledger.
        """
        digest = claim if isinstance(claim, str) else claim.digest
        known = self.latest("claim", digest)
        if known is None:
            digests = [entry.key for entry in self.entries("claim")]
            raise BadData(
                f"no claim {digest} in the ledger at {str(self.path)!r}",
                hint="record the claim before anything is measured",
                nearest=nearest(digest, digests),
            )
        first = (self._select("SELECT * FROM entry WHERE kind = ? ORDER BY seq LIMIT 1", kind) for kind in RESULTS)
        seen = any(entries and entries[0].seq < known.seq for entries in first)
        return "exploratory" if seen else "confirmatory"

    def verify(self, head: str | None = None) -> str:
        """Walk the whole chain and give its head.

        Args:
            head: a head that was published earlier; the ledger must still contain it.

        Raises:
            LedgerBroken: naming the first entry that is not as it was written, or the head that is gone.
            CorruptFile: SQLite cannot read the file.
        """
        prev, seen = GENESIS, head in (None, GENESIS)
        with typed(self.path):
            for number, row in enumerate(self._database.execute("SELECT * FROM entry ORDER BY seq"), start=1):
                if found := fault(number, prev, row):
                    raise LedgerBroken(
                        f"the chain of {str(self.path)!r} breaks at entry {number}",
                        hint=f"trust nothing from entry {number} on; compare with a copy or a published head",
                        found=found,
                    )
                prev = row[-1]
                seen = seen or prev == head
            state = self._database.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if state != "ok":  # its index may lead to the wrong entry
            raise no_ledger(self.path, state)
        if not seen:
            raise LedgerBroken(
                f"the ledger at {str(self.path)!r} does not contain the head {head}",
                hint="it was cut short or written anew, or the head belongs to another run",
                found=f"head {prev}",
            )
        return prev

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _select(self, query: str, *values: str) -> list[Entry]:
        with typed(self.path):
            rows = self._database.execute(query, values).fetchall()
        return [_entry(row) for row in rows]

    def _tip(self) -> tuple[int, str]:
        with typed(self.path):
            tip = self._database.execute("SELECT seq, digest FROM entry ORDER BY seq DESC LIMIT 1").fetchone()
        return tip or (0, GENESIS)

    def _is_ledger(self) -> bool:
        """False for a file that SQLite takes as new and empty."""
        mark, version, tables = (
            self._database.execute(query).fetchone()[0]
            for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if (mark, version, tables) == (0, 0, 0):
            return False
        if mark != FILE_MARK or version != FORMAT:
            raise no_ledger(self.path, f"application id {mark:#x}, format {version}")
        return True

    def _prepare(self) -> None:
        with typed(self.path):
            new = not self._is_ledger()
            self._database.execute("PRAGMA journal_mode = DELETE")
            self._database.execute("PRAGMA synchronous = EXTRA")
        with self._transaction():
            for statement in SCHEMA if new else ():
                self._database.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._lock is None:
            hint = "open it with Ledger.open to add to it"
            raise Unwritable(f"the ledger at {str(self.path)!r} is open for reading only", hint=hint)
        with typed(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _add(self, kind: str, key: str, text: str) -> Entry:
        known = self.latest(kind, key) if kind in ONCE else None
        if known is not None:
            if canonical(known.body) == text:
                return known
            raise BadData(
                f"this {kind} was recorded before, and was different",
                hint="the first one stands; say what was wrong with it by ledger.correct(...)",
                found=f"entry {known.seq}: {kind} {key}",
            )
        self._admit(kind, key, json.loads(text))
        seq, prev = self._tip()
        at = self._clock().astimezone(UTC).isoformat(timespec="milliseconds")
        row = (seq + 1, kind, key, at, text, prev, link(seq + 1, kind, key, at, text, prev))
        self._database.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return _entry(row)

    def _admit(self, kind: str, key: str, body: object) -> None:
        """Refuse what may not come now: an outcome without its claim, a correction of nothing."""
        if kind in ("outcome", "missing") and self.latest("claim", key) is None:
            raise BadData(
                f"an entry of kind {kind!r} for a claim that was never recorded",
                hint="claims come before outcomes: record the claim before anything is measured",
                found=f"claim {key}",
            )
        if kind == "correction" and isinstance(body, dict):
            was = next(iter(self._select("SELECT * FROM entry WHERE digest = ?", key)), None)
            if was is None or was.kind not in CORRECTABLE:
                raise BadData(
                    "this entry cannot be corrected",
                    hint=f"corrections are for {', '.join(sorted(CORRECTABLE))}; a changed claim is a new claim",
                    found="no entry of that digest" if was is None else f"entry {was.seq}, of kind {was.kind!r}",
                )
            if body["body"] is not None:
                _text(was.kind, was.key, body["body"])


def _text(kind: str, key: str, body: Body | object) -> str:
    """A body's canonical text, read once through its kind's class so that the ledger holds only what reads back."""
    if kind in KINDS:
        value = KINDS[kind].model_validate(body.model_dump() if isinstance(body, Body) else body)
        if value.entry_key != key:
            raise BadData(
                f"an entry of kind {kind!r} under a key that is not its own",
                hint="use ledger.record(value), which knows the key",
                found=key,
                wanted=value.entry_key,
            )
        body = value
    canonical([kind, key])
    return canonical(body.model_dump(mode="json") if isinstance(body, Body) else body)


def _entry(row: Row) -> Entry:
    seq, kind, key, at, body, prev, digest = row
    try:
        return Entry(seq=seq, kind=kind, key=key, at=at, body=json.loads(body), prev=prev, digest=digest)
    except (BadData, TypeError, ValueError, RecursionError) as error:
        raise LedgerBroken(f"entry {seq} does not read", hint="verify the ledger", found=error) from error
