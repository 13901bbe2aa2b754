"""Units of work: registered functions with JSON arguments, and the digest of the code behind them.

A unit gets a `Bench` (the model, the data, a store for arrays) and gives a JSON value. It is *idempotent*: at one
address, the same result, whenever and wherever it is run. Chance comes from a seed among its arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

from assay.errors import BadData, nearest
from assay.evidence import of_file, of_folder, of_json

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

_PACKAGE = Path(__file__).parents[1]
_UNSEEN_BY_UNITS = ("cli", "report", "disclose", "__pycache__")


class Registry(dict[str, Callable[..., Any]]):
    """Functions of one kind by name."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __missing__(self, name: str) -> Callable[..., Any]:
        raise BadData(
            f"there is no {self.kind} {name!r}",
            nearest=nearest(name, self),
            hint=f'register it, @{self.kind}("{name}"), in a module that is imported',
        )

    def register(self, name: str, function: AnyFunction) -> AnyFunction:
        """Add a function. Defined again, in a notebook or by a reload, it takes its own place.

        Raises:
            BadData: another function has the name.
        """
        known = self.get(name)
        if known is not None and not _same(known, function):
            raise BadData(
                f"two functions want to be the {self.kind} {name!r}",
                found=f"{_home(known)} and {_home(function)}",
                hint="give one of them another name",
            )
        self[name] = function
        return function

    def named(self, function: str | Callable[..., Any]) -> str:
        """The name of a function that is registered. Raises `BadData` for one that is not."""
        name = function if isinstance(function, str) else next((n for n, f in self.items() if f is function), None)
        if name is None:
            own = getattr(function, "__name__", repr(function))
            raise BadData(f"the function {own!r} is no {self.kind}", hint=f'decorate it: @{self.kind}("{own}")')
        return name


UNITS = Registry("unit")


def unit(name: str) -> Callable[[AnyFunction], AnyFunction]:
    """Register ``fn(bench, **params) -> JSON`` as a unit of work. The function itself stays as it is.

    Raises:
        BadData: another function has the name.
    """
    return lambda function: UNITS.register(name, function)


def check_arguments(function: Callable[..., Any], params: Mapping[str, Any], what: str) -> None:
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
    return of_json([laboratory_digest(), own])


@cache
def laboratory_digest() -> str:
    """SHA-256 over Assay's own files, but for those that no unit's result depends on."""
    return of_json(of_folder(_PACKAGE, leave_out=_UNSEEN_BY_UNITS))


def _bytecode(code: CodeType) -> list[Any]:
    return [code.co_code.hex(), list(code.co_names), [_constant(value) for value in code.co_consts]]


def _constant(value: object) -> Any:
    """A constant of some code, the same in every process: ``in {"a", "b"}`` is a set, whose order is not."""
    if isinstance(value, CodeType):
        return _bytecode(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def _same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether two functions are one that was defined twice: of one name, in one module or one file."""
    at_home = one.__module__ == other.__module__ or inspect.getfile(one) == inspect.getfile(other)
    return at_home and one.__qualname__ == other.__qualname__


def _home(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
