"""A Llama decoder and its tokenizer without transformers: the same numbers after a quicker start.

Importing transformers' model code and loading SmolLM2 takes 4 to 5 s of processor time; this takes
about 0.5 s (scripts/measure_cold_start.py). On a CPU the logits are equal bit for bit. Knows no
memory.
"""

from __future__ import annotations

from latentbank.backbone.quick.llama import QuickLlama
from latentbank.backbone.quick.ragged import RaggedRun
from latentbank.backbone.quick.saved import quick_model

__all__ = ["QuickLlama", "RaggedRun", "quick_model"]
