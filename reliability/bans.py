"""What no file of ours may do, looked for in its syntax tree: run what a file or a hub says, or hand text to a shell."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from reliability import Row

ROOT = Path(__file__).parents[1]
ROOMS = ("src", "reliability", "evaluation", "calibration", "benchmarks")
MODULES = frozenset({"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"})
"""Reading these runs what is in them."""
BUILTINS = frozenset({"eval", "exec"})
YAML = frozenset({"load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"})
LITERALS = frozenset({("allow_pickle", True), ("trust_remote_code", True), ("shell", True), ("weights_only", False)})
"""Arguments that must not be said with this value; one that a user gives is passed on by name, and recorded."""


def files() -> list[Path]:
    """Every Python file of the rooms; not the environments that peers are measured in."""
    found: list[Path] = []
    for room in ROOMS:
        for folder, inside, names in os.walk(ROOT / room):
            inside[:] = [name for name in inside if name not in (".envs", "node_modules", "__pycache__")]
            found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found)


def banned(text: str) -> list[str]:
    """Everything of that kind in a Python text, each by its line."""
    tree = ast.parse(text)
    names = _imported(tree)
    return [f"{line}: {what}" for line, what in sorted(_found(tree, names))]


def _imported(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: ``import torch as t`` makes ``t`` be ``torch``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                names[one.asname or one.name.partition(".")[0]] = one.name if one.asname else one.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            names |= {one.asname or one.name: f"{node.module or ''}.{one.name}" for one in node.names}
    return names


def _called(node: ast.expr, names: dict[str, str]) -> str:
    """The dotted name that an expression stands for, or nothing."""
    match node:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=value, attr=name):
            before = _called(value, names)
            return f"{before}.{name}" if before else ""
    return ""


def _found(tree: ast.Module, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=imported):
                yield from ((node.lineno, f"import {one.name}") for one in imported if _top(one.name) in MODULES)
            case ast.ImportFrom(module=str(module)) if node.level == 0:
                if _top(module) in MODULES:
                    yield node.lineno, f"from {module} import"
                for one in node.names:
                    if _top(module) == "yaml" and one.name in YAML:
                        yield node.lineno, f"from yaml import {one.name}"
            case ast.Call():
                yield from ((node.lineno, what) for what in _call(node, names))
            case ast.Name(id=name, ctx=ast.Load()) if name in BUILTINS and name not in names:
                yield node.lineno, name
            case ast.Dict():  # options that are handed on: **{"trust_remote_code": True}
                pairs = zip(node.keys, node.values, strict=True)
                yield from ((node.lineno, f"{k.value!s}={v.value!s}") for k, v in pairs
                            if isinstance(k, ast.Constant) and isinstance(v, ast.Constant) and _literal(k.value, v.value))  # fmt: skip


def _call(node: ast.Call, names: dict[str, str]) -> Iterator[str]:
    called = _called(node.func, names)
    given = {one.arg: one.value for one in node.keywords if one.arg is not None}
    for name, value in given.items():
        if isinstance(value, ast.Constant) and _literal(name, value.value):
            yield f"{name}={value.value!s}"
    if called == "torch.load":
        only = given.get("weights_only")
        if only is None or not (isinstance(only, ast.Constant) and only.value is True):
            yield "torch.load without weights_only=True"
    if _top(called) == "yaml" and called.rpartition(".")[2] in YAML:
        yield called
    if called in ("os.system", "os.popen", "builtins.eval", "builtins.exec"):
        yield called
    if called in ("__import__", "importlib.import_module") and node.args:
        what = node.args[0]
        if isinstance(what, ast.Constant) and _top(str(what.value)) in MODULES:
            yield f"{called}({what.value!r})"


def _literal(name: object, value: object) -> bool:
    return isinstance(value, bool) and (name, value) in LITERALS


def _top(module: str) -> str:
    return module.partition(".")[0]


def run(scale: float = 1.0) -> Sequence[Row]:
    """Every file, whatever the scale."""
    found = {path: banned(path.read_text(encoding="utf-8")) for path in files()}
    bad = [f"{path.relative_to(ROOT)}:{one}" for path, every in found.items() for one in every]
    what = "pickle and its kin, eval, exec, shells, unsafe torch, NumPy and YAML loading, remote code"
    return [Row(what, f"{len(found)} files, {len(bad)} places{': ' + ', '.join(bad[:3]) if bad else ''}", not bad)]
