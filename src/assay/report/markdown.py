"""The report as Markdown: the same content in plain text, figures as their numbers, for a repository or a model card.

Foreign text is escaped where it stands in a sentence and fenced where it is long, so that it can neither format the
page nor place an image in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from assay.evidence import Effect, Example, Outcome, Record, TableData
from assay.report.figures import figure_table, quantiles
from assay.report.html import CHECK
from assay.report.page import ClaimView, Page, ThreatView, read_page
from assay.report.words import cell, cells, count, interval, number, p_value, sized, visible


def render_markdown(record: Record) -> str:
    """The whole report as Markdown.

    Raises:
        LedgerBroken: the chain does not verify.
        BadData: the record holds no audit.
    """
    page = read_page(record)
    blocks = [
        *_top(page),
        *(block for place, view in enumerate(page.threats, start=1) for block in _threat(place, view)),
        *(["## Claims about no threat model of this audit"] if page.strays else []),
        *(block for view in page.strays for block in _claim(view)),
        *_method(page),
        *_check(page),
        *_provenance(page),
    ]
    return "\n\n".join(blocks) + "\n"


def plain(text: str) -> str:
    """Foreign text inside a sentence: one line, with nothing that Markdown or HTML would act on."""
    line = " ".join(visible(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", line)
    line = re.sub(r"(?i)\b(https?|ftp):", r"\1\\:", line)  # an escaped colon makes no link by itself
    return re.sub(r"^(\d*)([-+=.)])(?=\s|$|\2)", r"\1\\\2", line)  # a list, a rule, an underline


def fenced(text: str) -> str:
    """Foreign text as a block, behind a fence longer than any in it."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}text\n{visible(text)}\n{fence}"


def _top(page: Page) -> Iterator[str]:
    yield f"# {plain(page.audit.question)}"
    facts = {"problem class": page.audit.problem}
    if page.origin is not None:
        facts |= {
            "model": page.origin.model,
            "revision": page.origin.revision or "not stated",
            "fingerprint": page.origin.fingerprint,
        }
    facts |= {"day": page.day, "auditor": page.audit.auditor, "access": page.audit.access}
    yield "\n".join(f"- {name}: {plain(value)}" for name, value in facts.items() if value)
    if page.end is None:
        yield "**Interim.** This audit has not ended; what follows is what its ledger holds so far."
    yield "## Verdicts"
    rows = [
        (plain(view.threat.statement), f"**{view.verdict}**", plain(view.because), _size(view.effect))
        for view in page.threats
    ]
    yield _grid(("threat model", "verdict", "why", "main effect"), rows)
    yield (
        "*Supported*: every confirmatory claim about the threat passed its test against its controls. "
        "*Not supported*: at least one was tested and did not hold; where the power is stated, this is knowledge. "
        "*Not testable*: no claim failed, but one could not be tested. Exploratory claims decide nothing."
    )


def _threat(place: int, view: ThreatView) -> Iterator[str]:
    yield f"## Threat model {place}: {plain(view.threat.statement)}"
    yield f"**{view.verdict.capitalize()}.** {plain(view.because)}"
    yield f"- asked of: {plain(view.threat.scope)}\n- the best benign explanation: {plain(view.threat.benign)}"
    for claim in view.claims:
        yield from _claim(claim)


def _claim(view: ClaimView) -> Iterator[str]:
    claim, outcome = view.claim, view.outcome
    yield f"### {plain(claim.statement)}"
    yield f"**{view.verdict.capitalize()}**, {view.standing}. {plain(view.because)}"
    if view.correction is not None:
        yield f"Corrected by {plain(view.correction.author)}: {plain(view.correction.reason)}"
        if view.first_said is not None:
            yield f"First said: {view.first_said.verdict}. {plain(view.first_said.because)}"
    facts = [f"how it was tested: {plain(claim.method)}", f"what would have refuted it: {plain(claim.refuted_by)}"]
    if outcome is not None:
        facts.append(f"power: {plain(outcome.power) or 'not stated'}")
        facts += [f"not looked at: {plain(item)}" for item in outcome.not_looked_at]
    if view.controls_not_shown:
        facts.append(f"controls named beforehand and not reported: {plain('; '.join(view.controls_not_shown))}")
    yield "\n".join(f"- {fact}" for fact in facts)
    if outcome is not None:
        yield from _outcome(outcome)
    yield f"Claim `{view.digest}`, entry {view.entry.seq}; dual-use grade {claim.grade}."


def _outcome(outcome: Outcome) -> Iterator[str]:
    for effect in outcome.effects:
        yield f"**{_size(effect)}**"
    if outcome.p is not None:
        yield f"p {p_value(outcome.p)} at α {number(outcome.alpha)}."
    if outcome.controls:
        rows: list[tuple[str, ...]] = []
        for control in outcome.controls:
            low, middle, high = quantiles(control.values)
            median, middle_95 = ("–", "–") if middle is None else sized(middle, low, high)
            draws = number(len(control.values))
            rows.append((plain(control.name), draws, median, middle_95, p_value(control.p), plain(control.note)))
        yield "Controls:"
        yield _grid(("control", "draws", "median", "middle 95 %", "p", "note"), rows)
    if outcome.side_effects:
        yield "Side effects:"
        sides = [(side, *sized(side.value, side.low, side.high)) for side in outcome.side_effects]
        rows = [(plain(side.name), value, ends or "–", plain(side.unit)) for side, value, ends in sides]
        yield _grid(("measure", "value", "interval", "unit"), rows)
    for figure in outcome.figures:
        yield "<details>\n<summary>A figure's numbers</summary>"
        yield from _table(figure_table(figure), figure.caption)
        yield "</details>"
    for table in outcome.tables:
        yield from _table(table, table.caption)
    for example in outcome.examples:
        yield from _example(example)


def _example(example: Example) -> Iterator[str]:
    for name, text in (("Prompt", example.prompt), ("Natural", example.natural), ("Steered", example.steered)):
        yield f"{name} (text shown as it came):"
        yield fenced(text)


def _method(page: Page) -> Iterator[str]:
    yield "## Method"
    yield from map(plain, page.noted("method"))
    if page.first_result is not None:
        yield f"The first result is entry {page.first_result}: claims before it are confirmatory, others exploratory."
    spans = (f"{run.kind} {run.first}" + (f"–{run.last}" if run.last > run.first else "") for run in page.runs)
    yield f"Order of events: {plain(' · '.join(spans))}."
    if page.end is not None:
        yield f"{count(page.end.units, 'unit')} of work, {number(page.end.seconds)} seconds."
    yield "## Data"
    yield from map(plain, page.noted("data"))
    if page.origin is not None and page.origin.data:
        yield _pairs(page.origin.data)
    yield "## Limits"
    standing = (
        "The ledger proves the order of its own entries, not that nothing was looked at elsewhere before.",
        "The verdicts are about this model, these data and this scope. They do not say that a model is safe.",
    )
    yield "\n".join(f"- {text}" for text in (*map(plain, page.noted("limits")), *standing))
    yield "## Power"
    powers = [(view, view.outcome.power if view.outcome is not None else "") for view in page.claims]
    yield _grid(
        ("claim", "standing", "verdict", "what could have been seen"),
        [(plain(view.claim.key), view.standing, view.verdict, plain(power) or "–") for view, power in powers],
    )


def _check(page: Page) -> Iterator[str]:
    yield "## How to check it"
    entries = count(len(page.entries), "entry", "entries")
    yield f"Made from a ledger of {entries} whose chain was verified meanwhile. The digest of its last entry:"
    yield f"`{page.head}`"
    yield "With the ledger at hand, this verifies the chain and prints its head, which must be the same:"
    yield "```sh\nassay check RUN\n```"
    yield "Without Assay, in the run's folder, by Python alone:"
    yield f"```python\n{CHECK}\n```"


def _provenance(page: Page) -> Iterator[str]:
    yield "## Provenance"
    if page.origin is None:
        yield "Not recorded yet."
        return
    for name, value in page.origin.model_dump(mode="json").items():
        if isinstance(value, dict) and value and name != "data":
            yield f"{name.replace('_', ' ').capitalize()}:"
            yield _pairs(value)


def _size(effect: Effect | None) -> str:
    if effect is None:
        return "–"
    value = " ".join(filter(None, (sized(effect.value, effect.low, effect.high)[0], plain(effect.unit))))
    return f"{plain(effect.name)} {value} ({interval(effect)}, {number(effect.n)} {plain(effect.n_is)})"


def _pairs(values: Mapping[str, object]) -> str:
    return _grid(("", "value"), [(plain(name), plain(cell(value))) for name, value in values.items()])


def _table(table: TableData, caption: str) -> Iterator[str]:
    yield f"**{plain(table.title)}.** {plain(caption)}"
    yield _grid([plain(name) for name in table.columns], [[plain(text) for text in row] for row in cells(table)])


def _grid(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(columns), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
