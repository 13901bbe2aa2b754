"""The model's folder that every candidate reads, and the facts that the jobs are made from."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from benchmarks.jobs import PROSE, Facts


def prepare(folder: Path) -> Path:
    """Save the default model there as safetensors, unless it is there. Any folder with a Llama-like model will do."""
    config = folder / "config.json"
    if not config.exists():
        from assay.model.load import load

        found = load(None)
        found.hf.save_pretrained(folder)
        found.tokenizer.save_pretrained(folder)
    settings = json.loads(config.read_text())
    theta = settings.get("rope_parameters", {}).get("rope_theta")
    if theta is not None and settings.get("rope_theta") != theta:
        # transformers 4, which some peers pin, reads this name only and silently takes 10000 where it is missing
        config.write_text(json.dumps(settings | {"rope_theta": theta}, indent=2) + "\n")
    return folder


def facts_of(folder: Path) -> Facts:
    """Read the tokenizer, and measure the median norm of each block's output over plain prose, first tokens left out.

    The first token is an attention sink: its norm is many times the others'. Kept beside the model.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())

    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    kept = folder / "norms.json"
    if not kept.exists():
        kept.write_text(json.dumps(_norms(folder, [tokens(text) for text in PROSE])))
    return Facts(tokens, json.loads(kept.read_text()), config["hidden_size"], config["eos_token_id"])


def _norms(folder: Path, rows: list[list[int]]) -> list[float]:
    import torch

    from benchmarks.peers.batches import load

    model = load(folder)
    found: list[list[torch.Tensor]] = [[] for _ in model.model.layers]
    with torch.no_grad(), contextlib.ExitStack() as stack:
        for layer, block in enumerate(model.model.layers):
            read = lambda _, __, out, layer=layer: found[layer].append(out[0, 1:].norm(dim=-1))
            stack.callback(block.register_forward_hook(read).remove)
        for row in rows:
            model.model(torch.tensor([row]), use_cache=False)
    return [torch.cat(norms).median().item() for norms in found]
