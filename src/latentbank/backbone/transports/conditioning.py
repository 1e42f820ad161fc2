"""How a memory speaks to the backbone: transports that attach for the length of a `with` block.

Knows tensors and the backbone's entrances, not the methods that fill them. After the block the
backbone's logits are bit-identical to before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from latentbank.backbone.kv import KVMemory
from latentbank.backbone.model import Backbone
from latentbank.errors import InputError

Sources = tuple[tuple[tuple[str, float], ...], ...]
"""For each of B questions the documents that it was read from, as (id, weight)."""


class Transport(Protocol):
    """One way in. `attach` is a context manager that changes the backbone and restores it."""

    def attach(self, backbone: Backbone) -> Any: ...


@dataclass(frozen=True)
class Conditioning:
    """What a method's `read` returns for a batch of B questions.

    `transports` are attached in order. `passages` [B] stand in the prompt before the question, None
    for no text. `sources` [B] name the documents read, most important first, weights in [0, 1]; a
    function gives them after decoding, from what attention did meanwhile.
    `contrast` α > 0 asks for memory-aware decoding: logits (1 + α)·ℓ(memory) − α·ℓ(no memory).
    `support` [B] in [0, 1] says how well what was selected fits the question, empty where a method
    cannot tell; an answer is as much less sure. `quotable` [B] is the text of what the transports
    bring, where it is at hand: an answer that quotes it, or a passage, is found in fewer steps.
    """

    transports: tuple[Transport, ...] = ()
    passages: tuple[str, ...] | None = None
    sources: Sources | Callable[[], Sources] = ()
    contrast: float = 0.0
    support: tuple[float, ...] = ()
    quotable: tuple[str, ...] = ()

    def named_sources(self) -> Sources:
        """`sources`; where they are a function, its result: ask it after the answers."""
        return self.sources() if callable(self.sources) else self.sources

    @property
    def layer(self) -> int:
        """Below this layer the backbone computes what it does without the transports."""
        return min((getattr(one, "layer", 0) for one in self.transports), default=0)

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        """Attaches every transport; detaches all of them on exit, whatever happens."""
        with ExitStack() as stack:
            for transport in self.transports:
                stack.enter_context(transport.attach(backbone))
            yield backbone


@dataclass(frozen=True)
class KVPrefix:
    """Keys and values that the text attends to as if they were tokens before it."""

    memory: KVMemory

    @property
    def layer(self) -> int:
        return self.memory.layer

    def attach(self, backbone: Backbone) -> Any:
        return backbone.with_memory(self.memory)


@dataclass(frozen=True)
class MidStates:
    """States [B, M, D] that enter the residual stream at `layer`; the layers above read them with
    their own projections. `mask` [B, M] bool; `bias` [B, M] log mass or None.
    """

    states: Tensor
    mask: Tensor
    layer: int
    bias: Tensor | None = None

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        memory = backbone.fill(self.states, self.mask, self.layer, self.bias)
        with backbone.with_memory(memory):
            yield backbone


@dataclass(frozen=True)
class LayerHook:
    """Reads the residual stream at `layer` and may add to it.

    `function` gets the states [B, T, D] that enter the layer and returns what is added to them, of
    the same shape, or None. It runs at every forward pass, also token by token while decoding.
    Gradients flow.
    """

    function: Callable[[Tensor], Tensor | None]
    layer: int

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        layers = backbone.decoder.layers
        if not 0 <= self.layer < len(layers):
            raise InputError(
                f"layer {self.layer} is outside the {len(layers)} layers of the backbone"
            )
        handle = layers[self.layer].register_forward_pre_hook(self._enter, with_kwargs=True)
        try:
            yield backbone
        finally:
            handle.remove()

    def _enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden = args[0] if args else kwargs["hidden_states"]
        added = self.function(hidden)
        if added is None:
            return args, kwargs
        changed = hidden + added.to(hidden.dtype)
        if args:
            return (changed, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": changed}
