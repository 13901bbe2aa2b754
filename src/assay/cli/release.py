"""``assay policy``, ``assay seal``, ``assay release``: what a run gives away, to whom, and what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli.options import Audience, Run
from assay.cli.terminal import out, show_rows

Key = Annotated[Path, typer.Option("--key", metavar="FILE.key", help="The auditor's signing key: assay keys new NAME.")]
Holder = Annotated[
    Path | None, typer.Option(metavar="FILE.key", help="The key that signs releases, where it is another one.")
]
To = Annotated[
    str, typer.Option("--to", metavar="POLICY", help="public, named-researchers, internal, or one of your own.")
]
Recipients = Annotated[
    list[str],
    typer.Option(
        "--recipient",
        metavar="KEY",
        help="age1… or ssh-… text, or a file of them. Two at least, one of them an escrow.",
    ),
]
Nonce = Annotated[str, typer.Option(help="What the addressee asked to find in the release; random unless given.")]
Previous = Annotated[
    Path | None, typer.Option("--prev", metavar="FILE", help="A release of the audit of this model before this one.")
]
Anew = Annotated[
    bool, typer.Option("--anew", help="Sign again a ledger that has grown; linked to what was signed before.")
]
Stamp = Annotated[
    str,
    typer.Option(
        "--timestamp", metavar="URL", help="Ask a time-stamping authority (RFC 3161) to witness the credential."
    ),
]


def policy(name: Annotated[str, typer.Argument(metavar="POLICY", help="A name, or a file: ours.toml.")] = "") -> None:
    """Say in plain words what a policy shows, what it withholds, and why. Without a name: all that come with Assay."""
    from assay.disclose import in_words, load_policy, shipped_policies

    console = out()
    for place, one in enumerate([load_policy(name)] if name else shipped_policies()):
        console.print(*[""] * bool(place), f"{one.name}: {one.says}", sep="\n")
        for heading, lines in in_words(one).items():
            console.print(f"  {heading}")
            show_rows(console, [("·", line) for line in lines or ["nothing"]], indent=4)


def seal(run: Run, to: To, recipients: Recipients) -> None:
    """Seal what a policy shows, for those who hold a key. Best before the first release, which then names the seal."""
    from assay.disclose import Desk
    from assay.disclose.keys import read_recipients

    known = read_recipients(recipients)
    path = Desk(run).seal(to, known)
    show_rows(out(), [("seal", str(path)), ("for", ", ".join(f"{one.text[:24]}…" for one in known))])


def release(
    run: Run,
    to: To,
    key: Key,
    addressee: Audience = "",
    release_key: Holder = None,
    nonce: Nonce = "",
    prev: Previous = None,
    anew: Anew = False,
    timestamp: Stamp = "",
) -> None:
    """Release what a policy shows, signed. The first release of a run signs all of it, and hides the rest."""
    from assay.disclose import Desk, verify
    from assay.disclose.keys import public_of, read_private

    secret = read_private(key)
    path = Desk(run).release(
        to,
        secret,
        holder=None if release_key is None else read_private(release_key),
        addressee=addressee,
        nonce=nonce,
        prev=prev,
        anew=anew,
    )
    audience = f"{to}:{addressee}" if addressee else to
    made = verify(path.read_bytes(), public_of(secret), audience=audience)
    rows = [
        ("release", str(path)),
        (
            "shows",
            f"{len(made.items)} of {made.signed.claims_total} items; {made.withheld} withheld by the policy {to!r}",
        ),
        ("seals", "; ".join(f"{one.to}, {one.recipients} recipients" for one in made.signed.seals) or "none"),
        ("check", f"assay verify {path} --key {key.with_suffix('.pub')} --to {audience}"),
    ]
    if timestamp:
        from assay.disclose.timestamp import fetch
        from assay.files import write_whole

        stamped = write_whole(path.with_suffix(".tsr"), fetch(timestamp, made.jwt.encode()))
        rows.insert(1, ("timestamp", str(stamped)))
    show_rows(out(), rows)
