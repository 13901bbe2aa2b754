"""A control of every read-out: the same procedure on a model that has learned nothing."""

from __future__ import annotations

import copy

import torch
from transformers import AutoModelForCausalLM

from assay.run.model import Model


def untrained(model: Model, seed: int) -> Model:
    """A model of this architecture whose weights were drawn and never trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = AutoModelForCausalLM.from_config(copy.deepcopy(model.hf.config), dtype=model.engine.dtype).eval()
    return Model.load(fresh.to(model.engine.device), tokenizer=model.tokenizer, selftest=False)
