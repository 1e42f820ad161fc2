"""OpenVINO graphs of a Llama's layers and vocabulary head, with weights of 8 bits.

A graph computes what `QuickLlama` computes for the layers first … last-1. Weights are rounded to
int8 with one scale for each output; OpenVINO rounds activations to 8 bits in groups of 32 where the
processor multiplies whole numbers. Maps of one input are one map, since every operation of a graph
costs some microseconds. Knows modules and tensors; knows no cache and no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["head_graph", "layers_graph"]


def layers_graph(model: Any, first: int, last: int, updates: Sequence[str]) -> Any:
    """The layers first … last-1 as an `openvino.Model`.

    Inputs: `hidden` [B, T, D], `cosine` and `sine` [B, 1, T, head_dim], `mask` [B, 1, T, C + T],
    `gates` [B, 1, R] with a factor for each of the R low-rank `updates`, if a layer has one, and
    for each layer `past{i}` [B, 2 · H_kv, C, head_dim] (keys, then values). Outputs: states
    [B, T, D], after the final norm where `last` is the last layer, and the new keys and values
    [L, B, 2 · H_kv, T, head_dim].
    """
    import openvino
    from openvino import opset13 as ops

    config, single = model.config, np.float32
    heads, size = config.num_key_value_heads, config.head_dim
    hidden = ops.parameter([-1, -1, config.hidden_size], single, "hidden")
    cosine = ops.parameter([-1, 1, -1, size], single, "cosine")
    sine = ops.parameter([-1, 1, -1, size], single, "sine")
    mask = ops.parameter([-1, 1, -1, -1], single, "mask")
    shape = [-1, 2 * heads, -1, size]
    past = [ops.parameter(shape, single, f"past{i}") for i in range(last - first)]
    gates = ops.parameter([-1, 1, -1], single, "gates")
    parts = _Parts(ops, config, (cosine, sine), mask, gates, updates)
    made, state = [], hidden
    for layer, own in zip(list(model.model.layers)[first:last], past, strict=True):
        state, new = parts.layer(layer, state, own)
        made.append(new)
    if last == config.num_hidden_layers:
        state = parts.norm(model.model.norm, state)
    inputs = [hidden, cosine, sine, mask, *([gates] if parts.gated else []), *past]
    return openvino.Model([state, ops.concat(made, 0)], inputs, "layers")


def head_graph(model: Any) -> Any:
    """The vocabulary head: states [N, D] → logits [N, V]."""
    import openvino
    from openvino import opset13 as ops

    states = ops.parameter([-1, model.config.hidden_size], np.float32, "states")
    return openvino.Model([_map(ops, states, model.lm_head.weight)], [states], "head")


class _Parts:
    """Builds the layers of one graph over shared inputs. `gated`: some layer has an update."""

    def __init__(
        self,
        ops: Any,
        config: Any,
        turn: tuple[Any, Any],
        mask: Any,
        gates: Any,
        updates: Sequence[str],
    ) -> None:
        self.ops, self.gates, self.updates, self.gated = ops, gates, updates, False
        self.heads, self.size = config.num_key_value_heads, config.head_dim
        self.many = config.num_attention_heads
        # one factor for each head of queries, keys and values; values are not turned
        turned, kept = self.many + self.heads, self.heads
        one = ops.divide(turn[0], turn[0])
        self.cosine = ops.concat([turn[0]] * turned + [one] * kept, 1)
        zero = ops.multiply(turn[1], _scalar(0.0))
        self.sine = ops.concat([turn[1]] * turned + [zero] * kept, 1)
        self.mask = ops.concat([mask] * (self.many // self.heads), 2)  # (B, 1, G·T, C + T)

    def layer(self, layer: Any, state: Any, past: Any) -> tuple[Any, Any]:
        """(states after one layer, its new keys and values [1, B, 2 · H_kv, T, head_dim])."""
        ops = self.ops
        mixed, new = self.attention(layer.self_attn, self.norm(layer.input_layernorm, state), past)
        state = ops.add(state, mixed)
        inner = self.norm(layer.post_attention_layernorm, state)
        both = torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])
        gate, up = ops.split(_map(ops, inner, both), -1, 2).outputs()
        gated = ops.multiply(ops.swish(gate), up)
        return ops.add(state, _map(ops, gated, layer.mlp.down_proj.weight)), new

    def norm(self, norm: Any, state: Any) -> Any:
        """The root-mean-square norm."""
        ops = self.ops
        mean = ops.reduce_mean(ops.power(state, _scalar(2.0)), np.array([-1]), True)
        scale = ops.divide(_scalar(1.0), ops.sqrt(ops.add(mean, _scalar(norm.epsilon))))
        weight = norm.weight.detach().float().numpy()[None, None]
        return ops.multiply(ops.multiply(state, scale), weight)

    def attention(self, attention: Any, state: Any, past: Any) -> tuple[Any, Any]:
        """Attention over the past, then over the new tokens, in one softmax."""
        ops, heads, many, size = self.ops, self.heads, self.many, self.size
        flat = self.projected([attention.q_proj, attention.k_proj, attention.v_proj], state)
        shape = np.array([0, 0, many + 2 * heads, size])
        rows = ops.transpose(ops.reshape(flat, shape, True), np.array([0, 2, 1, 3]))
        first, second = ops.split(rows, -1, 2).outputs()
        other = ops.multiply(ops.concat([second, first], -1), self.sine)
        rows = ops.add(ops.multiply(rows, self.cosine), other)
        query, new = ops.variadic_split(rows, 1, np.array([many, 2 * heads])).outputs()
        both = ops.concat([past, new], 2)
        keys, values = ops.split(both, 1, 2).outputs()
        query = ops.reshape(query, np.array([0, heads, -1, size]), True)  # (B, H_kv, G·T, d)
        query = ops.multiply(query, _scalar(size**-0.5))
        scores = ops.add(ops.matmul(query, keys, False, True), self.mask)
        mixed = ops.matmul(ops.softmax(scores, -1), values, False, False)
        length = ops.gather(ops.shape_of(state), np.array([1]), np.array(0))
        shape = ops.concat([np.array([0, many]), length, np.array([size])], 0)
        mixed = ops.transpose(ops.reshape(mixed, shape, True), np.array([0, 2, 1, 3]))
        mixed = ops.reshape(mixed, np.array([0, 0, many * size]), True)
        return self.projected([attention.o_proj], mixed), ops.unsqueeze(new, np.array([0]))

    def projected(self, modules: Sequence[Any], state: Any) -> Any:
        """Projections side by side with their low-rank updates, each times its gates."""
        ops = self.ops
        weights = [getattr(one, "base_layer", one).weight.detach().float() for one in modules]
        inner, outer, places = [], [], []
        for at, module in enumerate(modules):
            own = getattr(module, "lora_A", {})
            for place, name in enumerate(self.updates):
                if name in own:
                    inner.append(own[name].weight.detach().float())
                    wide = torch.zeros(sum(map(len, weights)), len(inner[-1]))
                    start = sum(map(len, weights[:at]))
                    update = module.lora_B[name].weight.detach().float() * module.scaling[name]
                    wide[start : start + len(weights[at])] = update
                    outer.append(wide)
                    places += [place] * len(inner[-1])
        if not inner:
            return _map(ops, state, torch.cat(weights))
        self.gated = True
        sizes = np.array([sum(map(len, weights)), len(places)])
        flat = _map(ops, state, torch.cat([*weights, *inner]))
        base, inside = ops.variadic_split(flat, -1, sizes).outputs()
        gates = ops.gather(self.gates, np.array(places), np.array(2))
        return ops.add(base, _map(ops, ops.multiply(inside, gates), torch.cat(outer, 1)))


def _map(ops: Any, state: Any, weight: Tensor) -> Any:
    """A linear map with weights [out, in] of 8 bits."""
    wide = weight.detach().float()
    scale = wide.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    small = wide.div(scale).round_().to(torch.int8)
    whole = ops.convert(ops.constant(small.numpy()), "f32")
    return ops.matmul(state, ops.multiply(whole, scale.numpy()), False, True)


def _scalar(value: float) -> Any:
    return np.array(value, np.float32)
