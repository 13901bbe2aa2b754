"""Two runs side by side: what belongs together, and intervals on differences that cover as often as they say."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from assay.errors import BadData
from assay.evidence import Audit, Effect, End, Ledger, Outcome, of_text, read_findings
from assay.report.diff import compare, subtract
from assay.report.html import render_diff
from tests.fixtures import audit_ledger as audit

ORIGIN = audit.ORIGIN.model_copy(
    update=dict(
        model="HuggingFaceTB/SmolLM2-360M-Instruct",
        fingerprint=of_text("other weights"),
        data={**audit.ORIGIN.data, "neutral text (64 passages)": of_text("other passages")},
        versions={**audit.ORIGIN.versions, "torch": "2.14.0"},
    )
)


def effect(value: float, half: float, name: str = "e", **fields: object) -> Effect:
    given = dict(unit="nats", low=value - half, high=value + half, level=0.95, n=50)
    return Effect(name=name, value=value, **{**given, **fields})


def write_second(path: Path) -> None:
    """The run of another model: the first claim comes out lower, another is measured after all, a third is new."""
    decodes = audit.decodes_outcome()
    first, second = decodes.effects
    lower = first.model_copy(update=dict(value=0.71, low=0.64, high=0.78))
    needed = effect(0.3, 0.1, "loss when ablated")
    causes = audit.CAUSES.model_copy(update=dict(params={**audit.CAUSES.params, "draws": 100}))
    fresh = audit.make_claim("late-layers", "represents", "The reading is sharpest in the middle layers.")
    moved = audit.causes_outcome()
    slope = moved.effects[0].model_copy(update=dict(value=0.12, low=0.08, high=0.16))
    bodies = [
        Audit(name="deception", problem="deception", question="Does SmolLM2-360M-Instruct say what it holds to be false?",
              threats=audit.THREATS),
        ORIGIN, audit.DECODES, causes, audit.NEEDED, audit.SAYS_FALSE,
        decodes.model_copy(update=dict(effects=(lower, second), because="142 of 200 statements are read correctly.")),
        moved.model_copy(update=dict(claim=causes.digest, verdict="supported", p=0.01, effects=(slope,),
                                     because="Answers move by 0.12 per unit of dose, more than any control.")),
        Outcome(claim=audit.NEEDED.digest, verdict="supported", because="It loses 0.3 nats.", effects=(needed,)),
        audit.says_false_outcome(), fresh, End(seconds=300, units=30),
    ]  # fmt: skip
    with Ledger.open(path, clock=audit.ticking()) as ledger:
        for body in bodies:
            ledger.record(body)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("runs")
    for name, write in (("one", audit.write_audit), ("other", write_second)):
        (home / name).mkdir()
        write(home / name / "ledger")
    return home / "one", home / "other"


def findings(run: Path):
    with Ledger.read(run / "ledger") as ledger:
        return read_findings(ledger)


# ── the arithmetic ──────────────────────────────────────────────────────────────────────────────────────────────


def test_of_symmetric_intervals_the_halves_add_up_as_standard_errors_do():
    gap = subtract(effect(1, 3), effect(6, 4)).difference
    assert (gap.value, gap.low, gap.high) == pytest.approx((5, 0, 10))
    assert not gap.excludes_zero
    assert subtract(effect(1, 0.3), effect(6, 0.4)).difference.excludes_zero


def test_a_lopsided_interval_stays_lopsided():
    steep = Effect(name="e", value=2, unit="nats", low=1, high=6, level=0.95, n=9)
    flat = effect(0, 0)
    up, down = subtract(flat, steep).difference, subtract(steep, flat).difference
    assert (up.low, up.high) == (1, 6)
    assert (down.low, down.high) == (-6, -1)


@given(*[st.tuples(*[st.floats(-1e6, 1e6), st.floats(0, 1e3), st.floats(0, 1e3)]) for _ in range(2)])
def test_the_other_way_round_is_the_opposite(first, second):
    one, other = (
        Effect(name="e", value=v, unit="", low=v - down, high=v + up, level=0.9, n=3) for v, down, up in (first, second)
    )
    there, back = subtract(one, other).difference, subtract(other, one).difference
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert there.low <= there.value <= there.high


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_the_interval_covers_as_often_as_it_says_or_more_often_on_the_same_items(correlation: float):
    """Means of 40 items each, t intervals; the second run has twice the spread."""
    rng = np.random.default_rng(0)
    n, repeats, shift = 40, 4000, 0.3
    common = np.array([[1, correlation], [correlation, 1]])
    items = rng.multivariate_normal([0, 0], common, size=(repeats, n)) * (1, 2) + (0, shift)
    means, errors = items.mean(axis=1), items.std(axis=1, ddof=1) / np.sqrt(n)
    halves = student.ppf(0.975, n - 1) * errors
    covered = 0
    for (a, b), (half_a, half_b) in zip(means, halves, strict=True):
        gap = subtract(effect(a, half_a), effect(b, half_b)).difference
        covered += gap.low <= shift <= gap.high
    share = covered / repeats
    if correlation == 0:
        assert share == pytest.approx(0.955, abs=0.012)
    else:
        assert share > 0.98, "independence is assumed, and errs on the side of seeing nothing"


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (effect(2, 1, unit="share"), "they are in different units: 'nats' and 'share'"),
        (effect(2, 1, level=0.9), "their intervals are at 95 % and at 90 %"),
    ],
)
def test_what_cannot_be_subtracted_says_why(other: Effect, why: str):
    pair = subtract(effect(1, 1), other)
    assert (pair.difference, pair.why_not) == (None, why)


# ── what belongs together ───────────────────────────────────────────────────────────────────────────────────────


def test_claims_are_matched_and_the_rest_is_listed(runs: tuple[Path, Path]):
    found = compare(*map(findings, runs))
    assert [pair.one.claim.key for pair in found.claims] == ["decodes", "causes", "needed", "says-false"]
    assert [(one.verdict, other.verdict) for one, other in found.threats] == [
        ("supported", "supported"), ("not supported", "supported"), ("not testable", "not testable"),
    ]  # fmt: skip
    assert [view.claim.key for view in found.only_one] == ["late-layers"], "another statement is another claim"
    assert [view.claim.key for view in found.only_other] == ["late-layers"]
    decodes, causes, needed, _ = found.claims
    names = ["accuracy on topics left out", "gain over a text-only reading"]
    assert [pair.one.name for pair in decodes.effects] == names
    assert decodes.effects[0].difference.value == pytest.approx(-0.133)
    assert decodes.effects[0].difference.excludes_zero
    assert decodes.effects[1].difference.value == 0
    assert causes.settings == ("draws 200 and 100",)
    assert (needed.effects, needed.alone) == ((), ("loss when ablated (only in the second)",))
    assert found.circumstances == (
        f"data: neutral text (64 passages) {of_text('neutral')[:12]}… and {of_text('other passages')[:12]}…",
        "versions: torch 2.13.0 and 2.14.0",
    )


def test_main_effects_of_other_names_are_still_the_main_effects(runs: tuple[Path, Path]):
    one = findings(runs[0])
    view = one.threats[0].claims[0]
    renamed = view.outcome.model_copy(
        update=dict(effects=(view.outcome.effects[0].model_copy(update=dict(name="accuracy on birds")), effect(1, 1)))
    )
    with Ledger.open(runs[0].parent / "renamed") as ledger:
        for body in (one.audit, audit.DECODES, renamed):
            ledger.record(body)
        other = read_findings(ledger)
    found = compare(one, other)
    assert [(pair.one.name, pair.other.name) for pair in found.claims[0].effects] == [
        ("accuracy on topics left out", "accuracy on birds")
    ]
    assert found.circumstances == ("Provenance is missing, so nothing is known of data, settings and versions.",)


def test_a_run_and_itself_differ_in_nothing(runs: tuple[Path, Path]):
    one = findings(runs[0])
    found = compare(one, one)
    assert found.only_one == found.only_other == ()
    assert found.circumstances == ("Both are runs on one and the same model: their fingerprints are equal.",)
    gaps = [pair.difference for claim in found.claims for pair in claim.effects]
    assert len(gaps) == 5 and all(gap.value == 0 and not gap.excludes_zero for gap in gaps)


@pytest.mark.parametrize("change", [dict(name="other"), dict(problem="sandbagging")])
def test_runs_of_different_audits_are_refused(runs: tuple[Path, Path], tmp_path: Path, change: dict[str, str]):
    asked = dict(name="deception", problem="deception", question="q", threats=audit.THREATS)
    with Ledger.open(tmp_path / "ledger") as ledger:
        ledger.record(Audit(**{**asked, **change}))
        with pytest.raises(BadData, match="different audits"):
            compare(findings(runs[0]), read_findings(ledger))


# ── how it reads ────────────────────────────────────────────────────────────────────────────────────────────────


class Text(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.told = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.told += data


def test_the_page_shows_both_and_the_difference(runs: tuple[Path, Path]):
    page = render_diff(compare(*map(findings, runs)))
    text = " ".join(Text(page).told.split())
    for said in (
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        "0.84 95 % interval 0.79 to 0.89, 210 statements",
        "difference −0.13 95 % interval −0.22 to −0.04, which leaves out 0",
        "difference 0.00 95 % interval −0.10 to 0.10, which holds 0",
        "Its settings differ: draws 200 and 100.",
        "versions: torch 2.13.0 and 2.14.0",
        "takes the runs to be independent",
        "loss when ablated (only in the second)",
        "Only in the first late-layers: The reading is sharpest in the last third of the layers.",
    ):
        assert said in text, said
    assert "default-src 'none'" in page
    assert page == render_diff(compare(*map(findings, runs)))


def test_no_attack_becomes_markup(tmp_path: Path):
    bad = " ".join(audit.ATTACKS)
    claim = audit.make_claim(bad, bad, bad, measure=bad, params={bad: bad})
    told = Outcome(claim=claim.digest, verdict="not supported", because=bad, effects=(effect(1, 1, bad, unit=bad),))
    threat = audit.THREATS[0].model_copy(update=dict(key=bad, statement=bad))
    made = []
    for name in ("one", "other"):
        with Ledger.open(tmp_path / name) as ledger:
            origin = audit.ORIGIN.model_copy(update=dict(model=bad, data={bad: name}))
            for body in (Audit(name=bad, problem=bad, question=bad, threats=(threat,)), origin, claim, told):
                ledger.record(body)
            made.append(read_findings(ledger))
    page = Text(render_diff(compare(*made)))
    assert not set(page.tags) & {"script", "img", "iframe", "object", "form"}
    assert not re.search("[\u202e\u200b\u0007]", page.told)


def test_the_command_prints_a_table_and_writes_a_page(runs: tuple[Path, Path], tmp_path: Path):
    def assay(*arguments: object) -> subprocess.CompletedProcess[str]:
        code = "import sys; from assay.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    done = assay("diff", *runs, "--into", tmp_path / "diff.html")
    assert done.returncode == 0, done.stderr
    rows = [re.split(r"\s{2,}", line) for line in done.stdout.splitlines()]
    assert ["first", "second", "difference", "of"] in rows
    assert ["not supported", "supported", "another verdict", "threat model moves"] in rows
    assert [
        "0.84 (0.79 to 0.89)",
        "0.71 (0.64 to 0.78)",
        "−0.13 (−0.22 to −0.04) *",
        "accuracy on topics left out",
    ] in rows
    assert ["not the same: versions: torch 2.13.0 and 2.14.0"] in rows
    assert any(row[0].startswith("only in the second: late-layers") for row in rows)
    assert (tmp_path / "diff.html").read_text() == render_diff(compare(*map(findings, runs)))

    with Ledger.open(tmp_path / "ledger") as ledger:
        ledger.record(Audit(name="other", problem="deception", question="q", threats=audit.THREATS))
    done = assay("diff", runs[0], tmp_path)
    assert (done.returncode, done.stderr.partition(":")[0]) == (2, "BadData")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_offline_and_fits(chromium: str, runs: tuple[Path, Path], tmp_path: Path, width: int):
    from playwright.sync_api import sync_playwright

    file = tmp_path / "diff.html"
    file.write_text(render_diff(compare(*map(findings, runs))))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        try:
            tab = browser.new_context(viewport=dict(width=width, height=900), offline=True).new_page()
            said: list[str] = []
            asked: list[str] = []
            tab.on("console", lambda message: said.append(message.text))
            tab.on("request", lambda request: asked.append(request.url))
            tab.goto(file.as_uri())
            assert (said, asked) == ([], [file.as_uri()])
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        finally:
            browser.close()
