"""Models that are spread: over processes, over devices, onto the disk.

Two real processes run transformers' tensor parallelism over gloo (``divided``, below). Hooks of accelerate really fetch weights
from disk. Two devices are simulated where there is none (``strewn``): tensors say that they are on ``sim:0`` or ``sim:1``,
compute on the CPU, and refuse, as real devices do, to meet a tensor that is elsewhere.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from assay import Model, ablate, add, patch
from assay.act.edit import Delta, Edit
from assay.circuits import weights
from assay.errors import AssayError, ModelError, NotWhole
from assay.model import spread
from assay.model.anatomy import matrix, module_at
from assay.provenance import Provenance
from tests import tiny as tiny_models

Tiny = Callable[[str], PreTrainedModel]
ROOT = Path(__file__).parents[1]
FACT, OTHER = "The Eiffel Tower is in the city of", "The capital of Paris is in the city of"
DIVIDED = ("llama", "gemma2", "mixtral")
READ = ("embed", "L1.attn.out", "L1.mid", "L1.mlp.out", "L2.resid", "logits")


def conditions() -> list[Any]:
    """One intervention of each kind, each at a place that is whole under tensor parallelism."""
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, 32, generator=draw)
    return [
        add(vectors[0], dose=2.0, at="L0.resid"),
        ablate(vectors[1], at="L1.mlp.out"),
        add(vectors[2], dose=1.0, at="L1.mid @ last"),
    ]


def edit(model: Model, name: str) -> Edit:
    rows, columns = model.hf.get_parameter(name).shape
    delta = Delta(torch.ones(rows, 1), torch.ones(columns, 1))
    return Edit({name: delta}, Provenance(method="test", model=model.fingerprint), ("aim",))


def said(model: Model, gradients: bool = True) -> dict[str, Tensor]:
    """What a model says, read, steered, patched, scored with a cache, and differentiated."""
    plain = model.run(FACT, read=list(READ))
    both = model.run(clean=FACT, hurt=OTHER, under=[patch(at="L1.resid @ last", source="clean", into="hurt")])
    found = {f"read {site}": plain["row"].sites[site] for site in READ}
    found |= {
        "plain": plain.logits,
        "steered": model.run(FACT, under=conditions()).logits,
        "patched": both["hurt"].logits,
    }
    found["scores"] = torch.as_tensor(model.score([FACT, OTHER], [" Paris", " Rome"], under=conditions()).total)
    if gradients:
        found["gradient"] = gradient(model)
    return {name: value.detach().contiguous().clone() for name, value in found.items()}


def gradient(model: Model) -> Tensor:
    """Of the last token's first logit, by the stream in the middle."""
    row = model.row(FACT)
    change = torch.zeros(1, len(row.tokens), model.shape.d_model, requires_grad=True)
    logits = model.engine.forward(
        torch.tensor([row.tokens]),
        torch.arange(len(row.tokens))[None],
        reads={(1, "resid"): lambda h: h + change.to(h)},
        scores=True,
        gradients=True,
    )
    logits[0, -1, 0].backward()
    assert change.grad is not None
    return change.grad


# Tensor parallelism, in two processes.


def divided(folder: Path) -> None:
    """What one of the processes does: everything that the tests below look at, written down."""
    rank = int(os.environ["RANK"])
    facts: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for family in DIVIDED:
        model = Model.load(folder / family, tp_plan="auto", selftest=family == "llama")
        told = model.engine.spread
        facts[family] = {
            "parts": {f"{layer} {part}": found for (layer, part), found in told.parts.items()},
            "whole": told.whole,
            "spread": [told.processes, told.kv_heads, told.least(7 + rank)],
            "fingerprint": model.fingerprint,
            "text": [one.text for one in model.generate([FACT, OTHER], tokens=6, under=conditions())],
        }
        if model.tested:
            facts[family]["checks"] = [check.name for check in model.tested.checks]
            facts[family] |= refused(model)
        tensors |= {f"{family} {name}": value for name, value in said(model).items()}
    facts["gpt2"] = error(lambda: Model.load(folder / "gpt2", tp_plan="auto"))
    facts["own plan"] = own_plan(folder / "llama")
    # What a plan of somebody else's may leave behind: a stream of the full width, before its sum is made.
    seen = {(layer, "resid"): torch.ones(1, 5, 32) * (1 + rank * layer) for layer in (0, 1)}
    parts = spread._parts(seen, model.shape, model.hf._device_mesh["tp"])
    facts["unfinished"] = [[layer, found] for (layer, _), found in parts.items()]
    (folder / f"{rank}.json").write_text(json.dumps(facts))
    save_file(tensors, folder / f"{rank}.safetensors")


def refused(model: Model) -> dict[str, Any]:
    """Every way to a part that is not whole, with what it says, and how often the model ran meanwhile."""
    ran: list[int] = []
    handle = model.hf.get_decoder().register_forward_pre_hook(lambda *_: ran.append(1))
    width = model.shape.d_head
    o_proj = module_at(model.engine.hooks.blocks[1], model.engine.anatomy.o_proj)
    name = "model.layers.1.self_attn.o_proj.weight"
    ways = {
        "read": lambda: model.run(FACT, read=["L1.head[2].z"]),
        "capture": lambda: model.capture([FACT], "L1.head[2].z @ last"),
        "write": lambda: model.run(FACT, under=[add(torch.ones(width), dose=1.0, at="L1.head[0].z")]),
        "sweep": lambda: model.sweep(FACT, [[ablate(torch.ones(width), at="L1.head[0].z")]], generate=2),
        "under": lambda: model.under(add(torch.ones(width), dose=1.0, at="L1.head[0].z")).__enter__(),
        "pattern": lambda: model.run(FACT, read=["L1.head[0].pattern"]),
        "norm": lambda: model.typical_norm("L1.head[0].z"),
        "attention": lambda: model.engine.hooks.attended().__enter__(),
        "matrix": lambda: matrix(o_proj),
        "circuit": lambda: weights(model, "L1.head[0].z"),
        "edited": lambda: model.edited(edit(model, name)),
        "merged": lambda: model.merge(edit(model, name), into="nowhere"),
        "neurons": lambda: model.run(FACT, read=["L1.mlp.act"]),
        "moved": lambda: Model.load(model.hf, tokenizer=model.tokenizer, device="cpu"),
    }
    told = {way: error(call) for way, call in ways.items()}
    handle.remove()
    return {"refused": told, "ran": len(ran)}


def own_plan(folder: Path) -> dict[str, Any]:
    """A plan that leaves attention whole: what is a part is found out, it is in no list of ours."""
    whole = {f"model.layers.*.self_attn.{name}_proj": "replicate" for name in "qkvo"}
    whole |= {f"model.layers.*.self_attn.{name}_proj.weight": "replicate" for name in "qkvo"}
    model = Model.load(folder, tp_plan=whole, selftest=False)
    z = model.run(FACT, read=["L1.head[2].z"])["row"].sites["L1.head[2].z"]
    return {"parts": sorted({part for _, part in model.engine.spread.parts}), "z": z.tolist()}


def error(call: Callable[[], Any]) -> list[str]:
    try:
        call()
    except AssayError as caught:
        return [type(caught).__name__, str(caught)]
    return ["nothing", ""]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Callable[[str], Path]:
    """``saved("llama")``: the folder of a tiny model."""
    root = tmp_path_factory.mktemp("spread")

    def folder(family: str) -> Path:
        if not (root / family).exists():
            tiny_models.tiny(family).save_pretrained(root / family)
            tokenizer.save_pretrained(root / family)
        return root / family

    return folder


@pytest.fixture(scope="module")
def ranks(saved: Callable[[str], Path]) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """What each of two processes found; they run once."""
    folders = [saved(family) for family in (*DIVIDED, "gpt2")]
    return processes(folders[0].parent)


Ranks = list[tuple[dict[str, Any], dict[str, Tensor]]]


def test_which_sites_are_whole_under_tensor_parallelism(ranks: Ranks) -> None:
    for facts, _ in ranks:
        for family, parts in {"llama": 2, "gemma2": 2, "mixtral": 1}.items():
            found = facts[family]
            names = ("head.z", "mlp.act")[:parts]
            assert set(found["parts"]) == {f"{layer} {name}" for layer in range(3) for name in names}
            assert found["whole"] == ["embed", "attn.out", "mid", "mlp.out", "resid", "logits"]
            assert found["spread"] == [2, 1, 7]  # processes, heads of its cache, the least of two numbers
        assert facts["llama"]["parts"]["1 head.z"] == "2 shards; this process holds 16 of 32 dimensions"
        assert facts["llama"]["parts"]["1 mlp.act"] == "2 shards; this process holds 20 of 40 dimensions"
        assert len(facts["llama"]["checks"]) == 13  # the self-test passed in both processes


@pytest.mark.parametrize("family", DIVIDED)
def test_whole_sites_are_the_models_under_tensor_parallelism(
    family: str, ranks: Ranks, saved: Callable[[str], Path]
) -> None:
    """Read, written, patched, cached and differentiated; sums of two parts round otherwise than one sum."""
    model = Model.load(saved(family), selftest=False)
    text = [one.text for one in model.generate([FACT, OTHER], tokens=6, under=conditions())]
    for facts, _ in ranks:
        assert facts[family]["fingerprint"] == model.fingerprint
        assert facts[family]["text"] == text
    for name, value in said(model).items():
        first, second = (tensors[f"{family} {name}"] for _, tensors in ranks)
        assert torch.equal(first, second), name
        assert float((first - value).abs().max()) < 1e-5 * float(value.abs().max()), name


def test_shards_are_refused_before_the_model_runs(ranks: Ranks) -> None:
    for facts, _ in ranks:
        told = facts["llama"]["refused"]
        assert {way: kind for way, (kind, _) in told.items()} == dict.fromkeys(told, "NotWhole")
        assert facts["llama"]["ran"] == 0
        page = (ROOT / "docs" / "errors" / "not-whole.md").read_text()
        assert f"NotWhole: {told['read'][1]}\n" in page
        assert told["neurons"][1].startswith("L1.mlp.act is not whole in this process\n\n  found     2 shards")
        assert told["pattern"][1].startswith("L1.head[:].pattern is not whole in this process\n\n  found     2 shards")
        for way in ("edited", "merged"):
            assert told[way][1].startswith(
                "the weight model.layers.1.self_attn.o_proj.weight cannot be changed in this process\n\n"
                "  found     2 shards; this process holds [32, 16] of [32, 32]\n"
            )


def test_what_is_whole_is_measured(ranks: Ranks, saved: Callable[[str], Path]) -> None:
    z = Model.load(saved("llama"), selftest=False).run(FACT, read=["L1.head[2].z"])["row"].sites["L1.head[2].z"]
    for facts, _ in ranks:
        assert facts["own plan"]["parts"] == ["mlp.act"]
        assert torch.allclose(torch.tensor(facts["own plan"]["z"]), z, atol=1e-5)
        assert facts["unfinished"] == [[1, "other numbers in each of 2 processes, as in a sum that is not yet made"]]


def test_a_family_without_a_plan(ranks: Ranks) -> None:
    for facts, _ in ranks:
        kind, text = facts["gpt2"]
        assert kind == "ModelError"
        assert "`GPT2LMHeadModel` has no `tp_plan`" in text


# Hooks of accelerate.


def device_map(blocks: str, hf: torch.nn.Module, **away: str) -> dict[str, str]:
    """Every module on the CPU, and those that are named by ``away``, a block by its number, elsewhere."""
    found: dict[str, str] = {}

    def walk(module: torch.nn.Module, below: str) -> None:
        for name, child in module.named_children():
            path = f"{below}{name}"
            if blocks.startswith(f"{path}.") or path == blocks:
                walk(child, f"{path}.")
            else:
                found[path] = away.get(f"L{name}" if below == f"{blocks}." else name, "cpu")

    walk(hf, "")
    return found


SOME = {"L1": "disk", "L2": "disk", "lm_head": "disk"}


def test_weights_on_disk_change_no_bit(family: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = saved(family)
    whole = Model.load(folder, selftest=False)
    spread_so = device_map(whole.engine.anatomy.blocks, whole.hf, L1="disk", L2="disk")
    away = Model.load(folder, device_map=spread_so, offload_folder=tmp_path / "away", selftest=False)
    assert any(weight.is_meta for weight in away.hf.parameters())
    assert not away.engine.spread.kept
    assert away.fingerprint == whole.fingerprint
    here, there = (one.run(FACT, read=["L1.head[2].z", "L2.resid"]) for one in (whole, away))
    assert torch.equal(there.logits, here.logits)
    for site, value in here["row"].sites.items():
        assert torch.equal(there["row"].sites[site], value)


@pytest.mark.parametrize("where", ["cpu", "some", "disk"])
def test_everything_works_with_weights_on_disk(where: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = saved("llama")
    whole = Model.load(folder, selftest=False)
    spread_so = device_map("model.layers", whole.hf, **SOME) if where == "some" else {"": where}
    away = Model.load(folder, device_map=spread_so, offload_folder=tmp_path / "away")
    assert len(away.tested.checks) == 13  # type: ignore[union-attr]
    assert away.engine.spread.plain == (where == "cpu")
    assert (away.engine.device, away.fingerprint) == (torch.device("cpu"), whole.fingerprint)
    for name, value in said(whole).items():
        assert torch.equal(said(away)[name], value), name
    assert away.generate(FACT, tokens=6).text == whole.generate(FACT, tokens=6).text
    one, other = (matrix(module_at(model.engine.hooks.blocks[2], "mlp.down_proj")) for model in (whole, away))
    assert torch.equal(one, other)
    again = Model.load(away.hf, tokenizer=away.tokenizer, selftest=False)  # as somebody else dispatched it
    assert torch.equal(again.run(FACT).logits, whole.run(FACT).logits)


def test_weights_that_are_fetched_cannot_be_edited(tiny: Tiny, saved: Callable[[str], Path], tmp_path: Path) -> None:
    spread_so = device_map("model.layers", tiny("llama"), **SOME)
    model = Model.load(saved("llama"), device_map=spread_so, offload_folder=tmp_path / "away", selftest=False)
    before = model.run(FACT).logits
    with pytest.raises(NotWhole) as caught:
        model.edited(edit(model, "model.layers.1.mlp.down_proj.weight"))
    assert str(caught.value) == (
        "the weight model.layers.1.mlp.down_proj.weight cannot be changed in this process\n\n"
        "  found     it is kept elsewhere, and read anew for each pass\n\n"
        "  hint: load without tp_plan or offloading: a device_map that keeps this weight on one device will do\n"
        "  see:  docs/errors/not-whole.md"
    )
    with model.edited(edit(model, "model.layers.0.mlp.down_proj.weight")):  # this one is here
        assert not torch.equal(model.run(FACT).logits, before)
    assert torch.equal(model.run(FACT).logits, before)


def test_ways_to_spread_that_are_refused(tiny: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is spread in one way\n\n  found     device_map and tp_plan"):
        Model.load(tmp_path, device_map="auto", tp_plan="auto")
    with pytest.raises(ModelError, match=r"is spread in one way\n\n  found     device_map and device"):
        Model.load(tmp_path, device_map="auto", device="cpu")
    with pytest.raises(ModelError, match="tp_plan='auto' divides a model over processes, and this one is alone"):
        Model.load(tmp_path, tp_plan="auto")
    with pytest.raises(ModelError, match="this LlamaForCausalLM is loaded already"):
        Model.load(tiny("llama"), tokenizer=tokenizer, device_map={"": "cpu"})


def test_weights_without_numbers_are_refused(
    tiny: Tiny, saved: Callable[[str], Path], tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(NotWhole, match="30 on the device 'meta', which nothing fetches: model.embed_tokens.weight"):
        Model.load(saved("llama"), device_map={"": "meta"})
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(tiny("llama").config)
    with pytest.raises(NotWhole, match="has weights without numbers"):
        Model.load(empty, tokenizer=tokenizer)


# Two devices, simulated.


class On(torch.Tensor):
    """Numbers on the CPU which say that they are on another device."""

    inner: Tensor

    @staticmethod
    def __new__(cls: type[On], inner: Tensor, device: torch.device) -> On:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=device,
        )  # fmt: skip
        made.inner = inner
        return made

    def __init__(self, inner: Tensor, device: torch.device) -> None: ...

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU what is computed on one device; refuse what no device computes. Indices may come from the CPU."""
    name, target = func.overloadpacket.__name__, kwargs.get("device")
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    mine = [one for one in tensors if isinstance(one, On)]
    devices = {one.device for one in mine}
    if name not in ("copy_", "_to_copy"):
        loose = [one for one in tensors if not isinstance(one, On) and one.dim()]
        if len(devices) > 1 or (devices and loose and "index" not in name):
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {func}, {[one.device for one in tensors]}"
            )
    home = next(iter(devices), None)
    if target is not None:
        home = torch.device(target) if torch.device(target).type == "sim" else None
        kwargs = kwargs | {"device": torch.device("cpu") if home else target}
    bare, bare_kwargs = tree_map(lambda one: one.inner if isinstance(one, On) else one, (args, kwargs))
    out = func(*bare, **bare_kwargs)
    if func._schema.is_mutable and name.endswith("_"):
        return args[0]
    known = {id(one.inner): one for one in mine}
    if home is None:
        return out
    return tree_map(lambda one: known.get(id(one), On(one, home)) if isinstance(one, Tensor) else one, out)


class Devices(TorchDispatchMode):
    """Tensors are made on, and moved to, devices that are simulated."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Lists(TorchFunctionMode):
    """What torch does with lists of numbers never comes to a `TorchDispatchMode`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and "sim" in str(kwargs.get("device")):
            at = kwargs.pop("device")
            return func(*args, **kwargs).to(at)
        if func in (torch.Tensor.tolist, torch.Tensor.numpy) and isinstance(args[0], On):
            return func(args[0].cpu())
        return func(*args, **kwargs)


def strewn(folder: Path) -> None:
    """Blocks on two devices give what blocks on one give, to the bit. Runs alone: it names torch's spare device.

    Torch has no queue for gradients on a second device of this kind; they are left out.
    """
    from accelerate import dispatch_model
    from torch.utils import backend_registration

    backend_registration._setup_privateuseone_for_python_backend("sim")
    away = {"model.layers.1": "sim:1", "model.layers.2": "sim:1", "model.norm": "sim:1", "lm_head": "sim:1"}
    whole = dict.fromkeys(["model.embed_tokens", "model.rotary_emb", "model.layers.0", *away], "sim:0")
    with Lists(), Devices():
        told = []
        for places in (whole, whole | away):
            hf = tiny_models.tiny("llama")
            for path, at in places.items():
                for module in hf.get_submodule(path).modules():
                    for name, weight in module.named_parameters(recurse=False):
                        module._parameters[name] = torch.nn.Parameter(weight.detach().to(at))
                    for name, buffer in module.named_buffers(recurse=False):
                        module._buffers[name] = buffer.to(at)
            dispatch_model(hf, places)
            model = Model.load(hf, tokenizer=tiny_models.tokenizer(), selftest=places is not whole)
            acted = [
                *conditions(),
                ablate(torch.ones(8), at="L2.head[1].z"),
                add(torch.ones(40), dose=0.5, at="L1.mlp.act"),
            ]
            with model.under(acted):
                own = hf(input_ids=torch.tensor([model.row(FACT).tokens], device="sim:0")).logits[0].cpu()
            inside = model.run(FACT, under=acted)
            looks = model.run(FACT, under=acted, read=["L2.head[0].pattern"])  # eagerly, which rounds otherwise
            told.append(
                {name: value.cpu() for name, value in said(model, gradients=False).items()}
                | {
                    "own": own,
                    "inside": inside.logits.cpu(),
                    "pattern": looks["row"].sites["L2.head[0].pattern"].cpu(),
                }
                | {"text": [one.text for one in model.generate([FACT, OTHER], tokens=6, under=acted)]}
                | {"fingerprint": model.fingerprint}
            )
            (folder / f"{len(told)}.json").write_text(json.dumps([str(at) for at in model.engine.spread.blocks]))
    one, two = told
    assert [name for name, value in one.items() if not _same(value, two[name])] == []
    assert _same(two["own"], two["inside"])
    with Devices(), pytest.raises(RuntimeError, match="same device"):
        torch.ones(1, device="sim:0") + torch.ones(1, device="sim:1")  # the simulation would have refused


def _same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def test_blocks_on_two_devices_give_what_blocks_on_one_give(tmp_path: Path) -> None:
    ended([worker("strewn", tmp_path, {"ASSAY_CACHE": str(tmp_path)})])
    assert json.loads((tmp_path / "1.json").read_text()) == ["sim:0"] * 3
    assert json.loads((tmp_path / "2.json").read_text()) == ["sim:0", "sim:1", "sim:1"]


# Workers.


def processes(folder: Path) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Run `divided` in two processes; what each wrote down."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [worker("divided", folder, {"RANK": rank, "LOCAL_RANK": rank} | common) for rank in ("0", "1")]
    ended(started)
    return [
        (json.loads((folder / f"{rank}.json").read_text()), load_file(folder / f"{rank}.safetensors"))
        for rank in range(2)
    ]


def worker(part: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    own = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    with (folder / f"{part}{environment.get('RANK', '')}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.test_sharded", part, str(folder)],
            cwd=ROOT, env=os.environ | own | environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def ended(started: list[subprocess.Popen[bytes]], within: float = 240.0) -> None:
    """Wait for all; where one fails, the others wait for it forever and are ended."""
    until = time.monotonic() + within
    try:
        while any(one.poll() is None for one in started) and time.monotonic() < until:
            if any(one.poll() for one in started):
                break
            time.sleep(0.1)
        codes = [one.poll() for one in started]
    finally:
        for one in started:
            if one.poll() is None:
                one.kill()
                one.wait()
    folder = Path(str(started[0].args[-1]))  # type: ignore[index]
    assert not any(codes) and None not in codes, "\n".join(log.read_text()[-3000:] for log in folder.glob("*.log"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"divided": divided, "strewn": strewn}[sys.argv[1]](Path(sys.argv[2]))
