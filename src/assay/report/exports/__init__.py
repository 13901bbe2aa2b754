"""A release in the forms that other tools read. Each is made of what a verified release shows, and names its SHA-256.

An export never sees a ledger, so what was withheld cannot be in it. It is for reading on: the release alone is signed by
the auditor as a whole. The same release gives the same bytes; the only time in them is that of the release.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from joserfc.jwk import OKPKey

from assay.disclose.verify import Release
from assay.errors import BadData, nearest
from assay.files import write_whole
from assay.report.exports import cyclonedx, hub, in_toto, inspect_log

__all__ = ["EXPORTS", "Export", "write_exports"]


@dataclass(frozen=True)
class Export:
    """One form.

    Attributes:
        file: where it goes, below the folder that is given.
        make: its bytes, from a release, the SHA-256 of the release's file, and a signing key or None.
        signed: whether it needs that key.
        says: what it is for, in one line.
    """

    file: str
    make: Callable[[Release, str, OKPKey | None], bytes]
    says: str
    signed: bool = False


EXPORTS: dict[str, Export] = {
    "inspect": Export(
        "audit.eval",
        lambda release, sha256, _: inspect_log.inspect_log(release, sha256),
        "a log for Inspect's viewer and tools",
    ),
    "in-toto": Export(
        "audit.intoto.json", in_toto.in_toto, "a signed attestation about the model's files", signed=True
    ),
    "cyclonedx": Export(
        "audit.cdx.json",
        lambda release, sha256, _: cyclonedx.cyclonedx(release, sha256),
        "a bill of materials with declarations",
    ),
    "hub": Export(
        ".eval_results/assay.yaml",
        lambda release, sha256, _: hub.eval_results(release, sha256),
        "results for a model's page on the Hugging Face Hub",
    ),
    "model-card": Export(
        "model-card.md", lambda release, sha256, _: hub.model_card(release, sha256), "a section for a model card"
    ),
}


def write_exports(
    release: Release,
    sha256: str,
    folder: str | Path,
    only: Collection[str] | None = None,
    *,
    key: OKPKey | None = None,
) -> list[Path]:
    """Write exports into a folder, each whole or not at all, and give their paths.

    Args:
        sha256: of the release's file.
        only: names in `EXPORTS`; unless given, all of them, without those that need a key where there is none.
        key: the auditor's private key, for exports that are signed.

    Raises:
        BadData: an export that there is not, one that needs a key where none is given, or the key of someone else;
            nothing is then written.
        Unwritable: the folder cannot be written.
    """
    wanted = (
        [name for name, one in EXPORTS.items() if key is not None or not one.signed] if only is None else list(only)
    )
    for name in wanted:
        if name not in EXPORTS:
            raise BadData(
                f"there is no export {name!r}", nearest=nearest(name, EXPORTS), hint=f"one of {', '.join(EXPORTS)}"
            )
    made = {EXPORTS[name].file: EXPORTS[name].make(release, sha256, key) for name in wanted}
    return [write_whole(Path(folder) / file, data) for file, data in made.items()]
