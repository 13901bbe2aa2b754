"""The grammar of places, positions in a row, what a model has, and selections."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay import Site, Sites
from assay.errors import BadSite, NoSuchPosition, NoSuchSite
from assay.site import END, PARTS, Positions, Span, sorted_sites
from assay.sites import Shape

SHAPE = Shape(layers=3, heads=4, kv_heads=2, d_model=32, d_head=8, d_mlp=40, vocab=99, lacks={"mid": "it is parallel"})

ends = st.none() | st.integers(-40, 40)
spans = st.builds(Span, ends, ends)
words = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda word: word not in ("all", "last", "response")
)
positions = st.one_of(
    st.just(Positions()),
    st.just(Positions(response=True)),
    st.builds(lambda span, at: Positions(span, at, single=True), st.none() | words, st.integers(-40, 40)),
    st.builds(lambda span, start, stop: Positions(span, start, stop), st.none() | words, ends, ends),
)
layers = st.integers(0, 200) | spans


def _site(part: str) -> st.SearchStrategy[Site]:
    layer = st.none() if part in ("embed", "logits") else layers
    head = layers if part.startswith("head.") else st.none()
    return st.builds(Site, st.just(part), layer, head, positions)


sites = st.sampled_from(PARTS).flatmap(_site)


@given(sites)
def test_the_printed_form_is_the_parsed_form(site: Site) -> None:
    assert Site.parse(str(site)) == site
    assert Site.parse(site) is site


@given(positions)
def test_positions_come_back(place: Positions) -> None:
    assert Positions.parse(str(place)) == place


@pytest.mark.parametrize(
    "text",
    [
        "embed",
        "logits",
        "L0.resid",
        "L12.resid @ last",
        "L3.head[5].z @ subject[-1]",
        "L3.head[:].pattern",
        "L8:24.mlp.out",
        "L:.attn.out @ last:",
        "L-2:.mid @ 2:6",
        "L0.mlp.act @ -2",
        "embed @ subject",
        "L1.resid @ subject[0:2]",
        "L1.resid @ response",
        "L1.resid @ :-1",
    ],
)
def test_the_forms_of_the_design_print_as_they_are_written(text: str) -> None:
    assert str(Site.parse(text)) == text


def test_spellings_of_one_place_are_one_place() -> None:
    assert Site.parse(" L3.resid@-1 ") == Site.parse("L3.resid @ last")
    assert Site.parse("L3.resid @ all") == Site.parse("L3.resid")
    assert Site.parse("L3.resid @ :") == Site.parse("L3.resid")
    assert Site.parse("L3.resid @ subject[:]") == Site.parse("L3.resid @ subject")


@pytest.mark.parametrize(
    "text",
    ["", "L3", "resid", "L3.", "L-1.resid", "L3.resid.z", "L3.head.z", "L3.head[2]", "L3.head[2].out", "L3.head[-1].z",
     "L3.logits", "embed.out", "l3.resid", "L3.head[2].resid", "L3 .resid", "L1.0.resid", "L3.resid @", "L3.resid @ ",
     "L3.resid @ 1.5", "L3.resid @ a b", "L3.resid @ [2]", "L3.resid @ 1:2:3", "L3.resid @ a[b]", "L3.resid @ last[0", "@ last"],
)  # fmt: skip
def test_what_is_no_site(text: str) -> None:
    with pytest.raises(BadSite):
        Site.parse(text)


def test_what_is_no_text_is_no_site() -> None:
    with pytest.raises(BadSite, match=r"^7 is no site"):
        Site.parse(7)  # type: ignore[arg-type]


def test_the_text_of_bad_site() -> None:
    with pytest.raises(BadSite) as caught:
        Site.parse("L3.residual @ last")
    assert str(caught.value) == (
        "'L3.residual @ last' is no site\n\n"
        "  nearest   L0.resid, L0.mid\n\n"
        "  hint: a site reads L12.resid, L3.head[5].z, L8:24.mlp.out, embed or logits, then optionally @ positions\n"
        "  see:  docs/errors/bad-site.md"
    )
    with pytest.raises(BadSite, match="positions '1.5' do not parse"):
        Site.parse("L3.resid @ 1.5")


@pytest.mark.parametrize(
    ("part", "layer", "head"),
    [("head.z", 1, None), ("head.z", None, 0), ("resid", 1, 2), ("resid", None, None), ("resid", -1, None),
     ("embed", 0, None), ("logits", 1, None), ("head.z", 1, -1), ("nothing", 1, None)],
)  # fmt: skip
def test_a_site_that_could_not_be_printed_cannot_be_made(part: str, layer: int | None, head: int | None) -> None:
    """``Site("head.z", 1)`` would otherwise act on head 0 without a word."""
    with pytest.raises(BadSite, match="a site cannot be made of part"):
        Site(part, layer, head)


# Positions: against a list of tokens and Python's own rules for indices and slices.

rows = st.integers(1, 9).flatmap(
    lambda prompt: st.tuples(st.just(prompt), st.integers(0, 6), st.tuples(st.integers(0, 8), st.integers(1, 9)))
)


def _named(place: Positions, prompt: int, answer: int, span: tuple[int, int]) -> list[int]:
    """The tokens that a position names in a row of ``prompt`` + ``answer`` tokens, by plain list indexing."""
    tokens = list(range(prompt + answer))
    if place.response:
        return tokens[prompt:]
    window = tokens[span[0] : span[1]] if place.span else tokens
    length = span[1] - span[0] if place.span else prompt

    def counted(end: int | None) -> int | None:
        return end if end is None or end >= 0 else max(0, length + end)

    if place.single:
        assert place.start is not None
        at = place.start if place.start >= 0 else length + place.start
        return window[at : at + 1] if at >= 0 else []
    return window[counted(place.start) : counted(place.stop)]


@given(positions, rows)
def test_positions_are_those_of_python(place: Positions, row: tuple[int, int, tuple[int, int]]) -> None:
    prompt, answer, (a, width) = row
    span = (min(a, prompt - 1), min(min(a, prompt - 1) + width, prompt))
    wanted = _named(place, prompt, answer, span)
    names = {place.span: span} if place.span else {}
    try:
        start, stop = place.resolve(prompt, names, prompt + answer)
    except NoSuchPosition:
        assert wanted == []
    else:
        assert list(range(start, min(stop, prompt + answer))) == wanted


def test_open_ends_go_on_into_an_answer_and_spans_do_not() -> None:
    spans = {"subject": (2, 5)}
    assert Positions.parse("all").resolve(7, spans) == (0, END)
    assert Positions.parse("last:").resolve(7, spans) == (6, END)
    assert Positions.parse("response").resolve(7, spans) == (7, END)
    assert Positions.parse("subject").resolve(7, spans) == (2, 5)
    assert Positions.parse("subject[1:]").resolve(7, spans) == (3, 5)
    assert Positions.parse("last").resolve(7, spans) == (6, 7)
    assert Positions.parse("-2").resolve(7, spans, total=30) == (5, 6)
    assert Positions.parse(0).resolve(7, spans) == (0, 1)


def test_the_text_of_no_such_position() -> None:
    with pytest.raises(NoSuchPosition) as caught:
        Positions.parse("subject").resolve(7, {"object": (2, 5)})
    assert str(caught.value) == (
        "the row has no span named 'subject'\n\n"
        "  spans     object 2:5\n"
        "  nearest   @ last, @ -1, @ 0:7\n\n"
        '  hint: mark the span: Prompt("The {subject} is in", subject=...)\n'
        "  see:  docs/errors/no-such-position.md"
    )
    with pytest.raises(NoSuchPosition) as caught:
        Positions.parse(9).resolve(7, {})
    assert str(caught.value).startswith(
        "@ 9 names no token\n\n  found     the prompt has 7 tokens\n  nearest   0 to 6, -7 to -1\n"
    )


# What a model has.


@given(sites)
def test_expanding_gives_single_places_in_order_or_refuses(site: Site) -> None:
    try:
        found = SHAPE.expand(site)
    except NoSuchSite:
        return
    assert found
    assert all(single.one and SHAPE.expand(single) == (single,) for single in found)
    assert sorted_sites(found) == list(found)
    assert {single.positions for single in found} == {site.positions}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("L:.resid", ["L0.resid", "L1.resid", "L2.resid"]),
        ("L1:.resid @ last", ["L1.resid @ last", "L2.resid @ last"]),
        ("L-1:.mlp.out", ["L2.mlp.out"]),
        ("L:-1.mlp.out", ["L0.mlp.out", "L1.mlp.out"]),
        ("L2.head[1:3].z", ["L2.head[1].z", "L2.head[2].z"]),
        ("embed", ["embed"]),
    ],
)
def test_ranges(text: str, found: list[str]) -> None:
    assert list(map(str, SHAPE.expand(text))) == found


@pytest.mark.parametrize(
    "text", ["L3.resid", "L0.head[4].z", "L0:4.resid", "L2:2.resid", "L3:.resid", "L-4:.resid", "L0.head[:5].z"]
)
def test_what_a_model_does_not_have(text: str) -> None:
    """A range that leaves the model is a mistake too, not a shorter range."""
    with pytest.raises(NoSuchSite):
        SHAPE.expand(text)


def test_the_text_of_no_such_site() -> None:
    with pytest.raises(NoSuchSite) as caught:
        SHAPE.expand("L3.resid @ last")
    assert str(caught.value) == (
        "this model has no L3.resid @ last\n\n"
        "  found     3 layers, 0 to 2\n"
        "  nearest   layer 2\n\n"
        "  hint: layers count from 0; the last block is L2, and ranges exclude their end\n"
        "  see:  docs/errors/no-such-site.md"
    )
    with pytest.raises(NoSuchSite, match=r"this model has no L1\.mid[\s\S]*found     it is parallel"):
        SHAPE.expand("L1.mid")


# Selections.


def _of(*texts: str) -> Sites:
    return Sites(tuple(site for text in texts for site in SHAPE.expand(text)))


def test_selections_are_sets_in_the_order_of_the_forward_pass() -> None:
    both = _of("L1:3.resid", "L0.head[:].z", "embed", "L0.mlp.out") | _of("L1.resid")
    assert list(map(str, both)) == [
        "embed", "L0.head[0].z", "L0.head[1].z", "L0.head[2].z", "L0.head[3].z", "L0.mlp.out", "L1.resid", "L2.resid",
    ]  # fmt: skip
    assert list(both & _of("L:.resid")) == list(_of("L1:.resid"))
    assert list(both - _of("L0.head[:].z", "embed")) == list(_of("L0.mlp.out", "L1:.resid"))
    assert len(both.where(lambda site: site.layer == 0)) == 5
    assert both.expect(8) is both
    assert both[0] in both and Site("logits") not in both
    assert str(both) == "8 sites: embed, L0.head[0].z, L0.head[1].z, L0.head[2].z, …"


@given(st.lists(st.sampled_from(list(_of("L:.resid", "L:.head[:].z", "embed", "logits")))))
def test_the_algebra_of_selections(members: list[Site]) -> None:
    a, b = Sites(tuple(members[::2])), Sites(tuple(members[1::2]))
    assert set(a | b) == set(a) | set(b)
    assert set(a & b) == set(a) & set(b)
    assert set(a - b) == set(a) - set(b)
    assert Sites(tuple(reversed(a.members))) == a


def test_the_text_of_expect() -> None:
    with pytest.raises(
        NoSuchSite, match=r"expected 16 sites\n\n  found     3: 3 sites: L0\.resid, L1\.resid, L2\.resid"
    ):
        _of("L:.resid").expect(16)
