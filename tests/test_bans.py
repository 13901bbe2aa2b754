"""No file of ours loads code as data, runs text as code, or hands text to a shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from reliability.bans import ROOMS, ROOT, banned, files


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_banned(path: Path) -> None:
    assert banned(path.read_text(encoding="utf-8")) == []


def test_every_room_is_looked_at() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in files()} == set(ROOMS)
    assert not any(".envs" in path.parts for path in files())


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import os, cloudpickle as safe",
        "from dill import loads",
        "from joblib.numpy_pickle import load",
        "def inside():\n    import shelve",
        "import marshal",
        "import importlib\nimportlib.import_module('pickle')",
        "__import__('pickle')",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path, weights_only=False)",
        "from torch import load\nload(path, weights_only=safe)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml as y\ny.unsafe_load(text)",
        "from yaml import full_load",
        "eval(text)",
        "exec(text, {})",
        "run = exec",
        "import builtins\nbuiltins.eval(text)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "Model.load(name, trust_remote_code=True)",
        "Model.load(name, **{'trust_remote_code': True})",
        "Model.load(name, **dict(trust_remote_code=True))",
        "import subprocess\nsubprocess.run(command, shell=True)",
        "import os\nos.system(command)",
    ],
)
def test_each_is_found(text: str) -> None:
    found = banned(text)
    assert found
    assert all(one.startswith(f"{len(text.splitlines())}: ") for one in found)


@pytest.mark.parametrize(
    "text",
    [
        "model.eval()",
        "import torch\ntorch.load(path, weights_only=True)",
        "import yaml\nyaml.safe_load(text)\nyaml.safe_dump(value)",
        "import json\njson.load(file)",
        "load(name, trust_remote_code=trust)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "from safetensors.torch import load\nload(data)",
        "'pickle'  # a word",
        "import ast\nast.literal_eval(text)",
    ],
)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert banned(text) == []
