"""kill -9 at random moments: of a bare writer of claims, and of whole audits that are run again until they end.

Before any writer opens the ledger again, a reader checks that it verifies, that all that was acknowledged is there, and
that at most what was in flight has been added to it, whole. The same ledger then goes on under the next writer. An
audit has to end as one that was never killed, with at most one unit of work done again for each kill.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from assay.evidence import Claim, Ledger
from reliability import Row
from reliability.child import Child, Tell, forked
from reliability.ledgers import entries

LEDGER_ROUNDS, AUDIT_ROUNDS = 800, 200
ROUNDS_A_LEDGER = 40
"""Then a new one is begun, so that beginnings are killed too and no time is lost on verifying long chains."""
DRAWS = 40


@dataclass
class Kills:
    """What was counted over rounds of one kind. ``wrong`` says in words whatever was not as promised."""

    rounds: int = 0
    acknowledged: int = 0
    unacknowledged: int = 0
    hot: int = 0  # kills that left a journal, so came within a commit
    wrong: list[str] = field(default_factory=list)


def claim(number: int) -> Claim:
    """One of any number of claims, of very different lengths."""
    return Claim(
        key=f"c{number}", threat="t", statement=f"Claim {number}.", method="m" * (number * 37 % 5000), controls=(),
        refuted_by="r", measure="m", params={"number": number}, problem="p", about="behaviour", grade="low",
    )  # fmt: skip


def group(number: int) -> range:
    """The claims that go into the ledger together with this first one: one, or three all or none."""
    return range(number, number + (3 if number % 4 == 1 else 1))


def write_on(path: Path, tell: Tell) -> None:
    """Go on with the ledger where it stands, as fast as it goes, for ever; tell each claim's number when it is safe."""
    with Ledger.open(path) as ledger:
        number = len(ledger.entries())
        while True:
            bodies = [claim(one) for one in group(number)]
            ledger.extend([(body.kind, body.entry_key, body) for body in bodies])
            number += len(bodies)
            tell(number - 1)


def kept(path: Path) -> list[int]:
    """The numbers of the claims that a reader finds, the chain verified."""
    return [entry.read(Claim).params["number"] for entry in entries(path)]  # type: ignore[misc]


def writers(rounds: int, folder: Path, seed: int = 0) -> Kills:
    """Kill that many writers, one after the other on the same ledger; see this file's first lines."""
    chance, counts, before = random.Random(seed), Kills(), 0
    for number in range(rounds):
        path = folder / f"{number // ROUNDS_A_LEDGER}" / "ledger"
        before = before if number % ROUNDS_A_LEDGER else 0
        writer = Child(lambda tell, path=path: write_on(path, tell))  # type: ignore[misc]
        if chance.random() < 0.8:  # else it may be killed while it opens or rolls back
            writer.hear()
        writer.kill(after=chance.random() ** 2 * 0.02)
        told, status = writer.end()
        counts.rounds += 1
        counts.hot += path.with_name("ledger-journal").exists()
        safe = told[-1] + 1 if told else before
        after = kept(path)
        allowed = {safe, safe + len(group(safe))}
        if status != -9:
            counts.wrong.append(f"round {number}: the writer ended with {status}")
        if after != list(range(len(after))) or len(after) not in allowed:
            counts.wrong.append(f"round {number}: {len(after)} claims are there, {safe} were acknowledged")
        counts.acknowledged += safe - before
        counts.unacknowledged += len(after) - safe
        before = len(after)
    return counts


@dataclass
class Audits(Kills):
    """And of audits: how many came to their end, what they executed, and how often that was a repetition."""

    ended: int = 0
    executed: int = 0
    repeated: int = 0
    most: int = 0
    in_units: int = 0


def audits(rounds: int, folder: Path, seed: int = 0, draws: int = DRAWS) -> Audits:
    """Kill that many sittings of audits, each run again until it ends; compare with one that was not killed."""
    from assay.scale.unit import laboratory_digest
    from reliability import subject

    made, chance, counts = subject.model(), random.Random(seed), Audits()
    laboratory_digest()  # once for all children: somebody may be editing the code meanwhile
    forked(lambda _: subject.run(made, folder / "whole", draws))
    whole = subject.findings(folder / "whole")
    while counts.rounds < rounds:
        into, log = folder / f"{counts.ended}", folder / f"{counts.ended}.log"
        units, done, status = 0, 0, -9
        while status == -9:
            sitting = Child(lambda _, into=into, log=log: subject.run(made, into, draws, log))  # type: ignore[misc]
            if counts.rounds < rounds:
                sitting.kill(after=chance.random() * 0.25)
            _, status = sitting.end()
            recorded, executed = _units(into), len(subject.executed(log))
            lost = (executed - done) - (recorded - units)  # executed in this sitting, and not in the ledger
            units, done = recorded, executed
            if status == -9:
                counts.rounds += 1
                counts.hot += (into / "ledger-journal").exists()
                counts.in_units += lost
                counts.most = max(counts.most, lost)
            if lost > (status == -9) or status not in (0, -9):
                counts.wrong.append(f"audit {counts.ended}: {lost} units lost in a sitting that ended with {status}")
        counts.ended += 1
        counts.executed += done
        counts.repeated += done - len(set(subject.executed(log)))
        if subject.findings(into) != whole:
            counts.wrong.append(f"audit {counts.ended}: it ended otherwise than the one that was not killed")
    return counts


def _units(folder: Path) -> int:
    return sum(entry.kind == "unit" for entry in entries(folder / "ledger"))


def run(scale: float = 1.0) -> Sequence[Row]:
    """1,000 rounds at scale 1."""
    with tempfile.TemporaryDirectory() as name:
        bare = writers(max(1, round(LEDGER_ROUNDS * scale)), Path(name) / "bare")
        whole = audits(max(1, round(AUDIT_ROUNDS * scale)), Path(name) / "audits")
    return [
        Row(
            "writer of claims killed, ledger opened by the next",
            f"{bare.rounds} kills, {bare.hot} of them within a commit: {_said(bare.wrong)}; {bare.acknowledged:,} "
            f"acknowledged claims, all there; {bare.unacknowledged} more had been written, not yet acknowledged",
            not bare.wrong,
        ),
        Row(
            "audit killed, run again until it ends",
            f"{whole.rounds} kills of {whole.ended} audits, {whole.in_units} of them within a unit: {_said(whole.wrong)}; "
            f"{whole.executed:,} units executed, {whole.repeated} of them again, at most {whole.most} for a kill; "
            "claims, outcomes and results equal those of an audit that was not killed",
            not whole.wrong and whole.repeated <= whole.rounds,
        ),
    ]


def _said(wrong: Sequence[str]) -> str:
    return f"{len(wrong)} WRONG ({wrong[0]})" if wrong else "0 lost, 0 breaks in the chain"
