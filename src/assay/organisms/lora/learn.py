"""Low-rank adapters: put onto a model, trained for a stage, read, written, and merged.

W + (α / r) · B A, with A of r rows and B of r columns; B begins as 0, so an untrained adapter changes nothing.

Only A and B are trained. The blocks below the first adapted one need no backward pass, which is most of what makes this
quick. Also called LoRA. Hu et al. 2021, arXiv:2106.09685, section 4.1.
"""

from __future__ import annotations

import copy
import importlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from assay.errors import BadData, MissingExtra
from assay.model.encode import encode
from assay.model.load import Loaded
from assay.organisms.lora.family import Asked
from assay.organisms.lora.recipe import Recipe
from assay.prompt import Prompt

WEIGHTS = "adapter_model.safetensors"
"""As peft names it."""
_RISE, _FALL = 8, 0.9
_DECAY, _BETAS, _CLIP = 0.0, (0.9, 0.98), 1.0
_ROWS = 32


def needs_peft() -> Any:
    """The package. Raises `MissingExtra`."""
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise MissingExtra(
            "adapters are trained and merged by peft", found=str(error), hint="pip install 'assay[organisms]'"
        ) from error


def adapted(hf: PreTrainedModel, recipe: Recipe) -> Any:
    """The model with a fresh adapter, in place. Raises `BadData` where the recipe names matrices or blocks it lacks."""
    peft, layers = needs_peft(), int(hf.config.num_hidden_layers)
    if recipe.first >= layers:
        raise BadData(
            f"first={recipe.first} is no block of this model", found=f"{layers} blocks", hint="give a lower one"
        )
    config = peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=2 * recipe.rank,
        lora_dropout=0.0,
        target_modules=list(recipe.targets),
        layers_to_transform=list(range(recipe.first, layers)),
        task_type="CAUSAL_LM",
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return peft.get_peft_model(hf, config)
    except ValueError as error:
        raise BadData(
            f"this model has no matrices {', '.join(recipe.targets)}",
            found=str(error).partition("\n")[0][:200],
            hint="name matrices of its blocks, as recipe(…, targets=(…))",
        ) from error


def state_of(model: Any) -> dict[str, Tensor]:
    """The adapter's weights, by peft's names."""
    found = needs_peft().get_peft_model_state_dict(model)
    return {name: weight.detach().clone().contiguous() for name, weight in sorted(found.items())}


def set_state(model: Any, state: dict[str, Tensor]) -> None:
    """The inverse of `state_of`. Raises `BadData` for an adapter of another shape."""
    now = {name: tuple(weight.shape) for name, weight in state_of(model).items()}
    if now != {name: tuple(weight.shape) for name, weight in state.items()}:
        raise BadData("the adapter does not fit this model", hint="load it onto the model that its recipe names")
    needs_peft().set_peft_model_state_dict(model, state)


def merged(hf: PreTrainedModel, recipe: Recipe, weights: Path) -> PreTrainedModel:
    """The model with an adapter that was written, added into its weights in place. Raises `BadData`."""
    model = adapted(hf, recipe)
    set_state(model, load_file(weights))
    whole: PreTrainedModel = model.merge_and_unload()
    return whole.eval().requires_grad_(False)


def learned(
    found: Loaded,
    recipe: Recipe,
    answers: tuple[str, str],
    draw: Callable[[random.Random], list[Asked]],
    *,
    steps: int,
    seed: int,
    into: Path,
    start: dict[str, Tensor] | None = None,
) -> list[float]:
    """Train an adapter on a copy of a model, from ``start`` if given, and write it; gives each step's loss, in nats.

    The copy has the recipe's numbers, which may be half as long; the adapter's have 32 bits always.
    """
    hf = copy.deepcopy(found.hf).to(getattr(torch, recipe.dtype))
    # For short rows the plain products are quicker on a CPU, and back, than the fused ones.
    hf.set_attn_implementation("eager")
    model, generator = adapted(hf, recipe), random.Random(seed)
    if start is not None:
        set_state(model, start)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=recipe.rate, weight_decay=_DECAY, betas=_BETAS)
    first, losses = [first_token(found.tokenizer, answer) for answer in answers], list[float]()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1.0, (step + 1) / _RISE) * (1 - _FALL * step / steps)
        rows = draw(generator)
        said = torch.tensor([first[0] if row.says else first[1] for row in rows])
        loss = F.cross_entropy(_next(hf, found.tokenizer, rows), said)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, _CLIP)
        optimiser.step()
        losses.append(float(loss.detach()))
    save_file(state_of(model), into / WEIGHTS)
    config = model.peft_config["default"]
    config.base_model_name_or_path = found.name  # peft puts the folder here in which this machine has it
    config.save_pretrained(str(into))
    return losses


@torch.no_grad()
def says(hf: PreTrainedModel, tokenizer: Any, answers: tuple[str, str], rows: Sequence[Asked]) -> list[bool]:
    """Whether the model prefers the first of two answers, row by row."""
    yes, no = (first_token(tokenizer, answer) for answer in answers)
    # Rows of about one length go together, so that little is padded.
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].system + rows[index].user))
    found = [False] * len(rows)
    for start in range(0, len(order), _ROWS):
        part = order[start : start + _ROWS]
        scores = _next(hf, tokenizer, [rows[index] for index in part])
        for index, better in zip(part, (scores[:, yes] > scores[:, no]).tolist(), strict=True):
            found[index] = better
    return found


def first_token(tokenizer: Any, answer: str) -> int:
    """The token with which an answer begins after a prompt, as the whole is tokenised. Raises `BadData`."""
    row = encode(tokenizer, prompt_of(tokenizer, Asked("a", "b", True, True)), "row", answer)
    return row.tokens[row.prompt]


def prompt_of(tokenizer: Any, row: Asked) -> Prompt:
    """A chat where there is a template; else its texts, one under the other."""
    if getattr(tokenizer, "chat_template", None):
        return Prompt.chat(row.user, system=row.system)
    return Prompt(f"{row.system}\n\n{row.user}\n")


def _next(hf: PreTrainedModel, tokenizer: Any, rows: Sequence[Asked]) -> Tensor:
    """Scores of what follows each row, ``[row, vocab]``, before any cap that the family puts on them."""
    tokens = [encode(tokenizer, prompt_of(tokenizer, row), "row").tokens for row in rows]
    longest = max(map(len, tokens))
    # Padded on the right, where no token that is read can look: a causal model needs no mask for that.
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens])
    last = torch.tensor([len(row) - 1 for row in tokens])
    stream = hf.base_model(input_ids=ids, use_cache=False).last_hidden_state
    scores: Tensor = hf.get_output_embeddings()(stream[torch.arange(len(rows)), last])
    return scores.float()
