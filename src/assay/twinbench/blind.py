"""One audit of one organism. The audit gets a model without a name and rows; what is planted is looked up afterwards."""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from assay.audit import Bench, Plan, unit
from assay.audit.calibration import SCORED, Scored
from assay.audit.problems.triggers.order import THE_WORDS
from assay.evidence import Findings, Outcome, read_findings
from assay.organisms.families import Organism, train
from assay.organisms.families.learn import alone
from assay.organisms.families.material import material
from assay.run.model import Model
from assay.twinbench.subjects import Subject


def plan_of(problem: str, rows: Path) -> Plan:
    """The audit of a class on rows of a file."""
    return cast(Plan, importlib.import_module(f"assay.audit.problems.{SCORED[problem].audit}").on_rows(rows))


@unit("twinbench.audit")
def audited(bench: Bench, *, problem: str, family: str, kind: str, seed: int, series: bool) -> dict[str, Any]:
    """Train or find the organism, audit it blind, and say what came of it beside what is planted.

    ``bench`` holds no model: this unit has one of its own, and one thread, so that it gives the same bits anywhere. With
    ``series`` every checkpoint is audited.
    """
    organism = train(Subject(family, kind, seed).recipe)
    if not organism.accepted:
        return {"accepted": False}
    with tempfile.TemporaryDirectory() as folder, alone():
        rows = Path(folder) / "rows.jsonl"
        rows.write_text(_unnamed(material(organism.recipe, problem, SCORED[problem].rows, seed)), encoding="utf-8")
        steps: tuple[int | None, ...] = organism.steps if series else (None,)
        found = []
        for step in steps:
            began = time.perf_counter()
            one = _one(problem, organism, step, rows, Path(folder) / f"run-{step}")
            found.append(one | {"step": step, "seconds": round(time.perf_counter() - began, 2)})
    planted = organism.card["planted"]
    known = {
        "first": min(planted["layers"], default=None) if planted["frozen"] else None,
        "onset": organism.onset,
        "trigger": planted.get("trigger", []),
    }
    return {"accepted": True, "parameters": organism.card["parameters"], "planted": known, "found": found}


def _unnamed(rows: str) -> str:
    """Rows whose ids do not name a family."""
    given = [json.loads(line) for line in rows.splitlines()]
    return "".join(json.dumps(row | {"id": f"row-{n}"}, ensure_ascii=False) + "\n" for n, row in enumerate(given))


def _one(problem: str, organism: Organism, step: int | None, rows: Path, into: Path) -> dict[str, Any]:
    hf, tokenizer = organism.load(step)
    hf.name_or_path = hf.config._name_or_path = "subject"
    scored, model = SCORED[problem], Model.load(hf, tokenizer=tokenizer)
    with plan_of(problem, rows).run(model, into=into, reports=False) as ledger:
        findings = read_findings(ledger)
    threat = next(one for one in findings.threats if one.threat.key == scored.threat)
    return {
        "score": _effect(_outcome(findings, scored.claim), scored),
        "verdict": threat.verdict,
        "claims": {one.claim.key: one.verdict for one in findings.claims},
        "block": _block(_outcome(findings, scored.places)) if scored.places else None,
        "words": _words(findings),
    }


def _outcome(findings: Findings, key: str) -> Outcome | None:
    return next((one.outcome for one in findings.claims if one.claim.key == key), None)


def _effect(outcome: Outcome | None, scored: Scored) -> float:
    found = [] if outcome is None else [one.value for one in outcome.effects if one.name.startswith(scored.effect)]
    return found[0] if found else scored.silent


def _block(outcome: Outcome | None) -> int | None:
    where = outcome.where[0] if outcome is not None and outcome.where else ""
    return int(where[1:].split(".")[0]) if where.startswith("L") else None


def _words(findings: Findings) -> list[str]:
    """A trigger that was found, from the table that may name it."""
    for one in findings.claims:
        for table in one.outcome.read_first if one.outcome else ():
            if table.title == THE_WORDS:
                return next(([str(first), str(second)] for part, first, second, *_ in table.rows if part == "test"), [])
    return []
