"""What the frozen backbone computes at answer tokens, and what its attention writes with.

Knows the backbone and where answers stand; knows no triples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from latentbank.backbone.layers import attention_modules
from latentbank.backbone.model import Backbone
from latentbank.parts.knowledge.supervision import answer_places

__all__ = ["entering_states", "output_projection", "watched_states"]

_BATCH = 32


@torch.no_grad()
def entering_states(backbone: Backbone, layer: int, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """States [T, D] of each row of token ids that enter `layer`; the layers above are not run."""
    made: dict[int, Tensor] = {}
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # less padding
    for at in range(0, len(order), _BATCH):
        part = order[at : at + _BATCH]
        whole = backbone.states(*backbone.pad([rows[i] for i in part]), layer)
        made |= {i: one[: len(rows[i])].clone() for i, one in zip(part, whole, strict=True)}
    return [made[i] for i in range(len(rows))]


@torch.no_grad()
def watched_states(
    backbone: Backbone,
    layers: Iterable[int],
    entering: Sequence[Tensor],
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
) -> tuple[dict[int, Tensor], dict[int, float]]:
    """Layer → states [N, D] that enter its attention where the N answer tokens are predicted.

    Also layer → root mean square of the residual stream that enters the layer, there. `entering`
    are the states [T, D] of each prompt with its answer that enter the first of the layers.
    """
    layers, modules = list(layers), attention_modules(backbone.decoder)
    entered: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            entered[name] = args[0] if args else kwargs["hidden_states"]

        return hook

    states: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    squares: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with ExitStack() as stack:
        for layer in layers:
            for name, module in (
                ("attention", modules[layer]),
                ("", backbone.decoder.layers[layer]),
            ):
                handle = module.register_forward_pre_hook(keep(f"{name}{layer}"), with_kwargs=True)
                stack.callback(handle.remove)
        for at in range(0, len(prompts), _BATCH):
            part = slice(at, at + _BATCH)
            padded = nn.utils.rnn.pad_sequence(list(entering[part]), batch_first=True)
            lengths = torch.tensor([len(one) for one in entering[part]])
            mask = (torch.arange(padded.shape[1]) < lengths[:, None]).to(backbone.device)
            backbone.finish(padded.to(backbone.device), mask, layers[0])
            places, _ = answer_places(prompts[part], answers[part], padded.shape[1])
            for layer in layers:
                states[layer].append(entered[f"attention{layer}"][places].float().cpu())
                squares[layer].append(entered[str(layer)][places].float().square().mean(-1).cpu())
    strengths = {layer: float(torch.cat(squares[layer]).mean().sqrt()) for layer in layers}
    return {layer: torch.cat(found) for layer, found in states.items()}, strengths


def output_projection(attention: nn.Module) -> Tensor | None:
    """The weight [D, H · head_dim] of an attention's output map; None where its name is unknown."""
    for name in ("o_proj", "c_proj", "out_proj", "dense"):
        map: Any = getattr(attention, name, None)
        if map is None:
            continue
        map = getattr(map, "base_layer", map)
        weight: Tensor = map.weight.detach()
        return weight if isinstance(map, nn.Linear) else weight.T  # GPT-2 keeps it transposed
    return None
