"""What `verify.direction` gives back: the verdict, and everything that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from assay.provenance import Provenance
from assay.stats import Effect, Interval, Trend
from assay.verify.plot import draw

Word = Literal["holds", "does not hold", "undecided"]


class Value(BaseModel):
    """Frozen; survives JSON; an unknown field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Missing(Value):
    """What could not be measured, and why."""

    reason: str

    def __str__(self) -> str:
        return f"not measured: {self.reason}"


class Control(Value):
    """What happened under directions that should carry nothing.

    Attributes:
        values: the statistic of every draw, score per dose, at the site of the direction.
        p: the share of draws that do at least as well as the direction, which counts as one; corrected for the search
            over sites where there was one. None where nothing was drawn.
        gating: whether the verdict depends on it.
        note: what bears on reading it, or why nothing was drawn.
    """

    values: tuple[float, ...]
    p: float | None
    gating: bool
    note: str = ""


class DoseResponse(Value):
    """The change of the score against dose 0, by dose: means and t intervals over items."""

    doses: tuple[float, ...]
    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    trend: Trend


class Sufficiency(Value):
    """Does adding it bring the behaviour about?

    Attributes:
        dose: the largest dose.
        effect: change of the score at that dose.
        absent: items on which the model as it is prefers the other answer.
        turned: how many of those prefer the matching one under the dose.
    """

    dose: float
    effect: Effect
    absent: int
    turned: int


class Necessity(Value):
    """Does removing it take the behaviour away? Asked of items on which the model as it is prefers the matching answer.

    Attributes:
        present: how many items those are.
        here: what their score loses when the direction is ablated at its site.
        everywhere: likewise, ablated at every block input, attention and MLP output.
        control: the loss at the site under covariance-matched directions, one-sided, never gating; None without any.
    """

    present: int
    here: Effect | Missing
    everywhere: Effect | Missing
    control: Control | None


class SideEffect(Value):
    """What the same intervention does to neutral text.

    Attributes:
        under: the intervention.
        dose: its strength; None for ablation.
        kl: KL(model ‖ under), nats per token, over texts.
        perplexity_ratio: perplexity under it, over that of the model as it is.
    """

    under: str
    dose: float | None
    kl: Effect
    perplexity_ratio: float


class Stability(Value):
    """Cosines between directions found on two halves of the fit clusters: mean and smallest over the halvings."""

    cosine: float
    least: float
    halvings: int
    clusters: int


class Power(Value):
    """What could have been seen.

    Attributes:
        detectable: the least true slope, score per dose, that passes with chance .8 (normal approximation).
        limit: the test that sets it: ``items`` or a control.
        items_needed: independent items with which the items' test finds the observed slope with chance .8; None where
            the slope is not positive, or does not vary.
    """

    detectable: float
    limit: str
    items_needed: int | None


class ConceptShare(Value):
    """How much of the activations' variance within classes lies along the direction (``share``), and over how many
    directions that variance is spread (``rank``, the participation ratio). The share is about the mean squared cosine
    between the direction and a covariance-matched draw: where it is large, the control holds much of the direction.
    """

    share: float
    rank: float


class Cost(Value):
    """What the sweep takes: cells (prompt × condition) and their tokens, before cells share any."""

    cells: int
    tokens: int


class Verdict(Value):
    """Whether a direction carries a behaviour, and on what grounds. ``print(verdict)`` is a table.

    Attributes:
        verdict, because: the word, and one sentence.
        p, alpha: the largest p of the tests that decide, and the level.
        effect: the slope, score (nats) per dose, mean over items; a cluster bootstrap interval from 10 clusters on.
        slopes: the items' own, in their order.
        clusters: independent units among the items.
        items_p: one-sided sign-flip p over clusters; decides.
        controls: ``random``, ``covariance``, ``shuffled`` (deciding) and ``orthogonal``.
        dose_response, sufficiency, necessity, side_effects: see their classes.
        specificity: the direction's slope minus that of a control, item by item: ``orthogonal``, ``wrong layer``,
            ``wrong position``. Beside the verdict; it does not decide.
        stability: of the direction when found again on halves of the fit pairs.
        prompt_baseline: change of the score by a plain instruction before the question, without any vector.
        power, concept_share, cost: see their classes.
        direction, site: which one, acting where.
        provenance: arguments, digests of data and direction, the model's fingerprint, seed, versions.
    """

    verdict: Word
    because: str
    p: float
    alpha: float
    effect: Effect
    slopes: tuple[float, ...]
    clusters: int
    items_p: float
    controls: dict[str, Control]
    dose_response: DoseResponse
    sufficiency: Sufficiency
    necessity: Necessity
    side_effects: tuple[SideEffect, ...] | Missing
    specificity: dict[str, Effect | Missing]
    stability: Stability | Missing
    prompt_baseline: Effect | Missing
    power: Power
    concept_share: ConceptShare | Missing
    cost: Cost
    direction: str
    site: str
    provenance: Provenance

    @property
    def holds(self) -> bool:
        """Whether every deciding test passed."""
        return self.verdict == "holds"

    @property
    def interval(self) -> Interval:
        """The interval of the effect."""
        return self.effect.interval

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Verdict:
        """The inverse of `to_json`."""
        return cls.model_validate(state)

    def plot(self, path: str | Path) -> Path:
        """Draw the null distributions behind the observed slope, and the dose curve, as SVG. Raises `Unwritable`."""
        curve = self.dose_response
        return draw(
            Path(path),
            title=f"{self.direction} at {self.site} · {self.verdict}",
            observed=self.effect.interval,
            nulls={name: (control.values, control.p) for name, control in self.controls.items() if control.values},
            curve=(curve.doses, curve.means, curve.lows, curve.highs),
        )

    def __str__(self) -> str:
        lines = [
            f"{self.direction} at {self.site} · {self.verdict}, p {self.p:.3g} (alpha {self.alpha:g})",
            self.because,
            "",
        ]
        rows = [*self._deciding(), *self._beside()]
        width = max(len(name) for name, _ in rows)
        return "\n".join([*lines, *(f"  {name:<{width}}  {text}" for name, text in rows)])

    def _deciding(self) -> list[tuple[str, str]]:
        rows = [("effect", f"{_effect(self.effect)} per dose; {len(self.slopes)} items in {self.clusters} clusters")]
        rows += [("items", f"p {self.items_p:.3g}")]
        for name, control in self.controls.items():
            told = [] if control.p is None else [f"p {control.p:.3g} of {len(control.values)} draws"]
            told += [control.note] if control.note else []
            told += [] if control.gating else ["does not decide"]
            rows.append((name, "; ".join(told)))
        return rows

    def _beside(self) -> list[tuple[str, str]]:
        curve, enough, needed = self.dose_response, self.sufficiency, self.necessity
        shape = ["both signs" if curve.trend.both_signs else "not in both signs"]
        shape += ["monotone" if curve.trend.monotone else "not monotone"]
        told = " · ".join(f"{dose:+g} {mean:+.3g}" for dose, mean in zip(curve.doses, curve.means, strict=True))
        rows = [("dose", f"{told}; {', '.join(shape)}")]
        turned = f"turned {enough.turned} of {enough.absent} items that prefer the other answer"
        rows += [("sufficient", f"{_effect(enough.effect)} at dose {enough.dose:g}; {turned}")]
        rows += [("necessary", f"loses {_effect(needed.here)} here, {_effect(needed.everywhere)} everywhere")]
        rows += [(f"beyond {name}", _effect(effect)) for name, effect in self.specificity.items()]
        if isinstance(self.side_effects, Missing):
            rows += [("side effects", str(self.side_effects))]
        else:
            rows += [
                (one.under, f"KL {one.kl.value:.3g}, perplexity ×{one.perplexity_ratio:.3g}")
                for one in self.side_effects
            ]
        stable = self.stability
        rows += [
            (
                "stability",
                str(stable) if isinstance(stable, Missing) else f"cosine {stable.cosine:.3f}, least {stable.least:.3f}",
            )
        ]
        rows += [("prompt alone", _effect(self.prompt_baseline))]
        rows += [("power", f"sees {self.power.detectable:.3g} per dose with chance .8, limited by {self.power.limit}")]
        return rows


def _effect(effect: Effect | Missing) -> str:
    if isinstance(effect, Missing):
        return str(effect)
    return f"{effect.value:+.3g} [{effect.interval.low:+.3g}, {effect.interval.high:+.3g}]"
