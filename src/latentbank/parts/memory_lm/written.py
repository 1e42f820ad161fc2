"""How much a model writes into its memories, as a loss: what need not be kept is not written.

Trained on short texts alone, a memory has little reason to pass over filler: what filler
overwrites in 128 tokens is not much. In a text 16 times as long it is. A small cost of each written
token makes up for that. Titans has no such cost.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from latentbank.parts.memory_lm.mixers import DeltaMixer
from latentbank.parts.neural_memory import NeuralMemory

__all__ = ["Written"]

_LEAST = 0.002  # a step below this share of the largest one counts as none


class Written:
    """Watches the steps of all memories of a model while it is open.

    `cost` is the mean of ln(1 + s / 0.002) over tokens, heads and memories, where s is the share
    that a token's step has of the largest one: about a count of the tokens that are written,
    however strongly.
    """

    def __init__(self, model: nn.Module) -> None:
        self._found: list[Tensor] = []
        self._hooks = []
        for module in model.modules():
            if isinstance(module, NeuralMemory):
                self._hooks.append(module.to_gates.register_forward_hook(self._memory))
            elif isinstance(module, DeltaMixer):
                self._hooks.append(module.to_step.register_forward_hook(self._delta))

    def _memory(self, _module: nn.Module, _inputs: Any, raw: Tensor) -> None:
        self._delta(_module, _inputs, raw.chunk(3, -1)[2])

    def _delta(self, _module: nn.Module, _inputs: Any, raw: Tensor) -> None:
        self._found.append(torch.log1p(raw.sigmoid() / _LEAST).mean())

    def cost(self) -> Tensor | None:
        """The cost of what was written since it was opened; None for a model without memory."""
        return torch.stack(self._found).mean() if self._found else None

    def __enter__(self) -> Written:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()
