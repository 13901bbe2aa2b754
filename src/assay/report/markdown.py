"""The report as Markdown: the same content in plain text, figures as their numbers, for a repository or a model card.

Foreign text is escaped where it stands in a sentence and fenced where it is long, so that it can neither format the
page nor place an image in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from assay.disclose.policy import SUBJECTS
from assay.evidence import Effect, Example, Finding, Findings, Outcome, TableData, ThreatFinding
from assay.report.figures import figure_table, quantiles
from assay.report.html import CHECK
from assay.report.shown import Shown
from assay.report.words import cell, cells, count, discord, interval, number, p_value, prediction, sized, visible

if TYPE_CHECKING:
    from assay.disclose.verify import Release


def render_markdown(findings: Findings, release: Release | None = None) -> str:
    """The whole report as Markdown.

    Args:
        findings: of a ledger (`read_findings`), or of a release.
        release: the verified release that the findings are of, if they are of one.
    """
    shown = Shown(findings, release)
    strays = "a threat model that is not shown" if shown.released else "no threat model of this audit"
    blocks = [
        *_top(shown),
        *(block for place, view in enumerate(findings.threats, start=1) for block in _threat(place, view, shown)),
        *([f"## Claims about {strays}"] if findings.strays else []),
        *(block for view in findings.strays for block in _claim(view, shown)),
        *_method(shown),
        *_process(shown),
        *_check(shown),
        *_provenance(shown),
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


def _top(shown: Shown) -> Iterator[str]:
    found = shown.findings
    yield f"# {plain(found.audit.question)}"
    facts = {"problem class": found.audit.problem or "withheld"}
    if shown.model:
        said = {name: text or "not stated" for name, text in shown.model.items()}
        facts |= {"model": said["name"], "revision": said["revision"], "fingerprint": said["fingerprint"]}
    facts |= {"day": found.day, "auditor": found.audit.auditor, "access": found.audit.access}
    yield "\n".join(f"- {name}: {plain(value)}" for name, value in facts.items() if value)
    if shown.interim:
        so_far = "had not ended when it was signed" if shown.released else "has not ended"
        yield f"**Interim.** This audit {so_far}; what follows is what its ledger held by then."
    if shown.released:
        yield from _release(shown)
    yield "## Verdicts"
    rows = [
        (plain(view.threat.statement), f"**{view.verdict}**", plain(view.because), _size(view.effect))
        for view in found.threats
    ]
    yield _grid(("threat model", "verdict", "why", "main effect"), rows) if rows else "No threat model is shown."
    yield (
        "*Supported*: every confirmatory claim about the threat passed its test against its controls. "
        "*Not supported*: at least one was tested and did not hold; where the power is stated, this is knowledge. "
        "*Not testable*: no claim failed, but one could not be tested. Exploratory claims decide nothing."
    )


def _release(shown: Shown) -> Iterator[str]:
    release = shown.release
    if release is None:
        yield "**This is a part of an audit.** What is not here was withheld, or was never measured."
        return
    total, withheld = count(release.signed.claims_total, "item"), number(release.withheld)
    yield f"## This is a release to “{plain(release.audience)}”"
    yield (
        f"Who that is: {plain(release.policy.policy.says)} **{number(len(release.items))} of {total}** of the audit are "
        f"shown, {withheld} withheld, by a policy that was fixed before the first result. Signed by the key with the "
        f"thumbprint `{release.key}` on {release.signed_at:%Y-%m-%d}, by the signer's clock. This page is not signed; "
        "the file that it was made from is."
    )
    for heading, title in (("withholds", "What this audience is not shown, and why:"), ("shows", "What it is shown:")):
        if shown.policy_in_words[heading]:
            yield title
            yield "\n".join(f"- {plain(text)}" for text in shown.policy_in_words[heading])


def _threat(place: int, view: ThreatFinding, shown: Shown) -> Iterator[str]:
    yield f"## Threat model {place}: {plain(view.threat.statement)}"
    yield f"**{view.verdict.capitalize()}.** {plain(view.because)}"
    yield f"- asked of: {plain(view.threat.scope)}\n- the best benign explanation: {plain(view.threat.benign)}"
    if view.threat.predictions:
        yield "What it predicts:"
        yield "\n".join(f"- {plain(prediction(one))}" for one in view.threat.predictions)
    if said := discord(view):
        yield plain(said)
    for claim in view.claims:
        yield from _claim(claim, shown)
    if not view.claims:
        yield "No claim about it is shown: withheld, or none was recorded." if shown.released else "No claim about it."


def _claim(view: Finding, shown: Shown) -> Iterator[str]:
    claim, outcome, unseen = view.claim, view.outcome, shown.unseen(view)
    yield f"### {plain(claim.statement)}"
    yield f"**{view.verdict.capitalize()}**, {view.standing}. {plain(view.because)}"
    if view.correction is not None:
        yield f"Corrected by {plain(view.correction.author)}: {plain(view.correction.reason)}"
        if view.first_said is not None:
            yield f"First said: {view.first_said.verdict}. {plain(view.first_said.because)}"
    facts = [f"how it was tested: {plain(claim.method)}", f"what would have refuted it: {plain(claim.refuted_by)}"]
    if outcome is not None:
        facts += [f"where: {plain(', '.join(outcome.where))}"] if outcome.where else []
        facts.append(f"power: {plain(outcome.power) or 'not stated'}")
        facts += [f"not looked at: {plain(item)}" for item in outcome.not_looked_at]
        if not outcome.side_effects and "side effects" not in unseen:
            facts.append("side effects: none are reported")
    if view.controls_not_shown and "controls" not in unseen:
        facts.append(f"controls named beforehand and not reported: {plain('; '.join(view.controls_not_shown))}")
    if unseen:
        facts.append(f"withheld, or never there: {', '.join(unseen)}")
    yield "\n".join(f"- {fact}" for fact in facts)
    if outcome is not None:
        yield from _outcome(outcome)
    about = f"About {SUBJECTS[claim.about]}; dual-use grade {claim.grade}."
    yield about if view.entry is None else f"{about} Claim `{claim.digest}`, entry {view.entry.seq}."


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
    for table in (*outcome.tables, *outcome.read_first):
        yield from _table(table, table.caption)
    for example in outcome.examples:
        yield from _example(example)


def _example(example: Example) -> Iterator[str]:
    for name, text in (("Prompt", example.prompt), ("Natural", example.natural), ("Steered", example.steered)):
        yield f"{name} (text shown as it came):"
        yield fenced(text)


def _method(shown: Shown) -> Iterator[str]:
    found = shown.findings
    yield "## Method"
    yield from map(plain, found.noted("method") or (shown.unsaid("note"),))
    yield "How each claim was tested stands beside it."
    yield "## Data"
    yield from map(plain, found.noted("data") or (shown.unsaid("note"),))
    if found.origin is not None and found.origin.data:
        yield _pairs(found.origin.data)
    yield "## Limits"
    standing = (
        "The ledger proves the order of its own entries, not that nothing was looked at elsewhere before.",
        "The verdicts are about this model, these data and this scope. They do not say that a model is safe.",
        *(["The auditor may have named more limits than are shown."] if shown.hidden("note") else []),
    )
    yield "\n".join(f"- {text}" for text in (*map(plain, found.noted("limits")), *standing))
    if found.claims:
        yield "## Power"
        powers = [(view, view.outcome.power if view.outcome is not None else "") for view in found.claims]
        yield _grid(
            ("claim", "standing", "verdict", "what could have been seen"),
            [(plain(view.claim.key), view.standing, view.verdict, plain(power) or "–") for view, power in powers],
        )


def _process(shown: Shown) -> Iterator[str]:
    yield "## Process"
    yield "\n".join(f"- {name}: {plain(text)}" for name, texts in shown.process.items() for text in texts)
    yield f"The order of events. {shown.order}"
    runs = shown.findings.runs
    if runs:
        spans = (f"{run.kind} {run.first}" + (f"–{run.last}" if run.last > run.first else "") for run in runs)
        yield f"{plain(' · '.join(spans))}."


def _check(shown: Shown) -> Iterator[str]:
    yield "## How to check it"
    if shown.released:
        yield "Whoever has the release's file checks it on any machine, without a model and without this page:"
        yield fenced(shown.command)
        yield "\n".join(f"- {text}" for text in shown.proofs)
        yield _pairs(shown.digests)
        return
    entries = count(len(shown.findings.entries), "entry", "entries")
    yield f"Made from a ledger of {entries} whose chain was verified meanwhile. The digest of its last entry:"
    yield f"`{shown.findings.head}`"
    yield "With the ledger at hand, this verifies the chain and prints its head, which must be the same:"
    yield "```sh\nassay check RUN\n```"
    yield "Without Assay, in the run's folder, by Python alone:"
    yield f"```python\n{CHECK}\n```"


def _provenance(shown: Shown) -> Iterator[str]:
    yield "## Provenance"
    origin = shown.findings.origin
    if origin is None and not shown.released:
        yield "Not recorded yet."
    for name, value in {} if origin is None else origin.model_dump(mode="json").items():
        if isinstance(value, dict) and value and name != "data":
            yield f"{name.replace('_', ' ').capitalize()}:"
            yield _pairs(value)
    if shown.hidden("setup") or shown.hidden("parameters") or shown.hidden("model"):
        yield "What else there is of this kind is withheld, or was not recorded."


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
