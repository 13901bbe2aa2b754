"""Units of work: pure data that any machine can do, at an address that says everything they depend on.

A unit is a registered function with JSON arguments. It gets a `Bench` (the model, the data, a store for arrays), gives a
JSON value, and is *idempotent*: the same address gives the same result, on this machine or another. An `Executor` takes
tasks and hands back what was done, in any order; a cluster engine is one more class with that one method.
"""

from __future__ import annotations

import importlib
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import JsonValue

from assay.errors import BadData, nearest
from assay.evidence import of_file, of_folder, of_json
from assay.scale.arrays import Arrays

if TYPE_CHECKING:
    from assay.run.model import Model

Report = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

UnitFunction = Callable[..., Any]
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

_UNITS: dict[str, UnitFunction] = {}
