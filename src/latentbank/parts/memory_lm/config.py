"""The configuration of the small language models, in the form of Hugging Face."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from latentbank.errors import InputError, unknown
from latentbank.parts.neural_memory import MemorySettings

ARCHITECTURES = ("MAC", "MAG", "MAL", "LMM", "window", "delta", "lstm")
"""Memory as context, as gate, as layer, alone; then three baselines without a neural memory."""


class MemoryLMConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Sizes of a `MemoryLM`.

    - `architecture`: one of `ARCHITECTURES`.
    - `window`: tokens that attention sees; for MAC the length of a segment.
    - `persistent`: learned keys and values that attention always sees (section 3.3).
    - `depth` … `max_step`: settings of the neural memory, see `MemorySettings`.
    - `ffn`: hidden width of the feed-forward layer.

    Raises:
        UnknownNameError: no such architecture.
        InputError: a size below 1.
    """

    model_type = "memory-lm"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "width",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
    }

    def __init__(
        self,
        architecture: str = "MAC",
        vocab_size: int = 512,
        width: int = 64,
        layers: int = 2,
        heads: int = 2,
        head_dim: int = 32,
        window: int = 64,
        persistent: int = 4,
        ffn: int = 128,
        chunk: int = 64,
        depth: int = 2,
        expansion: int = 1,
        convolution: int = 4,
        momentum: bool = True,
        forgetting: bool = True,
        gates: str = "token",
        max_step: float = 0.5,
        clip: float = 4.0,
        initializer_range: float = 0.05,
        tie_word_embeddings: bool = True,
        **more: Any,
    ) -> None:
        if architecture not in ARCHITECTURES:
            raise unknown("architecture", architecture, ARCHITECTURES)
        sizes = {
            "vocab_size": vocab_size, "width": width, "layers": layers, "heads": heads,
            "head_dim": head_dim, "window": window, "ffn": ffn,
        }  # fmt: skip
        for name, value in sizes.items():
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if head_dim % 2 or persistent < 0:
            raise InputError(
                f"head_dim must be even and persistent not negative, got {head_dim}, {persistent}"
            )
        self.architecture = architecture
        self.vocab_size, self.width, self.layers = vocab_size, width, layers
        self.heads, self.head_dim, self.window = heads, head_dim, window
        self.persistent, self.ffn, self.chunk = persistent, ffn, chunk
        self.depth, self.expansion, self.convolution = depth, expansion, convolution
        self.momentum, self.forgetting, self.gates = momentum, forgetting, gates
        self.max_step, self.clip = max_step, clip
        self.initializer_range = initializer_range
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(**more)

    def memory(self) -> MemorySettings:
        """The settings of the neural memory; MAC takes one chunk for each segment."""
        return MemorySettings(
            heads=self.heads,
            head_dim=self.head_dim,
            depth=self.depth,
            expansion=self.expansion,
            chunk=self.window if self.architecture == "MAC" else self.chunk,
            convolution=self.convolution,
            momentum=self.momentum,
            forgetting=self.forgetting,
            gates=self.gates,
            max_step=self.max_step,
            clip=self.clip,
        )
