"""Effects drawn small: a value with its interval, before what controls gave where they are on its scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from assay.evidence import Control, Effect, NullFigure, Outcome

_LEFT, _WIDTH, _BINS = 12, 216, 48
_REACH = 10  # an effect further away than so many widths of a control leaves nothing to see of the control


def controls_behind(outcome: Outcome) -> tuple[Control, ...]:
    """The controls that may be drawn behind the main effect: those that are on its scale beyond doubt.

    A figure that observes this very effect before controls says so. Without one, a control is taken whose draws give
    its own p again when they are held against the effect, provided that they lie about the value of no effect.
    """
    if not outcome.effects:
        return ()
    effect = outcome.effects[0]
    nulls = [figure for figure in outcome.figures if isinstance(figure, NullFigure)]
    for figure in nulls:
        if math.isclose(figure.observed, effect.value, rel_tol=1e-9):
            return tuple(control for control in figure.controls if control.values)
    return () if nulls else tuple(control for control in outcome.controls if _same_scale(control, effect))


def _same_scale(control: Control, effect: Effect) -> bool:
    if control.p is None or len(control.values) < 2 or effect.chance is None:
        return False
    drawn, n = np.array(control.values), len(control.values)
    low, high = float(drawn.min()), float(drawn.max())
    reach = _REACH * (high - low)
    if not (low <= effect.chance <= high and low - reach <= effect.value <= high + reach):
        return False
    beyond = (drawn >= effect.value).sum()
    mirrored = beyond + (-drawn >= effect.value).sum()
    ps = (
        (1 + beyond) / (1 + n),
        (1 + (drawn <= effect.value).sum()) / (1 + n),
        (1 + (abs(drawn) >= abs(effect.value)).sum()) / (1 + n),
        (1 + mirrored + (-effect.value >= effect.value)) / (2 + 2 * n),
    )
    return any(math.isclose(control.p, float(p), rel_tol=1e-6) for p in ps)


def interval_svg(effect: Effect, controls: Sequence[Control] = ()) -> str:
    """A small drawing of an effect and its interval, against the value that no effect would give.

    Behind it stands the histogram of the controls' draws.
    """
    drawn = [value for control in controls for value in control.values]
    marks = [effect.low, effect.high, effect.value, *([] if effect.chance is None else [effect.chance]), *drawn]
    at = _scale(marks)
    height = 48 if drawn else 28
    middle = height // 2
    zero = ""
    if effect.chance is not None:
        zero = f'<path d="M{at(effect.chance)} 3V{height - 3}" stroke-dasharray="3 3" opacity=".55"/>'
    return (
        f'<svg class="interval" viewBox="0 0 240 {height}" aria-hidden="true" fill="none" stroke="currentColor">'
        f'{_histogram(controls, min(marks), max(marks), height)}<path d="M4 {height - 3 if drawn else middle}h232" opacity=".18"/>{zero}'
        f'<path d="M{at(effect.low)} {middle}H{at(effect.high)}" stroke-width="5" stroke-linecap="round" opacity=".5"/>'
        f'<circle cx="{at(effect.value)}" cy="{middle}" r="6" fill="currentColor" stroke="none"/></svg>'
    )


def pair_svg(one: Effect, other: Effect) -> str:
    """Two effects on one scale, the first above the second."""
    marks = [end for effect in (one, other) for end in (effect.low, effect.high, effect.value, effect.chance)]
    at = _scale([mark for mark in marks if mark is not None])
    chances = sorted({effect.chance for effect in (one, other) if effect.chance is not None})
    lines = "".join(f'<path d="M{at(chance)} 3V45" stroke-dasharray="3 3" opacity=".55"/>' for chance in chances)
    rows = "".join(
        f'<path d="M{at(effect.low)} {y}H{at(effect.high)}" stroke-width="5" stroke-linecap="round" opacity=".45"/>'
        f'<circle cx="{at(effect.value)}" cy="{y}" r="5.5" fill="{fill}" stroke-width="2"/>'
        for effect, y, fill in ((one, 14, "currentColor"), (other, 34, "var(--sheet)"))
    )
    return (
        '<svg class="interval" viewBox="0 0 240 48" aria-hidden="true" fill="none" stroke="currentColor">'
        f"{lines}{rows}</svg>"
    )


def _scale(marks: Sequence[float]) -> Callable[[float], str]:
    """From values to places along the drawing, to a tenth of a unit."""
    start = min(marks)
    span = (max(marks) - start) or 1.0
    return lambda value: f"{_LEFT + _WIDTH * (value - start) / span:.1f}"


def _histogram(controls: Sequence[Control], start: float, stop: float, height: int) -> str:
    """One shape for all controls, each with the same weight however many draws it has, a little smoothed."""
    drawn = [control.values for control in controls if control.values]
    if start == stop or not drawn:
        return ""
    edges = np.linspace(start, stop, _BINS + 1)
    shares = np.mean([np.histogram(values, edges)[0] / len(values) for values in drawn], axis=0)
    shares = np.convolve(shares, (0.25, 0.5, 0.25), mode="same")
    step, floor = _WIDTH / _BINS, height - 3
    line = "".join(f"V{floor - (height - 8) * share:.1f}h{step:g}" for share in (shares / shares.max()).tolist())
    return f'<path class="null" d="M{_LEFT} {floor}{line}V{floor}z" stroke="none"/>'
