"""From a run's folder to what is given away: seals first, then the signature, then releases.

``RUN/release/`` holds ``draft.json`` (items with their salts, until they are signed), ``credential`` (the signed statement
with every item: as secret as the ledger), ``signer.pub``, and for each audience ``NAME.assay`` (a release) and ``NAME.age`` (a seal). Salts
are made once: whatever is released later is shown, by the digests signed first, to be what was committed to.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc.jwk import OKPKey

from assay.disclose import sdjwt
from assay.disclose.credential import Draft, SealNamed, digest_of, issue, policy_of
from assay.disclose.keys import Recipients, public_of, read_public, thumbprint
from assay.disclose.sdjwt import Disclosure
from assay.disclose.seal import seal
from assay.disclose.verify import read_credential, verify
from assay.errors import BadData, CorruptFile
from assay.evidence import Findings, Ledger, Policy, canonical, of_bytes, read_findings
from assay.files import parse_json, read_bytes, write_whole

FOLDER, DRAFT, CREDENTIAL, SIGNER = "release", "draft.json", "credential", "signer.pub"
RELEASE, SEAL = ".assay", ".age"
MOST = 1 << 28
"""Bytes of the largest file that is read."""


@dataclass(frozen=True)
class Desk:
    """Where one run is released from.

    Attributes:
        folder: the run's folder, which holds ``ledger``.
    """

    folder: Path

    @property
    def home(self) -> Path:
        """``RUN/release``."""
        return self.folder / FOLDER

    def seal(self, to: str, recipients: Recipients) -> Path:
        """Seal what the policy ``to`` shows for its recipients, two at least, and give the file's path.

        Sealed before the signature, it is named in the credential; afterwards its contents are proved by their digests alone.

        Raises:
            PolicyTooLate: a policy that was not in the ledger before the first result.
            BadData: fewer than two recipients; a seal for that audience that is there already; a ledger that has grown.
        """
        path = self.home / f"{to}{SEAL}"
        if path.exists():
            raise BadData(f"there is a seal for {to!r} already", found=str(path), hint="give that one, or remove it")
        findings, signed = self._findings(), self._credential()
        draft, seals = self._draft(findings) if signed is None else (_drafted(signed), [])
        content = {"audit": draft.jti, "to": to, "disclosures": _texts(draft, policy_of(findings, to))}
        data = seal(canonical(content).encode(), recipients)
        if signed is None:
            named = SealNamed(to=to, sha256=of_bytes(data), size=len(data), recipients=len(recipients))
            self._keep(draft, findings, [*seals, named])
        return write_whole(path, data)

    def release(
        self,
        to: str,
        key: OKPKey,
        *,
        holder: OKPKey | None = None,
        addressee: str = "",
        nonce: str = "",
        prev: Path | None = None,
        anew: bool = False,
    ) -> Path:
        """Release what the policy ``to`` shows, and give the file's path. The first release signs the credential.

        Args:
            key: the auditor's private key.
            holder: the private key that signs releases; the auditor's own unless given at the first release.
            addressee: to whom of the audience, which goes into the signature: ``named-researchers:alice``.
            nonce: what the addressee asked to find in it, so that it cannot be an old one; random unless given.
            prev: an earlier credential or release about the same model, to which this one is linked.
            anew: sign again although the ledger has grown since; the new credential is linked to the old one.

        Raises:
            PolicyTooLate: a policy that was not in the ledger before the first result.
            BadData: a ledger that has grown since it was signed, or another key than the one that signed it.
        """
        public = public_of(key)
        signed = self._credential()
        if signed is not None and thumbprint(public) != thumbprint(self._signer()):
            raise BadData(
                "another key signed this run's credential",
                found=thumbprint(public),
                wanted=thumbprint(self._signer()),
                hint="release with the key that signed it",
            )
        before = None if prev is None else digest_of(read_bytes(prev, most=MOST).decode("ascii", "replace"))
        if signed is not None and anew:
            before = before or digest_of(signed.jwt)
            self.home.rename(self.home.with_name(f"{FOLDER}-{digest_of(signed.jwt)[:12]}"))
            signed = None
        findings = self._findings()
        policy = policy_of(findings, to)
        if signed is None:
            draft, seals = self._draft(findings)
            jwt = issue(findings, draft, key, holder=holder, seals=seals, prev=before)
            write_whole(self.home / SIGNER, canonical(public.as_dict(private=False)))
            write_whole(self.home / CREDENTIAL, sdjwt.present(jwt, draft.disclosures), mode=0o600)
            (self.home / DRAFT).unlink(missing_ok=True)
        else:
            draft, jwt = _drafted(signed), signed.jwt
        made_out = f"{to}:{addressee}" if addressee else to
        text = sdjwt.present(
            jwt,
            draft.for_audience(policy),
            holder=holder or key,
            audience=made_out,
            nonce=nonce or secrets.token_hex(16),
        )
        verify(text, public, audience=made_out)  # with another holder's key than the credential names, nobody could
        return write_whole(self.home / f"{to}{RELEASE}", text)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _findings(self) -> Findings:
        """What the ledger comes to, if it is the one that was drafted or signed."""
        with Ledger.read(self.folder / "ledger") as ledger:
            then, now = self._entries(), len(ledger.entries())
            if then not in (None, now):
                raise BadData(
                    "the ledger has grown since it was signed",
                    found=f"{then} entries then, {now} now",
                    hint="assay release --anew signs it again, and links the new credential to the old one",
                )
            return read_findings(ledger)

    def _entries(self) -> int | None:
        if (signed := self._credential()) is not None:
            return int(signed.signed["ledger"]["entries"])
        return int(self._read_draft()["entries"]) if (self.home / DRAFT).exists() else None

    def _signer(self) -> OKPKey:
        return read_public(self.home / SIGNER)

    def _credential(self) -> sdjwt.Verified | None:
        path = self.home / CREDENTIAL
        if not path.exists():
            return None
        return read_credential(read_bytes(path, most=MOST), self._signer())

    def _draft(self, findings: Findings) -> tuple[Draft, list[SealNamed]]:
        if not (self.home / DRAFT).exists():
            return Draft.of(findings), []
        said = self._read_draft()
        made = tuple(Disclosure.read(text) for text in said["disclosures"])
        return Draft(said["jti"], made), [SealNamed.model_validate(one) for one in said["seals"]]

    def _read_draft(self) -> dict[str, Any]:
        path = self.home / DRAFT
        try:
            said = parse_json(read_bytes(path, most=MOST).decode())
            return {name: said[name] for name in ("jti", "entries", "disclosures", "seals")}
        except (ValueError, KeyError, TypeError) as error:
            hint = "remove the folder and seal anew: nothing of it was signed"
            raise CorruptFile(f"{str(path)!r} is no draft", found=error, hint=hint) from None

    def _keep(self, draft: Draft, findings: Findings, seals: Iterable[SealNamed]) -> None:
        said = dict(
            jti=draft.jti,
            entries=len(findings.entries),
            disclosures=[one.text for one in draft.disclosures],
            seals=[one.model_dump() for one in seals],
        )
        write_whole(self.home / DRAFT, canonical(said), mode=0o600)


def _texts(draft: Draft, policy: Policy) -> list[str]:
    return [one.text for one in draft.for_audience(policy)]


def _drafted(signed: sdjwt.Verified) -> Draft:
    return Draft(str(signed.signed["jti"]), tuple(sorted(signed.disclosures, key=lambda one: one.digest)))
