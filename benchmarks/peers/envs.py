"""The peers' environments, one each: ``python benchmarks/peers/envs.py [name …]`` builds those that are missing.

Peers need versions that exclude one another, so each has a virtual environment of its own under ``benchmarks/.envs``.
torch is installed once, first and pinned, into an environment that the others see through a ``.pth`` file: that saves
0.9 GB for each peer, and pip, which finds it satisfied, fetches no CUDA. What a peer pins differently it gets in its
own environment, which comes first on the path.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements"
ENVS = HERE.parent / ".envs"
PEERS = tuple(sorted(file.stem for file in REQUIREMENTS.glob("*.txt") if file.stem != "torch"))


def python(name: str) -> Path:
    """The interpreter of a peer's environment, whether it is built or not."""
    return ENVS / name / "bin" / "python"


def ready(name: str) -> bool:
    """Whether the environment is built, from the requirements as they are now."""
    stamp = ENVS / name / "ready"
    return stamp.is_file() and stamp.read_text() == _digest(name)


def build(name: str) -> str:
    """Build an environment. Returns "" or, where that fails, the end of what pip said."""
    if name != "torch" and not ready("torch") and (failed := build("torch")):
        return failed
    folder = ENVS / name
    venv.create(folder, clear=True, with_pip=True)
    if name != "torch":
        (_packages(name) / "shared_torch.pth").write_text(f"{_packages('torch')}\n")
    command = [python(name), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--progress-bar", "off"]
    wanted = ["-c", REQUIREMENTS / "torch.txt", "-r", REQUIREMENTS / f"{name}.txt"]
    done = subprocess.run([*map(str, [*command, *wanted])], capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip()[-2000:]
    (folder / "ready").write_text(_digest(name))
    return ""


def main(names: list[str]) -> int:
    """Build the named environments, or all; an environment that is up to date is left alone."""
    failures = 0
    for name in names or PEERS:
        if ready(name):
            print(f"{name}: ready")
            continue
        print(f"{name}: installing", flush=True)
        failed = build(name)
        failures += bool(failed)
        print(f"{name}: {f'failed{chr(10)}{failed}' if failed else 'ready'}", flush=True)
    return failures


def _packages(name: str) -> Path:
    base = str(ENVS / name)
    return Path(sysconfig.get_path("purelib", scheme="venv", vars={"base": base, "platbase": base}))


def _digest(name: str) -> str:
    files = [REQUIREMENTS / "torch.txt", REQUIREMENTS / f"{name}.txt"]
    return hashlib.sha256(b"\n".join([sys.version.encode(), *(file.read_bytes() for file in files)])).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
