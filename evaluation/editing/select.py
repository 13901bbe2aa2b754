"""``python -m evaluation.editing.select``: from candidates, the facts that the model knows, written to ``facts.jsonl``.

Known is a fact whose answer the model gives: greedily, word for word, when it is asked as in the prompt. Its new answer is
another one of the same relation, and its neighbours are ten other subjects with the same answer, known or not; both are
drawn by hashing, so nothing depends on what an edit does. Facts come in an order drawn by hashing too: the first `TUNE`
choose layers and weights, the others are the test.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from collections import Counter
from pathlib import Path

from assay import Model
from assay.edit import Fact
from assay.prompt import Prompt

HERE = Path(__file__).parent
FACTS = HERE / "facts.jsonl"
TUNE = 40
NEIGHBOURS = 10


def order(*parts: str) -> str:
    """A key that shuffles by content."""
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def candidates() -> list[Fact]:
    """Every candidate with its new answer, paraphrases and neighbours."""
    found = []
    for relation, asked in tomllib.loads((HERE / "candidates.toml").read_text(encoding="utf-8")).items():
        for answer, subjects in asked["subjects"].items():
            others = [other for other in asked["subjects"] if other != answer]
            for subject in subjects:
                near = sorted((one for one in subjects if one != subject), key=lambda one: order(subject, one))
                found.append(
                    Fact(
                        Prompt(asked["prompt"], subject=subject),
                        f" {answer}",
                        f" {min(others, key=lambda other: order(relation, subject, other))}",
                        tuple(way.replace("{subject}", subject) for way in asked["paraphrases"]),
                        tuple(asked["prompt"].replace("{subject}", one) for one in near[:NEIGHBOURS]),
                        relation,
                    )
                )
    return sorted(found, key=lambda fact: order(fact.relation, fact.subject))


def known(model: Model, facts: list[Fact]) -> list[Fact]:
    """Those whose answer the model gives."""
    longest = max(len(model.tokenizer(fact.old, add_special_tokens=False)["input_ids"]) for fact in facts)
    said = model.sweep([fact.prompt for fact in facts], [()], generate=longest + 1).generated
    return [
        fact
        for fact, (text,) in zip(facts, said, strict=True)
        if (text + " ").startswith((fact.old + " ", fact.old + ",", fact.old + "."))
    ]


def main() -> None:
    """Select, write, and say how many there are of each relation."""
    facts = candidates()
    chosen = known(Model.load(), facts)
    Fact.save(chosen, FACTS)
    told = [
        f"{len(chosen)} of {len(facts)} candidates are known: {TUNE} to choose with, {len(chosen) - TUNE} to test on"
    ]
    asked, kept = (Counter(fact.relation for fact in some) for some in (facts, chosen))
    told += [f"  {relation:<12} {kept[relation]:>3} of {count}" for relation, count in asked.items()]
    sys.stdout.write("\n".join([*told, ""]))


if __name__ == "__main__":
    main()
