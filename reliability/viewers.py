"""Exports, read by the tools that they are for: Inspect and its viewer, in-toto's and CycloneDX's own checkers, the Hub's.

Each tool has an environment of its own in ``reliability/.envs``, made at the first run (about 200 MB, from PyPI): Inspect's
dependencies exclude Assay's. ``python -m reliability.viewers`` prints the table and leaves screenshots beside them.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import eval_result_entries_to_yaml, parse_eval_result_entries
from joserfc.jwk import OKPKey

from assay.disclose import Desk, Release, shipped_policies, verify
from assay.disclose.keys import public_of
from assay.evidence import (
    Audit,
    Control,
    Effect,
    Example,
    Ledger,
    Note,
    Origin,
    Outcome,
    SideEffect,
    TableData,
    Threat,
    of_file,
    of_text,
)
from assay.report.exports import write_exports
from assay.report.words import visible
from reliability import Row
from tests.fixtures import audit_ledger as audit

ENVS = Path(__file__).with_name(".envs")
INSPECT = ("inspect-ai==0.3.285",)
FORMATS = (
    "cyclonedx-python-lib[json-validation]==11.12.0",
    "securesystemslib[crypto]==1.6.0",
    "in-toto-attestation==0.9.3",
)
AUDIENCE = "named-researchers"
BAD = " ".join(audit.ATTACKS)

READ = """
import json, sys
from inspect_ai.log import read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries
log = read_eval_log(sys.argv[1])
told = {
    "status": log.status, "version": log.version, "model": log.eval.model, "metadata": log.eval.metadata,
    "samples": {sample.id: [sample.input, sample.scores["verdict"].value] for sample in log.samples},
    "summaries": {one.id: [one.input, one.scores["verdict"].value] for one in read_eval_log_sample_summaries(sys.argv[1])},
    "single": {s.id: read_eval_log_sample(sys.argv[1], s.id, 1).scores["verdict"].value for s in log.samples},
    "metrics": {name: metric.value for name, metric in log.results.scores[0].metrics.items()},
}
print(json.dumps(told))
"""
ENVELOPE = """
import json, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from google.protobuf import json_format
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey
file, name, public = sys.argv[1:]
key = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)), keyid=name)
envelope = Envelope.from_dict(json.load(open(file)))
envelope.verify([key], 1)
refused = 0
for place in range(len(envelope.payload)):
    body = bytearray(envelope.payload)
    body[place] ^= 1
    try:
        Envelope(bytes(body), envelope.payload_type, envelope.signatures).verify([key], 1)
    except VerificationError:
        refused += 1
said = json_format.Parse(envelope.payload, statement_pb2.Statement())
Statement.copy_from_pb(said).validate()
print(json.dumps({"refused": refused, "of": len(envelope.payload), "type": said.predicate_type, "subjects": len(said.subject)}))
"""
BILL = """
import json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
told = {}
for version in (SchemaVersion.V1_6, SchemaVersion.V1_7):
    bill = json.load(open(sys.argv[1]))
    bill["specVersion"] = version.to_version()
    bill["$schema"] = f"http://cyclonedx.org/schema/bom-{version.to_version()}.schema.json"
    check = JsonStrictValidator(version).validate_str
    fault = check(json.dumps(bill))
    bill["declarations"]["claims"][0]["verdict"] = "supported"  # no member of a claim there
    told[version.to_version()] = [str(fault) if fault else "", check(json.dumps(bill)) is not None]
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Made:
    """A release with its exports."""

    release: Release
    folder: Path
    key: OKPKey


def run(scale: float = 1.0) -> list[Row]:
    """What each tool made of the exports of a release, and of one in which every text is an attack."""
    inspect = environment("inspect", INSPECT)
    formats = environment("formats", FORMATS)
    with tempfile.TemporaryDirectory() as folder:
        audit.write_audit(Path(folder) / "good" / "ledger")
        hostile_ledger(Path(folder) / "bad" / "ledger")
        good, bad = (exported(Path(folder) / name) for name in ("good", "bad"))
        return [
            *(read_back(inspect, made, what) for made, what in ((good, "a log"), (bad, "a hostile log"))),
            *viewed(inspect, good, bad),
            *(in_envelope(formats, made) for made in (good, bad)),
            *(bill(formats, made) for made in (good, bad)),
            *(results(made) for made in (good, bad)),
        ]


def environment(name: str, wanted: tuple[str, ...]) -> Path:
    """The Python of an environment of its own, made where it is not there."""
    folder = ENVS / name
    python, ready = folder / "bin" / "python", folder / "has.txt"
    if not ready.exists() or ready.read_text() != "\n".join(wanted):
        if not python.exists():
            venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", *wanted]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
        ready.write_text("\n".join(wanted))
    return python


def exported(folder: Path) -> Made:
    """Everything that can be made of the run in a folder, for researchers who are known by name."""
    key = OKPKey.generate_key("Ed25519")
    file = Desk(folder).release(AUDIENCE, key)
    release = verify(file.read_bytes(), public_of(key), audience=AUDIENCE)
    write_exports(release, of_file(file), folder / "exports", key=key)
    return Made(release, folder / "exports", key)


def hostile_ledger(path: Path, bad: str = BAD) -> None:
    """A small audit in which every text is ``bad``."""
    effect = Effect(name=bad, value=1, unit=bad, low=0, high=2, level=0.9, n=3, n_is=bad, chance=0)
    claim = audit.make_claim(
        bad, bad, bad, method=bad, controls=(bad,), refuted_by=bad, measure=bad, params={bad: [bad]}
    )
    outcome = Outcome(
        claim=claim.digest,
        verdict="not supported",
        because=bad,
        where=(bad,),
        effects=(effect,),
        controls=(Control(name=bad, values=(0.0, 0.1), p=0.5, note=bad),),
        side_effects=(SideEffect(name=bad, value=1, unit=bad),),
        power=bad,
        tables=(TableData(title=bad, columns=(bad,), rows=((bad,),), caption=bad),),
        not_looked_at=(bad,),
        examples=(Example(prompt=bad, natural=bad, steered=bad),),
    )
    threat = Threat(key=bad, statement=bad, scope=bad, benign=bad)
    asked = Audit(name=bad, problem="deception", question=bad, threats=(threat,), auditor=bad, access=bad)
    files = {bad: of_text("weights"), "config.json": of_text("config")}
    origin = Origin(model=bad, revision=bad, fingerprint=bad, model_files=files, data={bad: bad}, more={bad: [bad]})
    with Ledger.open(path, clock=audit.ticking()) as ledger:
        for body in (asked, *shipped_policies(), origin, Note(about="limits", text=bad), claim, outcome):
            ledger.record(body)
        said = ledger.latest("outcome", claim.digest)
        ledger.correct(said, outcome.model_copy(update=dict(p=0.5)), author=bad, reason=bad)


# ── Inspect ─────────────────────────────────────────────────────────────────────────────────────────────────────


def read_back(python: Path, made: Made, what: str) -> Row:
    """What Inspect's own reader finds: the claims and verdicts of the release, the same three ways."""
    told = _said(python, READ, made.folder / "audit.eval")
    verdicts = sorted((one.claim.statement, one.verdict) for one in made.release.findings.claims)
    held = [
        sorted(map(tuple, told["samples"].values())) == verdicts,
        told["samples"].keys() == told["summaries"].keys() == told["single"].keys(),
        all(told["samples"][name][1] == verdict for name, verdict in told["single"].items()),
        told["status"] == "success",
        told["model"] == visible(str(made.release.signed.model["name"])),
        sum(told["metrics"].values()) == len(verdicts),
        len(told["metadata"]["release_sha256"]) == 64,
    ]
    return Row(
        f"Inspect 0.3.285 reads {what}", f"{len(told['samples'])} claims, {sum(held)} of {len(held)} checks", all(held)
    )


def viewed(python: Path, good: Made, bad: Made) -> list[Row]:
    """What the viewer shows in a browser, what it asks for elsewhere, and whether foreign text does anything."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        return [Row("Inspect's viewer", "no chromium is installed: apt-get install chromium", holds=False)]
    rows = []
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=[*flags, "--disable-component-update"])
        for name, made in (("a log", good), ("a hostile log", bad)):
            with viewer(python, made.folder) as address:
                tab = browser.new_page(viewport=dict(width=1400, height=1000))
                faults: list[str] = []
                tab.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
                tab.on("dialog", lambda dialog, faults=faults: (faults.append(dialog.message), dialog.dismiss()))
                tab.on("request", lambda sent, faults=faults, own=address: _note(sent.url, own, faults))
                deciding = made.release.findings.claims[-1]
                where = f"{address}/#/logs/audit.eval"
                tab.goto(where)
                tab.get_by_text(deciding.verdict).first.wait_for(timeout=60_000)
                seen = [_holds_text(tab.inner_text("body"), deciding.claim.statement)]
                tab.screenshot(path=ENVS / f"viewer-{'list' if made is good else 'hostile'}.png")
                sample = "claim.1" if made is bad else deciding.claim.key
                tab.goto(f"{where}/samples/sample/{sample}/1/scoring")
                tab.get_by_text("Explanation").first.wait_for(timeout=60_000)
                page = tab.inner_text("body")
                seen += [_holds_text(page, deciding.because), deciding.verdict in page, "\u202e" not in page]
                tab.screenshot(path=ENVS / f"viewer-{'claim' if made is good else 'hostile-claim'}.png")
                tab.goto(f"{where}/info")
                tab.get_by_text("release_sha256").first.wait_for(timeout=60_000)
                seen.append(of_file(made.folder.parent / "release" / f"{AUDIENCE}.assay") in tab.inner_text("body"))
                tab.close()
            found = f"{sum(seen)} of {len(seen)} checks of the page; {len(faults)} errors, dialogs, outside requests"
            rows.append(Row(f"Inspect's viewer shows {name}", found, all(seen) and not faults))
        browser.close()
    return rows


def _note(url: str, own: str, faults: list[str]) -> None:
    if not url.startswith((own, "data:", "blob:")):
        faults.append(url)


def _holds_text(page: str, text: str) -> bool:
    """Whether the page has the text's first words, however it breaks lines."""
    return " ".join(text.split())[:40] in " ".join(page.split())


@contextmanager
def viewer(python: Path, folder: Path) -> Iterator[str]:
    """``inspect view`` on a free port of this machine, with a home of its own; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python.parent / "inspect"), "view", "start", "--log-dir", str(folder), "--port", str(port)]
    home = folder / "home"
    home.mkdir(exist_ok=True)
    path = f"{python.parent}:/usr/bin:/bin"
    serving = subprocess.Popen(
        command, env={"HOME": str(home), "PATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                time.sleep(0.25)
        yield address
    finally:
        serving.terminate()
        serving.wait(timeout=20)


# ── the others ──────────────────────────────────────────────────────────────────────────────────────────────────


def in_envelope(python: Path, made: Made) -> Row:
    """Whether securesystemslib verifies the envelope, and refuses it with any bit of its payload turned."""
    public = made.key.public_key.public_bytes_raw().hex()
    told = _said(python, ENVELOPE, made.folder / "audit.intoto.json", made.release.key, public)
    found = (
        f"verified, {told['subjects']} subjects; refused with a bit turned: {told['refused']} of {told['of']} places"
    )
    return Row(
        "securesystemslib 1.6.0 and in-toto-attestation 0.9.3 on the attestation", found, told["refused"] == told["of"]
    )


def bill(python: Path, made: Made) -> Row:
    """Whether CycloneDX's own schemas take the bill, and refuse it with a member that a claim does not have."""
    told = _said(python, BILL, made.folder / "audit.cdx.json")
    faults = [f"{version}: {fault:.200}" for version, (fault, _) in told.items() if fault]
    blind = [version for version, (_, refused) in told.items() if not refused]
    found = f"valid under {', '.join(told)}" if not faults else faults[0]
    return Row("cyclonedx-python-lib 11.12.0, strict JSON schema, on the bill", found, not faults and not blind)


def results(made: Made) -> Row:
    """Whether the Hub's own library reads the results, and would write the same."""
    said = yaml.safe_load((made.folder / ".eval_results" / "assay.yaml").read_text(encoding="utf-8"))
    entries = parse_eval_result_entries(said)
    return Row(
        "huggingface_hub on .eval_results",
        f"{len(entries)} entries",
        bool(entries) and eval_result_entries_to_yaml(entries) == said,
    )


def _said(python: Path, code: str, *arguments: object) -> Any:
    command = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    for row in run():
        sys.stdout.write(f"{'yes' if row.holds else 'NO':>4}  {row.what}: {row.found}\n")
