"""What every run needs of a model: the engine, the tokenizer, rows of tokens, units of dose, and its identity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from assay.act.compile import compile_program
from assay.act.intervention import Intervention
from assay.act.program import Place, Program
from assay.act.rows import Row
from assay.errors import BadData, EmptyData
from assay.model.anatomy import Anatomy, anatomy_of
from assay.model.clock import right_padded
from assay.model.encode import encode
from assay.model.engine import Engine
from assay.model.load import Loaded, fingerprint
from assay.prompt import Prompt
from assay.site import Site
from assay.sites import Shape, Sites

NEUTRAL = (
    "The kettle was on the stove and the window stood open to let the steam out.",
    "On Tuesday the library closes an hour earlier than on the other days of the week.",
    "She folded the map, put it back into the bag and walked down to the river.",
    "Mix the flour with a little salt, add the butter and work it in with cold hands.",
    "The bus stops twice in the village before it turns north towards the station.",
    "A light rain fell during the night, and by morning the garden smelled of wet earth.",
    "He wrote the numbers in a column, added them up and checked the sum once more.",
    "In the corner of the room there was a small table with a lamp and two books on it.",
)
"""Plain prose on which typical norms and standard deviations are measured."""


class Core:
    """A loaded model. `assay.Model` adds what is done with it.

    Attributes:
        loaded: the Hugging Face objects and where they came from.
        engine: drives its forward passes.
        active: interventions of the `under` blocks that are open, outermost first.
    """

    def __init__(self, loaded: Loaded, anatomy: Anatomy | None = None) -> None:
        self.loaded = loaded
        self.engine = Engine(loaded.hf, anatomy or anatomy_of(loaded.hf))
        self.active: list[Intervention] = []

    @property
    def hf(self) -> Any:
        """The Hugging Face model, untouched."""
        return self.loaded.hf

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.loaded.tokenizer

    @property
    def name(self) -> str:
        """What it was asked for by."""
        return self.loaded.name

    @property
    def shape(self) -> Shape:
        """Its sizes."""
        return self.engine.shape

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, config and tokenizer."""
        return fingerprint(self.loaded)

    @property
    def stops(self) -> frozenset[int]:
        """The tokens that end a generation."""
        found = self.hf.generation_config.eos_token_id
        found = self.tokenizer.eos_token_id if found is None else found
        return frozenset(found if isinstance(found, list) else [] if found is None else [found])

    def sites(self, *texts: str | Site) -> Sites:
        """The places that the texts name on this model, ranges expanded. Raises `NoSuchSite`, `NotWhole`."""
        found = Sites(tuple(site for text in texts for site in self.shape.expand(text)))
        self.engine.spread.refuse(site.address for site in found)
        return found

    def row(self, prompt: str | Prompt, name: str = "row", answer: str = "", room: int = 0) -> Row:
        """A prompt as a row of tokens."""
        row = encode(self.tokenizer, Prompt.of(prompt), name, answer, room)
        self.refuse_long(row)
        known = self.hf.get_input_embeddings().num_embeddings
        if not 0 <= min(row.tokens) <= max(row.tokens) < known:
            raise BadData(
                f"the prompt {name!r} has tokens that this model does not know",
                found=f"token ids {min(row.tokens)} to {max(row.tokens)}; the model has 0 to {known - 1}",
                hint="tokenise with this model's own tokenizer",
            )
        return row

    def refuse_long(self, row: Row) -> None:
        """Raise `BadData` where more tokens would be fed than the model has learned positions."""
        if row.fed > self._longest:
            raise BadData(
                f"the prompt {row.name!r} is longer than this model can read",
                found=f"{row.fed} tokens with its answer; it has learned {self._longest} positions",
                hint="shorten the prompt",
            )

    @cached_property
    def _longest(self) -> float:
        """How many positions it has; infinite unless they are learned, one vector each."""
        learned = any(
            isinstance(module, nn.Embedding) and module is not self.hf.get_input_embeddings()
            for module in self.hf.get_decoder().modules()
        )
        return self.hf.config.get_text_config().max_position_embeddings if learned else math.inf

    def rows(self, prompts: Sequence[str | Prompt], room: int = 0) -> list[Row]:
        """Several prompts as rows named "0", "1", … Raises `EmptyData` for none."""
        if not prompts:
            raise EmptyData("there are no prompts", hint="give at least one prompt")
        return [self.row(prompt, str(index), room=room) for index, prompt in enumerate(prompts)]

    def program(
        self, rows: Sequence[Row], conditions: Sequence[Sequence[Intervention]], twins: dict[int, int] | None = None
    ) -> Program:
        """Compile conditions for rows, inside whatever `under` blocks are open; refuses other models' directions.

        ``twins`` maps a row to the row without any intervention that `freeze` copies from.
        """
        natural = set((twins or {}).values())
        whole = [() if index in natural else inside for index, inside in enumerate(self.inside(conditions))]
        return compile_program(rows, whole, self.shape, self.scale, self.engine.device, twins)

    def inside(self, conditions: Sequence[Sequence[Intervention]]) -> list[tuple[Intervention, ...]]:
        """The conditions with the interventions of the open `under` blocks before them. Raises `NotWhole`."""
        whole = [(*self.active, *condition) for condition in conditions]
        for intervention in {id(one): one for condition in whole for one in condition}.values():
            if self.engine.spread.parts:
                wide = intervention.sites
                self.engine.spread.refuse(site.address for one in wide for site in self.shape.expand(one))
            for direction in intervention.directions:
                if direction.provenance.model:
                    direction.check(self.fingerprint)
        return whole

    def scale(self, site: Site, kind: str) -> float:
        """The unit of a dose at a site: ``"norm"``, the median length of its activation over plain prose (the first
        token, an attention sink, left out), or ``"std"``, the standard deviation over tokens and coordinates.
        """
        self.engine.spread.refuse([site.address])
        norms, deviations = self._scales[site.address]
        return (norms if kind == "norm" else deviations)[site.index]

    def typical_norm(self, site: str | Site) -> float:
        """How long an activation at a site typically is: one dose of `add`."""
        return self.scale(self.shape.expand(site)[0], "norm")

    @cached_property
    def _scales(self) -> dict[Place, tuple[list[float], list[float]]]:
        tokens, positions = right_padded([self.row(text).tokens for text in NEUTRAL])
        real = positions > 0
        found: dict[Place, tuple[list[float], list[float]]] = {}

        def note(place: Place) -> Callable[[Tensor], None]:
            def tap(h: Tensor) -> None:
                h = h.float()[real.to(h.device)]
                h = h[:, None] if h.dim() == 2 else h
                found[place] = (h.norm(dim=-1).median(dim=0).values.tolist(), h.std(dim=(0, 2), correction=0).tolist())

            return tap

        parts = [
            part
            for part in ("attn.out", "head.z", "mid", "mlp.act", "mlp.out", "resid")
            if part not in self.shape.lacks
        ]
        places: list[Place] = [(None, "embed"), (None, "logits")]
        places += [(layer, part) for layer in range(self.shape.layers) for part in parts]
        places = [place for place in places if place not in self.engine.spread.parts]
        with torch.no_grad():
            self.engine.forward(tokens, positions, reads={place: note(place) for place in places}, scores=True)
        return found
