"""The audit credential: one signed statement that commits to every item of an audit, and hides each until it is shown.

It is an SD-JWT (RFC 9901) signed with Ed25519. In the clear: who signs, which model, the problem class, every policy
with the number of items that it shows, the exact total, the ledger's head, digests of the seals, the digest of the credential
before it. Hidden: the items, each an array element behind a salted digest, the digests sorted, which shuffles them. A
release is the same statement with some items, bound by a second signature to its audience (SD-JWT+KB), so that none can
be dropped on the way (RFC 9901, §9.10).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from joserfc.jwk import OKPKey
from pydantic import Field, JsonValue
from typing_extensions import TypedDict  # pydantic reads that of typing from Python 3.12 on alone

from assay.disclose import sdjwt
from assay.disclose.items import ITEMS, Item, cut
from assay.disclose.keys import thumbprint
from assay.disclose.sdjwt import Disclosure
from assay.errors import BadData, NotVerified, PolicyTooLate, nearest
from assay.evidence import Findings, Policy, of_json, of_text
from assay.evidence.measured import Value
from assay.provenance import versions

TYPE = "assay-audit+sd-jwt"
_URN = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:"  # RFC 9278


class SealNamed(Value):
    """A seal as the credential names it: for which audience, of which digest and size, for how many recipients."""

    to: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int
    recipients: int = Field(ge=2)


class PolicyNamed(Value):
    """A policy, and how many items it shows."""

    policy: Policy
    shows: int = Field(ge=0)


class LedgerNamed(TypedDict):
    """The ledger: the digest of its last entry, and how many there are."""

    head: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    entries: Annotated[int, Field(ge=1)]


class ModelNamed(TypedDict):
    """The model: what it is called, and digests of it as loaded, of its files' manifest and of how prompts are written."""

    name: str
    revision: str | None
    fingerprint: str
    files: str
    prompt_format: str


class Signed(Value):
    """What the credential says in the clear; see the module."""

    iss: str
    iat: int = Field(ge=0)
    jti: str = Field(pattern="^[0-9a-f]{32}$")
    prev: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    model: ModelNamed
    problem: str
    tool: dict[str, str]
    policies: tuple[PolicyNamed, ...] = Field(min_length=1)
    claims_total: int = Field(ge=1)
    ledger: LedgerNamed
    seals: tuple[SealNamed, ...] = ()
    cnf: dict[str, JsonValue]
    sd_alg: str = Field(alias="_sd_alg", pattern="^sha-256$")
    claims: tuple[dict[str, str], ...]

    def policy(self, name: str) -> PolicyNamed:
        """The policy of a name. Raises `NotVerified` where it names none."""
        for one in self.policies:
            if one.policy.name == name:
                return one
        raise NotVerified(
            f"the credential knows no audience {name!r}",
            nearest=nearest(name, [one.policy.name for one in self.policies]),
            hint="give the audience that the release is made out to",
        )


@dataclass(frozen=True)
class Draft:
    """Items with their salts, before they are signed: what a seal may already hold.

    Attributes:
        jti: a random name, which seals carry.
        findings: what the items were cut from.
        disclosures: every item behind its salt, sorted by digest.
    """

    jti: str
    disclosures: tuple[Disclosure, ...]

    @classmethod
    def of(cls, findings: Findings) -> Draft:
        """Cut the findings, and salt every item afresh (128 bit). Raises `PolicyTooLate` without a policy."""
        if not findings.policies:
            raise PolicyTooLate(
                "no policy was in the ledger before the first result",
                hint="what may be released is decided before there is anything to see: run the audit anew, in a folder of its own",
            )
        made = [Disclosure.make(item.model_dump(mode="json", exclude_defaults=True)) for item in cut(findings)]
        return cls(secrets.token_hex(16), tuple(sorted(made, key=lambda one: one.digest)))

    def for_audience(self, policy: Policy) -> tuple[Disclosure, ...]:
        """The disclosures of the items that a policy shows."""
        return tuple(one for one in self.disclosures if item_of(one).shown_by(policy))


def item_of(disclosure: Disclosure) -> Item:
    """The item of a disclosure. Raises `NotVerified` where it is none."""
    try:
        return Item.model_validate(disclosure.value)
    except BadData as error:
        raise NotVerified(
            "a disclosure is no item of an audit", found=error.fields.get("found"), hint="ask whoever signed it"
        ) from None


def policy_of(findings: Findings, name: str) -> Policy:
    """The policy that was recorded before the first result. Raises `PolicyTooLate` where it was not."""
    for policy in findings.policies:
        if policy.name == name:
            return policy
    known = [policy.name for policy in findings.policies]
    raise PolicyTooLate(
        f"the policy {name!r} was not in the ledger before the first result",
        hint=f"give it when the audit begins, --policy FILE; this run can be released by {', '.join(known) or 'none'}",
        nearest=nearest(name, known),
    )


def issue(
    findings: Findings,
    draft: Draft,
    key: OKPKey,
    *,
    holder: OKPKey | None = None,
    seals: Sequence[SealNamed] = (),
    prev: str | None = None,
    clock: Callable[[], float] = time.time,
) -> str:
    """Sign a draft: the issuer-signed JWT.

    Args:
        findings: what the draft was made of.
        key: the auditor's private Ed25519 key.
        holder: the key whose owner may make releases; the auditor's own unless given.
        seals: seals made of the draft, which the credential names.
        prev: SHA-256 of the credential before it, of the same model.

    Raises:
        BadData: findings without provenance, which say of no model.
    """
    origin = findings.origin
    if origin is None:
        raise BadData("a ledger without provenance says of no model", hint="run the audit to its end")
    model = {"name": origin.model, "revision": origin.revision, "fingerprint": origin.fingerprint}
    signed = Signed(
        iss=_URN + thumbprint(key),
        iat=int(clock()),
        jti=draft.jti,
        prev=prev,
        model={**model, "files": of_json(origin.model_files), "prompt_format": of_json(origin.prompt_format)},
        problem=findings.audit.problem,
        tool={"items": ITEMS, **{name: said for name, said in versions().items() if name in ("assay", "python")}},
        policies=tuple(
            PolicyNamed(policy=policy, shows=len(draft.for_audience(policy))) for policy in findings.policies
        ),
        claims_total=len(draft.disclosures),
        ledger={"head": findings.head, "entries": len(findings.entries)},
        seals=tuple(seals),
        cnf={"jwk": (holder or key).as_dict(private=False)},
        _sd_alg="sha-256",
        claims=tuple({"...": one.digest} for one in draft.disclosures),
    )
    return sdjwt.sign(signed.model_dump(mode="json", by_alias=True), key, typ=TYPE)


def digest_of(jwt: str) -> str:
    """What a credential is known by: SHA-256 of the issuer-signed JWT, without disclosures."""
    return of_text(jwt.partition("~")[0])
