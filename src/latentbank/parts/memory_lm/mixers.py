"""How a block mixes tokens: the architectures of Titans, and three baselines.

Each mixer takes a text in pieces, (x [B, T, D], state or None) → (output [B, T, D], state).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentbank.parts.memory_lm.attention import SegmentAttention, WindowAttention
from latentbank.parts.memory_lm.config import MemoryLMConfig
from latentbank.parts.memory_lm.stream import Carried
from latentbank.parts.neural_memory import NeuralMemory, State
from latentbank.parts.neural_memory.memory import CausalConvolution, shift_keys


class MemoryMixer(nn.Module):
    """The neural memory alone (LMM); the first half of MAL."""

    def __init__(self, config: MemoryLMConfig) -> None:
        super().__init__()
        self.memory = NeuralMemory(config.width, config.memory())

    def forward(self, x: Tensor, past: Carried | None) -> tuple[Tensor, Carried]:
        """See the module."""
        state = None if past is None else past["memory"]
        assert state is None or isinstance(state, State)
        read = self.memory(x, state)
        return read.output, {"memory": read.state}


class Blend(nn.Module):
    """A learned gate between two normalised branches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, width)
        self.first, self.second = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)

    def forward(self, x: Tensor, one: Tensor, two: Tensor) -> Tensor:
        """g·norm(one) + (1 - g)·norm(two), g = σ(W·x)."""
        gate = self.gate(x).sigmoid()
        blended: Tensor = gate * self.first(one) + (1 - gate) * self.second(two)
        return blended


class GateMixer(nn.Module):
    """Memory as a gate (MAG): sliding-window attention beside the memory (equations 26 to 28)."""

    def __init__(self, config: MemoryLMConfig) -> None:
        super().__init__()
        self.attention, self.memory = WindowAttention(config), MemoryMixer(config)
        self.blend = Blend(config.width)

    def forward(self, x: Tensor, past: Carried | None) -> tuple[Tensor, Carried]:
        """See the module."""
        near, one = self.attention(x, past)
        far, two = self.memory(x, past)
        return self.blend(x, near, far), {**one, **two}


class ContextMixer(nn.Module):
    """Memory as context (MAC), equations 21 to 25.

    What the memory knew before the segment stands beside the segment in attention. Then the memory
    reads attention's output, with the input added, and gates it.
    """

    def __init__(self, config: MemoryLMConfig) -> None:
        super().__init__()
        self.segment = config.window
        self.attention = SegmentAttention(config)
        self.memory = NeuralMemory(config.width, config.memory())
        self.blend = Blend(config.width)

    def forward(self, x: Tensor, past: Carried | None) -> tuple[Tensor, Carried]:
        """See the module."""
        state = self.memory.start(x.shape[0]) if past is None else past["memory"]
        history = state.history if past is None else past["history"]  # type: ignore[union-attr]
        assert isinstance(state, State) and isinstance(history, Tensor)
        pairs: tuple[Tensor, Tensor] | None = None
        if past is not None and state.position:
            pairs = past["keys"], past["values"]  # type: ignore[assignment]
        outputs, at = [], 0
        while at < x.shape[1]:
            take = min(self.segment - state.position, x.shape[1] - at)
            part = x[:, at : at + take]
            known = self.memory.recall(part, state, history, opened=True)
            history = torch.cat([history, part], 1)[:, take:]
            seen, pairs = self.attention(part, known, pairs)
            read = self.memory(part + seen, state)
            state = read.state
            outputs.append(self.blend(part, seen, read.output))
            at += take
            pairs = pairs if state.position else None
        carried: Carried = {"memory": state, "history": history}
        if pairs is not None:
            carried |= {"keys": pairs[0], "values": pairs[1]}
        return torch.cat(outputs, 1), carried


class DeltaMixer(nn.Module):
    """Linear attention with the delta rule, in chunks (Yang et al., 2024). A baseline.

    S_t = S_{t-1} + β·(v - S_{t-1}·k)·kᵀ. Projections, convolution and output are those of the
    neural memory.
    """

    def __init__(self, config: MemoryLMConfig) -> None:
        super().__init__()
        self.heads, self.head_dim, self.chunk = config.heads, config.head_dim, config.chunk
        inner = config.heads * config.head_dim
        self.size = max(config.convolution, 1)
        self.to_qkv = nn.Linear(config.width, 3 * inner, bias=False)
        self.convolution = CausalConvolution(3 * inner, self.size)
        self.to_step = nn.Linear(config.width, config.heads)
        self.norm = nn.RMSNorm(config.head_dim, eps=1e-5)
        self.to_output_gate = nn.Linear(config.width, inner)
        self.to_output = nn.Linear(inner, config.width, bias=False)

    def reset(self) -> None:
        """Keys start as those of the neural memory do."""
        shift_keys(self.to_qkv, self.convolution)

    def forward(self, x: Tensor, past: Carried | None) -> tuple[Tensor, Carried]:
        """See the module."""
        if past is None:
            shape = x.shape[0], self.heads, self.head_dim, self.head_dim
            memory: Tensor = x.new_zeros(shape)
            history: Tensor = x.new_zeros(x.shape[0], self.size - 1, x.shape[2])
        else:
            memory, history = past["memory"], past["history"]  # type: ignore[assignment]
        together = torch.cat([history, x], 1)
        mixed = nn.functional.silu(self.convolution(self.to_qkv(together)))
        split = mixed.view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = (nn.functional.normalize(one, dim=-1, eps=1e-6) for one in split[:2])
        step = self.to_step(x).sigmoid().transpose(1, 2)[..., None]  # (B, H, T, 1)
        answers = []
        for at in range(0, x.shape[1], self.chunk):
            part = slice(at, at + self.chunk)
            parts = q[:, :, part], k[:, :, part], split[2][:, :, part], step[:, :, part]
            answer, memory = delta_chunk(memory, *parts)
            answers.append(answer)
        heads = self.norm(torch.cat(answers, 2).transpose(1, 2)).flatten(2)
        out = self.to_output(heads * nn.functional.silu(self.to_output_gate(x)))
        kept = together[:, together.shape[1] - self.size + 1 :]
        return out, {"memory": memory, "history": kept}


def delta_chunk(
    memory: Tensor, q: Tensor, k: Tensor, v: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """(answers S_t·q_t [..., C, d], memory S_C [..., d, d]) of a chunk [..., C, d], exactly.

    The steps are a triangular system: u_t = β_t·(v_t - S_0·k_t - Σ_{i<t} u_i·(k_i·k_t)).
    """
    one = torch.eye(k.shape[-2], dtype=k.dtype, device=k.device)
    system = (step * (k @ k.mT)).tril(-1) + one
    wanted = step * (v - k @ memory.mT)
    learned = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
    answers = q @ memory.mT + (q @ k.mT).tril() @ learned
    return answers, memory + learned.mT @ k


class LstmMixer(nn.Module):
    """One LSTM layer. A baseline."""

    def __init__(self, config: MemoryLMConfig) -> None:
        super().__init__()
        self.inner = config.heads * config.head_dim
        self.lstm = nn.LSTM(config.width, self.inner, batch_first=True)
        self.to_output = nn.Linear(self.inner, config.width, bias=False)

    def forward(self, x: Tensor, past: Carried | None) -> tuple[Tensor, Carried]:
        """See the module."""
        if past is None:
            hidden = x.new_zeros(x.shape[0], 1, self.inner)
            cell = hidden
        else:
            hidden, cell = past["hidden"], past["cell"]  # type: ignore[assignment]
        start = hidden.transpose(0, 1).contiguous(), cell.transpose(0, 1).contiguous()
        found, (hidden, cell) = self.lstm(x, start)
        carried: Carried = {"hidden": hidden.transpose(0, 1), "cell": cell.transpose(0, 1)}
        return self.to_output(found), carried


MIXERS: dict[str, type[nn.Module]] = {
    "MAC": ContextMixer,
    "MAG": GateMixer,
    "MAL": MemoryMixer,
    "LMM": MemoryMixer,
    "window": WindowAttention,
    "delta": DeltaMixer,
    "lstm": LstmMixer,
}
"""The mixer of each architecture; MAL has attention after it."""
