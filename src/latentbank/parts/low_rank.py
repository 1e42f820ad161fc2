"""Settings of the low-rank weights (LoRA) that a method trains beside its own network."""

from __future__ import annotations

from dataclasses import dataclass

from latentbank.backbone.lora import LoraWeights
from latentbank.backbone.model import Backbone
from latentbank.config import setting

__all__ = ["NO_LORA", "LoraSettings"]


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank weights on the backbone's attention projections."""

    rank: int = setting(16, "Rank of the low-rank weights; 0 trains none.")
    alpha: int = setting(32, "The weights are scaled by alpha / rank.")
    dropout: float = setting(0.0, "Dropout on their input while training.")
    targets: str = setting("attention", "Projections: `attention` (all four) or `kv` (MBC).")
    layer: int = setting(0, "First layer that carries them.")

    def build(self, backbone: Backbone) -> LoraWeights | None:
        """Wraps the backbone's projections, switched off; None for rank 0.

        Raises:
            InputError: `layer` is not a layer of the backbone.
        """
        if self.rank == 0:
            return None
        backbone.geometry.require_layer(self.layer, "lora.layer")
        return LoraWeights(backbone, self.layer, self.rank, self.alpha, self.dropout, self.targets)


NO_LORA = LoraSettings(rank=0)
