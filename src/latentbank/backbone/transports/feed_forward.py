"""A module beside the feed-forward part of a layer, for the length of a `with` block.

Knows the backbone's feed-forward parts; knows nothing of what is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from latentbank.backbone.layers import feed_forward_modules
from latentbank.backbone.model import Backbone
from latentbank.errors import InputError

__all__ = ["FeedForwardSide"]


@dataclass(frozen=True)
class FeedForwardSide:
    """Adds `function`(x) to the output of the feed-forward part of `layer`, with x its input.

    `function` gets states [B, T, D] and returns a tensor of the same shape. It runs at every
    forward pass, also token by token while decoding. Gradients flow.
    """

    function: Callable[[Tensor], Tensor]
    layer: int

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        """Hooks the feed-forward part for the length of the block.

        Raises InputError for an unknown layer, or a backbone whose feed-forward part is not found.
        """
        modules = feed_forward_modules(backbone.decoder)
        if not 0 <= self.layer < len(modules):
            raise InputError(
                f"layer {self.layer} is outside the {len(modules)} layers of the backbone"
            )
        handle = modules[self.layer].register_forward_hook(self._leave)
        try:
            with backbone.reference():
                yield backbone
        finally:
            handle.remove()

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        added = self.function(args[0])
        if isinstance(output, tuple):  # a mixture of experts also returns its routing
            return (output[0] + added, *output[1:])
        return output + added
