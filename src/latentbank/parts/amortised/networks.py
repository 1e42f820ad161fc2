"""Builds the networks of amortised memory from a method's config.

MAC (Tack et al., 2024), section 3. Knows networks and the backbone's sizes; knows no bank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from latentbank.backbone.layers import Geometry
from latentbank.parts.amortised.aggregator import Aggregator
from latentbank.parts.amortised.alignment import PrefixAlignment, StateAlignment
from latentbank.parts.amortised.amortiser import PerceiverAmortiser
from latentbank.parts.amortised.copy_start import CopyStart
from latentbank.parts.amortised.t5 import T5Texts
from latentbank.parts.pooling import Standardiser

__all__ = ["Networks", "build_networks", "paper_presets"]


@dataclass(frozen=True)
class Networks:
    """The networks of one method.

    `modules` holds all of them by name: `standard`, the amortisers `documents` and `questions`,
    `aggregator`, `align`, and `pooler` with a copying start. `copy` is None with a random start.
    `t5_texts` has the T5s of both sides; it is empty for other amortisers.
    """

    modules: nn.ModuleDict
    standard: Standardiser
    aggregator: Aggregator
    copy: CopyStart | None
    t5_texts: Mapping[str, T5Texts]


def build_networks(config: Any, geometry: Geometry) -> Networks:
    """Fresh networks on the CPU; `config` has the fields of MAC's config.

    The order of building is fixed: with one seed it gives one set of weights.
    """
    width = geometry.width
    copy = CopyStart(width, config.latents) if config.start == "copy" else None
    standard = Standardiser(width)
    t5_texts: dict[str, T5Texts] = {}
    if config.amortiser == "t5":
        names = {"documents": config.t5, "questions": config.question_t5 or config.t5}
        t5_texts = {side: T5Texts(name, width, config.latents) for side, name in names.items()}
    modules: dict[str, nn.Module] = {
        "standard": standard,
        "documents": _amortiser(config, width, t5_texts.get("documents")),
        "questions": _amortiser(config, width, t5_texts.get("questions")),
    }
    aggregator = Aggregator(width, config.inner, config.heads, config.blocks, copy is not None)
    modules["aggregator"] = aggregator
    if copy is not None:
        modules["pooler"] = copy.pooler
        copy.join(modules["documents"], modules["questions"], aggregator)
    if config.transport == "states":
        modules["align"] = StateAlignment(width)
    else:
        shape = (geometry.layers - config.inject_from, geometry.kv_heads, geometry.head_dim)
        modules["align"] = PrefixAlignment(config.latents, width, *shape, config.virtual)
    return Networks(nn.ModuleDict(modules), standard, aggregator, copy, t5_texts)


def _amortiser(config: Any, width: int, t5_texts: T5Texts | None) -> nn.Module:
    if t5_texts is not None:
        return t5_texts.build()
    return PerceiverAmortiser(
        width,
        width,
        config.latents,
        config.inner,
        config.heads,
        head_hidden=config.head_hidden,
        start="mean" if config.start == "copy" else "random",
    )


def paper_presets(**extra: Any) -> dict[str, dict[str, Any]]:
    """The papers' settings by backbone: T5s of documents and questions, T, share of gradients.

    The aggregator has 8 heads of 96 everywhere, as in the published code.
    """
    sizes: dict[str, tuple[str, str, int, float]] = {
        "distilgpt2": ("t5-small", "t5-small", 12, 1.0),
        "gpt2-large": ("t5-base", "t5-base", 24, 1.0),
        "gpt2-xl": ("t5-large", "t5-base", 24, 0.75),
        "llama-2-7b": ("t5-large", "t5-base", 24, 0.75),
    }
    return {
        name: {
            "amortiser": "t5",
            "t5": f"google-t5/{documents}",
            "question_t5": f"google-t5/{questions}",
            "latents": latents,
            "heads": 8,
            "inner": 768,
            "gradient_share": share,
            **extra,
        }
        for name, (documents, questions, latents, share) in sizes.items()
    }
