"""What was measured: effects with their intervals, controls with their whole null distributions, figures as data.

Every value is frozen and survives JSON. Where one is wrong, the error is ``BadData`` and names the field.
Text that a model wrote is kept as it came; whoever shows it makes it harmless (``assay.report`` does).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from assay.errors import BadData

Numbers = tuple[float, ...]


class Value(BaseModel):
    """A frozen value without NaN or unknown fields. Raises ``BadData`` where it is made from something else."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _one_error(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            raise BadData(
                f"this is no {cls.__name__}",
                hint=f"see the fields of assay.evidence.{cls.__name__}",
                found=f"{place}: {first['msg']}, got {first['input']!r:.80}",
                fields=", ".join(cls.model_fields),
            ) from error


class Effect(Value):
    """A measured size with its interval: ``low`` to ``high`` at confidence ``level``, over ``n`` of ``n_is``.

    ``chance`` is the value that no effect would give, where there is one.
    """

    name: str
    value: float
    unit: str
    low: float
    high: float
    level: float = Field(gt=0, lt=1)
    n: int = Field(ge=0)
    n_is: str = "items"
    chance: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        return require(self, self.low <= self.high, f"low {self.low} is above high {self.high}")


class Control(Value):
    """What happens where nothing should: ``values`` is the control's whole null distribution, one number per draw."""

    name: str
    values: Numbers
    p: float | None = Field(default=None, ge=0, le=1)
    note: str = ""


class SideEffect(Value):
    """What else the intervention changed, at the same dose."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""


class Example(Value):
    """One prompt with the model's natural and steered continuation. All three may be hostile text."""

    prompt: str
    natural: str
    steered: str


# ── figures: data, drawn elsewhere ──────────────────────────────────────────────────────────────────────────────


class _Titled(Value):
    """What every figure says in words. ``caption`` is one sentence on what to see."""

    title: str
    x_label: str
    y_label: str = ""
    caption: str


class Series(Value):
    """One line of a figure: ``means`` over ``x`` with a band from ``lows`` to ``highs``."""

    name: str
    x: Numbers
    means: Numbers
    lows: Numbers
    highs: Numbers

    @model_validator(mode="after")
    def _even(self) -> Self:
        return require_even(self, "x", "means", "lows", "highs")


class NullFigure(_Titled):
    """An observed value, with its interval, before the null distributions of the controls. The x axis is the effect."""

    kind: Literal["null"] = "null"
    observed: float
    low: float | None = None
    high: float | None = None
    controls: tuple[Control, ...] = Field(min_length=1)


class DoseFigure(_Titled):
    """Effect by dose; each series' ``x`` holds the doses."""

    kind: Literal["dose"] = "dose"
    series: tuple[Series, ...] = Field(min_length=1)
    chance: float | None = None


class LayerFigure(_Titled):
    """A measure by layer; each series' ``x`` holds the layers. ``marked`` are the layers that were chosen."""

    kind: Literal["layer"] = "layer"
    series: tuple[Series, ...] = Field(min_length=1)
    chance: float | None = None
    marked: tuple[int, ...] = ()


class BarFigure(_Titled):
    """One value per label with its interval, against a chance line. The x axis is the value."""

    kind: Literal["bar"] = "bar"
    labels: tuple[str, ...] = Field(min_length=1)
    values: Numbers
    lows: Numbers
    highs: Numbers
    chance: float | None = None

    @model_validator(mode="after")
    def _even(self) -> Self:
        return require_even(self, "labels", "values", "lows", "highs")


Figure = Annotated[NullFigure | DoseFigure | LayerFigure | BarFigure, Field(discriminator="kind")]


class TableData(Value):
    """A table with a title and one sentence on what to see in it."""

    title: str
    columns: tuple[str, ...] = Field(min_length=1)
    rows: tuple[tuple[str | int | float | bool | None, ...], ...]
    caption: str = ""

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        widths = {len(row) for row in self.rows}
        return require(self, widths <= {len(self.columns)}, f"{len(self.columns)} columns, rows of {sorted(widths)}")


AnyValue = TypeVar("AnyValue", bound=Value)


def require(value: AnyValue, holds: bool, found: str) -> AnyValue:
    if not holds:
        raise BadData(f"this {type(value).__name__} contradicts itself", hint="check how it was computed", found=found)
    return value


def require_even(value: AnyValue, *fields: str) -> AnyValue:
    lengths = {field: len(getattr(value, field)) for field in fields}
    return require(value, len(set(lengths.values())) == 1, f"lengths {lengths}")
