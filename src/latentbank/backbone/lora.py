"""Low-rank weights over the backbone's attention projections, switched on for a `with` block.

PEFT wraps a model that transformers loaded. A `QuickLlama` gets `LowRankLinear`, which computes the
same numbers. It starts faster: importing PEFT takes about 0.6 s of processor time, and wrapping
SmolLM2 another 0.5 s for each set. Knows projections and matrices; knows no method.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from latentbank.backbone.layers import attention_modules
from latentbank.backbone.model import Backbone
from latentbank.errors import InputError

PROJECTIONS = {
    "kv": ("k_proj", "v_proj", "c_attn"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj", "c_attn", "c_proj"),
}
_names = itertools.count()


class LoraWeights:
    """Low-rank updates of the attention projections of the layers from `layer` upward.

    `targets` is `kv` (key and value projections, MBC's KV-LoRA) or `attention` (all four). GPT-2
    has a single projection for query, key and value; `kv` covers all of it. Outside of `attach` the
    updates are off, and the projections compute exactly what they did before.

    Hu et al., 2021, https://arxiv.org/abs/2106.09685

    Raises:
        InputError: `targets` is neither of the two.
    """

    def __init__(
        self,
        backbone: Backbone,
        layer: int,
        rank: int = 16,
        alpha: int = 32,
        dropout: float = 0.0,
        targets: str = "attention",
    ) -> None:
        if targets not in PROJECTIONS:
            raise InputError(f"targets must be one of {sorted(PROJECTIONS)}, got {targets!r}")
        self.name, self.layer = f"memory{next(_names)}", layer
        paths = _projections(backbone, layer, PROJECTIONS[targets])
        needed = {id(p): p.requires_grad for p in backbone.model.parameters()}
        inject = _inject_plain if backbone.quick else _inject_peft
        self.modules: dict[str, Any] = inject(
            backbone.model, paths, self.name, rank, alpha, dropout
        )
        for parameter in backbone.model.parameters():  # PEFT freezes all but its own
            parameter.requires_grad_(needed.get(id(parameter), True))
        self.parameters = {
            f"{path}.{kind}": getattr(module, kind)[self.name].weight
            for path, module in self.modules.items()
            for kind in ("lora_A", "lora_B")
        }
        self._switch(False)
        backbone.updates.append(self.name)

    def _switch(self, on: bool) -> None:
        # PEFT's own switches also freeze and unfreeze every matrix. That is slow, and an optimiser
        # or a data-parallel wrapper that is made meanwhile would miss the frozen ones.
        for module in self.modules.values():
            if on:
                module._active_adapter = [self.name]
            module._disable_adapters = not on

    def remove(self, backbone: Backbone) -> None:
        """Takes the updates off the backbone for good; they cannot be attached again."""
        for module in self.modules.values():
            for parts in (module.lora_A, module.lora_B, module.lora_dropout, module.scaling):
                parts.pop(self.name)
        self.modules = {}
        backbone.updates.remove(self.name)

    def train(self, mode: bool = True) -> None:
        """Switches the updates' dropout on or off; the backbone stays in eval mode."""
        for module in self.modules.values():
            module.lora_dropout[self.name].train(mode)

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        """Switches the updates on for the length of the block."""
        self._switch(True)
        backbone.active_update = self.name
        try:
            yield backbone
        finally:
            self._switch(False)
            backbone.active_update = None

    def state(self) -> dict[str, Tensor]:
        """Name → tensor of every low-rank matrix."""
        return {name: value.detach() for name, value in self.parameters.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `state` gave.

        Raises:
            InputError: names or shapes differ.
        """
        for name, parameter in self.parameters.items():
            if name not in state or state[name].shape != parameter.shape:
                raise InputError(
                    f"the adapter holds no low-rank matrix {name} of {parameter.shape}"
                )
            value = state[name]
            if (value.dtype, parameter.dtype) == (torch.float32, torch.bfloat16):
                value = value.half()  # one way of rounding, so that `settled` is the same
            with torch.no_grad():
                parameter.copy_(value)

    def settled(self) -> dict[str, Tensor]:
        """`state` as float16, the same for one adapter in every dtype of the backbone.

        The values have bfloat16's precision. A pair of matrices whose product is 0 counts as 0:
        the first of them is random, and its numbers depend on the dtype.
        """
        tensors = {}
        for name, value in self.state().items():
            base = name.removesuffix("lora_A")
            idle = base != name and not self.parameters[f"{base}lora_B"].any()
            rounded = value.half().bfloat16().half()
            tensors[name] = torch.zeros_like(rounded) if idle else rounded
        return tensors


class LowRankLinear(nn.Module):
    """A linear map with low-rank updates by name: base(x) + B·A·x · alpha / rank.

    Attributes and weights have PEFT's names, so that `LoraWeights` works with both. The updates
    have the dtype of the weight, as in PEFT.
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        self.lora_dropout = nn.ModuleDict()
        self.scaling: dict[str, float] = {}
        self._active_adapter: list[str] = []
        self._disable_adapters = True

    def add(self, name: str, rank: int, alpha: int, dropout: float) -> None:
        """Adds an update `name` that changes nothing until it is trained or loaded."""
        weight = self.base_layer.weight
        options: dict[str, Any] = {"bias": False, "device": weight.device, "dtype": weight.dtype}
        outer = nn.Linear(rank, self.base_layer.out_features, **options)
        nn.init.zeros_(outer.weight)
        self.lora_A[name] = nn.Linear(self.base_layer.in_features, rank, **options)
        self.lora_B[name] = outer
        self.lora_dropout[name] = nn.Dropout(dropout) if dropout else nn.Identity()
        self.scaling[name] = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out] with the active update, or without one."""
        result: Tensor = self.base_layer(x)
        if self._disable_adapters:
            return result
        dtype = result.dtype
        for name in self._active_adapter:
            inner: Any = self.lora_A[name]
            dropped = self.lora_dropout[name](x.to(inner.weight.dtype))
            result = result + self.lora_B[name](inner(dropped)) * self.scaling[name]
        return result.to(dtype)


def _projections(backbone: Backbone, layer: int, names: Sequence[str]) -> list[str]:
    """Paths in the model of the projections `names` that the layers from `layer` upward have."""
    paths = {id(module): path for path, module in backbone.model.named_modules()}
    return [
        f"{paths[id(module)]}.{name}"
        for module in attention_modules(backbone.decoder)[layer:]
        for name in names
        if hasattr(module, name)
    ]


def _inject_plain(
    model: nn.Module, paths: Sequence[str], name: str, rank: int, alpha: int, dropout: float
) -> dict[str, LowRankLinear]:
    """Adds an update to each linear map at `paths`; wraps a map if it is not wrapped yet."""
    wrapped = {}
    for path in paths:
        parent_path, _, last = path.rpartition(".")
        parent = model.get_submodule(parent_path)
        module = getattr(parent, last)
        if not isinstance(module, LowRankLinear):
            module = LowRankLinear(module)
            setattr(parent, last, module)
        module.add(name, rank, alpha, dropout)
        wrapped[path] = module
    return wrapped


def _inject_peft(
    model: nn.Module, paths: Sequence[str], name: str, rank: int, alpha: int, dropout: float
) -> dict[str, nn.Module]:
    """Wraps the maps at `paths` with PEFT and leaves no other trace on the model.

    PEFT keeps a list of configs on the model and warns if it finds one. Here each adapter has its
    own switch, so the list is removed again; a caller's own list is restored.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(paths),
        fan_in_fan_out=any(path.endswith("c_attn") for path in paths),
    )
    before = vars(model).pop("peft_config", None)
    try:
        inject_adapter_in_model(config, model, name)
    finally:
        vars(model).pop("peft_config", None)
        if before is not None:
            vars(model)["peft_config"] = before
    modules = dict(model.named_modules())
    return {path: modules[path] for path in paths}
