"""What is proved about this very model when it is first loaded.

A name such as ``L12.resid`` is a promise about somebody else's code, which changes between releases. Every promise is
checked here, on the model at hand, against Hugging Face's own outputs; a model that breaks one is refused
(`SelfTestFailed`). Where only rounding may differ, what it adds is measured, printed and kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.act.intervention import Intervention, ablate, add
from assay.act.program import Place
from assay.act.rows import Row
from assay.errors import SelfTestFailed
from assay.model.anatomy import module_at
from assay.model.clock import right_padded
from assay.model.core import NEUTRAL, Core
from assay.model.engine import Start
from assay.model.load import cache_folder
from assay.model.taps import Tap
from assay.provenance import digest_of, versions
from assay.site import Site


@dataclass(frozen=True)
class Check:
    """One promise: the largest deviation found, the most that is allowed, and the site where it was found."""

    name: str
    deviation: float
    limit: float
    where: str = ""

    @property
    def holds(self) -> bool:
        """Whether the promise is kept."""
        return self.deviation <= self.limit


@dataclass(frozen=True)
class SelfTest:
    """All checks of one model. Printing it shows what rounding adds."""

    checks: tuple[Check, ...]

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = [f"{check.name:<{width}}  {check.deviation:8.1e}  (at most {check.limit:.0e})" for check in self.checks]
        return "\n".join(lines)


def self_test(core: Core, remember: bool = True) -> SelfTest:
    """Prove the sites of a model, or find the proof made earlier for the same weights, code and versions.

    Deviations of values are relative to the largest value; those of logits, to the logits' standard deviation.
    """
    path = _remembered(core)
    if remember and path.exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return SelfTest(tuple(Check(**check) for check in json.loads(path.read_text())))
    try:
        found = SelfTest(tuple(_Bench(core).checks()))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise SelfTestFailed(
            f"the sites of {core.name!r} do not fit together",
            found=str(error).splitlines()[0],
            hint="the anatomy names a module of another width; print(model.hf) shows the modules",
        ) from error
    broken = [check for check in found.checks if not check.holds]
    if broken:
        raise SelfTestFailed(
            f"{core.name!r} does not keep {len(broken)} of {len(found.checks)} promises about its sites",
            found="; ".join(
                f"{check.name}{' at ' + check.where if check.where else ''}: {check.deviation:.2g}"
                for check in broken[:4]
            ),
            allowed=f"{broken[0].limit:.0e}",
            hint="the anatomy names a wrong module, or this release of transformers computes the block differently",
        )
    if remember:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps([asdict(check) for check in found.checks]))
    return found


def _remembered(core: Core) -> Path:
    engine = core.engine
    package = Path(__file__).parents[1]
    code = digest_of(file.read_bytes() for part in ("model", "act") for file in sorted((package / part).glob("*.py")))
    key = [
        core.fingerprint,
        str(engine.anatomy),
        str(engine.dtype),
        engine.device.type,
        code,
        sorted(versions().items()),
    ]
    return cache_folder() / "selftest" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"


class _Bench:
    """Two short rows of different length, the Hugging Face outputs for them, and the checks against these."""

    def __init__(self, core: Core) -> None:
        self.core, self.engine, self.shape = core, core.engine, core.shape
        texts = [core.row(text).tokens for text in NEUTRAL[:2]]
        self.long = Row("long", texts[0][:16], len(texts[0][:16]))
        self.short = Row("short", texts[1][:9], len(texts[1][:9]))
        self.brief = Row("brief", texts[0][:5], 5)
        with torch.no_grad():
            self.natural = core.hf(**self._batch(self.long), output_hidden_states=True, use_cache=False)
        epsilon = torch.finfo(self.engine.dtype).eps
        self.limit = max(1e-4, 64 * epsilon)
        # Routed experts gather tokens by expert, so one row's routing regroups the sums of all: equal to rounding only.
        self.bit = 0.0 if self.engine.anatomy.down is not None else 10 * self.limit
        self.places: list[Place] = [(None, "embed")]
        parts = [
            part
            for part in ("attn.out", "head.z", "mid", "mlp.act", "mlp.out", "resid")
            if part not in self.shape.lacks
        ]
        self.places += [(layer, part) for layer in range(self.shape.layers) for part in parts]
        self.places = [place for place in self.places if place not in self.engine.spread.parts]
        self.values = self._read(self.long, self.places)

    def checks(self) -> list[Check]:
        """Every check, in the order in which they are printed."""
        return [
            self._hidden_states(),
            self._sums(),
            self._heads(),
            self._scores(),
            self._untouched(),
            self._ablated(),
            self._alone(),
            self._left_padded(),
            self._cached(),
            self._resumed(),
            self._isolated(),
            self._causal(),
            self._between(),
        ]

    def _hidden_states(self) -> Check:
        """``embed`` and every ``resid`` are Hugging Face's hidden states; its last one is the normed final stream."""
        states = self.natural.hidden_states
        pairs = [("embed", states[0], self.values[None, "embed"])]
        pairs += [(f"L{n}.resid", states[n + 1], self.values[n, "resid"]) for n in range(self.shape.layers - 1)]
        final = self.engine.forward(*self._tokens(self.long))
        return self._worst("sites are Hugging Face's hidden states", [*pairs, ("final norm", states[-1], final)], 0.0)

    def _sums(self) -> Check:
        """The stream is what it was, plus what attention adds, plus what the MLP adds."""
        pairs = []
        for layer in range(self.shape.layers):
            below = self.values[(None, "embed") if layer == 0 else (layer - 1, "resid")]
            mid = below + self.values[layer, "attn.out"]
            if "mid" not in self.shape.lacks:
                pairs.append((f"L{layer}.mid", mid, self.values[layer, "mid"]))
            pairs.append((f"L{layer}.resid", self.values[layer, "resid"], mid + self.values[layer, "mlp.out"]))
        return self._worst("attention and MLP add up to the stream", pairs)

    def _heads(self) -> Check:
        """Each head's share through its part of the output projection sums to what attention adds."""
        name, pairs = "heads sum to attention's output", []
        for layer, block in enumerate(self.engine.hooks.blocks):
            if (layer, "head.z") not in self.values:  # a shard, where weights are divided over processes
                continue
            projection = module_at(block, self.engine.anatomy.o_proj)
            z = self.values[layer, "head.z"].to(self.engine.spread.blocks[layer])
            zeros = torch.zeros_like(z)
            with torch.no_grad():
                bias = projection(zeros.flatten(-2))
                total = bias.clone()
                for head in range(self.shape.heads):
                    alone = zeros.clone()
                    alone[:, :, head] = z[:, :, head]
                    total += projection(alone.flatten(-2)) - bias
                if self.engine.anatomy.attn_out != self.engine.anatomy.o_proj:
                    total = module_at(block, self.engine.anatomy.attn_out)(total)
            pairs.append((f"L{layer}.attn.out", self.values[layer, "attn.out"], total.to(self.engine.device)))
        return self._worst(name, pairs) if pairs else Check(name, 0.0, 0.0)

    def _scores(self) -> Check:
        """The head on the final stream gives the model's own logits."""
        final = self.engine.forward(*self._tokens(self.long))
        return self._logits("head on the final stream = logits", self.natural.logits, self.engine.unembed(final))

    def _untouched(self) -> Check:
        """Reading everywhere, and adding at dose 0 everywhere, changes no bit of the logits."""
        program = self.core.program([self.long], [[add(self._vector(Site("resid", 0)), dose=0.0, at="L0.resid")]])
        reads = {place: lambda h: None for place in self.places}
        logits = self.engine.forward(*self._tokens(self.long), program=program, reads=reads, scores=True)
        return self._logits("dose 0 changes no bit", self.natural.logits, logits, 0.0)

    def _ablated(self) -> Check:
        """After an ablation the coordinate along the direction is 0, at every place (one row for each)."""
        sites = self._sites()
        rows = [replace(self.brief, name=str(site)) for site in sites]
        program = self.core.program(rows, [[ablate(self._vector(site), at=str(site))] for site in sites])
        found: list[tuple[float, str]] = []

        def look(site: Site, row: int) -> Callable[[Tensor], None]:
            def tap(h: Tensor) -> None:
                mine = (h[row, :, site.index] if h.dim() == 4 else h[row]).float()
                left = (mine @ self._vector(site).to(mine.device)).abs().max() / mine.norm(dim=-1).max()
                found.append((float(left), str(site)))

            return tap

        reads: dict[Place, Tap] = {site.address: look(site, row) for row, site in enumerate(sites)}
        self.engine.forward(*self._tokens(*rows), program=program, reads=reads)
        deviation, where = max(found)
        return Check("an ablated projection is 0", deviation, self.limit, where)

    def _alone(self) -> Check:
        """Rows in a right-padded batch are what they are alone."""
        batch = self.engine.forward(*self._tokens(self.long, self.short), scores=True)
        alone = self.engine.forward(*self._tokens(self.short), scores=True)
        return self._logits("batched = single", alone, batch[1:, : len(self.short.tokens)])

    def _left_padded(self) -> Check:
        """A left-padded call that the user makes on the model itself is steered where an unpadded one is."""
        site = Site("resid", self.shape.layers // 2).at("2:5")
        acted = [add(self._vector(site), dose=1.0, at=site)]
        alone = self.engine.forward(
            *self._tokens(self.short), program=self.core.program([self.short], [acted]), scores=True
        )
        pad = len(self.long.tokens) - len(self.short.tokens)
        ids = torch.tensor([self.long.tokens, (0,) * pad + self.short.tokens], device=self.engine.device)
        mask = torch.ones_like(ids)
        mask[1, :pad] = 0
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        from_here = self.core.program([self.long, self.short], [acted, acted])
        absolute = torch.where(mask.bool(), positions, -1).cpu()
        place = site.address
        with torch.no_grad(), self.engine.hooks.tapped({place: lambda h: from_here.apply(place, h, absolute)}):
            padded = self.core.hf(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
        return self._logits("left-padded = unpadded", alone, padded[1:, pad:])

    def _cached(self) -> Check:
        """Token by token with the cache gives what one pass gives, also in rows of different length."""
        rows = [self.long, self.short]
        acted = [[add(self._vector(Site("resid", 0)), dose=0.5, at="L0.resid")]] * 2
        whole = self.engine.forward(*self._tokens(*rows), program=self.core.program(rows, acted), scores=True)
        heads = [row.tokens[:-2] for row in rows]
        cache = self.engine.empty_cache(2, len(self.long.tokens))
        program = self.core.program(rows, acted)
        self.engine.forward(*right_padded(heads), program=program, cache=cache)
        found = []
        for step in (-2, -1):
            tokens = torch.tensor([[row.tokens[step]] for row in rows])
            positions = torch.tensor([[len(row.tokens) + step] for row in rows])
            found.append(self.engine.forward(tokens, positions, program=program, cache=cache, scores=True))
        ends = torch.stack([whole[index, len(row.tokens) - 2 : len(row.tokens)] for index, row in enumerate(rows)])
        return self._logits("cached = uncached", ends, torch.cat(found, dim=1))

    def _resumed(self) -> Check:
        """A pass that starts in the middle gives what a whole pass gives."""
        tokens, positions = self._tokens(self.long)
        outputs = [
            self.engine.forward(tokens, positions, start=Start(entry, self.values[entry - 1, "resid"]), scores=True)
            for entry in {1, self.shape.layers // 2 or 1, self.shape.layers}
        ]
        whole = self.natural.logits.expand(len(outputs), -1, -1)
        return self._logits("resumed in the middle = whole", whole, torch.cat(outputs))

    def _isolated(self) -> Check:
        """A row is untouched, to the bit, by what is done to its neighbour."""
        acted: list[list[Intervention]] = [[add(self._vector(Site("resid", 0)), dose=8.0, at="L0.resid")], []]
        rows = [self.long, self.short]
        plain = self.engine.forward(*self._tokens(*rows), scores=True)[1:, : len(self.short.tokens)]
        beside = self.engine.forward(*self._tokens(*rows), program=self.core.program(rows, acted), scores=True)
        return self._logits("rows are isolated", plain, beside[1:, : len(self.short.tokens)], self.bit)

    def _causal(self) -> Check:
        """What is done at the last token changes the final stream there and, to the bit, nowhere before; at every place
        (one row for each).
        """
        sites = self._sites()
        rows = [replace(self.brief, name=str(site)) for site in sites]
        acted = [[add(self._vector(site), dose=1.0, at=site.at("last"))] for site in sites]
        plain = self.engine.forward(*self._tokens(*rows))
        changed = (
            (self.engine.forward(*self._tokens(*rows), program=self.core.program(rows, acted)) - plain).float().abs()
        )
        changed = (changed / plain.float().std()).amax(dim=-1)
        broken = changed[:, :-1].amax(dim=1).masked_fill(changed[:, -1] == 0, torch.inf)
        return Check("acts where it is told", float(broken.max()), self.bit, str(sites[int(broken.argmax())]))

    def _between(self) -> Check:
        """What is done in the middle of a block is read by its MLP, unless the two are parallel (one row for each block)."""
        name = "the MLP reads the middle of a block"
        sites = [site for site in self._sites() if site.part == "mid"]
        if not sites:
            return Check(name, 0.0, 0.0)
        rows = [replace(self.brief, name=str(site)) for site in sites]

        def added(conditions: list[list[Intervention]]) -> list[Tensor]:
            found: dict[int, Tensor] = {}
            reads: dict[Place, Tap] = {(layer, "mlp.out"): partial(_keep, found, layer) for layer in range(len(sites))}
            self.engine.forward(*self._tokens(*rows), program=self.core.program(rows, conditions), reads=reads)
            return [found[layer] for layer in range(len(sites))]

        plain = added([[] for _ in sites])
        moved = added([[add(self._vector(site), dose=1.0, at=site)] for site in sites])
        unread = [
            str(site)
            for site, a, b in zip(sites, plain, moved, strict=True)
            if (a - b).abs().max() <= self.limit * a.abs().max()
        ]
        return Check(name, float(len(unread)), 0.0, unread[0] if unread else "")

    def _sites(self) -> list[Site]:
        heads = self.shape.heads - 1
        return [Site(part, layer, heads if part == "head.z" else None) for layer, part in self.places]

    def _vector(self, site: Site) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        vector = torch.randn(self.shape.width(site.part) or 1, generator=generator)
        return vector / vector.norm()

    def _tokens(self, *rows: Row) -> tuple[Tensor, Tensor]:
        return right_padded([row.tokens for row in rows])

    def _batch(self, row: Row) -> dict[str, Any]:
        return {"input_ids": torch.tensor([row.tokens], device=self.engine.device)}

    def _read(self, row: Row, places: list[Place], condition: list[Intervention] | None = None) -> dict[Place, Tensor]:
        found: dict[Place, Tensor] = {}

        def keep(place: Place) -> Callable[[Tensor], None]:
            return lambda h: found.__setitem__(place, h.clone())

        program = self.core.program([row], [condition or []])
        self.engine.forward(*self._tokens(row), program=program, reads={place: keep(place) for place in places})
        return found

    def _worst(self, name: str, pairs: list[tuple[str, Tensor, Tensor]], limit: float | None = None) -> Check:
        found = [(float((a - b).float().abs().max() / a.float().abs().max()), where) for where, a, b in pairs]
        deviation, where = max(found)
        return Check(name, deviation, self.limit if limit is None else limit, where)

    def _logits(self, name: str, expected: Tensor, found: Tensor, limit: float | None = None) -> Check:
        deviation = float((expected - found).float().abs().max() / expected.float().std())
        return Check(name, deviation, 10 * self.limit if limit is None else limit)


def _keep(found: dict[int, Tensor], layer: int, h: Tensor) -> None:
    found[layer] = h[layer].float()
