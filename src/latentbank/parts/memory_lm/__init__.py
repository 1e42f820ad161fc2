"""Small causal language models around a neural memory, and the baselines beside them."""

from latentbank.parts.memory_lm.config import ARCHITECTURES, MemoryLMConfig
from latentbank.parts.memory_lm.model import MemoryLM
from latentbank.parts.memory_lm.stream import Stream

__all__ = ["ARCHITECTURES", "MemoryLM", "MemoryLMConfig", "Stream"]
