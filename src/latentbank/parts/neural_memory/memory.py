"""The neural memory of Titans as a module: projections, convolution, gates, chunks, output.

Behrouz, Zhong, Mirrokni, "Titans: Learning to Memorize at Test Time", 2025,
https://arxiv.org/abs/2501.00663. The module's parameters are the outer ones, which training sets.
The memory's weights are its `State`, which reading a text changes, also at test time. Knows vectors
[B, T, D]; knows no model and no method.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentbank.config import require_at_least, setting
from latentbank.errors import InputError, unknown
from latentbank.parts.neural_memory.scan import Gates
from latentbank.parts.neural_memory.state import State
from latentbank.parts.neural_memory.update import FORMS, Chunk, apply

_GATE_KINDS = ("token", "chunk")
_STARTS = ("shifted", "random")


@dataclass(frozen=True)
class MemorySettings:
    """Shape and learning rule of a neural memory."""

    heads: int = setting(4, "Memories side by side, each with its own weights.")
    head_dim: int = setting(32, "d, the width of keys, values and queries of one head.")
    depth: int = setting(2, "Layers of the memory's MLP; 1 is a matrix.")
    expansion: int = setting(1, "Hidden width of the MLP, in multiples of head_dim.")
    chunk: int = setting(64, "Tokens whose gradients are taken at the same weights.")
    convolution: int = setting(4, "Tokens that the depthwise convolutions see; 0 for none.")
    momentum: bool = setting(True, "Past surprise carries on (η of the paper).")
    forgetting: bool = setting(True, "Weights decay (α of the paper).")
    gates: str = setting("token", "Gates for each `token`, or one for each `chunk`.")
    max_step: float = setting(0.5, "Largest step θ; 0.5 replaces a value in one step at depth 1.")
    clip: float = setting(4.0, "Largest norm of one token's gradient; 0 for no limit.")
    start: str = setting(
        "shifted", "`shifted`: a key starts as the query of the token before it; or `random`."
    )
    form: str = setting("dual", "How a chunk is computed: `dual` or `scan`; equal results.")

    def __post_init__(self) -> None:
        require_at_least(self, 1, "heads", "head_dim", "depth", "expansion", "chunk")
        require_at_least(self, 0, "convolution", "clip", "max_step")
        if self.gates not in _GATE_KINDS:
            raise unknown("kind of gates", self.gates, _GATE_KINDS)
        if self.start not in _STARTS:
            raise unknown("start", self.start, _STARTS)
        if self.form not in FORMS:
            raise unknown("form", self.form, FORMS)


class Read(NamedTuple):
    """What reading a text gave: `output` [B, T, D], the `state` after it, `surprise` [B, T]."""

    output: Tensor
    state: State
    surprise: Tensor


class CausalConvolution(nn.Module):
    """A depthwise convolution over the present and the last K - 1 tokens; it starts as copying."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.size = size
        start = torch.randn(width, size) * 0.5
        start[:, -1] = 1
        self.weight = nn.Parameter(start)

    def forward(self, x: Tensor) -> Tensor:
        """[B, K - 1 + T, W] → [B, T, W]."""
        length = x.shape[1] - self.size + 1
        found = x[:, :length] * self.weight[:, 0]
        for i in range(1, self.size):
            found = torch.addcmul(found, x[:, i : i + length], self.weight[:, i])
        return found


@torch.no_grad()
def shift_keys(to_qkv: nn.Linear, convolution: CausalConvolution | None) -> None:
    """Makes the key of a token the query of the token before it, at the start of training.

    The memory then starts as one of what follows what. Without a convolution nothing is changed.
    """
    if convolution is None or convolution.size < 2:
        return
    queries, keys, _ = to_qkv.weight.chunk(3)
    keys.copy_(queries)
    queries, keys, _ = convolution.weight.chunk(3)
    queries[:, 0] = 0
    keys[:, :-1] = queries[:, 1:]
    keys[:, -1] = 0


class NeuralMemory(nn.Module):
    """A memory over vectors of `width` D that learns the association of keys and values.

    `forward` reads a text and learns it: token t is answered by M_t(q_t), which has learned t.
    `recall` answers without learning.
    """

    def __init__(self, width: int, settings: MemorySettings | None = None) -> None:
        super().__init__()
        self.width, self.settings = width, settings or MemorySettings()
        own = self.settings
        inner = own.heads * own.head_dim
        self.to_qkv = nn.Linear(width, 3 * inner, bias=False)
        self.convolution = (
            CausalConvolution(3 * inner, own.convolution) if own.convolution > 1 else None
        )
        self.to_gates = nn.Linear(width, 3 * own.heads)
        self.norm = nn.RMSNorm(own.head_dim, eps=1e-5)
        self.to_output_gate = nn.Linear(width, inner)
        self.to_output = nn.Linear(inner, width, bias=False)
        sizes = [own.head_dim, *[own.expansion * own.head_dim] * (own.depth - 1), own.head_dim]
        self.initial = nn.ParameterList(
            torch.randn(own.heads, after, before) / before**0.5
            for before, after in itertools.pairwise(sizes)
        )
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """The start: nearly no forgetting, and a last layer of zeros, so that M_0 says 0."""
        nn.init.zeros_(self.initial[-1])
        nn.init.normal_(self.to_gates.weight, std=0.02)
        forget, momentum, step = self.to_gates.bias.view(3, -1)
        forget.fill_(-8.0)
        momentum.fill_(-1.0)
        step.fill_(-2.0)
        if self.settings.start == "shifted":
            shift_keys(self.to_qkv, self.convolution)

    # ---- states

    def start(self, batch: int = 1) -> State:
        """The state of `batch` memories before any token; gradients flow to the first weights."""
        own, device = self.settings, self.to_gates.weight.device
        kind = torch.promote_types(torch.float32, self.to_gates.weight.dtype)
        weights = tuple(w.to(kind).expand(batch, *w.shape) for w in self.initial)
        past = max(own.convolution - 1, 0)
        none = torch.zeros(batch, dtype=torch.int64, device=device)
        return State(
            weights=weights,
            momentum=tuple(torch.zeros_like(w) for w in weights),
            anchor=weights,
            gates=torch.zeros(batch, own.heads, 3, dtype=kind, device=device),
            history=torch.zeros(batch, past, self.width, dtype=kind, device=device),
            clipped=none,
            skipped=none.clone(),
        )

    def check(self, x: Tensor, state: State) -> None:
        """Raises InputError where input or state does not fit this memory; both shapes are told."""
        if x.dim() != 3 or x.shape[-1] != self.width:
            raise InputError(
                f"a neural memory of width {self.width} expects [batch, tokens, {self.width}], "
                f"got {list(x.shape)}"
            )
        state.require_shapes_of(self.start(x.shape[0]))

    # ---- reading

    def forward(self, x: Tensor, state: State | None = None, mask: Tensor | None = None) -> Read:
        """Reads and learns x [B, T, D]; `mask` [B, T] bool, False for padding, which changes none.

        A token that is not finite is taken as zero, not learned, and counted in `state.skipped`.

        Raises:
            InputError: shapes of x or state that do not fit.
        """
        state = self.start(x.shape[0]) if state is None else state
        self.check(x, state)
        if not x.shape[1]:
            return Read(x, state, x.new_zeros(x.shape[:2]))
        fine = x.isfinite().all(-1)
        x = torch.where(fine[..., None], x, 0.0)
        real = fine if mask is None else fine & mask
        heads = self._heads(x, state.history)
        gates = self._gates(x, real)
        answers, surprises, at = [], [], 0
        while at < x.shape[1]:
            take = min(self.settings.chunk - state.position, x.shape[1] - at)
            part = slice(at, at + take)
            chunk, state = self._chunk([h[:, part] for h in heads], gates, part, state)
            answers.append(chunk.answers)
            surprises.append(chunk.surprise)
            at += take
        lost = ~fine if mask is None else ~fine & mask
        state = self._advanced(state, x, lost)
        surprise = torch.cat(surprises, 1).view(x.shape[0], -1, x.shape[1]).mean(1)
        return Read(self._output(torch.cat(answers, 1), x), state, surprise)

    def recall(
        self,
        x: Tensor,
        state: State,
        history: Tensor | None = None,
        opened: bool = False,
        apart: bool = False,
    ) -> Tensor:
        """M(q) [B, T, D] of x [B, T, D] by what the state has learned; learns nothing.

        `history` [B, K - 1, D] are the inputs before x, where they are not those that were learned.
        `opened`: by the weights at the start of the open chunk. `apart`: each token by itself, as
        if no others were before it, so that tokens can come one at a time without a state.
        """
        self.check(x, state)
        if not x.shape[1]:
            return x
        x = torch.where(x.isfinite().all(-1, keepdim=True), x, 0.0)
        queries = self._heads(x, None if apart else state.history if history is None else history)[
            0
        ]
        weights = tuple(w.flatten(0, 1) for w in (state.anchor if opened else state.weights))
        return self._output(apply(weights, queries), x)

    def keys(self, x: Tensor) -> Tensor:
        """Keys [B, T, H · d] of texts x [B, T, D], each read from its beginning; norm 1."""
        past = x.new_zeros(x.shape[0], max(self.settings.convolution - 1, 0), self.width)
        return self._joined(self._heads(x, past)[1], x.shape[0])

    def queries(self, x: Tensor) -> Tensor:
        """Queries [B, T, H · d] of x [B, T, D], each token by itself; norm 1."""
        return self._joined(self._heads(x, None)[0], x.shape[0])

    def _joined(self, heads: Tensor, batch: int) -> Tensor:
        """Vectors [B · H, T, d] of norm 1 as [B, T, H · d] of norm 1."""
        split = heads.view(batch, -1, *heads.shape[1:]).transpose(1, 2).flatten(2)
        return split.div(self.settings.heads**0.5)

    # ---- steps

    def _heads(self, x: Tensor, history: Tensor | None) -> list[Tensor]:
        """Queries, keys, values [B · H, T, d] of x [B, T, D]; queries and keys have norm 1.

        `history` [B, K - 1, D] is what the convolution sees before x; None: zeros for each token.
        """
        own, kind = self.settings, self.to_qkv.weight.dtype
        if self.convolution is None:
            mixed = self.to_qkv(x.to(kind))
        elif history is None:
            mixed = self.to_qkv(x.to(kind)) * self.convolution.weight[:, -1]
        else:
            together = torch.cat([history.to(x.dtype), x], 1)
            mixed = self.convolution(self.to_qkv(together.to(kind)))
        mixed = nn.functional.silu(mixed.to(torch.promote_types(torch.float32, mixed.dtype)))
        split = mixed.view(*x.shape[:2], 3, own.heads, own.head_dim)
        q, k, v = (one.transpose(1, 2).flatten(0, 1) for one in split.unbind(2))
        unit = nn.functional.normalize
        return [unit(q, dim=-1, eps=1e-6), unit(k, dim=-1, eps=1e-6), v]

    def _gates(self, x: Tensor, real: Tensor) -> Tensor:
        """Gates [B, H, T, 4]: forget, momentum, step, and 1 for a real token."""
        own = self.settings
        raw = self.to_gates(x.to(self.to_gates.weight.dtype))
        raw = raw.to(torch.promote_types(torch.float32, raw.dtype)).sigmoid()
        forget, momentum, step = raw.view(*x.shape[:2], 3, own.heads).unbind(2)
        forget = forget if own.forgetting else torch.zeros_like(forget)
        momentum = momentum if own.momentum else torch.zeros_like(momentum)
        shown = real[..., None].to(forget.dtype).expand_as(forget)
        gates = torch.stack([forget, momentum, own.max_step * step, shown], -1)
        return gates.transpose(1, 2)

    def _chunk(
        self, heads: list[Tensor], gates: Tensor, part: slice, state: State
    ) -> tuple[Chunk, State]:
        """Reads tokens that lie in one chunk."""
        q, k, v = heads
        taken, carried = gates[:, :, part], state.gates
        if self.settings.gates == "chunk":
            carried = taken[:, :, 0, :3] if state.position == 0 else carried
            held = carried[:, :, None].expand(*taken.shape[:3], 3)
            taken = torch.cat([held, taken[..., 3:]], -1)
        flat = [tuple(w.flatten(0, 1) for w in state.anchor)]
        flat += [tuple(w.flatten(0, 1) for w in state.weights)]
        flat += [tuple(w.flatten(0, 1) for w in state.momentum)]
        found = FORMS[self.settings.form](
            flat[0], flat[1], flat[2], q, k, v,
            Gates(*taken.flatten(0, 1).unbind(-1)), self.settings.clip,
        )  # fmt: skip
        batch = gates.shape[0]
        weights = tuple(w.view(batch, -1, *w.shape[1:]) for w in found.weights)
        moving = tuple(w.view(batch, -1, *w.shape[1:]) for w in found.momentum)
        position = (state.position + k.shape[1]) % self.settings.chunk
        shown = taken[..., 3].flatten(0, 1) > 0
        return found, State(
            weights=weights,
            momentum=moving,
            anchor=weights if position == 0 else state.anchor,
            gates=carried,
            history=state.history,
            clipped=state.clipped + (found.clipped & shown).view(batch, -1).sum(1),
            skipped=state.skipped + (found.skipped & shown).view(batch, -1).sum(1),
            position=position,
            seen=state.seen + k.shape[1],
        )

    def _advanced(self, state: State, x: Tensor, lost: Tensor) -> State:
        """The state after x: its last inputs kept, its lost tokens counted once for each head."""
        past = state.history.shape[1]
        joined = torch.cat([state.history, x.to(state.history.dtype)], 1)
        history = joined[:, joined.shape[1] - past :]
        skipped = state.skipped + lost.sum(1) * self.settings.heads
        return replace(state, history=history, skipped=skipped)

    def _output(self, answers: Tensor, x: Tensor) -> Tensor:
        """Answers [B · H, T, d] normalised, gated and projected to [B, T, D]."""
        split = answers.view(x.shape[0], -1, *answers.shape[1:]).transpose(1, 2)  # (B, T, H, d)
        kind = self.to_output.weight.dtype
        normal = self.norm(split.to(self.norm.weight.dtype)).flatten(2).to(kind)
        gate = nn.functional.silu(self.to_output_gate(x.to(kind)))
        found: Tensor = self.to_output(normal * gate)
        return found.to(x.dtype)
