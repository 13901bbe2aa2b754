"""Policies: who may see what, as a small file that is hashed into the ledger before there is anything to see.

A policy is a list of grants and nothing else: what no grant shows is withheld, so a part that nobody thought of stays
closed, and adding a grant (or a policy that ``extends`` another) never hides anything. Three come with Assay: ``public``,
``named-researchers`` and ``internal``, each showing all that the one before it shows.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from assay.errors import BadData, nearest
from assay.evidence import Policy
from assay.evidence.entry import About, Grade, Grant, Part
from assay.files import read_bytes

SHIPPED = ("public", "named-researchers", "internal")
_FOLDER = Path(__file__).with_name("policies")
_MOST = 1 << 16
_GRADES: tuple[Grade, ...] = get_args(Grade)

OF_A_CLAIM: dict[Part, str] = {
    "claim": "what was claimed, how it was tested, and what would have refuted it",
    "outcome": "its verdict, the reason, p and power, what was not looked at",
    "effects": "sizes of effects, with intervals",
    "controls": "every control with its whole null distribution",
    "side effects": "what else the intervention changed",
    "figure": "figures",
    "table": "tables",
    "examples": "prompts with the model's natural and steered text; rows, transcripts and trigger words",
    "correction": "who corrected it, why, and what was said first",
    "parameters": "exact settings, with seeds",
    "places": "layers, heads, positions: where in the model, and whatever mentions one",
}
OF_THE_AUDIT: dict[Part, str] = {
    "question": "the question, who asked it, with what access",
    "threat": "the threat models, each with its best benign explanation",
    "verdict": "the verdict on each threat model",
    "model": "which model: name, revision, digests of its files, tokenizer and chat template",
    "data": "digests of the data",
    "setup": "versions, machine, and what rounding adds",
    "note": "notes on method, data and limits",
    "results": "raw results of every unit of work, with digests of its arrays: directions among them",
}
SUBJECTS: dict[About, str] = {
    "behaviour": "what the model does",
    "representation": "what it represents",
    "knowledge": "what it knows, and how to change that",
    "circuit": "circuits: which components do what",
    "feature": "features of dictionaries",
    "optimiser": "an optimiser inside, and where",
}

# The parts of the expression below. Every repetition is bounded: a text may be long, and of somebody who means no good.
_ANY, _GAP, _NUMBER, _WORD = r"\s{0,9}", r"[\s-]{1,9}", r"\d{1,9}", r"[a-z]{1,20}"
_PARTS = r"(?:layer|block|head|neuron|latent|feature|position|expert|channel|coordinate)s?"
_COUNT = (
    "(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)"
)
_NTH = rf"{_NUMBER}(?:st|nd|rd|th)"
_ORDINAL = (
    rf"(?:{_NTH}|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|{_WORD}teenth|"
    rf"{_WORD}tieth|last|final|penultimate)"
)
_PLACE = re.compile(
    rf"""(?<![a-z])(?:
      {_PARTS}{_ANY}(?:(?:no|nr)\.?|number|index|idx|id)?{_ANY}[-–—_=:.\#/\[]?\[?{_ANY}[-−]?\d  # Layer-13, layers=[8
    | (?:layer|head|neuron)s?{_ANY}\(\d  # layers (8, 24)
    | (?:layer|head|neuron)s?{_GAP}{_COUNT}\b(?!{_GAP}(?:by|after|at|of)\b)  # layer thirteen
    | {_ORDINAL}{_GAP}(?:(?:few|attention|decoder|transformer|hidden|{_COUNT}|{_NUMBER}){_GAP})?(?:layer|head|neuron)s?\b
    | {_NTH}{_GAP}(?:{_WORD}{_GAP})?{_PARTS}(?!{_GAP}of\b)  # 13th block, but not: 13th block of items
    | (?:after|before|between){_GAP}(?:{_NUMBER}|{_COUNT}){_GAP}(?:layer|block)s?\b(?!{_GAP}of\b)
    | depths?{_ANY}(?:of)?{_ANY}[=:]?{_ANY}\d  # relative depth 0.6
    | token{_ANY}[\#\[]?{_ANY}[-−]?\d
    | (?:dim|dimension|unit)[-_\#\[]\d
    | (?:self_)?(?:mlp|attn|attention)[-_\#\[\s]?\d
    | (?:self_)?(?:mlp|attn)[._][a-z\d]  # mlp.out, attn_out
    | resid(?![a-z]) | hook_[a-z] | {_WORD}_proj\b | h[.\[]\d | head\[ | neuron\[
    )
    | (?<![A-Za-z0-9£$€])[Lℓ]\s?[-_=:\#.(\[]?\s?\d  # L13, L3H5, L8:24.mlp.out, ℓ = 13
    | (?<![A-Za-z0-9])L(?:{_NUMBER})?:(?:{_NUMBER})?\.[a-z]  # L:24.mid
    | \s@\s\S | @\s?(?:last|all|response|subject)\b  # L3.mid @ object[-1]""",
    re.IGNORECASE | re.VERBOSE,
)
_HEADING = re.compile(  # of an axis or a column, or a setting's name, the numbers of which are places
    rf"(?:by\s)?(?:[Lℓ]|where|sites?|places?|depths?|embed|logits|(?:{_WORD}[\s_])?(?!features?\b){_PARTS}"
    rf"(?:[\s_](?:index|number|no\.?|id|of\s{_NUMBER}))?){_ANY}(?:\(.*\))?",
    re.IGNORECASE,
)


def mentions_place(text: str) -> bool:
    """Whether a text names a place inside a model, as sites or in words: ``L13.resid``, ``layer 13``, ``head[2]``; or
    is what numbers of places stand below or beside: ``layer``, ``L``, ``site``.

    Rather once too often: a sentence that is withheld by mistake can be written anew, one that is shown stays known.
    """
    return _PLACE.search(text) is not None or _HEADING.fullmatch(text.strip()) is not None


def shows(policy: Policy, parts: Iterable[Part], *, about: About | None, problem: str, grade: Grade | None) -> bool:
    """Whether every one of ``parts`` is shown, by one grant or another.

    ``about`` and ``grade`` None are for what belongs to the whole audit.
    """
    granted = {part for grant in policy.show if _covers(grant, about, problem, grade) for part in grant.parts}
    return granted.issuperset(parts)


def _covers(grant: Grant, about: About | None, problem: str, grade: Grade | None) -> bool:
    return (
        (grant.problems is None or problem in grant.problems)
        and (about is None or grant.about is None or about in grant.about)
        and (grade is None or _GRADES.index(grade) <= _GRADES.index(grant.up_to))
    )


def load_policy(source: str | Path) -> Policy:
    """A policy by its name, or from a TOML file.

    Raises:
        CorruptFile: no such file.
        BadData: a file that is no policy, named by the field that is wrong, or no policy of that name.
    """
    path = Path(source)
    if str(source) in SHIPPED:
        path = _FOLDER / f"{source}.toml"
    elif path.suffix != ".toml":
        raise BadData(
            f"there is no policy {str(source)!r}",
            nearest=nearest(str(source), SHIPPED),
            hint="name a policy that comes with Assay, or a file of your own: ours.toml",
        )
    return read_policy(read_bytes(path, most=_MOST), path.name)


def shipped_policies() -> tuple[Policy, ...]:
    """The three that come with Assay, from the narrowest to the widest."""
    return tuple(load_policy(name) for name in SHIPPED)


def read_policy(data: bytes, name: str = "policy") -> Policy:
    """A policy from TOML. ``extends = "public"`` takes over that policy's grants. Raises ``BadData``."""
    hint = "see docs/guides/release-an-audit.md, and the three policies that come with Assay"
    try:
        said: dict[str, Any] = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadData(f"{name!r} is no TOML", found=str(error)[:200], hint=hint) from None
    base = said.pop("extends", None)
    if base is not None:
        if base not in SHIPPED:
            raise BadData(f"{name!r} extends no policy", found=repr(base)[:80], wanted=", ".join(SHIPPED), hint=hint)
        below = load_policy(base)
        own, why = said.get("show", []), said.get("why", {})
        if not isinstance(own, list) or not isinstance(why, dict):
            raise BadData(f"{name!r} is no policy", found="show is no list, or why no table", hint=hint)
        said["show"] = [*(grant.model_dump() for grant in below.show), *own]
        said["why"] = {**below.why, **why}
    return Policy.model_validate(said)


def in_words(policy: Policy) -> dict[str, list[str]]:
    """What a policy shows and withholds, in plain words, with the reason for what it withholds.

    Lists by heading: ``shows``, ``withholds``. A subject of which nothing is shown is one line.
    """
    told: dict[str, list[str]] = {"shows": [], "withholds": []}

    def tell(shown: bool, key: Part | About, words: str, but: str = "") -> None:
        why = "" if shown else policy.why.get(key, "")
        told["shows" if shown else "withholds"].append(words + but + (f" – {why}" if why else ""))

    everywhere: dict[Part, str] = {**OF_THE_AUDIT}
    for part, words in everywhere.items():
        tell(shows(policy, [part], about=None, problem="", grade=None), part, words)
    open_subjects = [about for about in SUBJECTS if _most(policy, "claim", about) is not None]
    for about, words in SUBJECTS.items():
        if about not in open_subjects:
            tell(False, about, f"everything about {words}")
    for part, words in OF_A_CLAIM.items():
        most = {about: _most(policy, part, about) for about in open_subjects}
        shown = [about for about, grade in most.items() if grade is not None]
        lesser = {grade for grade in most.values() if grade not in (None, "high")}
        but = f" (up to grade {max(lesser, key=_GRADES.index)})" if lesser else ""
        if shown and len(shown) < len(open_subjects):
            but += f" ({', '.join(shown)})"
        tell(bool(shown), part, words, but if shown else "")
    return told


def _most(policy: Policy, part: Part, about: About) -> Grade | None:
    """The highest grade up to which a part is shown for claims about something, or None."""
    problem = next((name for grant in policy.show for name in grant.problems or ()), "")
    up_to = [grade for grade in _GRADES if shows(policy, [part], about=about, problem=problem, grade=grade)]
    return up_to[-1] if up_to else None
