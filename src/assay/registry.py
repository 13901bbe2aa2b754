"""Methods by name. `finder` writes down how a method was called; `lookup` and `fit_of` give the method back from that
record.

A control that refits a direction on shuffled labels needs to know which method made it, and nothing else: the record
travels in the direction's provenance, and its arguments are those that make this very direction again::

    found = lookup(direction.provenance.method)(model, other_pairs, **direction.provenance.arguments)
    vector = fit_of(direction.provenance)(positive, negative)      # on activations already at hand, [pair, d] each
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from assay.errors import BadData, nearest
from assay.pairs import Pairs
from assay.prompt import Prompt
from assay.provenance import Provenance, jsonable, versions
from assay.site import Site

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_ROOM = "find"


class Finder(Protocol[P, R_co]):
    """A registered method.

    Attributes:
        method: its name in provenance, such as ``find.pca``; of a method outside this package ``module.function``.
        fit: its formula alone, from activations ``[pair, d]`` of both sides to something with a ``vector``, where it
        has one.
    """

    method: str
    fit: Callable[..., Any] | None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


def finder(fit: Callable[..., Any] | None = None) -> Callable[[Callable[P, R]], Finder[P, R]]:
    """Make a function a finder: its result, a frozen dataclass with a ``provenance``, is given back with the method's
    name, the arguments of the call as JSON values, the seed and the versions filled in.

    What it was found on (model, data, prompts used) only the function knows; it fills that in itself. ``model`` and
    data sets are no part of the arguments, as provenance has their digests; nor is ``name``, which changes nothing.
    """

    def decorate(function: Callable[P, R]) -> Finder[P, R]:
        signature = inspect.signature(function)
        method = _method(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = {name: value for name, value in bound.arguments.items() if name not in ("model", "name")}
            told = {name: _told(value) for name, value in given.items() if not isinstance(value, Pairs)}
            result: Any = function(*args, **kwargs)
            record = {"method": method, "arguments": jsonable(told), "seed": told.get("seed"), "versions": versions()}
            return cast(R, replace(result, provenance=result.provenance.model_copy(update=record)))

        made = cast(Finder[P, R], call)
        made.method, made.fit = method, fit
        return made

    return decorate


def lookup(method: str) -> Finder[..., Any]:
    """The finder of this name: one of this package, or one of a module that is already imported. Raises `BadData`.

    A name comes from a file, so it never causes an import of anything outside this package.
    """
    home, _, name = method.rpartition(".")
    room = import_module(f"assay.{_ROOM}")
    found = getattr(room if home == _ROOM else sys.modules.get(home), name, None)
    if getattr(found, "method", None) != method:
        known = [one.method for one in vars(room).values() if hasattr(one, "method") and hasattr(one, "fit")]
        raise BadData(
            f"no finder is called {method!r}",
            nearest=nearest(method, known),
            hint="a direction given by hand has no finder; a finder of your own is found once its module is imported",
        )
    return cast(Finder[..., Any], found)


def fit_of(provenance: Provenance) -> Callable[[Tensor, Tensor], Tensor]:
    """The formula that made a direction, with its options: positive and negative activations ``[pair, d]`` to a vector
    ``[d]``. Steps taken after the method (a sign change, a sum) are not repeated. Raises `BadData`.
    """
    fit = lookup(provenance.method).fit
    if fit is None:
        raise BadData(
            f"{provenance.method} cannot be fitted to activations",
            found="it has no formula over many pairs",
            hint="use a direction from mean_difference, pca, probe or heads",
        )
    options = {
        name: provenance.arguments[name] for name in inspect.signature(fit).parameters if name in provenance.arguments
    }
    return lambda positive, negative: fit(positive, negative, **options).vector


def _method(function: Callable[..., Any]) -> str:
    package, *rest = function.__module__.split(".")
    return (
        ".".join([*rest[:-1], function.__name__])
        if package == "assay"
        else f"{function.__module__}.{function.__qualname__}"
    )


def _told(value: Any) -> Any:
    """Selections of sites as the list of their texts; the rest as it is."""
    if isinstance(value, Iterable) and not isinstance(value, str | Pairs | Prompt | Site):
        return [item if isinstance(item, int | float) else str(item) for item in value]
    return value
