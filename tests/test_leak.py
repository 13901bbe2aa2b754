"""What a policy withholds is in nothing that is given away: a few audits here, more by ``python -m reliability``."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.disclose import shipped_policies
from assay.disclose.items import cut
from assay.disclose.policy import mentions_place
from assay.evidence import Grant, Ledger, Policy, read_findings
from assay.evidence.entry import About, Grade, Part
from reliability import leak
from reliability.leak import HEADINGS, PLACES, SENTENCES, Maker

FIELDS = leak.fields()
NAMES = [f"{number}.{'.'.join(map(str, way))}" for number, way in FIELDS]

grants = st.builds(
    Grant,
    parts=st.lists(st.sampled_from(get_args(Part)), min_size=1, max_size=6).map(tuple),
    about=st.none() | st.lists(st.sampled_from(get_args(About)), max_size=4).map(tuple),
    problems=st.none() | st.lists(st.sampled_from(leak.PROBLEMS), max_size=2).map(tuple),
    up_to=st.sampled_from(get_args(Grade)),
)
policies = st.builds(Policy, name=st.just("ours"), says=st.just("Us."), show=st.lists(grants, max_size=5).map(tuple))
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=8, deadline=None)
@given(seeds, policies)
def test_nothing_withheld_is_given_away(seed: int, policy: Policy) -> None:
    with tempfile.TemporaryDirectory() as folder:
        case = leak.one_case(Path(folder), seed, policy=policy)
    assert case.leaks == []
    assert case.bytes > 10_000


@pytest.mark.parametrize("policy", shipped_policies(), ids=lambda policy: policy.name)
def test_nothing_withheld_is_given_away_by_the_policies_that_come_with_assay(policy: Policy, tmp_path: Path) -> None:
    case = leak.one_case(tmp_path, 7, policy=policy)
    assert case.leaks == []
    assert case.shown > 5
    assert (case.withheld == 0) == (policy.name == "internal")


def test_what_is_shown_is_found_so_a_leak_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search sees into every file: with nothing counted as shown, each of them is full of it."""
    monkeypatch.setattr(leak, "secrets_of", lambda maker, shown, clear: (maker.words, maker.numbers))
    case = leak.one_case(tmp_path, 4, policy=leak._ALL)
    where = {found.partition(":")[0].partition("/")[0] for found in case.leaks}
    assert {"all.assay", "report.html", "report.md", "audit.eval", "audit.intoto.json", "audit.cdx.json"} <= where
    assert {"model-card.md", "assay.yaml", "what is printed"} <= where
    assert not where & {"sealed.age", "names of files"}


def test_one_piece_in_one_place_is_found() -> None:
    words, numbers = {"abcdefghijkl"}, {"123456789012345"}
    assert leak.found_in([("a", "xx cdefghij yy"), ("b", "cdefghi jk 23456789012"), ("c", "0.234567890123")], words, numbers) == [
        "a: 'cdefghij'", "c: '234567890123'",
    ]  # fmt: skip


def test_withheld_content_changes_no_length() -> None:
    rows = leak.length_rows(3)
    assert [row for row in rows if not row.holds] == []
    assert len(rows) == 3


@pytest.fixture(scope="module")
def some_items(tmp_path_factory: pytest.TempPathFactory) -> list[leak.Item]:
    """Those of two random audits."""
    items = []
    for seed in (1, 2):
        maker = Maker(random.Random(seed))
        path = tmp_path_factory.mktemp("items") / "ledger"
        leak.write(path, maker.bodies(leak._ALL), maker)
        with Ledger.read(path) as ledger:
            items += cut(read_findings(ledger))
    return items


@given(policies, st.lists(grants, min_size=1, max_size=3))
def test_a_further_grant_hides_no_item(some_items: list[leak.Item], policy: Policy, further: list[Grant]) -> None:
    assert leak.narrowed(some_items, policy, further) == 0


def test_each_policy_shows_the_items_of_the_one_before_it(some_items: list[leak.Item]) -> None:
    shown = [{place for place, one in enumerate(some_items) if one.shown_by(policy)} for policy in shipped_policies()]
    assert shown[0] < shown[1] < shown[2] == set(range(len(some_items)))


@pytest.mark.parametrize(("number", "way"), FIELDS, ids=NAMES)
@pytest.mark.parametrize("text", ["L8:24.mlp.out @ -2", "the 13th layer", "Layer"])
def test_a_place_is_withheld_in_every_field(number: int, way: tuple[str | int, ...], text: str) -> None:
    assert leak.slipped(number, way, text) == []


@pytest.mark.parametrize("text", PLACES + HEADINGS)
def test_every_place_is_withheld(text: str) -> None:
    assert mentions_place(text)
    assert mentions_place(f"It reads best at {text}, as expected.") or text in HEADINGS
    assert leak.slipped(6, ("figures", 0, "x_label"), text) == leak.slipped(6, ("because",), text) == []


@pytest.mark.parametrize("text", SENTENCES)
def test_a_sentence_without_a_place_stays_shown(text: str) -> None:
    assert not mentions_place(text)
    assert leak.slipped(6, ("because",), text) == ["outcome"]


@pytest.mark.parametrize(
    "text", ["first ", "1", " ", "layer ", "x_", "13th ", "L", "l:", "by ", "depth    ", "last few "]
)
def test_a_long_text_of_somebody_who_means_no_good_takes_no_time(text: str) -> None:
    """Quadratic time would take an hour here; what is measured is only that it ends."""
    mentions_place(text * (300_000 // len(text)))
