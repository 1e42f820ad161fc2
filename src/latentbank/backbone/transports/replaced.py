"""The attention of chosen layers, computed by a memory for the length of a block.

One attention function is registered with transformers. It asks the reader of a layer, and leaves
every other layer as it was. Knows attention modules and readers; knows no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from torch import Tensor, nn

from latentbank.backbone.layers import attention_modules
from latentbank.backbone.model import Backbone
from latentbank.errors import InputError

__all__ = ["READER", "AttentionReader", "replaced_attention"]

_NAME = "latentbank_memory"
READER = "knowledge"
"""The name under which an attention module holds its reader; a `QuickLlama` looks for it, too."""


class AttentionReader(Protocol):
    """Computes one layer's attention."""

    def hear(self, states: Tensor) -> None:
        """Takes the states [B, T, D] that enter the attention."""

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **kwargs: Any,
    ) -> Any:
        """What an attention function of transformers returns: (mixed [B, T, H, head_dim], None)."""


@contextmanager
def replaced_attention(
    backbone: Backbone, readers: Mapping[int, AttentionReader]
) -> Iterator[Backbone]:
    """Layer → its reader. PyTorch computes inside the block.

    Raises InputError for a layer that the backbone does not have.
    """
    modules = attention_modules(backbone.decoder)
    unknown = [layer for layer in readers if not 0 <= layer < len(modules)]
    if unknown:
        raise InputError(f"layers {unknown} are outside the {len(modules)} of the backbone")
    with ExitStack() as stack:
        stack.enter_context(backbone.reference())
        if not backbone.quick:
            from transformers import AttentionInterface, AttentionMaskInterface
            from transformers.masking_utils import sdpa_mask

            AttentionInterface.register(_NAME, _attend)
            AttentionMaskInterface.register(_NAME, sdpa_mask)
            before = backbone.model.config._attn_implementation
            backbone.model.set_attn_implementation(_NAME)
            stack.callback(backbone.model.set_attn_implementation, before)
        for layer, reader in readers.items():
            own = modules[layer].__dict__
            own[READER] = reader
            stack.callback(own.pop, READER, None)
            handle = modules[layer].register_forward_pre_hook(_hear, with_kwargs=True)
            stack.callback(handle.remove)
        yield backbone


def _hear(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    module.__dict__[READER].hear(args[0] if args else kwargs["hidden_states"])


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> Any:
    """The attention function of transformers while a memory is attached."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    reader: AttentionReader | None = module.__dict__.get(READER)
    if reader is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return reader.attend(module, query, key, value, attention_mask, **kwargs)
