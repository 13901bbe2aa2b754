"""Every byte of what is given away, changed; and what somebody who thinks would try.

Small audits are sealed and released through the real desk. Of each file every byte is replaced (by all 255 others, or
in the larger credentials and seals bit by bit), every byte is deleted, and bytes are put in between; each of the
results must be refused, with exactly `NotVerified` (of a seal, where a recipient's line was hit: `SealClosed`). Then
come attacks on the whole: something dropped, added, exchanged, replayed or forged.
"""

from __future__ import annotations

import base64
import hmac
import json
import multiprocessing
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from joserfc.jwk import OKPKey

from assay.disclose import Desk, check_against, check_model, check_previous, open_sealed, sdjwt, verify
from assay.disclose.credential import TYPE, Draft, issue
from assay.disclose.keys import (
    Identity,
    Recipient,
    new_recipient,
    new_signing_key,
    public_of,
    read_identity,
    read_private,
    read_recipients,
)
from assay.disclose.sdjwt import Disclosure
from assay.disclose.seal import seal
from assay.disclose.verify import Release, read_credential
from assay.errors import AssayError, LedgerBroken, NotVerified
from assay.evidence import (
    Audit,
    Claim,
    Effect,
    Findings,
    Ledger,
    Origin,
    Outcome,
    Policy,
    Threat,
    canonical,
    of_folder,
    read_findings,
)
from assay.evidence.entry import Grant
from reliability import Row

SIZES = (1, 2, 3)
FEW, MANY = "few", "many"  # the two audiences: the second sees what the first sees, and effects
_SIDE_BY_SIDE = 2
_BITS = tuple(1 << bit for bit in range(8))
_EVERY = tuple(range(1, 256))
_BETWEEN = 16  # how far apart the places are where bytes are put in, and how many of them at each

POLICIES = (
    Policy(name=FEW, says="", show=(Grant(parts=("threat", "verdict", "claim", "outcome")),)),
    Policy(name=MANY, says="", show=(Grant(parts=("threat", "verdict", "claim", "outcome", "effects")),)),
)
_SHOWN = dict.fromkeys(POLICIES[0].show[0].parts)


@dataclass(frozen=True)
class Keys:
    """Who takes part: an auditor, somebody who would like to be one, two readers of seals and a third."""

    auditor: OKPKey
    stranger: OKPKey
    recipients: tuple[Recipient, ...]
    identities: tuple[Identity, ...]

    @classmethod
    def made(cls, folder: Path) -> Keys:
        """New ones, in a folder."""
        auditor, stranger = (read_private(new_signing_key(folder / name)[0]) for name in ("auditor", "stranger"))
        pairs = [new_recipient(folder / name) for name in ("one", "two")]
        known = tuple(read_recipients([public for _, public in pairs]))
        return cls(auditor, stranger, known, tuple(read_identity(secret) for secret, _ in pairs))

    @property
    def public(self) -> OKPKey:
        """What everybody knows of the auditor."""
        return public_of(self.auditor)


@dataclass(frozen=True)
class Given:
    """One audit as it is given away."""

    folder: Path
    keys: Keys
    release: bytes
    credential: bytes
    sealed: bytes

    @classmethod
    def made(cls, folder: Path, keys: Keys, claims: int, **changed: str) -> Given:
        """An audit of so many claims: sealed to two, signed, released to the few."""
        write_audit(folder, claims, **changed)
        desk = Desk(folder)
        sealed = desk.seal(MANY, keys.recipients).read_bytes()
        release = desk.release(FEW, keys.auditor).read_bytes()
        return cls(folder, keys, release, (desk.home / "credential").read_bytes(), sealed)

    @property
    def verified(self) -> Release:
        """The release, which holds."""
        return self.read_release(self.release)

    @property
    def ledger(self) -> Path:
        """Its file."""
        return self.folder / "ledger"

    @property
    def jwt(self) -> str:
        """What the auditor signed."""
        return self.release.decode().partition("~")[0]

    @property
    def shown(self) -> list[str]:
        """The disclosures of the release."""
        return self.release.decode().split("~")[1:-1]

    @property
    def hidden(self) -> list[str]:
        """Those that it withholds."""
        return [text for text in self.credential.decode().split("~")[1:-1] if text not in self.shown]

    @property
    def binding(self) -> str:
        """The key binding of the release."""
        return self.release.decode().rpartition("~")[2]

    def read_release(self, data: bytes | str, **asked: str) -> Release:
        """What anybody does with a release."""
        return verify(data, self.keys.public, **{"audience": FEW, **asked})

    def read_credential(self, data: bytes) -> None:
        """What the desk does with a credential."""
        read_credential(data, self.keys.public)

    def presented(self, *texts: str, to: str = FEW, key: OKPKey | None = None, jwt: str = "") -> str:
        """Disclosures with a fresh key binding, by the auditor unless another key is given."""
        holder = key or self.keys.auditor
        return sdjwt.present(jwt or self.jwt, texts, holder=holder, audience=to, nonce=secrets.token_hex(16))


def write_audit(folder: Path, claims: int, *, verdict: str = "supported", because: str = "b") -> None:
    """A ledger as short as one can be. ``verdict`` and ``because`` are those of the last outcome."""
    asked = [
        Claim(key=f"c{number}", threat="t", statement="s", method="m", controls=(), refuted_by="r", measure="x",
              problem="p", about="behaviour", grade="low")
        for number in range(claims)
    ]  # fmt: skip
    effect = Effect(name="e", value=0.5, unit="", low=0, high=1, level=0.95, n=2)
    came = [Outcome(claim=claim.digest, verdict="supported", because="b", effects=(effect,)) for claim in asked]
    came[-1] = Outcome.model_validate({**came[-1].model_dump(), "verdict": verdict, "because": because})
    threat = Threat(key="t", statement="s", scope="s", benign="b")
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    model.mkdir(exist_ok=True)
    for name in ("config.json", "weights"):
        (model / name).write_text(name)
    origin = Origin(model="m", fingerprint="f", model_files=of_folder(model))
    bodies = [Audit(name="n", problem="p", question="q", threats=(threat,)), origin, *asked, *POLICIES, *came]
    ticks = iter(range(10**9))
    with Ledger.open(
        folder / "ledger", clock=lambda: datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=next(ticks))
    ) as ledger:
        ledger.extend([(body.kind, body.entry_key, body) for body in bodies])


# ── every byte ──────────────────────────────────────────────────────────────────────────────────────────────────


def replaced(data: bytes, place: int, differences: tuple[int, ...]) -> Iterator[bytes]:
    """One byte, by others."""
    for difference in differences:
        yield data[:place] + bytes([data[place] ^ difference]) + data[place + 1 :]


def shortened_and_lengthened(data: bytes, place: int) -> Iterator[bytes]:
    """Without the byte, without all after it, and at some places with other bytes before it."""
    yield data[:place] + data[place + 1 :]
    yield data[:place]
    if place % _BETWEEN == 0:
        for number in range(_BETWEEN):
            yield data[:place] + bytes([(place + number * 17) % 256]) + data[place:]


def told(read: Callable[[bytes], object], data: bytes) -> str:
    """What became of it: the name of the error, or that it was taken."""
    try:
        read(data)
    except AssayError as error:
        return type(error).__name__
    except Exception as error:
        return f"{type(error).__name__}, which is none of ours"
    return "accepted"


def every_byte(
    read: Callable[[bytes], object], data: bytes, *, differences: tuple[int, ...] = _EVERY, part: float = 1.0
) -> tuple[Counter[str], Counter[str]]:
    """What became of every replacement, and of everything shorter or longer.

    ``part`` of the places is tried, and in any case the last sign of each base64, where bits are to spare.
    """
    places = sorted({*range(0, len(data), max(1, round(1 / part))), *_ends(data)})

    def tried(every: Sequence[int]) -> tuple[Counter[str], Counter[str]]:
        one = Counter(told(read, other) for place in every for other in replaced(data, place, differences))
        two = Counter(told(read, other) for place in every for other in shortened_and_lengthened(data, place))
        return one, two

    if part < 1:
        return tried(places)
    counts = _side_by_side([partial(tried, places[start::_SIDE_BY_SIDE]) for start in range(_SIDE_BY_SIDE)])
    return sum((one for one, _ in counts), Counter()), sum((two for _, two in counts), Counter())


def _ends(data: bytes) -> list[int]:
    return [at for at in range(len(data)) if data.isascii() and data[at + 1 : at + 2] in (b"", b".", b"~")]


def _side_by_side(
    works: list[Callable[[], tuple[Counter[str], Counter[str]]]],
) -> list[tuple[Counter[str], Counter[str]]]:
    """Each in a fork of its own, so that nothing has to be handed over but the counts."""
    fork = multiprocessing.get_context("fork")

    def run_one(work: Callable[[], tuple[Counter[str], Counter[str]]], end: Connection) -> None:
        end.send(work())
        end.close()

    running = []
    for work in works:
        here, there = fork.Pipe(duplex=False)
        process = fork.Process(target=run_one, args=(work, there))
        process.start()
        there.close()
        running.append((process, here))
    counts = [here.recv() for _, here in running]  # raises EOFError where one died
    for process, _ in running:
        process.join()
    return counts


def _bytes_row(what: str, counts: Counter[str], allowed: tuple[str, ...] = ("NotVerified",)) -> Row:
    total, refused = counts.total(), sum(counts[name] for name in allowed)
    others = ", ".join(f"{count:,} {name}" for name, count in counts.items() if name not in allowed)
    closed = f", {counts['SealClosed']:,} of them as closed to the reader" if counts["SealClosed"] else ""
    return Row(what, f"{refused:,} of {total:,} refused{closed}{': ' + others if others else ''}", refused == total > 0)


def bytes_rows(given: list[Given], part: float) -> list[Row]:
    """Rows for releases, credentials and seals."""
    rows = []
    lengths: dict[str, list[int]] = {}
    sums: dict[str, Counter[str]] = {}

    def add(kind: str, read: Callable[[bytes], object], data: bytes, differences: tuple[int, ...] = _EVERY) -> None:
        one, two = every_byte(read, data, differences=differences, part=part)
        lengths.setdefault(kind, []).append(len(data))
        sums.setdefault(f"{kind} replaced", Counter()).update(one)
        sums.setdefault(f"{kind} moved", Counter()).update(two)

    for number, one in enumerate(given):
        beside = one.verified
        opened = partial(open_sealed, release=beside, key=one.keys.public, identities=one.keys.identities[:1])
        add("release", one.read_release, one.release)
        add("credential", one.read_credential, one.credential, _EVERY if number == 0 else _BITS)
        add("seal", opened, one.sealed, _EVERY if number == 0 else _BITS)
    for kind, sizes in lengths.items():
        said = f"{len(sizes)} {kind}s of {', '.join(f'{size:,}' for size in sizes)} bytes"
        allowed = ("NotVerified", "SealClosed") if kind == "seal" else ("NotVerified",)
        by = "all 255 others" if kind == "release" else "all 255 others in the first, every bit in the rest"
        rows.append(_bytes_row(f"{said}: each byte replaced by {by}", sums[f"{kind} replaced"], allowed))
        rows.append(_bytes_row(f"{kind}s: a byte deleted, cut short, a byte put in", sums[f"{kind} moved"], allowed))
    return rows


# ── attacks ─────────────────────────────────────────────────────────────────────────────────────────────────────

Attack = Callable[[], object]


def on_what_is_shown(one: Given, other: Given) -> Iterator[tuple[str, Attack]]:
    """By whoever carries a release, or holds an earlier one."""
    shown, hidden, read = one.shown, one.hidden, one.read_release

    def with_texts(*texts: str) -> str:
        return "~".join((one.jwt, *texts, one.binding))

    for place in range(len(shown)):
        yield f"dropped {place}", partial(read, with_texts(*shown[:place], *shown[place + 1 :]))
        yield f"twice {place}", partial(read, with_texts(*shown, shown[place]))
    yield "all dropped", partial(read, with_texts())
    for place, text in enumerate(hidden):
        yield f"withheld added {place}", partial(read, with_texts(*shown, text))
        yield f"withheld exchanged {place}", partial(read, with_texts(text, *shown[1:]))
    for place in range(len(shown) - 1):
        moved = [*shown[:place], shown[place + 1], shown[place], *shown[place + 2 :]]
        yield f"exchanged {place}", partial(read, with_texts(*moved))
    yield "reversed", partial(read, with_texts(*shown[::-1]))
    yield "of another audit added", partial(read, with_texts(*shown, other.shown[0]))
    yield "of another audit in its place", partial(read, with_texts(*other.shown))
    yield "own disclosure added", partial(read, with_texts(*shown, Disclosure.make({"part": "note"}).text))
    yield "other statement signed by the auditor", partial(read, "~".join((other.jwt, *shown, one.binding)))
    yield "an empty disclosure", partial(read, with_texts(*shown, ""))


def on_the_binding(one: Given, other: Given) -> Iterator[tuple[str, Attack]]:
    """Key bindings stripped, borrowed or made by somebody else; other keys and addressees."""
    shown, read, stranger = one.shown, one.read_release, one.keys.stranger
    bare = "~".join((one.jwt, *shown, ""))
    to_many = Desk(one.folder).release(MANY, one.keys.auditor).read_bytes().decode()
    to_alice = Desk(one.folder).release(FEW, one.keys.auditor, addressee="alice").read_bytes().decode()
    fresh = secrets.token_hex(16)
    yield "stripped", partial(read, bare)
    yield "no ~ at all", partial(read, one.jwt)
    yield "of the release to many", partial(read, bare + to_many.rpartition("~")[2])
    yield "of the release to many, read as theirs", partial(read, bare + to_many.rpartition("~")[2], audience=MANY)
    yield "of another audit", partial(read, bare + other.binding)
    yield "by a stranger", partial(read, one.presented(*shown, key=stranger))
    yield "by a stranger, fewer shown", partial(read, one.presented(*shown[1:], key=stranger))
    yield "the issuer's JWT in its place", partial(read, bare + one.jwt)
    yield "twice", partial(read, f"{one.release.decode()}~{one.binding}")
    yield "replayed to who asked for a nonce", partial(read, one.release, nonce=fresh)
    yield "for Alice, shown to Bob", partial(read, to_alice, audience=f"{FEW}:bob")
    yield "for Alice, shown to all", partial(read, to_alice)
    yield "for all, shown to Alice", partial(read, one.release, audience=f"{FEW}:alice")
    yield "for few, shown to many", partial(read, one.release, audience=MANY)
    yield "for many, shown to few", partial(read, to_many)
    yield "for an unknown audience", partial(read, one.presented(*shown, to="all"), audience="all")
    yield "with a stranger's key", partial(verify, one.release, public_of(stranger), audience=FEW)
    yield "by a stranger who claims the statement", partial(read, _presented_by(one, stranger))
    yield "without a signature", partial(read, _with_header(one, {"alg": "none"}, None))
    raw = _decoded(str(one.keys.public.as_dict(private=False)["x"]))
    yield "with the public key as a secret", partial(read, _with_header(one, {"alg": "HS256"}, raw))


def on_the_signer(one: Given, other: Given) -> Iterator[tuple[str, Attack]]:
    """By the auditor, against an own policy: more than it shows, and less."""
    shown, hidden, read = one.shown, one.hidden, one.read_release
    del other
    for place, text in enumerate(hidden):
        yield f"one more {place}", partial(read, one.presented(*shown, text))
    for place in range(len(shown)):
        yield f"one fewer {place}", partial(read, one.presented(*shown[:place], *shown[place + 1 :]))
    yield "one for another", partial(read, one.presented(*shown[1:], hidden[0]))
    yield "nothing", partial(read, one.presented())


def on_the_model(one: Given, other: Given) -> Iterator[tuple[str, Attack]]:
    """Folders that are nearly the model's."""
    del other
    changes: dict[str, Callable[[Path], object]] = {
        "a byte changed": lambda folder: (folder / "weights").write_text("weightz"),
        "a file added": lambda folder: (folder / "more").write_text(""),
        "a file removed": lambda folder: (folder / "weights").unlink(),
        "a file renamed": lambda folder: (folder / "weights").rename(folder / "weight"),
        "two names exchanged": lambda folder: [
            (folder / "config.json").write_text("weights"), (folder / "weights").write_text("config.json")
        ],
    }  # fmt: skip
    for number, (what, change) in enumerate(changes.items()):
        copy = one.folder / f"model-{number}"
        shutil.copytree(one.folder / "model", copy)
        change(copy)
        yield what, partial(check_model, one.verified, copy)
    yield "one file of it", partial(check_model, one.verified, one.folder / "model" / "weights")


def on_the_seal(one: Given, other: Given) -> Iterator[tuple[str, Attack]]:
    """Seals of something else, and seals made by hand: age knows no sender."""
    beside, keys = one.verified, one.keys
    many = [*one.shown, *(text for text in one.hidden if Disclosure.read(text).value["part"] == "effects")]

    def opened(data: bytes) -> object:
        return open_sealed(data, beside, keys.public, keys.identities)

    def by_hand(**changed: object) -> bytes:
        content = {"audit": beside.signed.jti, "to": MANY, "disclosures": many, **changed}
        return seal(canonical(content).encode(), keys.recipients)

    own = Disclosure.make({"part": "effects", "problem": "p", "value": []}).text
    yield "of another audit", partial(opened, other.sealed)
    yield "of another audit, under this one's name", partial(opened, by_hand(disclosures=other.shown))
    yield "with an item that was not committed to", partial(opened, by_hand(disclosures=[*many, own]))
    yield "with such an item for another", partial(opened, by_hand(disclosures=[*many[1:], own]))
    yield "with fewer items", partial(opened, by_hand(disclosures=many[1:]))
    yield "with more than its policy shows", partial(opened, by_hand(to=FEW))
    yield "with an item twice", partial(opened, by_hand(disclosures=[*many, many[0]]))
    yield "for nobody known", partial(opened, by_hand(to="all"))
    yield "with a key binding inside", partial(opened, by_hand(disclosures=[*many, one.binding]))
    yield "with something else inside", partial(opened, seal(b'{"audit":1}', keys.recipients))
    yield "with no JSON inside", partial(opened, seal(b"\xff", keys.recipients))


def on_the_ledger(one: Given, other: Given) -> Iterator[tuple[str, Attack]]:
    """Ledgers that are not the one that was signed, each with a chain that holds."""
    beside, folder = one.verified, one.folder

    def against(ledger: Path) -> object:
        with Ledger.read(ledger) as opened:
            return check_against(beside, opened)

    write_audit(folder / "verdict", _claims(one), verdict="not supported")
    write_audit(folder / "because", _claims(one), because="c")
    write_audit(folder / "more", _claims(one) + 1)
    _cut(one.ledger, folder / "cut", -1)
    yield "one verdict differs", partial(against, folder / "verdict" / "ledger")
    yield "one sentence differs", partial(against, folder / "because" / "ledger")
    yield "one claim more", partial(against, folder / "more" / "ledger")
    yield "cut by an entry", partial(against, folder / "cut")
    yield "of another audit", partial(against, other.ledger)


ATTACKS: dict[str, Callable[[Given, Given], Iterator[tuple[str, Attack]]]] = {
    "disclosures dropped, added, reordered, exchanged, given twice, or of another audit": on_what_is_shown,
    "key bindings stripped, borrowed, forged; replay; another key, audience or addressee; no signature": on_the_binding,
    "the signer shows one item more, or one fewer, than the recorded policy does": on_the_signer,
    "another model's folder: a byte, a file or a name differs": on_the_model,
    "seals of another audit, and seals made by hand with other items": on_the_seal,
    "another ledger with a whole chain: an outcome differs, a claim more, cut short": on_the_ledger,
}


def attack_rows(one: Given, other: Given) -> list[Row]:
    """A row for each kind of attack: every one refused with exactly `NotVerified`."""
    rows = []
    for what, attacks in ATTACKS.items():
        tried = {name: told(lambda _, attack=attack: attack(), b"") for name, attack in attacks(one, other)}
        wrong = [f"{name}: {came}" for name, came in tried.items() if came != NotVerified.__name__]
        found = f"{len(tried) - len(wrong)} of {len(tried)} refused"
        rows.append(Row(what, f"{found}{': ' + '; '.join(wrong[:3]) if wrong else ''}", bool(tried) and not wrong))
    return rows


# ── what is told by more than one file ──────────────────────────────────────────────────────────────────────────


def further_rows(one: Given) -> list[Row]:
    """What has another answer than a refusal of the release, each with what shows it."""
    return [grown(one), edited(one), swapped(one), *signed_anew(one)]


def grown(one: Given) -> Row:
    """A ledger that goes on is still the one that was signed."""
    longer = one.folder / "longer"
    shutil.copy(one.ledger, longer)
    with Ledger.open(longer) as ledger:
        ledger.append("end", "end", {"seconds": 1.0, "units": 0})
    with Ledger.read(longer) as ledger:
        total = check_against(one.verified, ledger)
    found = f"all {total} items found again before the signed head"
    return Row("the signed ledger, extended since", found, total == one.verified.signed.claims_total)


def edited(one: Given) -> Row:
    """A ledger's file in which bytes of an outcome were changed."""
    data = one.ledger.read_bytes()
    place = data.rindex(b'"because":"b"')
    other = one.folder / "edited"
    other.write_bytes(data[:place] + b'"because":"c"' + data[place + 13 :])
    with Ledger.read(other) as ledger:
        came = told(lambda _: check_against(one.verified, ledger), b"")
    return Row("the signed ledger, an outcome changed in the file", came, came == LedgerBroken.__name__)


def swapped(one: Given) -> Row:
    """Seals of one audit under each other's names, and one made after the signature."""
    desk, keys, beside = Desk(one.folder), one.keys, one.verified
    few = desk.seal(FEW, keys.recipients).read_bytes()
    opened = [open_sealed(data, beside, keys.public, keys.identities) for data in (one.sealed, few)]
    said = [(release.audience, None if named is None else named.to) for release, named in opened]
    found = "each says whom it is for, and the credential names only the one that was there when it was signed"
    return Row("seals of two audiences exchanged; a seal made later", found, said == [(MANY, MANY), (FEW, None)])


def signed_anew(one: Given) -> list[Row]:
    """The auditor signs another statement about the same ledger: nothing in it is wrong, so other files must tell."""
    findings = _findings(one.ledger)
    later = _shown_to(one, issue(findings, draft := Draft.of(findings), one.keys.auditor, prev=one.verified.credential),
                      draft, POLICIES[0])  # fmt: skip
    follows = one.read_release(later)
    rows = []
    for part in ("outcome", "effects"):
        changed = _changed(Draft.of(findings), part)
        jwt = issue(findings, changed, one.keys.auditor)
        few, many = (_shown_to(one, jwt, changed, policy) for policy in POLICIES)
        to_few, to_many = one.read_release(few), one.read_release(many, audience=MANY)
        by_few, by_many = (_against(release, one.ledger) for release in (to_few, to_many))
        before = [told(lambda data: check_previous(follows, data), data) for data in (one.release, few.encode())]
        withheld = part not in _SHOWN
        expected = ["accepted" if withheld else "NotVerified", "NotVerified", "accepted", "NotVerified"]
        holds = [by_few, by_many, *before] == expected and to_few.credential != one.verified.credential
        by = "the ledger beside an opened seal; beside this release it is not" if withheld else "the ledger"
        found = f"it verifies, being signed; shown by its digest, which no timestamp, prev or seal names, and by {by}"
        what = "withheld from the few" if withheld else "shown"
        rows.append(Row(f"signed again by the auditor, an item changed that is {what}", found, holds))
    return rows


# ── inside ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _findings(path: Path) -> Findings:
    with Ledger.read(path) as ledger:
        return read_findings(ledger)


def _against(release: Release, path: Path) -> str:
    with Ledger.read(path) as ledger:
        return told(lambda _: check_against(release, ledger), b"")


def _shown_to(one: Given, jwt: str, draft: Draft, policy: Policy) -> str:
    return one.presented(*(item.text for item in draft.for_audience(policy)), jwt=jwt, to=policy.name)


def _changed(draft: Draft, part: str) -> Draft:
    """The draft with another value in one item of a part."""
    place = next(place for place, one in enumerate(draft.disclosures) if one.value["part"] == part)
    item = draft.disclosures[place].value
    value = {**item["value"], "because": "c"} if part == "outcome" else [{**item["value"][0], "value": 0.75}]
    others = (*draft.disclosures[:place], *draft.disclosures[place + 1 :])
    made = (*others, Disclosure.make({**item, "value": value}))
    return replace(draft, disclosures=tuple(sorted(made, key=lambda one: one.digest)))


def _claims(one: Given) -> int:
    return len(_findings(one.ledger).claims)


def _cut(source: Path, target: Path, entries: int) -> None:
    """A ledger with its first entries alone: what a whole chain cut short looks like."""
    with Ledger.read(source) as ledger:
        kept = ledger.entries()[:entries]
    times = iter([datetime.fromisoformat(entry.at) for entry in kept])
    with Ledger.open(target, clock=lambda: next(times)) as ledger:
        ledger.extend([(entry.kind, entry.key, entry.body) for entry in kept])


def _presented_by(one: Given, key: OKPKey) -> str:
    """The same statement and items, signed and bound by somebody else, who names the auditor as the signer."""
    payload = json.loads(_decoded(one.jwt.split(".")[1]))
    forged = sdjwt.sign({**payload, "cnf": {"jwk": public_of(key).as_dict(private=False)}}, key, typ=TYPE)
    return one.presented(*one.shown, key=key, jwt=forged)


def _with_header(one: Given, header: dict[str, str], signature: bytes | None) -> str:
    """The release under another header; signed, if at all, by a MAC whose secret everybody knows."""
    signed = f"{_encoded(json.dumps({'typ': TYPE, **header}).encode())}.{one.jwt.split('.')[1]}"
    mac = b"" if signature is None else hmac.digest(signature, signed.encode(), "sha256")
    return one.presented(*one.shown, jwt=f"{signed}.{_encoded(mac)}")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def run(scale: float = 1.0) -> list[Row]:
    """At full scale every byte of three audits; below it that share of the places."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        keys = Keys.made(home)
        given = [Given.made(home / f"of-{claims}", keys, claims) for claims in SIZES]
        rows = bytes_rows(given, min(1.0, scale))
        other = Given.made(home / "other", keys, SIZES[1], because="d")
        return [*rows, *attack_rows(given[1], other), *further_rows(given[1])]
