"""A reader without the laboratory: Assay alone in an empty environment verifies, opens and reads a release."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from reliability import Row
from tests.fixtures.released import office

ROOT = Path(__file__).parents[1]
HOME = Path(__file__).with_name(".envs") / "reader"
LABORATORY = ("torch", "transformers", "safetensors", "scipy", "scikit-learn", "pyarrow")


def run(scale: float = 1.0) -> list[Row]:
    """Make the environment anew, and do there what the README says a reader does."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME)], check=True)
    pip = [str(HOME / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-qq", "-c", str(ROOT / "constraints.txt"), str(ROOT)], check=True)
    listed = subprocess.run([*pip, "list", "--format=json"], check=True, capture_output=True, text=True).stdout
    packages = {one["name"].lower() for one in json.loads(listed)}
    size = sum(path.stat().st_size for path in (HOME / "lib").rglob("*") if path.is_file()) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        at = office(Path(folder))
        sealed, released = at.seal(), at.release()
        key = str(at.files / "auditor.pub")
        said = _assay("verify", released, "--key", key, "--to", "public", "--into", at.files / "read")
        whole = _assay("verify", released, "--key", key, "--to", "public", "--against", at.run)
        beside = ("--release", released, "--key", key, "--to", "public", "--identity", at.files / "alice.identity")
        opened = _assay("open", sealed, *beside)
        refused = _assay("verify", released, "--key", key, "--to", "internal")
        lab = _assay("sites")
        written = sorted(path.name for path in (at.files / "read").rglob("*") if path.is_file())
    return [
        Row(
            "`pip install assay` into an empty environment",
            f"{len(packages)} packages, {size:.0f} MB, none of {', '.join(LABORATORY)}",
            not packages & set(LABORATORY),
        ),
        Row("`assay verify` there", f"exit {said.returncode}, {len(written)} files written", said.returncode == 0),
        Row("`assay verify --against` there", f"exit {whole.returncode}", whole.returncode == 0),
        Row("`assay open` there", f"exit {opened.returncode}", opened.returncode == 0),
        Row("another audience there", f"exit {refused.returncode}", "NotVerified" in refused.stderr),
        Row("a command that needs the laboratory", _first(lab.stderr), "assay[lab]" in lab.stderr),
    ]


def _assay(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HOME / "bin" / "assay"), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def _first(text: str) -> str:
    return text.strip().partition("\n")[0]
