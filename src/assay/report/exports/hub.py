"""A release for a model's page on the Hugging Face Hub: evaluation results as YAML, and a section for the model card.

The results are in the form of ``.eval_results/*.yaml`` (huggingface.co/docs/hub/eval-results; read and written by
``huggingface_hub.parse_eval_result_entries``): one entry per threat model with an effect that is shown. A verdict is no
number, so it stands in the notes. The Hub shows entries whose ``dataset.id`` is a registered benchmark; no audit is one
yet, and the id written here is a name under ours. Whoever has a benchmark for the question puts its id there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from assay.disclose.verify import Release
from assay.report.exports.shown import Shown, effect_line
from assay.report.markdown import plain
from assay.report.words import visible

NAMESPACE = "assay-audits"
_PLAIN_WORD = re.compile(r"[A-Za-z0-9:@._-]+")
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_]+")


def eval_results(release: Release, sha256: str) -> bytes:
    """The YAML's bytes. An empty list where no effect is shown."""
    shown = Shown(release, sha256)
    entries: list[dict[str, object]] = []
    for found, told in shown.threats:
        effect = found.effect
        if effect is None:
            continue
        entries.append(
            {
                "dataset": {"id": f"{NAMESPACE}/{_slug(release.signed.problem)}", "task_id": _slug(found.threat.key)},
                "value": effect.value,
                "date": release.findings.day or shown.at[:10],
                "notes": f"audit, verdict: {told}. {visible(effect_line(effect))}. From the release with SHA-256 {sha256}",
            }
        )
    said = (
        f"# Made by Assay from the release with SHA-256 {sha256}.\n"
        "# Each value is the effect that decided a verdict; what it measures stands in its notes.\n"
        "# Put the id of a benchmark of yours where dataset has an id.\n"
    )
    return (said + yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=1 << 16)).encode()


def model_card(release: Release, sha256: str) -> bytes:
    """A section for a model card, in Markdown."""
    return ("\n\n".join(_section(Shown(release, sha256))) + "\n").encode()


def _section(shown: Shown) -> Iterator[str]:
    release, findings = shown.release, shown.release.findings
    yield f"## Audit: {plain(findings.audit.question)}"
    revision = release.signed.model.get("revision")
    of = plain(shown.model) + (f" at revision {plain(str(revision))}" if revision else "")
    by = f" by {plain(findings.audit.auditor)}" if findings.audit.auditor else ""
    yield f"An audit of {of}{by} for the problem class {plain(release.signed.problem)}."
    yield "| threat model | verdict | why | main effect |\n| --- | --- | --- | --- |" + "".join(
        f"\n| {plain(found.threat.statement)} | **{told}** | {plain(found.because)} | "
        f"{plain(effect_line(found.effect)) if found.effect is not None else '–'} |"
        for found, told in shown.threats
    )
    yield (
        "*Supported* means that the evidence is there, not that all is well. *Not supported* means that it was looked for "
        "and did not hold; *not testable*, that nothing can be said."
    )
    yield "### Limits"
    powers = [f"Power, {plain(found.threat.key)}: {plain(found.power)}" for found, _ in shown.threats if found.power]
    limits = [plain(text) for text in findings.noted("limits")]
    limits.append("The verdicts are about this model, these data and this scope. They do not say that a model is safe.")
    yield "\n".join(f"- {text}" for text in (*limits, *powers))
    yield "### How to check"
    yield "\n".join(
        (
            f"- SHA-256 of the release that this was made from: `{shown.sha256}`. Ask the auditor for it; this text by "
            "itself proves nothing.",
            f"- The auditor's key, by its thumbprint (RFC 7638): `{release.key}`. Get it over another way.",
            f"- `assay verify FILE --key AUDITOR.pub --to {_in_code(release.audience)}` verifies it. It shows "
            f"{len(release.items)} of {release.signed.claims_total} items; the others are withheld by the policy "
            f"{plain(release.policy.policy.name)}.",
        )
    )


def _in_code(text: str) -> str:
    """An audience between backticks: a policy's name, and an addressee of any text."""
    return text if _PLAIN_WORD.fullmatch(text) else "AUDIENCE"


def _slug(text: str) -> str:
    return _NOT_IN_AN_ID.sub("-", text).strip("-")[:90] or "audit"
