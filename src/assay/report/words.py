"""Numbers and foreign text as a reader should meet them."""

from __future__ import annotations

import json
import math
import unicodedata

from assay.evidence import Effect, Prediction, TableData, ThreatFinding

MINUS = "\N{MINUS SIGN}"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # controls, bidi and zero-width marks, surrogates, private use


def visible(text: str) -> str:
    """``text`` with what hides or reorders characters written out, as ``⟨U+202E⟩``. Line breaks and tabs stay."""
    return "".join(f"⟨U+{ord(char):04X}⟩" if _hides(char) else char for char in text)


def _hides(char: str) -> bool:
    if char in "\n\t":
        return False
    code = ord(char)
    is_noncharacter = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF  # no XML may hold these
    return is_noncharacter or unicodedata.category(char) in _HIDDEN


def number(value: float, decimals: int | None = None) -> str:
    """Three significant digits, or as many decimals as asked for; thousands grouped; a true minus sign."""
    if isinstance(value, int) or (decimals is None and (value == 0 or abs(value) >= 1000)):
        return _signed(f"{abs(value):,.0f}", value)
    if decimals is None and abs(value) < 0.001:
        mantissa, exponent = f"{abs(value):.1e}".split("e")
        return _signed(f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}", value)
    if decimals is not None:
        return _signed(f"{abs(value):,.{decimals}f}", value)
    text = f"{abs(value):.{2 - math.floor(math.log10(abs(value)))}f}"
    return _signed(text.rstrip("0").rstrip(".") if "." in text else text, value)


def _signed(text: str, value: float) -> str:
    return f"{MINUS}{text}" if value < 0 and any(digit in text for digit in "123456789") else text


def sized(value: float, low: float | None, high: float | None) -> tuple[str, str]:
    """A value and its interval in the decimals that the interval's width warrants: ``("0.31", "0.24 to 0.38")``."""
    if low is None or high is None:
        return number(value), ""
    width = high - low
    decimals = max(0, 1 - math.floor(math.log10(width) + 0.3)) if width > 1e-5 else None
    return number(float(value), decimals), f"{number(float(low), decimals)} to {number(float(high), decimals)}"


def interval(effect: Effect) -> str:
    """``95 % interval 0.24 to 0.38``."""
    return f"{number(100 * effect.level)} % interval {sized(effect.value, effect.low, effect.high)[1]}"


def prediction(one: Prediction) -> str:
    """``turned share rises by 0.1 or more; against it: …; denied if …``."""
    denied = f"; not to be seen if {' or '.join(one.denied_by)}" if one.denied_by else ""
    risk = " The risky one." if one.risky else ""
    return f"{one.claim}: {one.effect} {one.direction} by {number(one.matters)} or more{denied}. Against it: {one.against}{risk}"


def discord(view: ThreatFinding) -> str:
    """Where what a model does and what was found inside it do not agree, in a sentence; else nothing."""
    decided = [
        one for one in view.claims if one.standing == "confirmatory" and one.verdict in ("supported", "not supported")
    ]
    does = {one.verdict for one in decided if one.claim.about == "behaviour"}
    inside = {one.verdict for one in decided if one.claim.about != "behaviour"}
    if does == {"supported"} and "not supported" in inside:
        return "What it does is as predicted, what was found inside it is not: the behaviour may have a benign cause."
    if inside == {"supported"} and "not supported" in does:
        return "What was found inside it is as predicted, what it does is not."
    return ""


def p_value(p: float | None) -> str:
    """A p-value in two significant digits; a dash where there is none."""
    if p is None:
        return "–"
    return f"{p:.2g}" if p >= 0.0001 else "below 0.0001"


def count(number_of: int, one: str, many: str | None = None) -> str:
    """``1 claim``, ``2 claims``."""
    return f"{number(number_of)} {one if number_of == 1 else many or one + 's'}"


def short(digest: str) -> str:
    """The first twelve digits of a digest, to recognise it by."""
    kind, colon, digits = digest.rpartition(":")
    return kind + colon + digits[:12]


def cell(value: object) -> str:
    """A table's cell: numbers as ``number`` writes them, a dash for nothing, yes or no, JSON for what is nested."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return number(value)
        case str():
            return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def cells(table: TableData) -> list[list[str]]:
    """A table's rows as text, the floats of a column with the same decimals."""
    columns = [_column([row[index] for row in table.rows]) for index in range(len(table.columns))]
    return [list(row) for row in zip(*columns, strict=True)]


def _column(values: list[str | int | float | bool | None]) -> list[str]:
    texts = [cell(value) for value in values]
    floats = [text for text, value in zip(texts, values, strict=True) if isinstance(value, float)]
    if any("×" in text for text in floats):
        return texts
    decimals = max((len(text.partition(".")[2]) for text in floats), default=0)
    return [number(v, decimals) if isinstance(v, float) else text for text, v in zip(texts, values, strict=True)]
