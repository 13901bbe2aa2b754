"""``assay plan``: what an audit could see and what it takes, before any of it is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from assay.cli.audit import Name, Settings, read_settings
from assay.cli.options import ModelOption, Revision
from assay.cli.terminal import out, show_rows
from assay.errors import BadData

if TYPE_CHECKING:
    from assay.audit.forecast import Foreseen, Outlook
    from assay.run.model import Model

Effects = Annotated[
    list[str] | None,
    typer.Option(
        "--effect", metavar="[CLAIM=]X", help="The effect that matters, in the claim's unit. Once for all, or by claim."
    ),
]
Power = Annotated[float, typer.Option(help="The chance with which an effect should be found.")]
Like = Annotated[Path | None, typer.Option(metavar="RUN", help="An earlier run's folder; its intervals give spreads.")]
Measure = Annotated[bool, typer.Option("--measure", help="Time one small batch on the model: costs seconds.")]


def plan(
    name: Name,
    settings: Settings = None,
    effect: Effects = None,
    power: Power = 0.8,
    like: Like = None,
    model: ModelOption = None,
    measure: Measure = False,
    revision: Revision = None,
) -> None:
    """Say what an audit would claim, what it could see with these settings, and what it takes. Nothing is run.

    Without --model or --measure no model is loaded, and tokens are estimated.
    """
    from assay.audit import audit_called
    from assay.audit.forecast import forecast_of

    for_all, by_claim = read_effects(effect or [])
    asked = audit_called(name)(**read_settings(settings or []))
    loaded = _load(model, revision) if measure or model is not None else None
    outlook = forecast_of(
        asked, effect=for_all, effects=by_claim, power=power, like=like, model=loaded, measure=measure
    )
    show(out(), outlook, power)


def _load(model: str | None, revision: str | None) -> Model:
    from assay.run.model import Model

    return Model.load(model, revision=revision, selftest=False)  # the run itself will prove the sites


def read_effects(texts: list[str]) -> tuple[float | None, dict[str, float]]:
    """The effect for all claims, and those by claim. Raises `BadData`."""
    for_all, by_claim = None, {}
    for text in texts:
        claim, _, size = text.rpartition("=")
        try:
            value = float(size)
        except ValueError:
            raise BadData(f"--effect {text!r} is no number", hint="write --effect .2, or --effect CLAIM=.2") from None
        if claim:
            by_claim[claim] = value
        else:
            for_all = value
    return for_all, by_claim


def show(console: Console, outlook: Outlook, power: float) -> None:
    """Threat models, the table, and what its numbers rest on."""
    from assay.report.words import count, visible

    asked, model = outlook.plan, outlook.reader.model
    console.print(Text(visible(asked.question.replace("{model}", model.name if model else "the model")), style="bold"))
    rows = [(threat.key, threat.statement) for threat in asked.threats]
    show_rows(console, [tuple(map(visible, row)) for row in rows], indent=2)
    console.print()
    claims = count(len(outlook.claims), "claim")
    told = ", ".join(f"{key} {value}" for key, value in asked.bound.items())
    console.print(f"{claims} will be recorded before the first look" + (f" ({visible(told)})" if told else ""))
    _table(console, outlook)
    console.print()
    console.print(Text("What the numbers rest on", style="bold"))
    show_rows(console, [*_by_claim(outlook), *_common(outlook, power)], indent=2)


def _table(console: Console, outlook: Outlook) -> None:
    from assay.report.words import number

    wanted = any(one.forecast is not None and one.wanted is not None for one in outlook.claims)
    timed = outlook.pace is not None
    heads = ["claim", "items", "finds", *(["needs"] if wanted else []), "tokens", *(["time"] if timed else [])]
    rows = []
    for one in outlook.claims:
        made = one.forecast
        if made is None:
            rows.append([one.claim.key, *["–"] * (len(heads) - 1), "not forecast"])
            continue
        rows.append(
            [
                one.claim.key,
                f"{made.items:,} {made.of}",
                "not known" if made.detects is None else number(float(f"{made.detects:.2g}")),
                *([_needs(one)] if wanted else []),
                f"{one.adds:,}" if one.adds else "shared",
                *([_time(outlook.seconds(one.adds))] if timed else []),
                made.effect,
            ]
        )
    rows.append(
        [
            "total",
            *[""] * (3 if wanted else 2),
            f"{outlook.tokens:,}",
            *([_time(outlook.seconds(outlook.tokens))] if timed else []),
            "",
        ]
    )
    show_rows(console, rows, heads=[*heads, "effects are in"], indent=2)


def _needs(one: Foreseen) -> str:
    assert one.forecast is not None
    if one.wanted is None:
        return ""
    return ("no number" if one.forecast.needs is None else f"{one.forecast.needs:,}") + f" for {one.wanted:g}"


def _by_claim(outlook: Outlook) -> list[tuple[str, str]]:
    """Each claim's sentences. One that shares most of them with an earlier claim says so instead of them."""
    rows: list[tuple[str, str]] = []
    known: dict[str, list[str]] = {}
    for one in outlook.claims:
        key, told = one.claim.key, _rests(one)
        like = next((other for other, said in known.items() if 2 * len(set(told) & set(said)) > len(told)), None)
        known[key] = told
        if like is not None:
            told = [f"As for {like}, except:", *(text for text in told if text not in known[like])]
        rows += zip([key, *[""] * len(told)], told, strict=False)
    return rows


def _rests(one: Foreseen) -> list[str]:
    """What stands behind one claim's row."""
    from assay.report.words import p_value, visible

    if one.forecast is None:
        return [f"Not forecast: {visible(one.reason)}."]
    made = one.forecast
    told = [*made.rests_on]
    for reach in made.reach:
        end = "" if reach.enough else ": the claim cannot be supported"
        needed = f"{reach.alpha:g} is needed ({reach.correction}; {reach.fewest} would do)"
        told.append(f"p can reach {p_value(reach.least)} with {reach.how}; {needed}{end}.")
    if made.needs is not None and made.available is not None and made.needs > made.available:
        told.append(f"{made.needs:,} {made.of} are needed, and these data have {made.available:,} at most.")
    return [*told, *([made.note] if made.note else [])]


def _common(outlook: Outlook, power: float) -> list[tuple[str, str]]:
    """What holds for all claims."""
    told = [
        ("finds", f"the smallest true effect with which the claim is supported with chance {power:g}"),
        ("tokens", f"{outlook.reader.how}. What claims share stands with the first of them"),
        ("compute", f"{_flop(outlook)}: 2 for each parameter and token"),
    ]
    if outlook.pace is not None:
        told.append(("time", f"{1e3 * outlook.pace:.2g} ms a token, one batch measured here; the model's passes alone"))
    if outlook.like is not None:
        prior = outlook.like
        took = "not at its end" if prior.seconds is None else f"took {_time(prior.seconds)} in all"
        told.append(("like", f"{prior.name}, on {prior.model}: {took}"))
    return [*told, ("later", "claims that the audit makes after an outcome are not forecast")]


def _flop(outlook: Outlook) -> str:
    flop = outlook.flop(outlook.tokens)
    if flop is None:
        return f"{2e-6 * outlook.tokens:.2g} TFLOP for each million parameters of the model"
    return f"{1e-12 * flop:.2g} TFLOP"


def _time(seconds: float | None) -> str:
    if not seconds:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
