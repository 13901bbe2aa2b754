"""The only file that touches torch hooks, and the only one that replaces anything on a module.

`Hooks` shows taps the activation at a place and puts back what they return. `only` starts a forward pass in the
middle: the blocks below return at once, and the one just below the entry returns the stored stream, so hooks on it fire
as ever. `patterned` makes attention weights readable and writable. All of them give the model back as it was.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from assay.act.program import Place
from assay.model.anatomy import Anatomy, module_at
from assay.model.attending import Attention, Copies, mixed_again
from assay.model.spread import Spread
from assay.model.taps import Tap, in_turn
from assay.sites import Shape

_READS = (".q.in", ".k.in", ".v.in")
"""Parts of a head that read the stream; no sites, like ``attn.in``."""
_Attend = Callable[..., tuple[Tensor, Tensor]]


def on_input(stack: ExitStack, module: nn.Module, tap: Tap) -> None:
    """Show a tap the first argument of every call of a module, until the stack is closed."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = "hidden_states"
        h = args[0] if args else kwargs[name]
        new = tap(h)
        if new is None or new is h:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, name: new})

    _held(stack, module.register_forward_pre_hook(before, with_kwargs=True))


def on_output(stack: ExitStack, module: nn.Module, tap: Tap) -> None:
    """Show a tap what every call of a module gives, of a tuple the first, until the stack is closed."""

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        new = tap(h)
        if new is None or new is h:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    _held(stack, module.register_forward_hook(after))


@contextmanager
def only(
    blocks: Sequence[nn.Module], entry: int, stream: Tensor | None, end: int | None, tuples: bool
) -> Iterator[None]:
    """Run blocks ``entry`` to ``end`` (exclusive) only, with ``stream`` as the output of the block below ``entry``."""

    def skip(value: Tensor | None) -> Callable[..., Any]:
        def forward(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            h = hidden_states if value is None else value
            return (h, None) if tuples else h

        return forward

    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            if index < entry or (end is not None and index >= end):
                _replace(stack, block, "forward", skip(stream if index == entry - 1 else None))
        yield


class Hooks:
    """Taps on the places of one model, for the length of a ``with``."""

    def __init__(self, hf: Any, anatomy: Anatomy, shape: Shape, spread: Spread) -> None:
        self.hf, self.anatomy, self.shape, self.spread = hf, anatomy, shape, spread
        self.blocks: Sequence[nn.Module] = list(module_at(hf, anatomy.blocks).children())
        self._taps: Mapping[Place, Tap] = {}
        self._stack = ExitStack()

    @contextmanager
    def tapped(self, taps: Mapping[Place, Tap]) -> Iterator[None]:
        """Install; on any way out the hooks are as before. Nested blocks act at one place from the outside in.

        All open blocks share one installation, so that places on one module (``attn.out`` before ``mid``, ``embed``
        before what reads block 0's input) keep the order of the forward pass, whichever block was opened first.
        Raises `NotWhole` before anything is installed.
        """
        self.spread.refuse(taps)
        outer, taps = self._taps, {place: self.spread.shown(tap) for place, tap in taps.items()}
        try:
            self._install_all(
                {**outer, **{place: in_turn([*filter(None, [outer.get(place)]), tap]) for place, tap in taps.items()}}
            )
            yield
        finally:
            self._install_all(outer)

    def _install_all(self, taps: Mapping[Place, Tap]) -> None:
        self._stack.close()
        self._taps = taps
        with ExitStack() as stack:
            own = {place: tap for place, tap in taps.items() if place[1].endswith(_READS)}
            if own:
                stack.enter_context(self._apart(own))
            # Whatever else reads block 0's input has to see it as the taps on it leave it.
            for place, tap in sorted(taps.items(), key=lambda item: item[0][1] != "embed"):
                layer, part = place
                if place in own:
                    continue
                if part == "mid" and (layer, "attn.out") in taps:
                    continue
                if part == "attn.out" and (layer, "mid") in taps:
                    self._install_mid(stack, layer, taps[layer, "mid"], tap)
                elif part == "mid":
                    self._install_mid(stack, layer, tap, None)
                else:
                    self._install(stack, layer, part, tap)
            patterns = {layer: tap for (layer, part), tap in taps.items() if part == "head.pattern"}
            if patterns:
                stack.enter_context(self._patterned(patterns))
            self._stack = stack.pop_all()

    def _install(self, stack: ExitStack, layer: int | None, part: str, tap: Tap) -> None:
        block = self.blocks[layer or 0]  # "embed" is the first block's input
        if part == "embed":
            on_input(stack, self.blocks[0], tap)
        elif part == "resid":
            on_output(stack, block, tap)
        elif part in ("attn.out", "mlp.out"):
            on_output(stack, module_at(block, getattr(self.anatomy, part.replace(".", "_"))), tap)
        elif part in ("attn.in", "mlp.in"):  # no sites: copies of the stream, each with one reader
            on_input(stack, module_at(block, getattr(self.anatomy, part.replace(".", "_"))), tap)
        elif part == "mlp.down":  # no site either: in some families a norm stands between it and mlp.out
            assert self.anatomy.down is not None
            on_output(stack, module_at(block, self.anatomy.down), tap)
        elif part == "mlp.act":
            assert self.anatomy.down is not None
            on_input(stack, module_at(block, self.anatomy.down), tap)
        elif part == "head.z":
            on_input(stack, module_at(block, self.anatomy.o_proj), _by_head(tap, self.shape.d_head))
        elif part == "logits":
            self._on_logits(stack, tap)

    def _install_mid(self, stack: ExitStack, layer: int | None, mid: Tap, out: Tap | None) -> None:
        """``mid`` is the stream below plus what attention adds; a change to it is carried by what attention adds."""
        assert layer is not None
        block, below = self.blocks[layer], {}

        def keep(h: Tensor) -> None:
            below["resid"] = h

        def through(added: Tensor) -> Tensor | None:
            first = out(added) if out else None
            added = added if first is None else first
            stream = below["resid"].to(added.device) + added  # a block's input may come from another device
            new = mid(stream)
            return first if new is None or new is stream else added + (new - stream)

        on_input(stack, block, keep)
        on_output(stack, module_at(block, self.anatomy.attn_out), through)

    def _on_logits(self, stack: ExitStack, tap: Tap) -> None:
        def after(_: nn.Module, __: Any, output: Any) -> Any:
            new = tap(output.logits)
            if new is not None:
                output.logits = new
            return output

        _held(stack, self.hf.register_forward_hook(after))

    @contextmanager
    def watched(self, before: Callable[[dict[str, Any]], None]) -> Iterator[None]:
        """Show ``before`` the named arguments of every forward call on the model's body, with or without its head."""
        body = self.hf.get_decoder()
        names = list(inspect.signature(body.forward).parameters)

        def see(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            before({**dict(zip(names, args, strict=False)), **kwargs})

        handle = body.register_forward_pre_hook(see, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def blocks_return_tuples(self, body: nn.Module, device: torch.device) -> bool:
        """Whether a block returns its stream alone or first in a tuple, which differs between families and releases."""
        found: list[bool] = []
        handle = self.blocks[0].register_forward_hook(lambda _, __, output: found.append(isinstance(output, tuple)))
        try:
            token = torch.zeros(1, 1, dtype=torch.long, device=device)
            body(input_ids=token, attention_mask=torch.ones_like(token), use_cache=False)
        finally:
            handle.remove()
        return found[0]

    @contextmanager
    def attended(self) -> Iterator[dict[int, Attention]]:
        """Keep every layer's attention as the passes inside compute it, eagerly; the last of them counts.

        Raises `NotWhole` where this process has some of the heads only.
        """
        self.spread.refuse((layer, "head.pattern") for layer in range(self.shape.layers))
        layers = {module_at(block, self.anatomy.attn): layer for layer, block in enumerate(self.blocks)}
        seen: dict[int, Attention] = {}

        def around(module: nn.Module, natural: _Attend, query: Tensor, key: Tensor, *rest: Any, **more: Any) -> Any:
            seen[layers[module]] = Attention(query, key, lambda q, k: natural(q, k, *rest, **more)[1])
            return natural(query, key, *rest, **more)

        with self._eagerly(around):
            yield seen

    @contextmanager
    def _apart(self, taps: Mapping[Place, Tap]) -> Iterator[None]:
        """Give a head's queries, keys or values a copy of the stream of their own: ``(3, "head[5].q.in")``.

        Copies go through the norm and the projections as rows of their own, and each head takes what is its own from them
        where attention is computed; what they would give beyond that is cut off before the output projection.
        """
        by_layer: dict[int, dict[tuple[str, int], Tap]] = {}
        for (layer, part), tap in taps.items():
            assert layer is not None
            head, role = part.removeprefix("head[").removesuffix(".in").split("].")
            by_layer.setdefault(layer, {})[role, int(head)] = tap
        made = {module_at(self.blocks[layer], self.anatomy.attn): Copies(own) for layer, own in by_layer.items()}

        def around(
            module: nn.Module, natural: _Attend, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **more: Any
        ) -> Any:
            copies = made.get(module)
            if copies is None:
                return natural(query, key, value, *rest, **more)
            with ExitStack() as stack:
                if copies.roles & {"k", "v"} and hasattr(module, "num_key_value_groups"):
                    _replace(stack, module, "num_key_value_groups", 1)
                mixed, weights = natural(*copies.gathered(query, key, value), *rest, **more)
            return torch.cat([mixed, mixed.new_zeros(len(query) - len(mixed), *mixed.shape[1:])]), weights

        with ExitStack() as stack:
            for module, copies in made.items():
                block = self.blocks[next(i for i in by_layer if module_at(self.blocks[i], self.anatomy.attn) is module)]
                on_input(stack, module_at(block, self.anatomy.o_proj), copies.cut)
                on_input(stack, module_at(block, self.anatomy.attn_in), copies.made)
            stack.enter_context(self._eagerly(around))
            yield

    @contextmanager
    def _patterned(self, taps: Mapping[int | None, Tap]) -> Iterator[None]:
        """Eager attention whose weights go through the taps; the mixed values are computed from what they return."""
        attentions = {
            module_at(self.blocks[layer], self.anatomy.attn): tap for layer, tap in taps.items() if layer is not None
        }

        def around(
            module: nn.Module, natural: _Attend, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **more: Any
        ) -> Any:
            mixed, weights = natural(query, key, value, *rest, **more)
            new = mixed_again(attentions.get(module), weights, value)
            if new is None:
                return mixed, weights
            # The library's functions give tokens before heads; a method of a module (GPT-J) heads before tokens.
            return (new[0].transpose(1, 2).contiguous() if _eager(module) else new[0]), new[1]

        with self._eagerly(around):
            yield

    @contextmanager
    def _eagerly(self, around: Callable[..., Any]) -> Iterator[None]:
        """Eager attention, each call of which is made by ``around(module, natural, query, key, value, …)``."""
        attentions = [module_at(block, self.anatomy.attn) for block in self.blocks]
        if _eager(attentions[0]) is None:
            with ExitStack() as stack:
                for module in attentions:
                    _replace(stack, module, "_attn", partial(around, module, module._attn))
                yield
            return
        before = ALL_ATTENTION_FUNCTIONS.get("eager")

        def attend(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            # The table is the library's, for all models: each module keeps the function that it would have found.
            natural = partial(before or _eager(module), module)
            return around(module, natural, *args, **kwargs) if module in attentions else natural(*args, **kwargs)

        config = self.hf.config.get_text_config()
        chosen = config._attn_implementation
        ALL_ATTENTION_FUNCTIONS["eager"] = attend
        config._attn_implementation = "eager"
        try:
            yield
        finally:
            config._attn_implementation = chosen
            if before is None:
                del ALL_ATTENTION_FUNCTIONS["eager"]
            else:
                ALL_ATTENTION_FUNCTIONS["eager"] = before


def _by_head(tap: Tap, d_head: int) -> Tap:
    def tap_heads(z: Tensor) -> Tensor | None:
        split = z.unflatten(-1, (-1, d_head))
        new = tap(split)
        return None if new is None or new is split else new.flatten(-2)

    return tap_heads


def _held(stack: ExitStack, handle: Any) -> None:
    stack.callback(handle.remove)


def _replace(stack: ExitStack, module: nn.Module, name: str, method: Any) -> None:
    """Put a method, or a value, on this one module; afterwards it has what it had, be that its class's or one put there before."""
    own = vars(module).get(name)
    setattr(module, name, method)
    stack.callback(lambda: setattr(module, name, own) if own is not None else delattr(module, name))


def _eager(module: nn.Module) -> Any:
    """The eager attention of the library file that a module comes from; None where it is a method of the module."""
    return getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
