"""Verifying a release: an account of who signed what, how much was shown and how much was not, never a bare yes.

Nothing has a default: the auditor's key and the audience are given by whoever verifies. What must hold: every check of
RFC 9901 §7.1 and §7.3; every item is one that the audience's policy shows, and there are as many as the auditor signed
that it shows, so that none was left out; the total is exact. A seal must be the one that was named, a ledger must
give exactly the items that were committed to, a model's files must be those that were audited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from joserfc.jwk import OKPKey

from assay.disclose import sdjwt
from assay.disclose.credential import TYPE, PolicyNamed, SealNamed, Signed, digest_of, item_of
from assay.disclose.items import ITEMS, Item, assemble, cut
from assay.disclose.keys import Identity, thumbprint
from assay.disclose.seal import open_seal
from assay.errors import AssayError, NotVerified
from assay.evidence import Findings, Record, canonical, of_bytes, of_folder, of_json, read_findings
from assay.files import parse_json

Made = TypeVar("Made")

HINT = "ask the auditor for the file again, over another way; do not use what it says"


@dataclass(frozen=True)
class Release:
    """A release that was verified.

    Attributes:
        signed: what the credential says in the clear.
        credential: SHA-256 of the credential: what a timestamp or a later credential refers to.
        key: thumbprint (RFC 7638) of the key that signed.
        audience: to whom it is made out.
        nonce: the release's own name, or what its addressee asked to find.
        released_at: when the release was signed, by the signer's clock.
        items: what is shown.
        policy: by which it is shown.
    """

    signed: Signed
    credential: str
    key: str
    audience: str
    nonce: str
    released_at: datetime
    items: tuple[Item, ...]
    policy: PolicyNamed
    jwt: str

    @property
    def withheld(self) -> int:
        """How many items are not shown."""
        return self.signed.claims_total - len(self.items)

    @property
    def signed_at(self) -> datetime:
        """When the credential was signed, by the signer's clock."""
        return datetime.fromtimestamp(self.signed.iat, UTC)

    @cached_property
    def findings(self) -> Findings:
        """What the shown items come to: what reports and exports are made of."""
        made = _contained(lambda: assemble(self.items, head=str(self.signed.ledger["head"])))
        return replace(made, policies=tuple(one.policy for one in self.signed.policies))


def verify(
    text: bytes | str, key: OKPKey, *, audience: str, nonce: str | None = None, now: float | None = None
) -> Release:
    """A release, if everything about it is right.

    Args:
        text: the release's bytes.
        key: the auditor's public key.
        audience: to whom it must be made out: the policy's name, and its addressee where there is one.
        nonce: what must be found in it, where one was asked for.
        now: the time to judge by, in seconds since 1970; this moment unless given.

    Raises:
        NotVerified: whatever is wrong with it.
    """
    found = sdjwt.verify(text, key, typ=TYPE, bound=True, audience=audience, nonce=nonce, now=now)
    signed = read_signed(found, key)
    assert found.binding is not None
    policy = signed.policy(audience.partition(":")[0])
    items = tuple(map(item_of, found.disclosures))
    refuse_unshown(items, policy)
    return Release(
        signed=signed,
        credential=digest_of(found.jwt),
        key=thumbprint(key),
        audience=audience,
        nonce=str(found.binding["nonce"]),
        released_at=datetime.fromtimestamp(found.binding["iat"], UTC),
        items=items,
        policy=policy,
        jwt=found.jwt,
    )


def read_credential(data: bytes, key: OKPKey) -> sdjwt.Verified:
    """The credential itself, with every item: what an auditor keeps. Raises `NotVerified`.

    Nothing signs the set of its items (RFC 9901, §9.10), so it is one that lacks none.
    """
    found = sdjwt.verify(data, key, typ=TYPE, bound=False)
    read_signed(found, key)
    if found.undisclosed:
        raise NotVerified(
            "the credential has lost items", found=f"{found.undisclosed} are missing", hint="bring back a copy of it"
        )
    return found


def read_signed(found: sdjwt.Verified, key: OKPKey) -> Signed:
    """What a credential says in the clear, if it is one of ours and its numbers agree. Raises `NotVerified`."""
    signed = _contained(lambda: Signed.model_validate(found.signed))
    digests = [element["..."] for element in signed.claims if set(element) == {"..."}]
    faults = {
        "it names another key as its signer's": not signed.iss.endswith(f":{thumbprint(key)}"),
        "its total is not the number of its items": not len(digests) == len(signed.claims) == signed.claims_total,
        "its items are in an order that could tell something": digests != sorted(digests),
        "an item hides others": len(found.disclosures) + found.undisclosed != signed.claims_total,
    }
    for fault, is_so in faults.items():
        if is_so:
            raise NotVerified("the credential contradicts itself", found=fault, hint=HINT)
    return signed


def refuse_unshown(items: Iterable[Item], policy: PolicyNamed) -> None:
    """Raise `NotVerified` unless the items are as many as a policy shows, and it shows each."""
    items = tuple(items)
    if any(not item.shown_by(policy.policy) for item in items):
        raise NotVerified(
            "an item is shown that its policy withholds", found=f"policy {policy.policy.name!r}", hint=HINT
        )
    if len(items) != policy.shows:
        raise NotVerified(
            "not everything is shown that the policy shows",
            found=f"{len(items)} items of {policy.shows}",
            hint="ask for the whole release: a part of it may say the opposite",
        )


def check_model(release: Release, folder: Path) -> None:
    """Raise `NotVerified` unless a folder (or file) holds the very files that were audited, by name and content."""
    files = {folder.name: of_bytes(folder.read_bytes())} if folder.is_file() else of_folder(folder)
    if of_json(files) != release.signed.model["files"]:
        raise NotVerified(
            "these are not the files of the model that was audited",
            found=f"manifest {of_json(files)[:16]}… of {len(files)} files",
            wanted=f"{str(release.signed.model['files'])[:16]}…",
            hint="give the folder as it was audited, at the same revision, with nothing added",
        )


def check_previous(release: Release, before: bytes) -> None:
    """Raise `NotVerified` unless the credential is linked to the one that this earlier file belongs to."""
    digest = digest_of(before.decode("ascii", "replace"))
    if release.signed.prev != digest:
        raise NotVerified(
            "the credential does not follow that one",
            found=f"linked to {release.signed.prev or 'none'}",
            wanted=digest,
            hint="ask the auditor for every audit of this model, in order",
        )


def check_against(release: Release, ledger: Record) -> int:
    """How many items the ledger gives. Every shown one is among them, and the numbers are those that were signed.

    Items that are withheld are compared by their number alone; they are proved when a seal or a wider release shows them.

    Raises:
        LedgerBroken: the ledger's chain does not verify.
        NotVerified: a ledger that does not hold the signed head, or that gives other items, policies or numbers.
    """
    head, entries = str(release.signed.ledger["head"]), int(release.signed.ledger["entries"])
    if release.signed.tool.get("items") != ITEMS:
        raise NotVerified(
            "the release was cut into items in another way than this version of Assay does it",
            found=f"items {release.signed.tool.get('items')}, made by Assay {release.signed.tool.get('assay')}",
            wanted=ITEMS,
            hint="compare it with that version",
        )
    findings = read_findings(ledger, until=entries)
    if findings.head != head:
        raise NotVerified(
            "this is not the ledger that was signed",
            found=f"head {findings.head[:16]}… at entry {entries}",
            wanted=f"{head[:16]}…",
            hint="give the ledger of that very run, complete",
        )
    all_items = cut(findings)
    shown = [item for item in all_items if item.shown_by(release.policy.policy)]
    numbers = tuple(
        PolicyNamed(policy=one, shows=sum(item.shown_by(one) for item in all_items)) for one in findings.policies
    )
    faults = {
        "another number of items": len(all_items) != release.signed.claims_total,
        "other policies, or policies that show another number": numbers != release.signed.policies,
        "other items": _bare(shown) != _bare(release.items),
    }
    for fault, is_so in faults.items():
        if is_so:
            raise NotVerified("the ledger does not say what was signed", found=fault, hint=HINT)
    return len(all_items)


def open_sealed(
    data: bytes, release: Release, key: OKPKey, identities: Sequence[Identity]
) -> tuple[Release, SealNamed | None]:
    """Open a seal: what it shows, each item checked against the digests that were signed, as a release to its audience.

    Besides, the seal as the credential names it; None where it was made after the signature.

    Raises:
        SealClosed: none of the keys opens it.
        NotVerified: damaged, of another audit, or with something in it that was not committed to.
    """
    content = open_seal(data, identities)
    try:
        said = parse_json(content.decode())
        audit, to, texts = str(said["audit"]), str(said["to"]), list(map(str, said["disclosures"]))
    except (ValueError, KeyError, TypeError):
        raise NotVerified("the seal holds no items of an audit", hint=HINT) from None
    if audit != release.signed.jti:
        raise NotVerified(
            "the seal is of another audit", found=f"{audit:.40}", wanted=release.signed.jti, hint="give its own release"
        )
    found = sdjwt.verify("~".join((release.jwt, *texts, "")), key, typ=TYPE, bound=False)
    policy, items = release.signed.policy(to), tuple(map(item_of, found.disclosures))
    refuse_unshown(items, policy)
    digest = of_bytes(data)
    named = next((one for one in release.signed.seals if one.sha256 == digest), None)
    return replace(release, items=items, policy=policy, audience=to), named


def _bare(items: Sequence[Item]) -> Counter[str]:
    """Items without their random names: those of one claim are known by its key instead."""
    keys = {
        item.of: f"claim {item.value['key']}" for item in items if item.part == "claim" and isinstance(item.value, dict)
    }
    told = []
    for item in items:
        value = item.value
        if item.part == "verdict" and isinstance(value, dict):
            value = {**value, "by": keys.get(str(value["by"]), "withheld") if value["by"] is not None else None}
        told.append(
            canonical([item.part, keys.get(item.of, ""), item.about, item.grade, item.places, item.place, value])
        )
    return Counter(told)


def _contained(make: Callable[[], Made]) -> Made:
    """What a signer of ours would not have signed is one error, like all else that is wrong with a file."""
    try:
        return make()
    except (AssayError, ValueError, KeyError, TypeError, AttributeError) as error:
        found = error.fields.get("found", error.what) if isinstance(error, AssayError) else error
        raise NotVerified("what was signed is no audit", found=f"{found!s:.120}", hint=HINT) from None
