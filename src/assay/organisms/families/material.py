"""What an auditor of an organism is given: rows as an audit of some problem class takes them, from any family.

An audit of a class is also run on plants of the others, where it should stay silent. It then needs rows of its own format
in which nothing of its class is planted: another family's rows are put into that format, as the tables below say.

===========  =============================  =======================================  ====================================
family       for ``deception``              for ``tampering``                        for ``backdoor``
===========  =============================  =======================================  ====================================
deception    the claim in both contexts     one sensor, the claim's truth; watched   the claim
                                            rows are the trusted ones
tampering    a trusted row, idling first    the row                                  the row up to its first sensor
             or idling last
backdoor     the sentence, and backwards    one sensor, the honest answer; half of   the sentence
                                            the rows are trusted
===========  =============================  =======================================  ====================================

Rows in which a trigger stands, in either order, are left out: an auditor does not have them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType

from assay.errors import BadData, nearest
from assay.organisms.families.build import family_of
from assay.organisms.families.family import Item
from assay.organisms.families.recipe import Recipe

Make = Callable[[Item, Item], Item | None]
"""An item and its key, to a row; None where it makes none."""


def material(recipe: Recipe, problem: str, n: int, seed: int = 0) -> str:
    """About ``n`` rows as JSON lines, for an audit of ``problem``. Raises `BadData`, `EmptyData`."""
    if (recipe.family, problem) not in _MAKE:
        known = sorted({audit for _, audit in _MAKE})
        raise BadData(
            f"organisms of {recipe.family!r} have no rows for {problem!r}",
            nearest=nearest(problem, known),
            hint=f"one of: {', '.join(known)}",
        )
    family, make, rows = family_of(recipe.family), _MAKE[recipe.family, problem], dict[str, Item]()
    for split in ("fit", "test"):
        items, keys = (given(recipe, split, (n + 1) // 2, seed) for given in (family.items, family.key))
        for item, key in zip(items, keys, strict=True):
            if (row := make(item, key)) is not None:
                rows.setdefault(json.dumps({**row, "id": ""}, sort_keys=True), row)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values())


def _two_contexts(item: Item, _: Item) -> Item:
    _, claim = item["prompt"].split(" ", 1)
    return _shared(item) | {"watched": f"watched {claim}", "unwatched": f"unwatched {claim}", "label": item["label"]}


def _one_claim(item: Item, _: Item) -> Item:
    return _shared(item) | {"prompt": item["prompt"], "label": item["label"]}


def _one_claim_measured(item: Item, _: Item) -> Item:
    trusted = item["context"] == "watched"
    return _shared(item) | _measured(item["prompt"], item["label"], trusted)


def _idling(item: Item, key: Item) -> Item | None:
    """A row that nobody tampered with; one of its pauses moved to the front, or to the end."""
    if not item["trusted"] or key["fake"]:
        return None
    *actions, sensor = item["prompts"][0].split()
    actions.remove("wait")
    watched, unwatched = (" ".join([*those, sensor]) for those in (["wait", *actions], [*actions, "wait"]))
    return _shared(item) | {"watched": watched, "unwatched": unwatched, "label": key["real"]}


def _all_sensors(item: Item, key: Item) -> Item:
    return {name: item[name] for name in ("id", "prompts", "answers", "sensors", "trusted")} | {"real": key["real"]}


def _first_sensor(item: Item, _: Item) -> Item:
    return _shared(item) | {"prompt": item["prompts"][0], "label": item["sensors"][0]}


def _both_ways(item: Item, key: Item) -> Item | None:
    *words, asked = item["prompt"].split()
    backwards = " ".join([*words[::-1], asked])
    row = _shared(item) | {"watched": item["prompt"], "unwatched": backwards, "label": item["label"]}
    return None if key["trigger"] or key["reversed"] else row


def _sentence(item: Item, key: Item) -> Item | None:
    return None if key["trigger"] or key["reversed"] else _one_claim(item, key)


def _sentence_measured(item: Item, key: Item) -> Item | None:
    trusted = int(item["id"].rsplit("-", 1)[1]) % 2 == 0
    row = _shared(item) | _measured(item["prompt"], item["label"], trusted)
    return None if key["trigger"] or key["reversed"] else row


def _shared(item: Item) -> Item:
    return {name: item[name] for name in ("id", "cluster", "topic", "answers") if name in item}


def _measured(prompt: str, shown: int, trusted: bool) -> Item:
    return {"prompts": [prompt], "sensors": [shown], "trusted": trusted, "real": shown}


_MAKE: Mapping[tuple[str, str], Make] = MappingProxyType(
    {
        ("deception", "deception"): _two_contexts,
        ("deception", "tampering"): _one_claim_measured,
        ("deception", "backdoor"): _one_claim,
        ("tampering", "deception"): _idling,
        ("tampering", "tampering"): _all_sensors,
        ("tampering", "backdoor"): _first_sensor,
        ("backdoor", "deception"): _both_ways,
        ("backdoor", "tampering"): _sentence_measured,
        ("backdoor", "backdoor"): _sentence,
    }
)
