"""A memory that is a small network and learns while it reads: Titans' neural memory."""

from latentbank.parts.neural_memory.memory import MemorySettings, NeuralMemory, Read
from latentbank.parts.neural_memory.state import State

__all__ = ["MemorySettings", "NeuralMemory", "Read", "State"]
