"""Units of work: registered functions with JSON arguments, and the digest of the code behind them.

A unit gets a `Bench` (the model, the data, a store for arrays) and gives a JSON value. It is *idempotent*: at one
address, the same result, whenever and wherever it is run. Chance comes from a seed among its arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

from assay.errors import BadData, nearest
from assay.evidence import of_file, of_folder, of_json

UnitFunction = TypeVar("UnitFunction", bound=Callable[..., Any])

_UNITS: dict[str, Callable[..., Any]] = {}
_PACKAGE = Path(__file__).parents[1]
_UNSEEN_BY_UNITS = ("cli", "report", "disclose", "__pycache__")


def unit(name: str) -> Callable[[UnitFunction], UnitFunction]:
    """Register ``fn(bench, **params) -> JSON`` as a unit of work. The function itself stays as it is.

    Raises:
        BadData: another function has the name.
    """
    return lambda function: register(_UNITS, "unit", name, function)


def unit_called(name: str | Callable[..., Any]) -> tuple[str, Callable[..., Any]]:
    """A unit's name and function, from either. Raises `BadData` for one that is not registered."""
    if not isinstance(name, str):
        function, name = name, next((known for known, other in _UNITS.items() if other is name), name.__name__)
        if _UNITS.get(name) is not function:
            raise BadData(f"the function {name!r} is no unit", hint=f'decorate it: @unit("{name}")')
    return name, called(_UNITS, "unit", name)


def is_unit(name: str) -> bool:
    """Whether a unit of this name is registered in this process."""
    return name in _UNITS


def register(table: dict[str, Callable[..., Any]], kind: str, name: str, function: UnitFunction) -> UnitFunction:
    """Put a function into a table. The same function, defined again in a notebook or reloaded, takes its own place."""
    known = table.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (function.__module__, function.__qualname__):
        raise BadData(
            f"two functions want to be the {kind} {name!r}",
            found=f"{known.__module__}.{known.__qualname__} and {function.__module__}.{function.__qualname__}",
            hint="give one of them another name",
        )
    table[name] = function
    return function


def called(table: dict[str, Callable[..., Any]], kind: str, name: str) -> Callable[..., Any]:
    """The function of a name. Raises `BadData`."""
    if name not in table:
        raise BadData(
            f"there is no {kind} {name!r}",
            nearest=nearest(name, table),
            hint=f'register it: @{kind}("{name}"), in a module that is imported',
        )
    return table[name]


def check_arguments(function: Callable[..., Any], params: dict[str, Any], what: str) -> None:
    """Raise `BadData` unless ``function(bench, **params)`` is a call that Python accepts."""
    signature = inspect.signature(function)
    try:
        signature.bind(None, **params)
    except TypeError as error:
        raise BadData(
            f"{what} does not take these parameters",
            found=f"{error}: {', '.join(f'{name}={value!r}' for name, value in params.items()) or 'none given'}",
            takes=", ".join(list(signature.parameters)[1:]) or "none",
            hint="give what the function's signature names",
        ) from error


def code_digest(function: Callable[..., Any]) -> str:
    """SHA-256 of the code that a unit rests on: Assay's laboratory, and the file that the unit is written in.

    Where there is no file (an interpreter), the function's own bytecode stands for it.
    """
    source = Path(inspect.unwrap(function).__code__.co_filename)
    own = of_file(source) if source.is_file() else of_json(_bytecode(inspect.unwrap(function).__code__))
    return of_json([_laboratory(), own])


@cache
def _laboratory() -> str:
    return of_json(of_folder(_PACKAGE, leave_out=_UNSEEN_BY_UNITS))


def _bytecode(code: CodeType) -> list[Any]:
    constants = [_bytecode(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), constants]
