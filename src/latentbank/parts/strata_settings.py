"""What Strata stores, how it reads and how it is trained.

Knows names and numbers; no backbone, no bank.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentbank.bank.ladder import VERBATIM
from latentbank.errors import InputError, unknown
from latentbank.method import LoraSettings
from latentbank.parts.text_levels import WHOLE

__all__ = ["StrataConfig"]


@dataclass(frozen=True)
class StrataConfig:
    """`inject_from`: layer whose states are kept and read. `entry`: `verbatim` (zstd), `packed` (by
    token counts: fewer bytes, slower to open), `lm` (by the backbone's predictions: the fewest,
    about a second each) or `pooled`. `lm`: whether fading texts are coded by predictions too.
    `segments`: vectors of a pooled entry. `read`: `states`, or `text` for texts in the prompt.
    `read_documents`: documents read together per question; with 1, `candidates` texts are read one
    by one, and the surest of their answers counts. `least_match`: share of a question's words, by
    weight, that one of them must hold; else the model answers without memory.
    `memory_aware`: α of memory-aware decoding from states (CMT), whose logits are (1 + α)·ℓ(memory)
    − α·ℓ(no memory); 0 runs the question once. `hot_bytes`: limit of the cache of keys and values
    of documents that were read. `all_share`: share of training steps on all states;
    `closed_share`: of questions trained without memory. `closed_lora`: low-rank weights that answer
    where nothing is read; rank 0: `lora` does. `closed_weight`: of their answer to a question that
    texts were read for, which counts where it is the surest; 0: it is not asked for. `gain_scale`,
    `gain_half`: an answer counts by σ((gain − half) / scale), the gain being how many nats likelier
    its text makes the question; scale 0: all alike.
    """

    inject_from: int = 12
    entry: str = VERBATIM
    lm: bool = False
    segments: int = 48
    read: str = "states"
    read_documents: int = 1
    candidates: int = 4
    least_match: float = 0.3
    memory_aware: float = 0.0
    key_width: int = 128
    hot_bytes: int = 256 << 20
    train_segments: tuple[int, ...] = (48, 16)
    all_share: float = 0.4
    closed_share: float = 0.0
    selector_weight: float = 0.2
    chunk_tokens: int = 512
    lora: LoraSettings = LoraSettings(rank=16, alpha=32, layer=12)
    closed_lora: LoraSettings = LoraSettings(rank=0)
    closed_weight: float = 0.0
    gain_half: float = 10.0
    gain_scale: float = 0.0

    def __post_init__(self) -> None:
        if self.entry not in (*WHOLE, "pooled"):
            raise unknown("strata entry", self.entry, [*WHOLE, "pooled"])
        if self.read not in ("states", "text"):
            raise unknown("strata read", self.read, ["states", "text"])
        if self.read == "text" and self.entry not in WHOLE:
            raise InputError("read='text' needs entry='verbatim': pooled entries hold no text")
        if min(self.read_documents, self.candidates, self.segments) < 1:
            raise InputError("read_documents, candidates and segments must be at least 1")
        for name in ("least_match", "all_share", "closed_share", "closed_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        for name in ("memory_aware", "gain_scale"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")
