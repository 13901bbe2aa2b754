"""A release as a log of Inspect, for its viewer and its tools: each claim is a sample, its verdict the score.

The format is that of ``inspect_ai.log`` 0.3.285, log version 2: a zip with ``header.json`` (``EvalLog`` without
samples), ``summaries.json``, ``samples/ID_epoch_1.json`` and a journal. It is written here, since Inspect's own
dependencies exclude Assay's; ``reliability/viewers.py`` reads it with Inspect and opens it in Inspect's viewer.

What it is not: no model was run by Inspect, so there are no messages, and a verdict is a word and no number that a
mean could be taken of. The log says of itself that its content is not to be trusted (``ViewerConfig.trust_content``),
so the viewer shows foreign text as plain text, but in headings, where it is written out here. Members are stored without compression, which differs between builds
of zlib.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter

from pydantic import JsonValue

from assay.disclose.verify import Release
from assay.evidence import Finding
from assay.report.exports.shown import Shown, Told, effect_line, json_bytes, measured, reasons
from assay.report.words import visible

Json = dict[str, JsonValue]

VERSION = 2
SCORER = "verdict"
_WORDS: tuple[Told, ...] = ("supported", "not supported", "not testable", "withheld", "no outcome yet")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can name
_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
_THIN = 1000
_VIEWER: Json = {
    "trust_content": False,
    "task_samples_view": {
        "name": "claims",
        "columns": [
            {"id": name, "visible": name not in ("sampleStatus", "epoch", "target", "tokens", "duration")}
            for name in (
                "sampleStatus", "sampleId", "epoch", "input", "target", "answer", f"score__{SCORER}__{SCORER}", "tokens",
                "duration",
            )
        ],
    },
}  # fmt: skip


def inspect_log(release: Release, sha256: str) -> bytes:
    """The log's bytes."""
    shown = Shown(release, sha256)
    claims = [(name, finding, told) for name, (finding, told) in zip(_names(shown), shown.claims, strict=True)]
    spec = _spec(shown, [name for name, _, _ in claims])
    plan: Json = {"name": "plan", "steps": [], "config": {}}
    summaries: JsonValue = [_summary(name, finding, told) for name, finding, told in claims]
    header: Json = {
        "version": VERSION,
        "status": "success",
        "eval": spec,
        "plan": plan,
        "results": _results(shown),
        "stats": {"started_at": shown.at, "completed_at": shown.at, "model_usage": {}},
        "invalidated": False,
    }
    members: dict[str, JsonValue] = {"_journal/start.json": {"version": VERSION, "eval": spec, "plan": plan}}
    for name, finding, told in claims:
        members[f"samples/{name}_epoch_1.json"] = _sample(shown, name, finding, told)
    members |= {"_journal/summaries/1.json": summaries, "summaries.json": summaries, "header.json": header}
    return _zip(members)


def _names(shown: Shown) -> list[str]:
    """An id for each claim: its key, or its number where the key would make no good name of a file."""
    keys = [finding.claim.key for finding, _ in shown.claims]
    often = Counter(keys)
    return [
        key if _SAFE.fullmatch(key) and often[key] == 1 else f"claim.{place}" for place, key in enumerate(keys, start=1)
    ]


def _spec(shown: Shown, names: list[str]) -> Json:
    release, findings = shown.release, shown.release.findings
    identity = shown.sha256[:22]  # as long as Inspect's own
    task = visible(findings.audit.name or release.signed.problem)
    return {
        "eval_id": identity,
        "run_id": identity,
        "created": shown.at,
        "task": task,
        "task_id": release.credential[:22],
        "task_version": 0,
        "task_display_name": f"Audit: {task}",
        "task_description": visible(findings.audit.question),
        "tags": ["assay", release.policy.policy.name],
        "dataset": {
            "name": "claims of an audit", "samples": len(names), "sample_ids": list(names), "shuffled": False,
        },
        "model": visible(shown.model),
        "config": {},
        "packages": dict(release.signed.tool),
        "metadata": {
            "question": findings.audit.question,
            **shown.source,
            "threats": [
                {**found.threat.model_dump(mode="json"), "verdict": told, "because": found.because}
                for found, told in shown.threats
            ],
            "limits": list(findings.noted("limits")),
            "this_is": "an export of a signed release; only the release itself proves anything",
        },
        "viewer": _VIEWER,
        "scorers": [{"name": SCORER, "options": {}, "metadata": {}}],
    }  # fmt: skip


def _results(shown: Shown) -> Json:
    """How many claims have each verdict. There is no mean of verdicts."""
    counts = Counter(told for _, told in shown.claims)
    metrics: Json = {word: {"name": word, "value": counts[word]} for word in _WORDS if counts[word]}
    score: Json = {"name": SCORER, "scorer": SCORER, "scored_samples": len(shown.claims), "metrics": metrics}
    return {"total_samples": len(shown.claims), "completed_samples": len(shown.claims), "scores": [score]}


def _sample(shown: Shown, name: str, finding: Finding, told: Told) -> Json:
    claim = finding.claim
    said: Json = {
        "key": claim.key,
        "threat": claim.threat,
        "standing": finding.standing,
        "how it was tested": claim.method,
        "what would have refuted it": claim.refuted_by,
        "controls": list(claim.controls),
        "controls named and not reported": list(finding.controls_not_shown) if told != "withheld" else [],
        "about": claim.about,
        "dual-use grade": claim.grade,
        "problem": claim.problem,
        "measure": claim.measure,
        "params": claim.params,
        "release_sha256": shown.sha256,
    }
    score = _score(finding, told)
    return {
        "id": name,
        "epoch": 1,
        "input": claim.statement,
        "target": "",
        "scores": {SCORER: score},
        "metadata": {key: value for key, value in said.items() if value not in ([], {}, "")},
        "store": {},
        "events": [
            _event(shown, "info", source="How it was tested", data=claim.method),
            _event(shown, "info", source="What would have refuted it", data=claim.refuted_by),
            _event(shown, "score", score=score, scorer=SCORER),
        ],
        "model_usage": {},
        "attachments": {},
    }


def _event(shown: Shown, kind: str, **fields: JsonValue) -> Json:
    return {"event": kind, "timestamp": shown.at, "working_start": 0, **fields}


def _score(finding: Finding, told: Told) -> Json:
    return {
        "value": told,
        "answer": _answer(finding, told),
        "explanation": "\n".join(reasons(finding)),
        "metadata": measured(finding),
        "history": [],
    }


def _answer(finding: Finding, told: Told) -> str:
    """The verdict with the main effect: the viewer's list cuts a score that is longer than a word."""
    effects = () if finding.outcome is None else finding.outcome.effects
    return f"{told}: {visible(effect_line(effects[0]))}" if effects else told


def _summary(name: str, finding: Finding, told: Told) -> Json:
    """What the viewer's list shows, thinned as Inspect does: no text above 1000 characters, nothing large."""
    claim = finding.claim
    return {
        "id": name,
        "epoch": 1,
        "input": _thin(claim.statement),
        "target": "",
        "metadata": {"threat": _thin(claim.threat), "standing": finding.standing},
        "scores": {
            SCORER: {
                "value": told,
                "answer": _thin(_answer(finding, told)),
                "explanation": _thin(finding.because),
                "history": [],
            }
        },
        "model_usage": {},
        "completed": True,
        "message_count": 0,
    }


def _thin(text: str) -> str:
    return text if len(text) <= _THIN else text[:_THIN] + "…"


def _zip(members: dict[str, JsonValue]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, value in members.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # the same on every system
            info.external_attr = 0o644 << 16
            archive.writestr(info, json_bytes(value))
    return made.getvalue()
