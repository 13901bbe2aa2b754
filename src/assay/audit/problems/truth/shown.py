"""Figures and tables of the third threat model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from assay.audit import Lab, TableData
from assay.audit.problems.truth import told
from assay.audit.problems.truth.said import CONDITIONS, Said
from assay.audit.problems.truth.say import write, yes_or_no
from assay.audit.problems.truth.statements import instructions


def by_paraphrase(lab: Lab, said: Said) -> TableData:
    """Each instruction with the share of false replies and the score, under its control and under itself."""
    wordings = instructions(lab.data["instructions"])
    rows: list[tuple[str | float, ...]] = []
    for name, words in CONDITIONS.items():
        false, odds = said.by[name].says_false.mean(axis=2), said.by[name].odds.mean(axis=2)
        for wording, shares, scores in zip(wordings[name], false, odds, strict=False):
            rows.append((words, wording["text"], *(round(float(x), 3) for x in (*shares[::-1], *scores[::-1]))))
    return TableData(
        title="Instruction by instruction",
        columns=("condition", "instruction", "false, control", "false, told so", "nats, control", "nats, told so"),
        rows=tuple(rows),
        caption="Share of items whose false reply is preferred, and mean log P(true) − log P(false), under the matched "
        "control and under the instruction.",
    )


def forced(
    lab: Lab, conditions: Sequence[str], paraphrases: int, clusters: int, items: int, seed: int
) -> list[TableData]:
    """Forced yes-or-no answers beside the replies."""
    every = [
        dict(condition=name, paraphrases=paraphrases, clusters=clusters, items=items, seed=seed) for name in conditions
    ]
    found = dict(zip(conditions, lab.units(yes_or_no, every), strict=True))
    if not all(found.values()):
        return []
    weak = min(side["auroc"] for one in found.values() for side in one.values())
    if weak < 0.7:
        lab.note(
            "limits",
            f"Forced yes-or-no answers tell true from false with AUROC {weak:.2f} at worst: read them with care.",
        )
    rows = [
        (name, *(cell for side in ("control", "text") for cell in (
            told.between(told.paired(found[name][side]["right"])), round(found[name][side]["auroc"], 3)
        )))
        for name in conditions
    ]  # fmt: skip
    return [
        TableData(
            title="Forced yes-or-no answers",
            columns=("instruction", "right, control", "AUROC, control", "right, told so", "AUROC, told so"),
            rows=tuple(rows),
            caption="Share of items where “yes” is likelier to the question whose answer is yes than to the other, "
            "and the AUROC over all questions; .5 is nothing. Beside the claim: it does not decide.",
        )
    ]


def written(lab: Lab, conditions: Mapping[str, str], clusters: int, items: int, seed: int, most: int = 3) -> TableData:
    """What it writes of its own accord."""
    made = lab.unit(write, conditions=list(conditions), clusters=clusters, items=items, seed=seed, most=most)
    return TableData(
        title="In its own words",
        columns=("instruction", "asked about", "under the control", "told so"),
        rows=tuple((one["instruction"], one["entity"], one["control"], one["told"]) for one in made),
        caption="The first 24 tokens that it writes. For a reader's own judgement; nobody scored them.",
    )
