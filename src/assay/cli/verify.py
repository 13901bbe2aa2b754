"""``assay verify`` and ``assay open``: what anybody can do with a release, without the run and without its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.terminal import Row, out, show_checks

if TYPE_CHECKING:
    from joserfc.jwk import OKPKey

    from assay.disclose import Release

File = Annotated[Path, typer.Argument(metavar="FILE.assay", help="The release.")]
Key = Annotated[
    Path, typer.Option("--key", metavar="FILE.pub", help="The auditor's public key, from where you trust it.")
]
To = Annotated[
    str, typer.Option("--to", metavar="AUDIENCE", help="To whom it must be made out: public, named-researchers:alice.")
]
Nonce = Annotated[str | None, typer.Option(help="What you asked to find in it, so that it cannot be an old one.")]
Against = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="A run's folder or ledger: are these the claims that were committed to?"),
]
ModelFiles = Annotated[
    Path | None,
    typer.Option("--model", metavar="FOLDER", help="A model's folder or file: is it the one that was audited?"),
]
Seals = Annotated[
    list[Path] | None,
    typer.Option("--seal", metavar="FILE.age", help="A seal: is it one that was named? May be repeated."),
]
Previous = Annotated[
    Path | None, typer.Option("--prev", metavar="FILE.assay", help="An earlier release: does this one follow it?")
]
Stamp = Annotated[Path | None, typer.Option("--timestamp", metavar="FILE.tsr", help="A timestamp of the credential.")]
Roots = Annotated[list[Path] | None, typer.Option("--root", metavar="FILE.pem", help="A root certificate for it.")]
Into = Annotated[Path | None, typer.Option("--into", metavar="FOLDER", help="Write a report and all exports there.")]
Identity = Annotated[
    list[Path], typer.Option("--identity", metavar="FILE", help="What opens seals: an age identity or an OpenSSH key.")
]
SealFile = Annotated[Path, typer.Argument(metavar="FILE.age", help="The seal.")]
Beside = Annotated[Path, typer.Option("--release", metavar="FILE.assay", help="A release of the same audit.")]


def verify(
    file: File,
    key: Key,
    to: To,
    nonce: Nonce = None,
    against: Against = None,
    model: ModelFiles = None,
    seals: Seals = None,
    prev: Previous = None,
    timestamp: Stamp = None,
    roots: Roots = None,
    into: Into = None,
) -> None:
    """Check a release, and give an account: who signed, what is shown, how much is withheld, what else was found.

    Nothing is assumed: the auditor's key and the audience are yours to give.
    """
    from assay.disclose import check_against, check_model, check_previous
    from assay.disclose.release import MOST
    from assay.files import read_bytes

    release = _verified(file, key, to, nonce)
    rows = _account(release)
    if model is not None:
        check_model(release, model)
        rows.append(Row(True, "files", f"{model} holds the files that were audited"))
    for seal in seals or []:
        rows.append(_seal(release, seal))
    if prev is not None:
        check_previous(release, read_bytes(prev, most=MOST))
        rows.append(Row(True, "follows", f"the audit of {prev}"))
    if timestamp is not None:
        rows.append(_stamped(release, timestamp, roots or []))
    if against is not None:
        from assay.evidence import Ledger

        with Ledger.read(against / "ledger" if against.is_dir() else against) as ledger:
            total = check_against(release, ledger)
        rows.append(
            Row(
                True,
                "against",
                f"every item shown is one of {against}; so are the total of {total}, the policies, and what each shows",
            )
        )
    show_checks(out(), rows)
    _verdicts(release)
    if into is not None:
        _written(release, file, into)


def open_(seal: SealFile, release: Beside, key: Key, to: To, identities: Identity, into: Into = None) -> None:
    """Open a seal, and check everything in it against what the auditor signed."""
    from assay.disclose import open_sealed
    from assay.disclose.keys import read_identity
    from assay.disclose.release import MOST
    from assay.files import read_bytes

    beside = _verified(release, key, to, None)
    data = read_bytes(seal, most=MOST)
    opened, named = open_sealed(data, beside, _key(key), [read_identity(path) for path in identities])
    told = f"{len(opened.items)} items for {opened.audience}, each committed to in the credential"
    by = f"named in it: {named.sha256}" if named else "made after the credential, which does not name it"
    show_checks(out(), [*_account(beside), Row(True, "opened", told), Row(True, "seal", by)])
    _verdicts(opened)
    if into is not None:
        _written(opened, seal, into)


def _key(path: Path) -> OKPKey:
    from assay.disclose.keys import read_public

    return read_public(path)


def _verified(file: Path, key: Path, to: str, nonce: str | None) -> Release:
    from assay.disclose import verify as verified
    from assay.disclose.release import MOST
    from assay.files import read_bytes

    public = _key(key)
    return verified(read_bytes(file, most=MOST), public, audience=to, nonce=nonce)


def _account(release: Release) -> list[Row]:
    signed, model = release.signed, release.signed.model
    seals = [f"{one.to} for {one.recipients} recipients, sha256 {one.sha256[:16]}…" for one in signed.seals]
    told = {
        "signed": f"by {release.key}, {release.signed_at:%Y-%m-%d %H:%M} UTC by its own clock",
        "released": f"to {release.audience}, {release.released_at:%Y-%m-%d %H:%M} UTC, as {release.nonce}",
        "model": f"{model['name']}, fingerprint {str(model['fingerprint'])[:16]}…",
        "policy": f"{release.policy.policy.name}, recorded before the first result, sha256 {release.policy.policy.digest[:16]}…",
        "shown": f"{len(release.items)} of {signed.claims_total} items: all that the policy shows",
        "withheld": f"{release.withheld} items",
        "sealed": "; ".join(seals) or "nothing",
        "ledger": f"head {signed.ledger['head']} of {signed.ledger['entries']} entries",
        "before it": f"credential {signed.prev[:16]}…" if signed.prev else "no earlier audit is named",
    }
    return [Row(True, what, found) for what, found in told.items()]


def _seal(release: Release, path: Path) -> Row:
    from assay.errors import NotVerified
    from assay.evidence import of_file

    digest = of_file(path)
    named = next((one for one in release.signed.seals if one.sha256 == digest), None)
    if named is None:
        raise NotVerified(
            f"{str(path)!r} is no seal that the credential names",
            found=digest,
            wanted=", ".join(one.sha256 for one in release.signed.seals) or "no seal at all",
            hint="a seal made after the signature is proved by opening it: assay open",
        )
    return Row(True, "seal", f"{path} is the one for {named.to}")


def _stamped(release: Release, path: Path, roots: list[Path]) -> Row:
    from assay.disclose.timestamp import check
    from assay.files import read_bytes

    pems = [read_bytes(root, most=1 << 20) for root in roots]
    at = check(read_bytes(path, most=1 << 20), release.jwt.encode(), pems)
    return Row(True, "timestamp", f"the credential was there at {at:%Y-%m-%d %H:%M:%S} UTC, says an authority")


def _verdicts(release: Release) -> None:
    from assay.cli.verdicts import show_verdicts

    show_verdicts(out(), release.findings)


def _written(release: Release, file: Path, into: Path) -> None:
    from assay.evidence import of_file
    from assay.report import write_reports
    from assay.report.exports import write_exports

    paths = [*write_reports(release.findings, into, release), *write_exports(release, of_file(file), into)]
    out().print("\n" + "\n".join(map(str, paths)))
