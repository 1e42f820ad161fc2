"""Settings of the methods that amortise documents into latents, and the papers' own presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentbank.errors import InputError, unknown
from latentbank.method import LoraSettings


@dataclass(frozen=True)
class MacConfig:
    """`latents`: T per document. `inner`: attention width. `virtual`: prefix tokens per layer.
    `gradient_share`: share of a step's documents that get gradients (back-propagation dropout).
    `window`: slots aggregated at a time, 0 for all. `inject_from`: first layer that sees memory.
    `start`: `random`, or `copy`: a document's latents start as its pooled segments, a question's as
    its mean, the aggregator as a soft copy of the slots that resemble the question, and the memory
    tokens are what it adds to the question. `head_hidden`: width of the latents' own MLPs.
    """

    latents: int = 12
    amortiser: str = "perceiver"
    t5: str = "t5-small"
    encoder_layer: int = 0
    inner: int = 288
    heads: int = 6
    blocks: int = 4
    start: str = "random"
    head_hidden: int = 64
    transport: str = "prefix"
    virtual: int = 2
    inject_from: int = 0
    gradient_share: float = 1.0
    window: int = 0
    matching_weight: float = 0.0
    chunk_tokens: int = 512
    lora: LoraSettings = LoraSettings(rank=0)

    def __post_init__(self) -> None:
        if self.amortiser not in ("perceiver", "t5"):
            raise unknown("amortiser", self.amortiser, ["perceiver", "t5"])
        if self.transport not in ("prefix", "states"):
            raise unknown("transport", self.transport, ["prefix", "states"])
        if self.start not in ("random", "copy"):
            raise unknown("start", self.start, ["random", "copy"])
        if self.start == "copy" and self.amortiser != "perceiver":
            raise InputError("start='copy' needs amortiser='perceiver'")
        if self.start == "copy" and (self.heads != 1 or self.inner <= self.latents):
            raise InputError("start='copy' needs one head and an inner width above the latents")
        if not 0 < self.gradient_share <= 1:
            raise InputError(f"gradient_share lies in (0, 1], got {self.gradient_share}")
        if self.latents < 1:
            raise InputError(f"latents must be at least 1, got {self.latents}")
        if self.window and self.window < 2 * self.latents:
            raise InputError(
                f"window must be 0 or hold two results of {self.latents} latents, "
                f"got {self.window} slots"
            )


def paper_presets(**extra: Any) -> dict[str, dict[str, Any]]:
    """The papers' settings by backbone: T latents, T5 amortiser, share of gradients."""
    sizes = {
        "distilgpt2": ("google-t5/t5-small", 12),
        "gpt2-large": ("google-t5/t5-base", 24),
        "gpt2-xl": ("google-t5/t5-base", 24),
        "llama-2-7b": ("google-t5/t5-base", 24),
    }
    return {
        name: {"amortiser": "t5", "t5": t5, "latents": latents, **extra}
        for name, (t5, latents) in sizes.items()
    }
