"""How a memory speaks to the backbone: transports that attach for the length of a `with` block.

Knows tensors and the backbone's entrances, not the methods that fill them. After the block the
backbone's logits are bit-identical to before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from latentbank.backbone.kv import KVMemory
from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import PLAIN, Template, prompt_ids
from latentbank.errors import InputError

Sources = tuple[tuple[tuple[str, float], ...], ...]
"""For each of B questions, the documents that its answer was read from, as (id, weight)."""


class Transport(Protocol):
    """One way in which a memory enters the backbone."""

    def attach(self, backbone: Backbone) -> Any:
        """A context manager that changes the backbone and restores it on exit."""


@dataclass(frozen=True)
class Conditioning:
    """What a method's `read` returns for a batch of B questions.

    - `transports` are attached in order.
    - `passages` [B] come before the question in the prompt; None for no text.
    - `template` is what stands around passage and question. With `begun` the transports hold the
      prompt up to the question.
    - `sources` [B] name the documents that were read, best first, with weights in [0, 1]. A
      function gives them after decoding, from the attention meanwhile.
    - `contrast` α > 0 asks for memory-aware decoding: (1 + α)·ℓ(memory) − α·ℓ(no memory).
    - `support` [B] in [0, 1] says how well the selected documents fit the question; the confidence
      of the answer is multiplied by it. Empty where a method cannot tell.
    - `quotable` [B] is the text behind the transports, where it is known. Decoding takes fewer
      steps for an answer that quotes it, or a passage.
    """

    transports: tuple[Transport, ...] = ()
    passages: tuple[str, ...] | None = None
    sources: Sources | Callable[[], Sources] = ()
    contrast: float = 0.0
    support: tuple[float, ...] = ()
    quotable: tuple[str, ...] = ()
    template: Template = PLAIN
    begun: bool = False

    def named_sources(self) -> Sources:
        """`sources`, or the result of the function; call it after the answers are decoded."""
        return self.sources() if callable(self.sources) else self.sources

    def prompts(self, backbone: Backbone, questions: Sequence[str]) -> list[list[int]]:
        """Token ids of the questions' prompts, what the transports hold left out."""
        return prompt_ids(backbone, questions, self.passages, self.template, self.begun)

    @property
    def layer(self) -> int:
        """Below this layer the transports change nothing."""
        return min((getattr(one, "layer", 0) for one in self.transports), default=0)

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        """Attaches every transport; detaches all of them on exit, also after an error."""
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
        """The first layer that sees the memory."""
        return self.memory.layer

    def attach(self, backbone: Backbone) -> Any:
        """Attaches the memory for the length of the block."""
        return backbone.with_memory(self.memory)


@dataclass(frozen=True)
class MidStates:
    """States [B, M, D] that enter the residual stream at `layer`, before the text.

    The layers from `layer` upward read them with their own projections. `mask` [B, M] is bool;
    `bias` [B, M] is a log mass or None.
    """

    states: Tensor
    mask: Tensor
    layer: int
    bias: Tensor | None = None

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        """Runs the states through the upper layers and attaches the keys and values."""
        memory = backbone.fill(self.states, self.mask, self.layer, self.bias)
        with backbone.with_memory(memory):
            yield backbone


@dataclass(frozen=True)
class LayerHook:
    """Reads the residual stream at `layer` and may add to it.

    `layer` may be the number of layers: then it is the states before the final norm. `function`
    gets the states [B, T, D] that enter the layer. It returns a tensor of the same shape
    that is added to them, or None. It runs at every forward pass, also token by token while
    decoding. Gradients flow.
    """

    function: Callable[[Tensor], Tensor | None]
    layer: int

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        """Hooks the layer for the length of the block. Raises InputError for an unknown layer."""
        layers = [*backbone.decoder.layers, backbone.decoder.norm]
        if not 0 <= self.layer < len(layers):
            raise InputError(
                f"layer {self.layer} is outside the {len(layers) - 1} layers of the backbone"
            )
        handle = layers[self.layer].register_forward_pre_hook(self._enter, with_kwargs=True)
        try:
            with backbone.reference():
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
