"""Exports say what a release shows, in each tool's own form, and nothing that it withholds."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.exceptions import InvalidSignature
from huggingface_hub import eval_result_entries_to_yaml, parse_eval_result_entries
from huggingface_hub.utils import validate_repo_id
from joserfc.jwk import OKPKey
from markdown_it import MarkdownIt

from assay.disclose import Desk, Release, shipped_policies, verify
from assay.disclose.items import cut
from assay.disclose.keys import public_of, thumbprint
from assay.errors import BadData, Unwritable
from assay.evidence import (
    Audit,
    Effect,
    End,
    Example,
    LayerFigure,
    Ledger,
    Note,
    Outcome,
    TableData,
    Unit,
    canonical,
    of_bytes,
    of_json,
    read_findings,
)
from assay.report.exports import EXPORTS, write_exports
from assay.report.exports.hub import model_card
from assay.report.exports.in_toto import pae
from tests.fixtures import audit_ledger as audit

KEY = OKPKey.generate_key("Ed25519")
HOLDER = OKPKey.generate_key("Ed25519")
MARKS = random.Random(7)


@dataclass(frozen=True)
class Made:
    """A release, its file's digest, and all of its exports by name, zips as the text of their members."""

    release: Release
    sha256: str
    exports: dict[str, bytes]

    @property
    def texts(self) -> dict[str, str]:
        return {name: text_of(data) for name, data in self.exports.items()}

    def json(self, name: str) -> Any:
        return json.loads(self.exports[name])

    def member(self, name: str) -> Any:
        return json.loads(zipfile.ZipFile(io.BytesIO(self.exports["inspect"])).read(name))


def text_of(data: bytes) -> str:
    """All that can be read in an export: a zip's names and members, an envelope's payload."""
    if data.startswith(b"PK"):
        archive = zipfile.ZipFile(io.BytesIO(data))
        return "\n".join(f"{name}\n{archive.read(name).decode()}" for name in archive.namelist())
    text = data.decode()
    return text + base64.b64decode(json.loads(text)["payload"]).decode() if '"payloadType"' in text else text


def made(folder: Path, to: str, **given: Any) -> Made:
    file = Desk(folder).release(to, KEY, **given)
    release = verify(file.read_bytes(), public_of(KEY), audience=to)
    sha256 = of_bytes(file.read_bytes())
    return Made(release, sha256, {name: one.make(release, sha256, KEY) for name, one in EXPORTS.items()})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    audit.write_audit(folder / "ledger")
    return folder


@pytest.fixture(scope="module")
def public(run: Path) -> Made:
    return made(run, "public")


@pytest.fixture(scope="module")
def researchers(run: Path, public: Made) -> Made:
    return made(run, "named-researchers")


def mark() -> str:
    """Text that nothing else holds."""
    return f"mark{MARKS.getrandbits(96):024x}"


def marked_ledger(path: Path) -> None:
    """An audit with a mark in every text and every number that some audience may not see."""

    def claim(key: str, **fields: Any) -> Any:
        return audit.make_claim(
            key, "represents", f"A claim {mark()}.", method=mark(), params={mark(): [mark(), MARKS.random()]}, **fields
        )

    def outcome(of: Any, **fields: Any) -> Outcome:
        effect = Effect(name=mark(), value=MARKS.random(), unit="", low=-1, high=2, level=0.95, n=9, chance=0)
        placed_too = [effect.model_copy(update=dict(name=f"layer 13 {mark()}", value=MARKS.random()))][of is open_one :]
        layers = LayerFigure(
            title=mark(), x_label="layer", caption=mark(),
            series=(audit.band(mark(), (0.0, 1.0), (MARKS.random(), MARKS.random()), 0.5),),
        )  # fmt: skip
        return Outcome(
            claim=of.digest,
            verdict="supported",
            **{"because": mark(), **fields},
            effects=(effect, *placed_too),
            where=(f"L18.resid @ {mark()}",),
            figures=(layers,),
            tables=(
                TableData(title=mark(), columns=("layer",), rows=((MARKS.random(),),)),
                TableData(title=mark(), columns=("topic",), rows=((MARKS.random(),),)),
            ),
            examples=(Example(prompt=mark(), natural=mark(), steered=mark()),),
            power=mark(),
        )

    open_one, placed = claim("open"), claim("placed")
    circuit, graded = claim("circuit", about="circuit"), claim("graded", grade="high")
    unsaid = claim("unsaid", refuted_by=f"L3.resid {mark()}")
    origin = audit.ORIGIN.model_copy(update=dict(seeds={mark(): 1}, more={"more": mark()}))
    asked = Audit(
        name="deception", problem="deception", question=f"Is it so {mark()}?", threats=audit.THREATS, auditor=mark()
    )
    bodies = [
        asked, *shipped_policies(), origin, Note(about="limits", text=mark()), Note(about="method", text=f"L7 {mark()}"),
        open_one, placed, circuit, graded, unsaid,
        Unit(address=of_json(mark()), measure="m", params={"x": mark()}, result={"y": mark()}),
        outcome(open_one), outcome(placed, because=f"At layer 5 {mark()}."),
        outcome(circuit), outcome(graded), outcome(unsaid), End(seconds=1, units=1),
    ]  # fmt: skip
    with Ledger.open(path, clock=audit.ticking()) as ledger:
        for body in bodies:
            ledger.record(body)


def leaves(value: object) -> Iterator[str]:
    """Every text and number that is like no other: marks, and floats of full length."""
    match value:
        case dict():
            for pair in value.items():
                for one in pair:
                    yield from leaves(one)
        case list():
            for one in value:
                yield from leaves(one)
        case str():
            yield from re.findall("mark[0-9a-f]{24}", value)
        case float() if len(repr(value)) > 12:
            yield repr(value)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marked")
    marked_ledger(folder / "ledger")
    return folder


# ── what is withheld ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("to", "most"), [("public", 90), ("named-researchers", 2), ("internal", 0)])
def test_nothing_that_is_withheld_is_in_an_export(marked: Path, to: str, most: int) -> None:
    out = made(marked, to)
    with Ledger.read(marked / "ledger") as ledger:
        items = cut(read_findings(ledger))
    shown = [item for item in items if item.shown_by(out.release.policy.policy)]
    known = {leaf for item in shown for leaf in leaves(item.value)}
    withheld = {leaf for item in items for leaf in leaves(item.value)} - known
    assert len(withheld) >= most
    for name, text in out.texts.items():
        assert [leaf for leaf in withheld if leaf in text] == [], name
    whole = {item.of for item in shown if item.part == "outcome"}
    told = {leaf for item in shown if item.of in whole for leaf in leaves(item.value)}
    assert len(told) >= 8, "and the search finds what is there:"
    assert [leaf for leaf in told if leaf not in out.texts["inspect"]] == []


def test_a_verdict_that_is_withheld_is_not_called_not_testable(public: Made, researchers: Made) -> None:
    assert "late-layers" not in [one.claim.key for one in public.release.findings.claims if one.outcome is not None]
    for out, verdict in ((public, "withheld"), (researchers, "supported")):
        assert out.member("samples/late-layers_epoch_1.json")["scores"]["verdict"]["value"] == verdict
        reasons = {one["predicate"]: one["reasoning"] for one in out.json("cyclonedx")["declarations"]["claims"]}
        assert reasons[audit.LATER.statement].startswith(verdict.capitalize())


def test_a_threat_whose_verdict_is_withheld_is_said_to_be(public: Made) -> None:
    items = tuple(item for item in public.release.items if item.part != "verdict")
    release = replace(public.release, items=items)
    texts = {name: text_of(one.make(release, public.sha256, KEY)) for name, one in EXPORTS.items()}
    assert texts["model-card"].count("**withheld**") == 3
    assert texts["in-toto"].count('"verdict": "withheld"') == 3


# ── every export ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_names_its_release_and_is_the_same_each_time(public: Made, name: str) -> None:
    assert public.sha256 in public.texts[name]
    assert EXPORTS[name].make(public.release, public.sha256, KEY) == public.exports[name]
    assert EXPORTS[name].make(public.release, "0" * 64, KEY) != public.exports[name]
    with pytest.raises(BadData, match="names its release by digest"):
        EXPORTS[name].make(public.release, public.sha256[:-1], KEY)


def test_a_folder_of_exports(public: Made, tmp_path: Path) -> None:
    paths = write_exports(public.release, public.sha256, tmp_path, key=KEY)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [one.file for one in EXPORTS.values()]
    assert {name: (tmp_path / one.file).read_bytes() for name, one in EXPORTS.items()} == public.exports


def test_what_is_signed_needs_the_key(public: Made, tmp_path: Path) -> None:
    paths = write_exports(public.release, public.sha256, tmp_path)
    assert len(paths) == len(EXPORTS) - 1
    assert not (tmp_path / EXPORTS["in-toto"].file).exists()
    for key, found in ((None, "there is no key"), (public_of(KEY), "private"), (HOLDER, "not the key that signed")):
        with pytest.raises(BadData, match=found):
            write_exports(public.release, public.sha256, tmp_path / "none", ["hub", "in-toto"], key=key)
    assert not (tmp_path / "none").exists(), "nothing is written where one of them cannot be"


def test_only_some_and_none_that_there_is_not(public: Made, tmp_path: Path) -> None:
    assert write_exports(public.release, public.sha256, tmp_path, ["hub"]) == [
        tmp_path / ".eval_results" / "assay.yaml"
    ]
    with pytest.raises(BadData, match="there is no export 'inspekt'") as caught:
        write_exports(public.release, public.sha256, tmp_path, ["inspekt"])
    assert caught.value.fields["nearest"].startswith("inspect")
    (tmp_path / "file").write_text("")
    with pytest.raises(Unwritable):
        write_exports(public.release, public.sha256, tmp_path / "file", ["hub"])


# ── Inspect ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_log_is_laid_out_as_inspect_reads_it(public: Made) -> None:
    archive = zipfile.ZipFile(io.BytesIO(public.exports["inspect"]))
    assert archive.testzip() is None
    assert {(info.compress_type, info.date_time) for info in archive.infolist()} == {
        (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))
    }
    header, summaries = public.member("header.json"), public.member("summaries.json")
    assert (header["version"], header["status"]) == (2, "success")
    ids = header["eval"]["dataset"]["sample_ids"]
    assert [one["id"] for one in summaries] == ids
    assert [name for name in archive.namelist() if name.startswith("samples/")] == [
        f"samples/{one}_epoch_1.json" for one in ids
    ]
    start = public.member("_journal/start.json")
    assert (start["eval"], start["plan"]) == (header["eval"], header["plan"])
    assert public.member("_journal/summaries/1.json") == summaries
    assert header["eval"]["viewer"]["trust_content"] is False
    assert "samples" not in header


def test_claims_are_samples_and_verdicts_scores(researchers: Made) -> None:
    for finding in researchers.release.findings.claims:
        sample = researchers.member(f"samples/{finding.claim.key}_epoch_1.json")
        score = sample["scores"]["verdict"]
        assert sample["input"] == finding.claim.statement
        assert score["value"] == finding.verdict
        assert score["explanation"].startswith(finding.because)
        assert sample["metadata"]["params"] == finding.claim.params
        effects = [] if finding.outcome is None else [effect.value for effect in finding.outcome.effects]
        assert [effect["value"] for effect in score["metadata"].get("effects", [])] == effects
    metrics = researchers.member("header.json")["results"]["scores"][0]["metrics"]
    assert {name: one["value"] for name, one in metrics.items()} == {
        "supported": 2, "not supported": 1, "not testable": 2,
    }  # fmt: skip


def test_a_key_that_is_no_name_of_a_file_gets_a_number(tmp_path: Path) -> None:
    keys = ["../../etc/passwd", "a/b", ".hidden", "<script>", "fine-key_1.2", "x" * 65]
    claims = [audit.make_claim(key, "represents", "It is so.", controls=()) for key in keys]
    with Ledger.open(tmp_path / "ledger", clock=audit.ticking()) as ledger:
        asked = Audit(name="a", problem="deception", question="Is it?", threats=audit.THREATS)
        for body in (asked, *shipped_policies(), audit.ORIGIN, *claims):
            ledger.record(body)
    out = made(tmp_path, "public")
    names = out.member("header.json")["eval"]["dataset"]["sample_ids"]
    assert sorted(name for name in names if not name.startswith("claim.")) == ["fine-key_1.2"]
    said = [out.member(f"samples/{name}_epoch_1.json")["metadata"]["key"] for name in names]
    assert sorted(said) == sorted(keys)


# ── in-toto ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_signed_is_encoded_as_dsse_says() -> None:
    vector = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"  # of the specification, protocol.md
    assert pae("http://example.com/HelloWorld", b"hello world") == vector
    assert pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 ", "lengths are of bytes"


def test_the_envelope_verifies_and_one_that_was_changed_does_not(public: Made) -> None:
    envelope = public.json("in-toto")
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    [signature] = envelope["signatures"]
    assert signature["keyid"] == thumbprint(KEY) == public.release.key
    payload, sig = base64.b64decode(envelope["payload"]), base64.b64decode(signature["sig"])
    KEY.public_key.verify(sig, pae(envelope["payloadType"], payload))
    with pytest.raises(InvalidSignature):
        KEY.public_key.verify(sig, pae(envelope["payloadType"], payload.replace(b"not supported", b"supported")))
    with pytest.raises(InvalidSignature):
        KEY.public_key.verify(sig, payload)


def test_the_statement_is_about_the_model_and_points_at_the_release(public: Made) -> None:
    said = json.loads(base64.b64decode(public.json("in-toto")["payload"]))
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://assay.invalid/attestation/audit-release/v1"
    digests = {one["name"]: one["digest"]["sha256"] for one in said["subject"]}
    origin = audit.ORIGIN
    assert set(digests.values()) == {of_json(origin.model_files), origin.fingerprint, *origin.model_files.values()}
    assert digests["model.safetensors"] == origin.model_files["model.safetensors"]
    predicate = said["predicate"]
    assert predicate["release"]["digest"] == {"sha256": public.sha256}
    assert predicate["credential"]["digest"] == {"sha256": public.release.credential}
    assert {one["key"]: one["verdict"] for one in predicate["threats"]} == {
        "represents": "supported", "moves": "not supported", "lies": "not testable",
    }  # fmt: skip
    assert predicate["items"] == {"shown": len(public.release.items), "total": public.release.signed.claims_total}


def test_a_model_that_is_withheld_leaves_what_is_said_in_the_clear(public: Made) -> None:
    items = tuple(item for item in public.release.items if item.part != "model")
    data = EXPORTS["in-toto"].make(replace(public.release, items=items), public.sha256, KEY)
    said = json.loads(base64.b64decode(json.loads(data)["payload"]))
    assert [one["digest"]["sha256"] for one in said["subject"]] == [
        of_json(audit.ORIGIN.model_files), audit.ORIGIN.fingerprint,
    ]  # fmt: skip


def test_the_key_that_signs_releases_may_sign_too(tmp_path: Path) -> None:
    audit.write_audit(tmp_path / "ledger")
    file = Desk(tmp_path).release("public", KEY, holder=HOLDER)
    release = verify(file.read_bytes(), public_of(KEY), audience="public")
    data = json.loads(EXPORTS["in-toto"].make(release, of_bytes(file.read_bytes()), HOLDER))
    assert data["signatures"][0]["keyid"] == thumbprint(HOLDER)


# ── CycloneDX ───────────────────────────────────────────────────────────────────────────────────────────────────


def refs(value: Any) -> Iterator[str]:
    match value:
        case dict():
            if "bom-ref" in value:
                yield value["bom-ref"]
            for one in value.values():
                yield from refs(one)
        case list():
            for one in value:
                yield from refs(one)


def test_the_bill_is_one_and_its_references_lead_somewhere(public: Made) -> None:
    said = public.json("cyclonedx")
    assert (said["bomFormat"], said["specVersion"]) == ("CycloneDX", "1.6")
    known = list(refs(said))
    assert len(known) == len(set(known))
    told = said["declarations"]
    used = [told["attestations"][0]["assessor"]]
    for one in told["claims"]:
        used += [one["target"], *one.get("evidence", []), *one.get("counterEvidence", [])]
    for one in told["attestations"][0]["map"]:
        used += [one["requirement"], *one["claims"]]
    assert set(used) <= set(known)
    assert said["metadata"]["component"]["type"] == "machine-learning-model"
    assert said["externalReferences"][0]["hashes"] == [{"alg": "SHA-256", "content": public.sha256}]


def test_evidence_is_on_the_side_that_the_verdict_says(researchers: Made) -> None:
    told = researchers.json("cyclonedx")["declarations"]
    sides = {one["predicate"]: ("evidence" in one, "counterEvidence" in one) for one in told["claims"]}
    assert sides[audit.DECODES.statement] == (True, False)
    assert sides[audit.CAUSES.statement] == (False, True)
    assert sides[audit.NEEDED.statement] == sides[audit.SAYS_FALSE.statement] == (False, False)
    measured = {one["description"].partition(":")[0]: one["data"][0]["contents"] for one in told["evidence"]}
    causes = json.loads(measured["causes"]["attachment"]["content"])
    assert causes["effects"][0]["value"] == audit.causes_outcome().effects[0].value
    assert causes["controls"][1]["values"] == list(audit.causes_outcome().controls[1].values)
    assert canonical(causes) == measured["causes"]["attachment"]["content"]


def test_no_number_says_whether_a_threat_is_met(public: Made) -> None:
    for one in public.json("cyclonedx")["declarations"]["attestations"][0]["map"]:
        assert one["conformance"].keys() == {"rationale"}


# ── the Hub ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_hub_s_library_reads_the_results(public: Made) -> None:
    said = yaml.safe_load(public.exports["hub"])
    entries = parse_eval_result_entries(said)
    assert eval_result_entries_to_yaml(entries) == said
    assert {one.task_id: one.value for one in entries} == {"represents": 0.843, "moves": 0.0172, "lies": 0.54}
    assert {one.date for one in entries} == {"2026-11-21"}
    for one in entries:
        validate_repo_id(one.dataset_id)
    assert "verdict: not supported." in entries[1].notes


def test_without_an_effect_there_is_no_result(public: Made) -> None:
    items = tuple(item for item in public.release.items if item.part != "effects")
    release = replace(public.release, items=items)
    assert yaml.safe_load(EXPORTS["hub"].make(release, public.sha256, None)) == []


def test_the_card_says_question_verdicts_limits_and_how_to_check(public: Made) -> None:
    text = public.exports["model-card"].decode()
    for verdict in ("**supported**", "**not supported**", "**not testable**"):
        assert text.count(verdict) == 1
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert rendered.count("<tr>") == 4
    assert "0.84 (95 % interval 0.79 to 0.89, 210 statements)" in rendered
    for said in (audit.THREATS[0].statement, "One model, one language", public.release.key, "--to public"):
        assert said in rendered


@pytest.mark.parametrize("bad", audit.ATTACKS)
def test_foreign_text_does_nothing_in_the_card(tmp_path: Path, bad: str) -> None:
    threats = tuple(
        threat.model_copy(update=dict(statement=f"{bad} {threat.statement}", key=f"{threat.key} {bad}"))
        for threat in audit.THREATS
    )
    claim = audit.make_claim("one", threats[0].key, bad, controls=())
    effect = Effect(name=bad, value=1, unit=bad, low=0, high=2, level=0.9, n=3, n_is=bad, chance=0)
    outcome = Outcome(claim=claim.digest, verdict="not supported", because=bad, effects=(effect,), power=bad)
    asked = Audit(name=bad, problem="deception", question=bad, threats=threats, auditor=bad)
    origin = audit.ORIGIN.model_copy(update=dict(model=bad, revision=bad))
    with Ledger.open(tmp_path / "ledger", clock=audit.ticking()) as ledger:
        for body in (asked, *shipped_policies(), origin, Note(about="limits", text=bad), claim, outcome):
            ledger.record(body)
    out = made(tmp_path, "public")
    text = out.exports["model-card"].decode()
    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(text)
    kinds = {one.type for token in tokens for one in [token, *(token.children or [])]}
    assert kinds.isdisjoint({"html_block", "html_inline", "image", "link_open", "fence"})
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h2", "h3", "h3"]
    assert sum(token.type == "tr_open" for token in tokens) == 1 + len(threats)
    assert parse_eval_result_entries(yaml.safe_load(out.exports["hub"]))[0].value == 1
    assert "\u202e" not in text + out.exports["hub"].decode()


def test_an_addressee_of_any_text_stays_outside_the_command(public: Made) -> None:
    text = model_card(replace(public.release, audience="public:` rm -rf ~ `"), public.sha256).decode()
    assert "rm -rf" not in text
    assert "--to AUDIENCE" in text
