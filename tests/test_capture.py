"""Activations that are captured are those that one reads in a run, in whatever batches they travelled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from assay import Model, Prompt, Site, ablate, add
from assay.errors import BadData, BadSite, EmptyData, NeverFired, NoSuchPosition, NoSuchSite, Unwritable
from assay.run.capture import Moments

PROMPTS = [
    Prompt("true or false: the {s} of Berlin is", s="capital city"),
    Prompt("A {s}", s="Tower"),
    Prompt("The {s} is in the city of", s="Eiffel Tower"),
    Prompt("I love the {s}", s="Tower"),
    Prompt("not a {s}", s="Tower"),
]


def places(model: Model) -> list[str]:
    parts = ["attn.out", "mid", "mlp.act", "mlp.out", "resid"]
    return ["embed", "L:.head[:].z", "logits", *(f"L:.{part}" for part in parts if part not in model.shape.lacks)]


def near(a: Tensor, b: Tensor, most: float = 1e-4) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= most * max(1.0, float(b.abs().max()))


# One position of each prompt.


@pytest.mark.parametrize("at", ["last", "-2", "s[-1]", "1"])
def test_what_is_captured_is_what_a_run_reads(model: Model, at: str) -> None:
    act = add(torch.ones(model.shape.d_model), dose=0.5, at="L0.resid")
    sites = [f"{place} @ {at}" for place in places(model)]
    for under in (None, act):
        found = model.capture(PROMPTS, sites, under=under)
        for index, prompt in enumerate(PROMPTS):
            row = model.run(prompt, under=under, read=sites)["row"]
            for site, values in found.values.items():
                assert values.shape == (len(PROMPTS), model.shape.width(site.part))
                assert near(values[index], row[site][0]), (site, prompt)


def test_captured_values_are_found_by_the_sites_text(llama: Model) -> None:
    found = llama.capture(PROMPTS, "L1:.resid @ last")
    assert list(map(str, found.values)) == ["L1.resid @ last", "L2.resid @ last"]
    assert found["L2.resid @ -1"] is found[Site.parse("L2.resid @ last")]
    assert (
        llama.capture(PROMPTS, llama.sites("L1.resid @ last", "L1:.resid @ last")).values.keys() == found.values.keys()
    )
    with pytest.raises(
        NoSuchSite, match=r"L0\.resid @ last was not captured\n\n  found     L1\.resid @ last, L2\.resid @ last"
    ):
        found["L0.resid @ last"]


def test_the_head_is_not_run_for_what_lies_below_it(llama: Model) -> None:
    ran: list[Any] = []
    handle = llama.hf.lm_head.register_forward_hook(lambda *_: ran.append(1))
    try:
        llama.capture(PROMPTS, "L2.resid @ last")
        llama.moments(PROMPTS, "L2.resid")
        assert not ran
        llama.capture(PROMPTS, "logits @ last")
        assert ran
    finally:
        handle.remove()


@pytest.mark.parametrize("site", ["embed", "L0.resid", "L0.head[1].z", "L1.resid"])
def test_blocks_above_what_is_captured_are_not_run(model: Model, site: str) -> None:
    top = model.engine.hooks.blocks[-1]
    ran: list[Any] = []
    handle = next(iter(top.children())).register_forward_hook(lambda *_: ran.append(1))
    try:
        early = model.capture(PROMPTS, f"{site} @ last")[f"{site} @ last"]
        assert not ran
        acting = add(torch.ones(model.shape.d_model), dose=0.5, at=f"L{model.shape.layers - 1}.resid")
        late = model.capture(PROMPTS, f"{site} @ last", under=acting)[f"{site} @ last"]
        assert ran
    finally:
        handle.remove()
    assert near(early, late)


def test_batches_stay_within_the_budget_and_hold_rows_of_like_length(llama: Model) -> None:
    prompts = ["a" * length for length in (3, 40, 5, 38, 4, 41, 6, 39) * 8]
    sizes: list[tuple[int, int]] = []
    handle = llama.hf.model.layers[0].register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape[:2])))
    try:
        whole = llama.capture(prompts, "L1.resid @ last")
        assert len(sizes) <= len(prompts) / 4
        assert sum(rows * length for rows, length in sizes) <= 1.2 * sum(
            len(llama.row(prompt).tokens) for prompt in prompts
        )
        sizes.clear()
        parts = llama.capture(prompts, "L1.resid @ last", memory=150_000)
        assert max(rows * length for rows, length in sizes) < 250
        assert sum(rows for rows, _ in sizes) == len(prompts)
    finally:
        handle.remove()
    assert near(parts["L1.resid @ last"], whole["L1.resid @ last"])


def test_a_block_acts_on_a_capture(llama: Model) -> None:
    v = torch.ones(32)
    with llama.under(ablate(v, at="L1.resid")):
        inside = llama.capture(PROMPTS, "L1.resid @ last")["L1.resid @ last"]
    assert float((inside @ v).abs().max()) < 1e-4
    assert float((llama.capture(PROMPTS, "L1.resid @ last")["L1.resid @ last"] @ v).abs().max()) > 0.1


# Moments.


def _numbers(seed: int, count: int) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)) * torch.arange(1, 6) + 100


@pytest.mark.parametrize("sizes", [(40,), (1, 39), (13, 1, 1, 25), (1,) * 40])
def test_moments_on_the_fly_are_those_of_all(sizes: tuple[int, ...]) -> None:
    values, found = _numbers(0, 40), Moments()
    for part in values.split(list(sizes)):
        found.add(part)
    assert found.count == 40
    assert found.mean is not None
    torch.testing.assert_close(found.mean, values.double().mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.covariance, torch.cov(values.double().T), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("at", ["all", "1:", "s", "last", "2:9"])
def test_moments_of_a_site(model: Model, at: str) -> None:
    prompts = PROMPTS[:3] if at == "2:9" else PROMPTS
    for place in ("L1.resid", "L2.head[1].z", "embed"):
        site = Site.parse(f"{place} @ {at}")
        values = torch.cat([model.run(prompt, read=[site])["row"][site] for prompt in prompts]).double()
        for memory in (None, 1):
            found = model.moments(prompts, site, memory=memory)[site]
            assert found.count == len(values)
            assert found.mean is not None and near(found.mean, values.mean(0))
            assert near(
                found.covariance, torch.cov(values.T) if len(values) > 1 else torch.zeros_like(found.covariance), 1e-3
            )


# Shards.


def test_shards_hold_every_position(model: Model, tmp_path: Path) -> None:
    sites = ["L1.resid", "L1.resid @ last:", "L0.head[1].z @ s", "L1.head[0].pattern", "embed @ 1"]
    folder = model.shards(PROMPTS, sites, tmp_path / "a" / "b", memory=30_000)
    index = json.loads((folder / "index.json").read_text())
    assert index["model"] == model.fingerprint
    assert len(index["shards"]) > 1
    found: dict[str, Tensor] = {}
    for name, tensors in index["shards"].items():
        with safe_open(folder / name, framework="pt") as file:
            assert sorted(file.keys()) == tensors
            assert file.metadata()["model"] == model.fingerprint
            found |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert len(found) == len(sites) * len(PROMPTS)
    for number, prompt in enumerate(PROMPTS):
        row = model.run(prompt, read=sites)["row"]
        for site in sites:
            assert near(found[f"{site}|{number}"], row[site]), (site, prompt)


def test_a_folder_that_cannot_be_written(llama: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("earlier")
    with pytest.raises(Unwritable, match=r"cannot be written[\s\S]*hint: give a writable folder with room"):
        llama.shards(PROMPTS, "L1.resid", tmp_path / "file" / "folder")
    assert (tmp_path / "file").read_text() == "earlier"


def test_a_mistake_leaves_earlier_shards_alone(llama: Model, tmp_path: Path) -> None:
    llama.shards(PROMPTS, "L1.resid", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for wrong in ("L9.resid", "L1.resid @ nothing", "L1.resid @ 99"):
        with pytest.raises((NoSuchSite, NoSuchPosition)):
            llama.shards([*PROMPTS, "a"], wrong, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# What cannot be captured says so before anything is run.


@pytest.mark.parametrize(
    ("call", "kind", "what"),
    [
        (lambda m: m.capture(PROMPTS, "L1.resid"), BadData, "L1.resid names many positions per prompt"),
        (lambda m: m.capture(PROMPTS, "L1.resid @ 0:1"), BadData, "L1.resid @ 0:1 names many positions per prompt"),
        (lambda m: m.capture(PROMPTS, "L1.head[0].pattern @ last"), BadSite, "L1.head[0].pattern @ last is as wide as its row is long"),
        (lambda m: m.moments(PROMPTS, "L1.head[0].pattern"), BadSite, "L1.head[0].pattern is as wide as its row is long"),
        (lambda m: m.capture(["a", *PROMPTS], "L1.resid @ s"), BadData, "L1.resid @ s names many positions per prompt"),
        (lambda m: m.capture(["a", *PROMPTS], "L1.resid @ s[0]"), NoSuchPosition, "the row has no span named 's'"),
        (lambda m: m.capture(PROMPTS, "L1.resid @ 3"), NoSuchPosition, "@ 3 names no token"),
        (lambda m: m.moments(PROMPTS, "L1.resid @ response"), NoSuchPosition, "L1.resid @ response names no token of the row '0'"),
        (lambda m: m.moments(PROMPTS, "L1.resid @ 30:"), NoSuchPosition, "L1.resid @ 30: names no token of the row '0'"),
        (lambda m: m.moments([], "L1.resid"), EmptyData, "there are no prompts"),
        (lambda m: m.capture([*PROMPTS, ""], "L1.resid @ last"), EmptyData, "the prompt '5' tokenises to nothing"),
        (lambda m: m.capture(PROMPTS, "L3.resid @ last"), NoSuchSite, "this model has no L3.resid @ last"),
        (lambda m: m.capture(PROMPTS, "L1.resid @ last", under=add(torch.ones(32), times=1, at="L1.resid @ 30:")), NeverFired, "touched no activation"),
        (lambda m: m.capture(PROMPTS, "L1.resid @ last", under=add(torch.ones(32), times=1, at="L1.resid @ response")), NeverFired, "touched no activation"),
    ],
)  # fmt: skip
def test_what_cannot_be_captured(
    llama: Model, call: Callable[[Model], object], kind: type[Exception], what: str
) -> None:
    ran: list[int] = []
    handle = llama.hf.model.layers[0].register_forward_hook(lambda *_: ran.append(1))
    try:
        with pytest.raises(kind) as caught:
            call(llama)
    finally:
        handle.remove()
    assert what in str(caught.value)
    assert not ran
