"""The report says what the ledger says, to people, and lets no foreign text act."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from assay.cli import check
from assay.disclose import Desk, Policy, Release, verify
from assay.disclose.items import assemble, cut
from assay.disclose.keys import new_recipient, new_signing_key, read_private, read_public, read_recipients
from assay.disclose.policy import load_policy
from assay.errors import BadData, LedgerBroken, Unwritable
from assay.evidence import (
    Audit,
    BarFigure,
    Control,
    DoseFigure,
    Effect,
    Example,
    Grant,
    LayerFigure,
    Ledger,
    Note,
    NullFigure,
    Origin,
    Outcome,
    SideEffect,
    TableData,
    Threat,
    Unit,
    of_text,
    read_findings,
)
from assay.report import figure_svg, render_html, render_markdown, write_reports
from assay.report.figures import figure_table
from assay.report.html import CHECK
from assay.report.intervals import controls_behind, interval_svg
from assay.report.markdown import fenced, plain
from assay.report.words import cells, number, p_value, sized, visible
from tests.fixtures import audit_ledger as audit

FIGURES = [
    figure
    for outcome in (audit.decodes_outcome(), audit.causes_outcome(), audit.says_false_outcome())
    for figure in outcome.figures
]
INLINE = {"a", "b", "code", "i", "small", "span", "strong", "svg"}
VOID = {"meta", "link", "br", "path", "circle", "use", "img", "input", "hr"}


class Seen(HTMLParser):
    """Every tag and attribute of a page, and its text outside style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in INLINE:
            self.text += " "
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes what is not open"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ledger = tmp_path_factory.mktemp("run") / "ledger"
    audit.write_audit(ledger)
    return ledger


@pytest.fixture(scope="module")
def page(path: Path) -> str:
    with Ledger.read(path) as ledger:
        return render_html(read_findings(ledger))


@pytest.fixture(scope="module")
def markdown(path: Path) -> str:
    with Ledger.read(path) as ledger:
        return render_markdown(read_findings(ledger))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger in which every text is an attack."""
    path = tmp_path_factory.mktemp("hostile") / "ledger"
    bad = " ".join(audit.ATTACKS)
    effect = Effect(name=bad, value=1, unit=bad, low=0, high=2, level=0.9, n=3, n_is=bad, chance=0)
    control = Control(name=bad, values=(0.0, 0.1), p=0.5, note=bad)
    words = dict(title=bad, x_label=bad, y_label=bad, caption=bad)
    line = audit.band(bad, (0.0, 1.0), (0.0, 1.0), 0.1)
    bars = dict(labels=(bad, "b"), values=(1, 2), lows=(0, 1), highs=(2, 3), chance=1)
    claim = audit.make_claim(
        bad, bad, bad, method=bad, controls=(bad, "not run " + bad), refuted_by=bad, measure=bad, params={bad: [bad]}
    )
    outcome = Outcome(
        claim=claim.digest,
        verdict="not supported",
        because=bad,
        effects=(effect,),
        controls=(control,),
        side_effects=(SideEffect(name=bad, value=1, unit=bad),),
        power=bad,
        figures=(
            NullFigure(**words, observed=1, controls=(control,)),
            DoseFigure(**words, series=(line, line)),
            LayerFigure(**words, series=(line,), chance=0.5),
            BarFigure(**words, **bars),
        ),
        tables=(TableData(title=bad, columns=(bad,), rows=((bad,),), caption=bad),),
        not_looked_at=(bad,),
        examples=(Example(prompt=bad, natural=bad, steered=bad),),
    )
    threat = Threat(key=bad, statement=bad, scope=bad, benign=bad)
    origin = Origin(model=bad, revision=bad, fingerprint=bad, data={bad: bad}, more={bad: {bad: [bad, 1, None]}})
    with Ledger.open(path, clock=audit.ticking()) as ledger:
        for body in (Audit(name=bad, problem=bad, question=bad, threats=(threat,), auditor=bad, access=bad), origin):
            ledger.record(body)
        for about in ("method", "data", "limits"):
            ledger.record(Note(about=about, text=bad))
        parts = ("question", "threat", "verdict", "model", "note", "claim", "outcome", "effects", "controls", "figure")
        why = dict.fromkeys(("examples", "results", "places"), bad)
        ledger.record(Policy(name="hostile", says=bad, show=(Grant(parts=parts),), why=why))
        ledger.append(bad, bad, bad)
        for body in (claim, outcome):
            ledger.record(body)
        said = ledger.latest("outcome", claim.digest)
        ledger.correct(said, outcome.model_copy(update=dict(p=0.5)), author=bad, reason=bad)
    return path


def releases(ledger: Path, home: Path, to: str, addressee: str = "", *, seal: bool = False) -> Release:
    """A signed release of a ledger, verified; made in a folder of its own."""
    home.mkdir()
    (home / "ledger").write_bytes(ledger.read_bytes())
    key, public = new_signing_key(home / "auditor")
    desk = Desk(home)
    if seal:
        desk.seal("named-researchers", read_recipients([new_recipient(home / name)[1] for name in "ab"]))
    file = desk.release(to, read_private(key), addressee=addressee)
    audience = f"{to}:{addressee}" if addressee else to
    return verify(file.read_bytes(), read_public(public), audience=audience)


def amended(path: Path, *policies: Policy, **changes: object) -> Path:
    """The fixture's ledger up to its second outcome, with other policies or another first outcome."""
    with Ledger.open(path) as ledger:
        asked = Audit(name="deception", problem="deception", question="Does it?", threats=audit.THREATS)
        outcome = audit.decodes_outcome().model_copy(update=changes)
        for body in (asked, audit.ORIGIN, audit.DECODES, audit.CAUSES, *policies, outcome, audit.causes_outcome()):
            ledger.record(body)
    return path


@pytest.fixture(scope="module")
def public(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return releases(path, tmp_path_factory.mktemp("release") / "public", "public", seal=True)


# ── what it says ────────────────────────────────────────────────────────────────────────────────────────────────


def test_threats_get_the_verdict_that_their_confirmatory_claims_give(path: Path):
    with Ledger.read(path) as ledger:
        page = read_findings(ledger)
    assert [view.verdict for view in page.threats] == ["supported", "not supported", "not testable"]
    assert [view.deciding.claim.key for view in page.threats] == ["decodes", "causes", "says-false"]
    assert page.threats[1].effect.name == "slope of P(true)"
    assert [view.standing for view in page.threats[0].claims] == ["confirmatory", "exploratory"]
    needed = page.threats[1].claims[1]
    assert (needed.verdict, needed.outcome) == ("not testable", None)
    assert "memory ended" in needed.because
    assert page.first_result == 13
    assert [(run.kind, run.first, run.last) for run in page.runs][:5] == [
        ("audit", 1, 1), ("provenance", 2, 2), ("note", 3, 5), ("claim", 6, 9), ("policy", 10, 12)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        (("supported", "supported"), "supported"),
        (("supported", "not supported"), "not supported"),
        (("not testable", "not supported"), "not supported"),
        (("supported", "not testable"), "not testable"),
        (("supported", None), "no outcome yet"),
        (("not supported", None), "no outcome yet"),
        ((), "not testable"),
    ],
)
def test_a_threat_is_supported_only_if_every_confirmatory_claim_is(tmp_path: Path, words, verdict):
    claims = [audit.make_claim(f"claim {place}", "moves", f"statement {place}") for place in range(len(words))]
    late = audit.make_claim("late", "moves", "found on the way")
    effect = Effect(name="e", value=1, unit="", low=0, high=2, level=0.95, n=10)
    outcomes = [
        Outcome(claim=claim.digest, verdict=word, because="so it came out", effects=(effect,))
        for claim, word in zip(claims, words, strict=True)
        if word is not None
    ]
    with Ledger.open(tmp_path / "ledger") as ledger:
        ledger.record(Audit(name="a", problem="p", question="q", threats=audit.THREATS[1:2]))
        for body in (*claims, Unit(address="u", measure="m", result=1), *outcomes, late):
            ledger.record(body)
        opposite = "supported" if verdict != "supported" else "not supported"
        ledger.record(Outcome(claim=late.digest, verdict=opposite, because="b", effects=(effect,)))
        assert read_findings(ledger).threats[0].verdict == verdict
        assert verdict.capitalize() in render_html(read_findings(ledger))


def test_the_page_answers_for_people_first(page: str):
    text = " ".join(Seen(page).text.split())
    for said in (
        "Does SmolLM2-135M-Instruct say what it holds to be false?",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "12fd25f77366",
        of_text("weights")[:12],
        "2026-11-21",
        "Not supported That inner mark of truth moves what it answers. Answers move by 0.02 per unit of dose",
        "0.017 per dose slope of P(true) 95 % interval −0.006 to 0.041, no effect would be 0, 160 questions",
        "Power. A slope of 0.05 per dose would have been seen 9 times in 10",
        "confirmatory p 0.38 at α 0.05",
        "What would have refuted it A slope that 5 % of covariance-matched random directions reach.",
        "Not looked at Doses above 4, where neutral text falls apart.",
        "covariance-matched 64 0.00 −0.08 to 0.08 0.38",
        "KL on neutral text, dose 4 0.31 0.27 to 0.36 nats per token",
        "The best benign explanation It tracks how common a phrase is",
        "There is no outcome: the machine's memory ended",
        "Corrected by R. Reviewer: the sentence was wrong by a factor of ten.",
        "First said: supported. Layers 20 to 29 read 20 points better than 10 to 19.",
        "The first result is entry 13",
        "Where L18.resid @ last: ",
        "In grey: 144 draws of random, covariance-matched, shuffled labels",
        "Who audited the project's own tests",
        "public: Anyone.",
        "Corrections Entry 42 (outcome), by R. Reviewer: the sentence was wrong by a factor of ten.",
        "Review by others Not stated.",
        "One model, one language, one size",
        "assay check RUN",
        "1.1 × 10⁻⁵",
        of_text("truth"),
    ):
        assert said in text, said
    assert text.index("Verdicts") < text.index("Threat model 1 of 3") < text.index("Provenance", 3000)


def test_markdown_says_the_same(page: str, markdown: str):
    for said in (
        "# Does SmolLM2-135M-Instruct say what it holds to be false?",
        "| That inner mark of truth moves what it answers. | **not supported** | Answers move by 0.02",
        "slope of P(true) 0.017 per dose (95 % interval −0.006 to 0.041, 160 questions)",
        "**Supported**, exploratory. Layers 20 to 29 read 2 points better than 10 to 19.",
        "- not looked at: Several layers at once.",
        "- where: L18.resid @ last",
        "- Review by others: Not stated.",
        "| covariance-matched | 64 | 0.00 | −0.08 to 0.08 | 0.38 |  |",
        "| honest | 0.54 | 0.46 | 0.62 |",
        "assay check RUN",
        of_text("truth"),
    ):
        assert said in markdown, said
    head = re.search(r"`([0-9a-f]{64})`\n\nWith the ledger", markdown)[1]
    assert head in page


def test_a_control_that_was_promised_and_not_run_is_named(tmp_path: Path):
    outcome = audit.causes_outcome()
    with Ledger.open(tmp_path / "ledger") as ledger:
        ledger.record(Audit(name="a", problem="p", question="q", threats=audit.THREATS))
        ledger.record(audit.CAUSES)
        ledger.record(outcome.model_copy(update=dict(controls=outcome.controls[:1])))
        for text in (Seen(render_html(read_findings(ledger))).text, render_markdown(read_findings(ledger))):
            assert re.search(r"named beforehand and (are )?not reported: covariance-matched; shuffled labels", text)


@pytest.mark.parametrize("until", [1, 2, 5, 8, 9, 12, 21, 31, 39])
def test_an_audit_that_was_killed_anywhere_has_an_interim_report(tmp_path: Path, until: int):
    audit.write_audit(tmp_path / "ledger", until=until)
    with Ledger.read(tmp_path / "ledger") as ledger:
        for text in (Seen(render_html(read_findings(ledger))).text, render_markdown(read_findings(ledger))):
            assert "has not ended" in text


def test_a_withdrawn_outcome_supports_nothing(tmp_path: Path):
    with Ledger.open(tmp_path / "ledger") as ledger:
        for body in (Audit(name="a", problem="p", question="q", threats=audit.THREATS[:1]), audit.DECODES):
            ledger.record(body)
        said = ledger.record(audit.decodes_outcome())
        ledger.correct(said, None, author="A. Auditor", reason="the wrong data were read")
        view = read_findings(ledger).threats[0]
        assert (view.verdict, view.effect) == ("not testable", None)
        assert "the wrong data were read" in Seen(render_html(read_findings(ledger))).text


def test_a_ledger_without_an_audit_and_a_broken_one_have_no_report(tmp_path: Path):
    with Ledger.open(tmp_path / "empty") as ledger, pytest.raises(BadData, match="without an audit"):
        render_html(read_findings(ledger))
    audit.write_audit(tmp_path / "ledger")
    with Ledger.open(tmp_path / "ledger") as ledger:
        write_reports(read_findings(ledger), tmp_path)
        before = (tmp_path / "report.html").read_bytes()
        ledger._database.execute("DROP TRIGGER no_update")
        ledger._database.execute("UPDATE entry SET body = replace(body, 'not supported', 'supported') WHERE seq = 30")
        with pytest.raises(LedgerBroken, match="entry 30"):
            write_reports(read_findings(ledger), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before


def test_reports_are_written_whole_or_not_at_all(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with Ledger.read(path) as ledger:
        assert write_reports(read_findings(ledger), tmp_path / "new") == (
            tmp_path / "new" / "report.html",
            tmp_path / "new" / "report.md",
        )
        (tmp_path / "new" / "report.html").write_text("earlier")
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(Unwritable, match="cannot write"):
            write_reports(read_findings(ledger), tmp_path / "new")
        assert (tmp_path / "new" / "report.html").read_text() == "earlier"
        assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["report.html", "report.md"]
        with pytest.raises(Unwritable):
            write_reports(read_findings(ledger), path / "under a file")


def test_the_same_ledger_gives_the_same_bytes(path: Path, page: str, markdown: str):
    program = (
        "import sys; from assay.evidence import Ledger, read_findings; from assay.report import render_html, render_markdown\n"
        "with Ledger.read(sys.argv[1]) as ledger:\n"
        "    sys.stdout.buffer.write((render_html(read_findings(ledger)) + render_markdown(read_findings(ledger))).encode())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    again = subprocess.run([sys.executable, "-c", program, path], capture_output=True, check=True, env=environment)
    assert again.stdout.decode() == page + markdown


def test_the_chain_can_be_checked_by_what_the_page_prints(path: Path, page: str):
    assert CHECK in Seen(page).text
    with Ledger.read(path) as ledger:
        head = ledger.head
    done = subprocess.run(
        [sys.executable, "-I", "-c", CHECK], cwd=path.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == head


# ── a release ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_release_says_what_it_is_and_what_it_does_not_show(public: Release):
    page = " ".join(Seen(render_html(public.findings, public)).text.split())
    markdown = render_markdown(public.findings, public)
    for said in (
        "This is a release to “public”",
        "33 of 71 items",
        "Anyone.",
        public.key,
        "prompts with the model's natural and steered text; rows, transcripts and trigger words – steered text can be harmful",
        "assay verify FILE --key AUDITOR.pub --to public",
        "What came out is withheld.",
        "Whether a claim was recorded before the first result is signed",
        public.credential,
    ):
        assert said in page, said
        assert said in markdown.replace("**", ""), said
    for said in (
        "38 are withheld",
        "Sealed beside it, for other eyes named-researchers (2 recipients)",
        "withheld exploratory The reading is sharpest in the last third of the layers.",
        "Withheld, or never there: side effects, examples of its text, places inside the model, corrections.",
        "In grey: 144 draws of random",
        "KL on neutral text, dose 4 0.31",
        "settings withheld, or none",
    ):
        assert said in page, said
    for text in (page, markdown):
        for other in (
            "L18", "layer 18", "layer 22", "assay check", "hashlib", "Every entry", "Interim", "not reported",
            "Nile", "factor of ten", '"draws"', "None were made",
        ):  # fmt: skip
            assert other not in text, other
        assert not re.search(r"entry \d", text)


def test_a_release_of_everything_withholds_nothing(path: Path, tmp_path: Path):
    release = releases(path, tmp_path / "internal", "internal", "alice o'hara")
    page = " ".join(Seen(render_html(release.findings, release)).text.split())
    assert "71 of 71 items of the audit are shown: nothing is withheld." in page
    assert "supported exploratory p 0.02 at α 0.05 The reading is sharpest" in page
    assert "Where L18.resid @ last: " in page
    assert "--to 'internal:alice o'\"'\"'hara'" in page
    assert "Withheld" not in page.partition("What the words mean")[2].replace("withheld There may be a verdict", "")


def test_where_claims_or_threats_are_withheld_nothing_stands_in_for_them(tmp_path: Path):
    bare = Policy(name="bare", says="The board.", show=(Grant(parts=("question", "threat", "verdict")),))
    blind = Policy(name="blind", says="Nobody.", show=(Grant(parts=("model",)),))
    claims = Policy(name="claims", says="The desk.", show=(Grant(parts=("threat", "claim", "outcome")),))
    ledger = amended(tmp_path / "ledger", bare, blind, claims)

    def told(to: str) -> str:
        release = releases(ledger, tmp_path / to, to)
        assert "withheld" in render_markdown(release.findings, release)
        return " ".join(Seen(render_html(release.findings, release)).text.split())

    page = told("bare")
    assert (
        "Supported The model holds, inside, whether a statement is true. The claim that decides it is withheld." in page
    )
    assert "No claim about it is shown: withheld, or none was recorded." in page
    assert "Power claim verdict" not in page
    assert "Withheld or not stated." in page
    page = told("blind")
    assert "The question is withheld." in page
    assert "No threat model is shown: they are withheld." in page
    assert "SmolLM2-135M" in page
    assert "Interim" not in page, "whether it had ended is withheld with the question"
    page = told("claims")
    assert "Withheld The model holds, inside, whether a statement is true. Its verdict is withheld." in page
    assert "supported confirmatory p 0.002 at α 0.05 Truth can be read" in page
    assert "The controls named beforehand were: random; covariance-matched; shuffled labels." in page
    assert "not reported" not in page, "controls that are withheld are not missing"


def test_what_is_withheld_leaves_no_trace_but_the_total(tmp_path: Path):
    layers = FIGURES[1]
    more = dict(
        figures=(FIGURES[0], layers, layers, layers),
        where=("L3.resid", "L4.resid"),
        examples=(Example(prompt="a", natural="b", steered="c"),),
    )
    policy, pages = load_policy("public"), []
    for name, changes in (("few", dict(figures=(FIGURES[0],), where=())), ("many", more)):
        release = releases(amended(tmp_path / name, policy, **changes), tmp_path / f"{name}-run", "public")
        pages.append(
            re.sub(
                rf"[0-9a-f]{{12,}}|{release.key}|2\d{{3}}-\d\d-\d\d \d\d:\d\d|of {release.signed.claims_total} items|"
                rf"{release.withheld} (are )?withheld",
                "…",
                render_html(release.findings, release) + render_markdown(release.findings, release),
            )
        )
    assert pages[0] == pages[1]


def test_findings_of_items_alone_are_a_part_of_an_audit(path: Path):
    with Ledger.read(path) as ledger:
        items = [item for item in cut(read_findings(ledger)) if item.shown_by(load_policy("public"))]
    findings = assemble(items, head="0" * 64)
    for text in (Seen(render_html(findings)).text, render_markdown(findings)):
        assert "This is a part of an audit" in text
        assert "assay verify FILE --key AUDITOR.pub --to AUDIENCE" in text


def test_the_page_is_shown_in_the_browser_where_asked(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    check.report(path)
    assert shown == []
    check.report(path.parent, show=True)
    assert shown == [(path.parent / "report.html").as_uri()]
    assert str(path.parent / "report.html") in capsys.readouterr().out


# ── the record needs no laboratory ──────────────────────────────────────────────────────────────────────────────


def test_the_record_needs_no_torch(path: Path):
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'safetensors'), None))\n"
        "from assay.evidence import Ledger, read_findings; from assay.report import render_html, render_markdown\n"
        "with Ledger.read(sys.argv[1]) as ledger: print(len(render_html(read_findings(ledger))) + len(render_markdown(read_findings(ledger))))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, check=True, env=environment)
    assert int(done.stdout) > 100_000


# ── hostile text ────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_attack_becomes_markup(hostile: Path, page: str, tmp_path: Path):
    with Ledger.read(hostile) as ledger:
        attacked = Seen(render_html(read_findings(ledger)))
    release = releases(hostile, tmp_path / "release", "hostile")
    box = Seen(render_html(release.findings, release))
    attacked.tags, attacked.attributes = attacked.tags + box.tags, attacked.attributes + box.attributes
    assert not re.search("[\u202e\u200b\u0007]", box.text)
    allowed = {*Seen(page).tags, "aside"}
    assert not allowed & {"script", "img", "iframe", "object", "embed", "form", "input", "base", "foreignobject"}
    assert set(attacked.tags) <= allowed
    assert attacked.open == []
    names = {name for name, _ in attacked.attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"src", "srcset", "action"}
    targets = {value for name, value in attacked.attributes if name in ("href", "xlink:href")}
    assert all(target.startswith("#") or target == "data:," for target in targets)
    for attack in audit.ATTACKS:
        assert visible(attack) in attacked.text, "shown as it came"
    assert not re.search("[\u202e\u200b\u0007]", attacked.text)


@pytest.mark.parametrize("of", ["ledger", "release"])
def test_the_page_asks_for_nothing_and_says_so(page: str, public: Release, of: str):
    page = page if of == "ledger" else render_html(public.findings, public)
    seen = Seen(page)
    policy = next(value for _, value in seen.attributes if value and "default-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert not re.search(r"url\(|@import|expression|</", style)
    ids = [value for name, value in seen.attributes if name == "id"]
    assert len(ids) == len(set(ids)), "no two elements share an id"
    referred = {value[1:] for name, value in seen.attributes if name in ("href", "xlink:href") and value[0] == "#"}
    referred |= set(re.findall(r"url\(#([^)]+)\)", page))
    labelled = {part for name, value in seen.attributes if name == "aria-labelledby" for part in value.split()}
    assert referred | labelled <= set(ids)
    assert seen.tags.count("h1") == 1


def test_no_attack_becomes_markdown(hostile: Path, tmp_path: Path):
    with Ledger.read(hostile) as ledger:
        text = render_markdown(read_findings(ledger))
    release = releases(hostile, tmp_path / "release", "hostile")
    for one, examples in ((text, 3), (render_markdown(release.findings, release), 0)):
        _no_markdown(one, examples)


def _no_markdown(text: str, examples: int) -> None:
    parser = MarkdownIt("gfm-like", {"linkify": False})
    tokens = [inner for token in parser.parse(text) for inner in (token, *(token.children or ()))]
    assert {token.type for token in tokens} & {"link_open", "image", "html_inline", "hr", "blockquote_open"} == set()
    blocks = {token.content.strip() for token in tokens if token.type == "html_block"}
    assert blocks == {"<details>\n<summary>A figure's numbers</summary>", "</details>"}
    fences = [token.content.rstrip("\n") for token in tokens if token.type == "fence" and token.info == "text"]
    assert [fence for fence in fences if "assay verify" not in fence] == [visible(" ".join(audit.ATTACKS))] * examples
    assert not re.search("[\u202e\u200b\u0007]", text)


@given(st.text())
def test_text_in_a_sentence_stays_that_text_in_markdown(text: str):
    parser = MarkdownIt("gfm-like", {"linkify": False})
    tokens = parser.parse(plain(text))
    assert [token.type for token in tokens] in ([], ["paragraph_open", "inline", "paragraph_close"])
    shown = "".join(child.content for token in tokens for child in token.children or ())
    assert shown == " ".join(visible(text).split())


@given(st.text(alphabet=st.sampled_from("`~\nab ")))
def test_a_fence_holds(text: str):
    tokens = MarkdownIt().parse(fenced(text))
    assert [token.type for token in tokens] == ["fence"]
    assert tokens[0].content == visible(text) + "\n"


@given(st.text())
def test_visible_text_hides_nothing_and_is_fit_for_xml(text: str):
    from html import escape

    shown = visible(text)
    assert visible(shown) == shown
    assert ElementTree.fromstring(f"<a>{escape(shown)}</a>").text in (shown, None)
    if text.isascii() and text.isprintable():
        assert shown == text


# ── figures and numbers ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.kind)
def test_a_figure_is_one_svg_with_a_title_a_description_and_text(figure):
    svg = figure_svg(figure)
    assert svg == figure_svg(figure), "the same bytes for the same data"
    root = ElementTree.fromstring(svg)
    name = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{name}svg"
    assert root.attrib["role"] == "img"
    title, desc = root[0], root[1]
    assert (title.tag, title.text, desc.text) == (f"{name}title", figure.title, figure.caption)
    assert root.attrib["aria-labelledby"].split() == [title.attrib["id"], desc.attrib["id"]]
    texts = " ".join(text.text for text in root.iter(f"{name}text"))
    assert figure.title in texts
    assert figure.x_label in texts
    assert figure.title not in " ".join(
        text.text for text in ElementTree.fromstring(figure_svg(figure, titled=False)).iter(f"{name}text")
    )
    assert "currentColor" in svg
    assert not re.search("#000000|#010203|DejaVu|matplotlib|<style|<metadata|href=.http", svg)


def test_a_figure_draws_what_it_is_given():
    figure = audit.decodes_outcome().figures[0]
    few = figure.model_copy(update=dict(controls=(Control(name="few", values=(0.4, 0.5, 0.5), p=0.25),)))
    svg = figure_svg(few, titled=False)
    assert len(re.findall(r"<use[^>]*fill: #2583c4", svg)) == 3, "one dot for each draw"
    assert "few · 3 draws · p 0.25" in svg
    assert "observed 0.84" in svg
    moved = figure_svg(few.model_copy(update=dict(observed=0.7)), titled=False)
    assert "observed 0.70" in moved


@pytest.mark.parametrize(
    "figure",
    [
        NullFigure(title="t", x_label="x", caption="c", observed=0, controls=(Control(name="none", values=()),)),
        NullFigure(title="t", x_label="x", caption="c", observed=1, controls=(Control(name="one", values=(1.0,)),)),
        DoseFigure(title="t", x_label="x", caption="c", series=(audit.band("one", (0.0,), (0.0,), 0.0),)),
        DoseFigure(title="t", x_label="x", caption="c", series=(audit.band("empty", (), (), 0.0),)),
        LayerFigure(title="", x_label="", caption="", series=(audit.band("", (3.0,), (1e9,), 1.0),), marked=(0,)),
        BarFigure(title="t", x_label="x", caption="c", labels=("日本語 🙂",), values=(0,), lows=(0,), highs=(0,)),
    ],
)
def test_the_smallest_figures_are_drawn_too(figure):
    ElementTree.fromstring(figure_svg(figure))
    assert cells(figure_table(figure)) is not None


def test_controls_are_drawn_behind_an_effect_only_on_its_own_scale():
    outcome = audit.causes_outcome()
    assert controls_behind(outcome) == outcome.controls, "a figure observes this effect before them"
    moved = outcome.model_copy(update=dict(effects=(outcome.effects[0].model_copy(update=dict(value=0.03)),)))
    assert controls_behind(moved) == (), "the figure observes something else"
    draws = tuple(place / 50 - 1 for place in range(101))
    effect = Effect(name="e", value=0.93, unit="nats", low=0.5, high=1.2, level=0.95, n=9, chance=0)

    def behind(values: tuple[float, ...], p: float | None, **changes: object) -> bool:
        told = Outcome(
            claim="c", verdict="supported", because="b", effects=(effect.model_copy(update=changes),),
            controls=(Control(name="random", values=values, p=p),),
        )  # fmt: skip
        return controls_behind(told) == told.controls

    assert behind(draws, 5 / 102), "its draws give its own p again"
    assert behind(draws, (1 + 4 + 4) / 204) and behind(draws, 9 / 102), "mirrored, two-sided"
    assert not behind(draws, 6 / 102)
    assert not behind(draws, None)
    assert not behind(draws, 1 / 102, value=93.0, high=120.0), "percent against shares"
    assert not behind(draws, 5 / 102, chance=None)
    assert not behind(tuple(draw + 5 for draw in draws), 1.0), "they lie elsewhere than where no effect would"
    assert not behind((), 1.0)
    assert 'class="null"' in interval_svg(effect, (Control(name="c", values=draws),))
    assert 'class="null"' not in interval_svg(effect)
    assert interval_svg(effect.model_copy(update=dict(value=0, low=0, high=0)), (Control(name="c", values=(0.0,)),))


def test_a_dollar_sign_is_a_dollar_sign():
    figure = FIGURES[-1].model_copy(update=dict(labels=("$x_1$", r"\frac{1}{2}$", "a < b & c")))
    assert {"$x_1$", r"\frac{1}{2}$", "a &lt; b &amp; c"} <= set(re.findall(">([^<]+)</text>", figure_svg(figure)))


def test_figures_leave_matplotlib_as_it_was():
    import matplotlib as mpl

    drawn = figure_svg(FIGURES[0])
    with mpl.rc_context({"axes.facecolor": "red", "xtick.direction": "in", "font.size": 30}):
        before = dict(mpl.rcParams)
        assert figure_svg(FIGURES[0]) == drawn, "nor do a caller's own settings change them"
        assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.0, "0"), (-0.0, "0"), (7, "7"), (-7, "−7"), (12345, "12,345"), (0.5, "0.5"), (0.12345, "0.123"),
        (-1.5, "−1.5"), (123.456, "123"), (999.9, "1000"), (1234.5, "1,234"), (100.0, "100"),
        (0.00042, "4.2 × 10⁻⁴"), (-1e-12, "−1.0 × 10⁻¹²"), (1e300, f"{1e300:,.0f}"),
    ],
)  # fmt: skip
def test_numbers_read_well(value, text):
    assert number(value) == text


def test_values_intervals_and_p_values_read_well():
    assert sized(0.0172, -0.006, 0.041) == ("0.017", "−0.006 to 0.041")
    assert sized(0.843, 0.787, 0.889) == ("0.84", "0.79 to 0.89")
    assert sized(12.34, 2.0, 22.0) == ("12", "2 to 22")
    assert sized(0.3, None, None) == ("0.3", "")
    assert sized(2e-7, 1e-7, 3e-7) == ("2.0 × 10⁻⁷", "1.0 × 10⁻⁷ to 3.0 × 10⁻⁷")
    assert sized(0.5, 0.5, 0.5) == ("0.5", "0.5 to 0.5")
    assert [p_value(p) for p in (None, 1.0, 0.38, 1 / 501, 0.0)] == ["–", "1", "0.38", "0.002", "below 0.0001"]
    table = TableData(title="", columns=("a", "b"), rows=(("x", 0.7), ("y", 0.125), ("z", None), (True, 3)))
    assert cells(table) == [["x", "0.700"], ["y", "0.125"], ["z", "–"], ["yes", "3"]]


# ── in a browser ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_offline_asks_for_nothing_and_complains_of_nothing(
    chromium: str, hostile: Path, path: Path, public: Release, tmp_path: Path, width: int, scheme: str
):
    from playwright.sync_api import sync_playwright

    attacked = releases(hostile, tmp_path / "run", "hostile")
    files = [write_reports(one.findings, tmp_path / one.audience, one)[0] for one in (public, attacked)]
    for source in (path, hostile):
        with Ledger.read(source) as ledger:
            files.append(write_reports(read_findings(ledger), tmp_path / source.parent.name)[0])
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=[*flags, "--disable-component-update"])
        try:
            for file in files:
                context = browser.new_context(viewport=dict(width=width, height=900), color_scheme=scheme, offline=True)
                tab = context.new_page()
                said: list[str] = []
                asked: list[str] = []
                tab.on("console", lambda message, said=said: said.append(message.text))
                tab.on("pageerror", lambda error, said=said: said.append(str(error)))
                tab.on("dialog", lambda dialog, said=said: (said.append(dialog.message), dialog.dismiss()))
                tab.on("request", lambda request, asked=asked: asked.append(request.url))
                tab.goto(file.as_uri())
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, "nothing to scroll sideways"
                tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, "nor with everything open"
                assert contrast(tab) >= 4.5
                tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = false)")
                tab.emulate_media(media="print", color_scheme=scheme)
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, "nor on paper"
                assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
                assert not tab.is_visible("nav")
                assert tab.is_visible(".key dd"), "paper shows what a screen unfolds"
                assert contrast(tab) >= 4.5
                assert said == []
                assert asked == [file.as_uri()]
                assert tab.evaluate("document.scripts.length") == 0
                context.close()
        finally:
            browser.close()


def contrast(tab) -> float:
    """The lowest contrast (WCAG 2) of the page's text colours against what lies behind them."""
    pairs = tab.evaluate(
        """() => [...document.querySelectorAll(':is(main, header) :is(p, dt, dd, td, th, h2, h3, h4, span, summary, code, pre)')]
        .filter(part => part.getClientRects().length).map(part => {
            let behind = part;
            while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
            return [getComputedStyle(part).color, getComputedStyle(behind).backgroundColor];
        })"""
    )

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def ratio(one: float, other: float) -> float:
        return (max(one, other) + 0.05) / (min(one, other) + 0.05)

    assert len(pairs) > 50
    return min(ratio(light(text), light(behind)) for text, behind in pairs)
