"""Which weights of the backbone documents change, and the differences that they learn.

Knows names and tensors of the backbone; knows no documents and no bank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentbank.backbone.layers import attention_modules, feed_forward_modules, plain_weights
from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import DenseDelta, LowRankDelta, WeightDelta
from latentbank.config import require_at_least, setting
from latentbank.errors import BankError, InputError

__all__ = ["NUMBERS", "LearnedWeights", "WeightSettings", "weight_names"]

MODES = ("full", "lora")
TARGETS = ("all", "mlp", "attention")
NUMBERS = {"float32": torch.float32, "float16": torch.float16}
_LEFT, _RIGHT = "left.", "right."


@dataclass(frozen=True)
class WeightSettings:
    """The weights that documents change."""

    mode: str = setting("lora", "full: a difference to every number; lora: low-rank differences.")
    targets: str = setting("mlp", "Weights that change: all, mlp or attention.")
    layer: int = setting(0, "First layer whose weights change.")
    rank: int = setting(8, "Rank of the low-rank differences.")
    codec: str = setting("float16", "How the bank stores the differences: float32 or float16.")

    def __post_init__(self) -> None:
        known = (("mode", MODES), ("targets", TARGETS), ("codec", tuple(NUMBERS)))
        for name, values in known:
            if getattr(self, name) not in values:
                raise InputError(
                    f"{name} must be one of {', '.join(values)}, got {getattr(self, name)!r}"
                )
        require_at_least(self, 1, "rank")
        require_at_least(self, 0, "layer")


def weight_names(backbone: Backbone, targets: str, layer: int) -> list[str]:
    """Names of the weights that `targets` means, from `layer` upward.

    `all` from layer 0 also means embeddings, the last norm and the vocabulary head.

    Raises:
        InputError: `layer` is not a layer of the backbone, or a part of a layer is not found.
    """
    names = {id(weight): name for name, weight in plain_weights(backbone.model)}
    backbone.geometry.require_layer(layer)
    if targets == "all" and layer == 0:
        return list(names.values())
    parts: dict[str, Any] = {
        "all": lambda: backbone.decoder.layers,
        "mlp": lambda: feed_forward_modules(backbone.decoder),
        "attention": lambda: attention_modules(backbone.decoder),
    }
    modules = parts[targets]()[layer:]
    return [
        names[id(weight)]
        for module in modules
        for weight in module.parameters()
        if id(weight) in names  # low-rank weights are none of the backbone's
    ]


class LearnedWeights:
    """Differences to weights of the backbone: dense ones, or products of low rank.

    Low-rank differences start at 0: `left` [O, r] is zero, `right` [r, I] is drawn from `seed`.
    Weights with one dimension have no low-rank difference and do not change then.
    """

    def __init__(self, backbone: Backbone, settings: WeightSettings, seed: int = 0) -> None:
        self.settings = settings
        weights = dict(plain_weights(backbone.model))
        names = weight_names(backbone, settings.targets, settings.layer)
        self.shapes = {name: tuple(weights[name].shape) for name in names}
        if settings.mode == "lora":
            self.shapes = {name: shape for name, shape in self.shapes.items() if len(shape) == 2}
        self._right: dict[str, Tensor] = {}
        if settings.mode == "lora":
            draw = torch.Generator().manual_seed(seed)
            for name, (_, inner) in self.shapes.items():
                right = torch.randn(settings.rank, inner, generator=draw) * inner**-0.5
                self._right[name] = self.rounded(right)
        self.device = backbone.device

    def start(self) -> dict[str, Tensor]:
        """The tensors of no difference, by name; float32."""
        if self.settings.mode == "full":
            return {name: torch.zeros(shape) for name, shape in self.shapes.items()}
        found: dict[str, Tensor] = {}
        for name, (outer, _) in self.shapes.items():
            found[_LEFT + name] = torch.zeros(outer, self.settings.rank)
            found[_RIGHT + name] = self._right[name].clone()
        return found

    def rounded(self, tensor: Tensor) -> Tensor:
        """A tensor as it comes back from the bank."""
        return tensor.to(NUMBERS[self.settings.codec]).float()

    def stored(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as the bank stores them."""
        kind = NUMBERS[self.settings.codec]
        return {name: value.detach().cpu().to(kind) for name, value in tensors.items()}

    def restored(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """From what `stored` gave, float32.

        Raises:
            BankError: other names, shapes or numbers.
        """
        expected = self.start()
        wrong = sorted(
            name
            for name in expected.keys() | tensors.keys()
            if name not in tensors
            or name not in expected
            or tensors[name].shape != expected[name].shape
            or not bool(torch.isfinite(tensors[name]).all())
        )
        if wrong:
            raise BankError(
                f"the bank's learned weights do not fit: {wrong[0]} is missing, not finite or has "
                "another shape; open the bank with the settings that it was made with"
            )
        return {name: tensors[name].float() for name in expected}

    def delta(self, tensors: Mapping[str, Tensor]) -> WeightDelta:
        """The differences as a transport; gradients flow to `tensors`."""
        if self.settings.mode == "full":
            return WeightDelta({name: DenseDelta(tensors[name]) for name in self.shapes})
        pairs = ((name, tensors[_LEFT + name], tensors[_RIGHT + name]) for name in self.shapes)
        return WeightDelta({name: LowRankDelta(left, right) for name, left, right in pairs})
