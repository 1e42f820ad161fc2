"""Many short texts through the layers of a Llama-like backbone at once, without padding.

For training: frozen weights with low-rank updates, one fused step with its own gradient for each
layer. Knows tensors, layouts and the backbone's weights; knows no method and no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentbank.backbone.layers import attention_modules
from latentbank.backbone.lora import LoraWeights
from latentbank.backbone.model import Backbone
from latentbank.backbone.packed.layout import Layout
from latentbank.backbone.packed.step import FrozenLayer, LayerStep


@dataclass(frozen=True)
class _Updates:
    """The scaled low-rank updates of one layer; None where there are none.

    `a_qkv` [R, D], `b_qkv` [qkv, R], `a_out` [r, heads·d], `b_out` [D, r]. `dropout` acts on the
    input of `a_qkv`.
    """

    a_qkv: Tensor | None = None
    b_qkv: Tensor | None = None
    a_out: Tensor | None = None
    b_out: Tensor | None = None
    dropout: float = 0.0


class PackedLayers:
    """The layers of a Llama-like backbone, prepared for packed runs; it copies their weights."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._frozen: dict[int, FrozenLayer] = {}

    @staticmethod
    def supports(backbone: Backbone) -> bool:
        """Whether the backbone is a plain Llama, which packed runs need."""
        config = backbone.decoder.config
        return bool(
            getattr(config, "model_type", "") == "llama"
            and getattr(config, "hidden_act", "") == "silu"
            and not getattr(config, "attention_bias", False)
            and not getattr(config, "mlp_bias", False)
        )

    def run(
        self,
        states: Tensor,
        layout: Layout,
        first: int,
        last: int,
        lora: LoraWeights | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """States [N, D] after the layers first … last-1, of states [N, D] that enter `first`.

        With `wanted` [W] only these tokens are returned, [W, D]. After the last layer of the
        backbone the final norm is applied.
        """
        geometry = self.backbone.geometry
        positions = layout.positions[None]
        cos, sin = self.backbone.body.rotary_emb(states[None], positions)
        half = cos.shape[-1] // 2
        rotary = cos[0, :, None, :half], sin[0, :, None, :half]
        apply: Any = LayerStep.apply
        for index in range(first, last):
            chosen = wanted if index == last - 1 else None
            updates = self._updates(index, lora)
            arguments = (
                self._layer(index),
                rotary,
                layout.buckets,
                geometry,
                chosen,
                updates.dropout,
            )
            states = apply(
                states, updates.a_qkv, updates.b_qkv, updates.a_out, updates.b_out, arguments
            )
        if last == geometry.layers:
            norm = self.backbone.body._modules[self.backbone.decoder.norm_name]
            states = norm(states)
        return states

    def _layer(self, index: int) -> FrozenLayer:
        if index not in self._frozen:
            layer: Any = self.backbone.decoder.layers[index]
            attention, mlp = layer.self_attn, layer.mlp
            before, after = layer.input_layernorm, layer.post_attention_layernorm
            qkv = [_weight(getattr(attention, f"{name}_proj")) for name in "qkv"]
            both = [_weight(mlp.gate_proj), _weight(mlp.up_proj)]
            self._frozen[index] = FrozenLayer(
                qkv=torch.cat(qkv) * before.weight.detach(),
                out=_weight(attention.o_proj),
                gate_up=torch.cat(both) * after.weight.detach(),
                down=_weight(mlp.down_proj),
                norm=before.weight.detach(),
                epsilon=float(before.variance_epsilon),
            )
        return self._frozen[index]

    def _updates(self, index: int, lora: LoraWeights | None) -> _Updates:
        """The low-rank updates of a layer as two pairs of matrices; gradients flow through."""
        if lora is None or index < lora.layer:
            return _Updates()
        attention: Any = attention_modules(self.backbone.decoder)[index]
        wrapped = {id(module) for module in lora.modules.values()}
        downs, ups, dropout = [], [], 0.0
        for name in "qkv":
            module = getattr(attention, f"{name}_proj")
            if id(module) in wrapped:
                downs.append(module.lora_A[lora.name].weight)
                ups.append(module.lora_B[lora.name].weight * module.scaling[lora.name])
                rate = module.lora_dropout[lora.name]
                dropout = rate.p if isinstance(rate, nn.Dropout) and rate.training else 0.0
            else:
                ups.append(_weight(module).new_zeros(_weight(module).shape[0], 0))
        layer = self._layer(index)
        a_qkv = torch.cat(downs) * layer.norm if downs else None
        b_qkv: Tensor | None = _diagonal(ups) if downs else None
        if id(attention.o_proj) not in wrapped:
            return _Updates(a_qkv, b_qkv, dropout=dropout)
        module = attention.o_proj
        return _Updates(
            a_qkv,
            b_qkv,
            module.lora_A[lora.name].weight,
            module.lora_B[lora.name].weight * module.scaling[lora.name],
            dropout,
        )


def _diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """The block-diagonal matrix of `blocks`."""
    diagonal: Any = torch.block_diag
    matrix: Tensor = diagonal(*blocks)
    return matrix


def _weight(module: Any) -> Tensor:
    """The frozen weight of a projection that PEFT may have wrapped."""
    weight: Tensor = getattr(module, "base_layer", module).weight
    return weight.detach()
