"""The work, as data: prompts, conditions, numbers of tokens; and the arithmetic that no method can do without.

A job holds token ids and finished vectors, so that no candidate tokenises, prepends a BOS or draws a number of its own.
Every job travels as JSON. Rows are condition-major: row ``c * len(prompts) + p`` is prompt p under condition c.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SEED = 20
SWEEP_LAYERS = (5, 10, 15, 20, 25)
SWEEP_DOSES = (-0.6, -0.4, -0.2, 0.2, 0.4, 0.6)
SCORE_DOSES = (-0.4, -0.2, 0.2, 0.4)
NEW_TOKENS = 32
ANSWERS = (" true", " false")

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Condition:
    """Add ``vector`` to the output of block ``layer``, at all positions.

    The vector has d_model floats: a unit direction × dose × the typical norm there.
    """

    layer: int
    dose: float
    vector: tuple[float, ...]


@dataclass(frozen=True)
class Steered:
    """Greedy generation of ``new`` tokens for every prompt under every condition; a row ends at ``stop``."""

    prompts: tuple[Tokens, ...]
    conditions: tuple[Condition, ...]
    new: int
    stop: int

    @property
    def rows(self) -> int:
        """How many continuations are made."""
        return len(self.prompts) * len(self.conditions)


@dataclass(frozen=True)
class Capture:
    """The output of every block at the last token of every prompt."""

    prompts: tuple[Tokens, ...]
    stop: int

    @property
    def rows(self) -> int:
        """How many prompts are read."""
        return len(self.prompts)


@dataclass(frozen=True)
class Scores:
    """The log-probability of each answer token after every prompt under every condition."""

    prompts: tuple[Tokens, ...]
    conditions: tuple[Condition, ...]
    answers: Tokens
    stop: int

    @property
    def rows(self) -> int:
        """How many cells there are."""
        return len(self.prompts) * len(self.conditions)


@dataclass(frozen=True)
class Traced:
    """Causal tracing of one prompt: the answer's mean probability with each state, or window of modules, restored.

    ``noise`` is ``[sample][pos][d_model]``, added to the embeddings of the tokens ``subject``; ``parts`` are ``resid`` (one
    state), ``mlp.out`` and ``attn.out`` (``window`` layers from l − window // 2 on, clipped).
    """

    prompts: tuple[Tokens]
    subject: tuple[int, int]
    noise: tuple[Any, ...]
    parts: tuple[str, ...]
    window: int
    answer: int
    layers: int

    @property
    def rows(self) -> int:
        """How many cells there are."""
        return len(self.parts) * len(self.prompts[0]) * self.layers

    def near(self, part: str, layer: int) -> range:
        """The layers that are restored together."""
        low = layer - self.window // 2
        return range(layer, layer + 1) if part == "resid" else range(max(0, low), min(self.layers, low + self.window))


Job = Steered | Capture | Scores | Traced
KINDS: dict[str, type[Any]] = {"steered": Steered, "capture": Capture, "scores": Scores, "traced": Traced}


def kind_of(job: Job) -> str:
    """The name of the method that does the job."""
    return next(name for name, kind in KINDS.items() if isinstance(job, kind))


def to_json(job: Job) -> dict[str, Any]:
    """A job as plain JSON values."""
    return {"kind": kind_of(job), **dataclasses.asdict(job)}


def from_json(data: dict[str, Any]) -> Job:
    """The job that `to_json` wrote."""
    fields = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items() if name != "kind"
    }
    fields["prompts"] = tuple(map(tuple, data["prompts"]))
    if "conditions" in data:
        fields["conditions"] = tuple(Condition(c["layer"], c["dose"], tuple(c["vector"])) for c in data["conditions"])
    return KINDS[data["kind"]](**fields)


@dataclass(frozen=True)
class Facts:
    """What the jobs need of the model: its tokens, each block output's typical norm, its width, its stop token."""

    tokens: Callable[[str], list[int]]
    norms: Sequence[float]
    width: int
    stop: int

    def conditions(self, layers: Sequence[int], doses: Sequence[float]) -> tuple[Condition, ...]:
        """One fixed random direction per layer, at every dose."""
        made = []
        for layer in layers:
            direction = np.random.default_rng([SEED, layer]).standard_normal(self.width)
            unit = direction / np.linalg.norm(direction)
            made += [Condition(layer, dose, tuple((unit * dose * self.norms[layer]).tolist())) for dose in doses]
        return tuple(made)


def sweep(
    facts: Facts,
    prompts: int = 4,
    layers: Sequence[int] = SWEEP_LAYERS,
    doses: Sequence[float] = SWEEP_DOSES,
    new: int = NEW_TOKENS,
) -> Steered:
    """Job 1: prompts × (layers × doses), greedy."""
    texts = [tuple(facts.tokens(text)) for text in OPENINGS[:prompts]]
    return Steered(tuple(texts), facts.conditions(layers, doses), new, facts.stop)


def capture(facts: Facts, prompts: int = 256, shortest: int = 8, longest: int = 64) -> Capture:
    """Job 2: passages of prose, each cut to a length drawn evenly from ``shortest`` to ``longest`` tokens."""
    draw = np.random.default_rng([SEED, 2])
    cut = []
    for _ in range(prompts):
        text = " ".join(PROSE[i] for i in draw.permutation(len(PROSE)))
        cut.append(tuple(facts.tokens(text)[: int(draw.integers(shortest, longest + 1))]))
    return Capture(tuple(cut), facts.stop)


def scores(
    facts: Facts, prompts: int = 64, layers: Sequence[int] | None = None, doses: Sequence[float] = SCORE_DOSES
) -> Scores:
    """Job 3: prompts × every layer × doses. Fewer than 64 prompts are a fixed random draw, lengths still mixed."""
    texts = [frame.format(claim) for claim in CLAIMS for frame in FRAMES]
    order = np.random.default_rng([SEED, 3]).permutation(len(texts))[:prompts]
    rows = tuple(tuple(facts.tokens(texts[i])) for i in order)
    answers = tuple(facts.tokens(answer)[0] for answer in ANSWERS)
    return Scores(
        rows, facts.conditions(range(len(facts.norms)) if layers is None else layers, doses), answers, facts.stop
    )


def traced(
    facts: Facts,
    tokens: int = 8,
    samples: int = 10,
    parts: Sequence[str] = ("resid", "mlp.out", "attn.out"),
) -> Traced:
    """Job 4: a fact of so many tokens, its subject from the second one on; noise of .1, about three deviations."""
    subject, after, answer = FACTS[tokens]
    start, stop, end = (len(facts.tokens(text)) for text in ("The", "The" + subject, "The" + subject + after))
    assert end == tokens, f"{tokens} tokens are {end} in this model's"
    noise = 0.1 * np.random.default_rng([SEED, 4]).standard_normal((samples, stop - start, facts.width))
    prompt = tuple(facts.tokens("The" + subject + after))
    (said, *_) = facts.tokens(answer)
    return Traced((prompt,), (start, stop), tuple(noise.tolist()), tuple(parts), 10, said, len(facts.norms))


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama-like model that its arithmetic depends on."""

    layers: int
    d_model: int
    d_mlp: int
    heads: int
    kv_heads: int
    d_head: int
    vocab: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> Shape:
        """From a Hugging Face config."""
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            d_model=config["hidden_size"],
            d_mlp=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads", heads),
            d_head=config.get("head_dim") or config["hidden_size"] // heads,
            vocab=config["vocab_size"],
        )

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of one block's matrices: q, k, v, o, gate, up, down."""
        q, kv = self.heads * self.d_head, self.kv_heads * self.d_head
        mlp = ((self.d_model, self.d_mlp), (self.d_model, self.d_mlp), (self.d_mlp, self.d_model))
        return ((self.d_model, q), (self.d_model, kv), (self.d_model, kv), (q, self.d_model), *mlp)

    def blocks(self, count: int, tokens: int) -> int:
        """Multiply-adds of whole blocks over a row of ``tokens``: the matrices, and causal attention's two products."""
        return count * (tokens * sum(i * o for i, o in self.matrices) + self._attention(tokens * (tokens + 1) // 2))

    def tail(self, tokens: int) -> int:
        """Multiply-adds of a block whose last position alone is wanted: keys and values of all, the rest of one."""
        keys = sum(i * o for i, o in self.matrices[1:3])
        return tokens * keys + sum(i * o for i, o in self.matrices) - keys + self._attention(tokens)

    def suffix(self, count: int, first: int, tokens: int) -> int:
        """Multiply-adds of the last ``count`` blocks for tokens ``first`` on, of the very last one the last token."""
        if not count:
            return 0
        new, pairs = tokens - first, tokens * (tokens + 1) // 2 - first * (first + 1) // 2
        keys = sum(i * o for i, o in self.matrices[1:3])
        whole = sum(i * o for i, o in self.matrices)
        return (
            (count - 1) * (new * whole + self._attention(pairs)) + new * keys + whole - keys + self._attention(tokens)
        )

    @property
    def head(self) -> int:
        """Multiply-adds of the vocabulary's scores at one position."""
        return self.d_model * self.vocab

    def _attention(self, pairs: int) -> int:
        return 2 * self.heads * self.d_head * pairs


def least_macs(job: Capture | Scores | Traced, shape: Shape) -> int:
    """The fewest multiply-adds after all sharing that the job's definition allows.

    Capture: each prompt once, no padding, no head, of the last block the last position. Scores: each prompt once
    without intervention, up to the highest layer touched; then, per condition at layer l, blocks l + 1 and above over
    all its tokens (all positions differ) and one row of the head. Tracing: the clean row and the corrupted ones once;
    then for each cell from the subject on, and each sample, the blocks above the restored state (from the first restored
    module's block on), the tokens from the restored one on, and one row of the head. Norms, rotations and softmaxes are
    not counted.
    """
    if isinstance(job, Traced):
        return _traced_macs(job, shape)
    last = shape.layers - 1
    if isinstance(job, Capture):
        return sum(shape.blocks(last, len(prompt)) + shape.tail(len(prompt)) for prompt in job.prompts)
    touched = [condition.layer for condition in job.conditions]

    def through(first: int, tokens: int) -> int:
        """Blocks first … last, of the last one the last position."""
        return shape.blocks(last - first, tokens) + shape.tail(tokens) if first <= last else 0

    total = 0
    for prompt in job.prompts:
        tokens = len(prompt)
        total += through(0, tokens) if last in touched else shape.blocks(max(touched) + 1, tokens)
        total += sum(through(layer + 1, tokens) + shape.head for layer in touched)
    return total


def _traced_macs(job: Traced, shape: Shape) -> int:
    tokens, samples, layers = len(job.prompts[0]), len(job.noise), shape.layers
    total = (samples + 1) * (shape.blocks(layers, tokens) + shape.head)
    for part in job.parts:
        for at in range(job.subject[0], tokens):
            for layer in range(job.layers):
                entry = layer + 1 if part == "resid" else job.near(part, layer)[0]
                if entry < layers or at == tokens - 1:
                    total += samples * (shape.suffix(layers - entry, at, tokens) + shape.head)
    return total


def unshared_macs(job: Scores, shape: Shape) -> int:
    """The multiply-adds without sharing and without padding: every cell a whole row, the head at its last position."""
    rows = sum(shape.blocks(shape.layers, len(prompt)) + shape.head for prompt in job.prompts)
    return rows * len(job.conditions)


OPENINGS = (
    "The old lighthouse keeper climbed the stairs every evening and looked out over the water, because",
    "Dear Anna, thank you for your letter. We arrived here last week and",
    "The history of the town begins with a monastery, which was founded by",
    "To repair a wooden chair, you need glue, sandpaper and a little patience. First,",
)
"""Job 1: 14 to 19 tokens each. In none of its rows is the stop token near, so all rows have their full length."""

FACTS = {
    8: (" Louvre", " is in the city of", " Paris"),
    10: (" Great Wall of China", " is in the country of", " China"),
    12: (" Leaning Tower of Pisa", " is in the country of", " Italy"),
}
"""Job 4, by tokens: after "The" the subject, what follows it, and what is said next."""

PROSE = (
    "The market opens at seven, and by eight the best fruit has gone.",
    "Our neighbour keeps bees behind the house and sells the honey in small jars.",
    "It rained for three days, so the path along the river was closed.",
    "She learned to repair clocks from her aunt, who had a shop near the harbour.",
    "The museum moved the oldest maps into a room without windows.",
    "Every spring the swallows come back to the same corner of the barn.",
    "He counted the coins twice, wrote down the sum and locked the drawer.",
    "Nobody could say who had painted the door green.",
    "The bridge was built of stone in one summer and has stood for two hundred years.",
    "In the evening the square fills with people who carry chairs from their kitchens.",
    "A dog slept under the table while the committee argued about the fence.",
    "The doctor explained the results slowly and drew a small picture.",
    "Two of the windows face north, which is why the painter took the room.",
    "They planted beans between the rows of corn, as their grandparents had done.",
    "The last bus leaves before the concert ends, so most visitors come by bicycle.",
    "At the top of the hill there is a bench with a view of both valleys.",
)
"""Job 2: shuffled, joined and cut."""

CLAIMS = (
    "Paris is the capital of France",
    "Water boils at a lower temperature on a high mountain",
    "The sun goes around the earth once a day",
    "A spider has six legs",
    "Gold is heavier than wood of the same size",
    "The Amazon is a river in South America",
    "Most penguins live near the North Pole",
    "Seven times eight is fifty-six",
    "Bread is usually made from flour, water and yeast",
    "The moon gives off light of its own",
    "A triangle has three sides",
    "Whales are fish that lay eggs in warm water",
    "Iron rusts when it is left in damp air",
    "The Pacific is the smallest of the oceans",
    "Sound travels faster in water than in air",
    "Rome was founded after New York",
)
FRAMES = (
    "{}. This is",
    "Is the following statement true or false? {}. The statement is",
    "A student wrote in the exam: {}. The teacher marked the sentence as",
    "Here is a sentence from an old book that a friend asked me to check. {}. I read a little and found that it is",
)
"""Job 3: 16 claims in 4 frames."""
