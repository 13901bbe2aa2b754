"""Keys, seals, releases and their verification, as a stranger does it from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Assay
from tests.fixtures.released import Office, office

LABORATORY = (
    "torch", "transformers", "safetensors", "scipy", "sklearn", "pyarrow", "narwhals", "jaxtyping",
    "huggingface_hub", "gguf", "accelerate",
)  # fmt: skip


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    monkeypatch.chdir(tmp_path)
    return office(Path())


def test_from_keys_to_a_report(assay: Assay, at: Office) -> None:
    code, out, _ = assay("keys", "new", "mine")
    assert code == 0
    assert assay("keys", "show", "mine.key")[1].split() == assay("keys", "show", "mine.pub")[1].split()
    assert assay("keys", "show", "mine.pub")[1].split()[-1] in out
    assert assay("keys", "new", "mine")[0] == 2, "a key is never written over"
    assert "age1" in assay("keys", "recipient", "bob")[1]

    two = ("--recipient", "alice.recipient", "--recipient", "escrow.recipient")
    assert assay("seal", "run", "--to", "named-researchers", *two)[0] == 0
    code, out, _ = assay("release", "run", "--to", "public", "--key", "auditor.key")
    assert code == 0
    assert "assay verify run/release/public.assay --key auditor.pub --to public" in out
    assert "named-researchers, 2 recipients" in out

    checked = ("--against", "run", "--seal", "run/release/named-researchers.age", "--into", "read")
    code, out, _ = assay("verify", "run/release/public.assay", "--key", "auditor.pub", "--to", "public", *checked)
    assert code == 0
    for said in (
        "all that the policy shows",
        "represents  supported",
        "every item shown is one of run",
        "is the one for named-researchers",
    ):
        assert said in out, said
    assert (Path("read") / "report.html").is_file()

    beside = ("--release", "run/release/public.assay", "--key", "auditor.pub", "--to", "public")
    code, out, _ = assay("open", "run/release/named-researchers.age", *beside, "--identity", "alice.identity")
    assert code == 0
    assert "each committed to in the credential" in out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("release", "run", "--to", "press", "--key", "auditor.key"), "PolicyTooLate: the policy 'press'"),
        (("release", "run", "--to", "public", "--key", "auditor.pub"), "BadData"),
        (("seal", "run", "--to", "internal", "--recipient", "alice.recipient"), "BadData"),
        (("verify", "run/ledger", "--key", "auditor.pub", "--to", "public"), "NotVerified"),
        (("verify", "none", "--key", "auditor.pub", "--to", "public"), "CorruptFile"),
        (("policy", "publik"), "BadData: there is no policy"),
    ],
)
def test_what_is_wrong_is_one_error(assay: Assay, at: Office, arguments: tuple[str, ...], error: str) -> None:
    code, _, err = assay(*arguments)
    assert code == 2
    assert err.startswith(error)


def test_verifying_has_no_defaults(assay: Assay, at: Office) -> None:
    at.release()
    path = "run/release/public.assay"
    assert "--key" in assay("verify", path, "--to", "public")[2]
    assert "--to" in assay("verify", path, "--key", "auditor.pub")[2]
    assert assay("verify", path, "--key", "auditor.pub", "--to", "internal")[0] == 2


def test_policies_are_printed_in_plain_words(assay: Assay) -> None:
    code, out, _ = assay("policy")
    assert code == 0
    assert out.index("public: Anyone.") < out.index("named-researchers:") < out.index("internal:")
    assert "where a capability sits tells how to change it" in out


def test_a_reader_needs_no_laboratory(at: Office, tmp_path: Path) -> None:
    at.seal()
    at.release()
    code = f"import sys; sys.modules.update(dict.fromkeys({LABORATORY!r}, None)); from assay.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def reader(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
        )

    trusted = ("--key", "auditor.pub", "--to", "public")
    done = reader("verify", "run/release/public.assay", *trusted, "--against", "run", "--into", "read")
    assert (done.returncode, done.stderr) == (0, "")
    beside = ("--release", "run/release/public.assay", *trusted, "--identity", "alice.identity")
    assert reader("open", "run/release/named-researchers.age", *beside).returncode == 0
    missing = reader("sites")
    assert missing.returncode == 2
    assert missing.stderr.startswith("MissingExtra: this needs the laboratory")


def test_a_release_that_shows_no_threat_has_an_account_too(
    assay: Assay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assay.disclose import read_policy
    from assay.evidence import Audit, Ledger
    from tests.fixtures import audit_ledger as audit

    monkeypatch.chdir(tmp_path)
    at = office(Path(), ledger=False)
    few = read_policy(b'name = "few"\nsays = "Us."\n[[show]]\nparts = ["model"]')
    with Ledger.open(at.run / "ledger") as ledger:
        for body in (Audit(name="a", problem="p", question="q", threats=audit.THREATS), few, audit.ORIGIN):
            ledger.record(body)
    path = at.release("few")
    code, out, err = assay("verify", path, "--key", "auditor.pub", "--to", "few", "--into", "read")
    assert (code, err) == (0, "")
    assert "The question is withheld." in out
