"""A memory whose keys are the words around a token, solved exactly, and its voice.

Its inner loss is equation 12 of Titans over all tokens read, with a step θ for each, and a penalty:
Σ θ·‖M·k − v‖² + λ·‖M‖². Neighbours share most of their words, so gradient steps would replace what
the token before has learned. The state holds the sums of the normal equations instead of M, and a
read solves them ("Test-time regression", Wang et al., 2025, https://arxiv.org/abs/2501.12352). The
sums do not depend on the order of texts; momentum and forgetting are left out. Knows vectors
[B, T, D]; knows no model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentbank.errors import InputError
from latentbank.parts.neural_memory.memory import Read
from latentbank.parts.neural_memory.state import State

__all__ = ["Voice", "WordMemory"]

_ASKED = 0.3  # of the sum of a question's words, beside the mean of its kinds
_PENALTY = 3.0  # λ, in units of the keys' mean square
_SHRUNK = 0.05  # of the mean variance, added to each direction before it is made even
unit = nn.functional.normalize


def with_one(keys: Tensor) -> Tensor:
    """Keys [..., D] and a one, [..., D+1]."""
    return torch.cat([keys, torch.ones_like(keys[..., :1])], -1)


def _small(width: int) -> nn.Linear:
    """A map that begins as a small one."""
    made = nn.Linear(width, width)
    nn.init.normal_(made.weight, std=0.3 * width**-0.5)
    nn.init.zeros_(made.bias)
    return made


def _even(width: int) -> nn.Linear:
    """A weight of each token that begins alike for all."""
    made = nn.Linear(width, 1)
    nn.init.zeros_(made.weight)
    return made


class WordMemory(nn.Module):
    """Associates the words around each token of a text with that token.

    x are standardised embeddings. A key is the weighted sum of the words in a window around its
    token, and what the token itself and the one before it are. A query is the weighted sum of a
    question's words, what the question is, and the last token that was said. Both begin with the
    same map of words, so a question's words find a text's from the start.
    """

    middle: Tensor
    even: Tensor

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.width, self.window = width, window
        self.words = nn.Linear(width, width, bias=False)
        nn.init.orthogonal_(self.words.weight)
        self.weight_text, self.weight_question = _even(width), _even(width)
        self.around = nn.Parameter(torch.full((width, 1, window), window**-0.5))
        self.own, self.before = _small(width), _small(width)
        self.asks, self.after = _small(width), _small(width)
        self.after.load_state_dict(self.before.state_dict())
        self.register_buffer("middle", torch.zeros(width))
        self.register_buffer("even", torch.eye(width))
        self.step = nn.Linear(3 * width, 1)
        nn.init.zeros_(self.step.weight)
        nn.init.constant_(self.step.bias, -2.0)

    # ---- states

    def start(self, batch: int = 1) -> State:
        """The state of `batch` memories before any text: the sums Σθvk̃ᵀ and Σθk̃k̃ᵀ, zeros.

        k̃ is a key [D] and a one, so the sums hold the means, too: [B, 1, D, D+1] and
        [B, 1, D+1, D+1].
        """
        device, none = self.around.device, torch.zeros(batch, dtype=torch.int64)
        long = self.width + 1
        sums = tuple(torch.zeros(batch, 1, n, long, device=device) for n in (self.width, long))
        empty = torch.zeros(batch, 1, 0, 0, device=device)
        return State(
            weights=sums,
            momentum=(empty, empty),
            anchor=sums,
            gates=torch.zeros(batch, 1, 0, device=device),
            history=torch.zeros(batch, 0, self.width, device=device),
            clipped=none.to(device),
            skipped=none.clone().to(device),
        )

    # ---- keys and queries

    def keys(self, x: Tensor) -> Tensor:
        """Keys [B, T, D] of whole texts x [B, T, D]; norm 1."""
        weighted = self.words(x) * nn.functional.softplus(self.weight_text(x))
        half = self.window // 2
        padded = nn.functional.pad(weighted.transpose(1, 2), (half, self.window - 1 - half))
        bags = nn.functional.conv1d(padded, self.around, groups=self.width).transpose(1, 2)
        return unit(bags + self.own(x) + self.before(self._shifted(x, 1)), dim=-1)

    def bags(self, x: Tensor, mask: Tensor) -> Tensor:
        """What questions x [B, T, D] with mask [B, T] ask for, [B, D]."""
        shown = mask[..., None].to(x.dtype)
        weighted = self.words(x) * nn.functional.softplus(self.weight_question(x)) * shown
        kinds = (self.asks(x) * shown).sum(1) / shown.sum(1).clamp_min(1)
        asked: Tensor = _ASKED * weighted.sum(1) + kinds
        return asked

    def queries(self, bags: Tensor, last: Tensor) -> Tensor:
        """Queries [B, T, D] for what follows the tokens `last` [B, T, D]; norm 1."""
        return unit(bags[:, None] + self.after(last), dim=-1)

    # ---- reading

    def forward(self, x: Tensor, state: State, mask: Tensor | None = None) -> Read:
        """Learns whole texts x [B, T, D]; `mask` [B, T] bool, False for padding.

        `output` is what the memory said about each token before, `surprise` the norm of its error.
        A token that is not finite is taken as zero, not learned, and counted in `state.skipped`.

        Raises:
            InputError: x or the state are of other shapes.
        """
        if x.dim() != 3 or x.shape[-1] != self.width:
            raise InputError(
                f"a word memory of width {self.width} expects [batch, tokens, {self.width}], "
                f"got {list(x.shape)}"
            )
        state.require_shapes_of(self.start(x.shape[0]))
        fine = x.isfinite().all(-1)
        real = fine if mask is None else fine & mask
        x = torch.where(real[..., None], x, 0.0)
        keys, values = with_one(self.keys(x)), self.values(x)
        around = torch.cat([x, self._shifted(x, 1), self._shifted(x, -1)], -1)
        steps = self.step(around).sigmoid() * real[..., None].to(x.dtype)
        said = keys @ self.solved(state)[0].mT if state.seen else torch.zeros_like(values)
        sums = tuple(
            before + ((steps * left).mT @ keys)[:, None]
            for before, left in zip(state.weights, (values, keys), strict=True)
        )
        lost = (~fine if mask is None else ~fine & mask).sum(1)
        after = State(
            sums, state.momentum, sums, state.gates, state.history, state.clipped,
            state.skipped + lost, 0, state.seen + x.shape[1],
        )  # fmt: skip
        return Read(said, after, (said - values).norm(dim=-1))

    def values(self, x: Tensor) -> Tensor:
        """Values [B, T, D] of tokens x [B, T, D]: what the tokens are, evened out; norm 1."""
        return unit((x - self.middle) @ self.even.mT, dim=-1)

    def solved(self, state: State) -> Tensor:
        """M [B, D, D+1] of what the states have learned; zeros where nothing was read."""
        right, left = (sums[:, 0] for sums in state.weights)
        square = left.diagonal(dim1=-2, dim2=-1)[:, :-1].mean(-1)
        penalty = torch.full_like(left[:, 0], _PENALTY) * square[:, None]
        penalty[:, -1] = 1e-3 * square  # the ones are hardly held back
        whole = left + torch.diag_embed(penalty + 1e-6)
        found: Tensor = torch.linalg.solve(whole, right.mT).mT
        return found

    def answers(self, bags: Tensor, last: Tensor, solved: Tensor) -> Tensor:
        """M·q [B, T, D] of one memory [D, D+1], for questions [B, D] after `last` [B, T, D]."""
        found: Tensor = with_one(self.queries(bags, last)) @ solved.mT
        return found

    @torch.no_grad()
    def measure(self, kinds: Tensor) -> None:
        """Sets how values are evened out from the tokens `kinds` [N, D], one of each kind."""
        self.middle.copy_(kinds.mean(0))
        spread = (kinds - self.middle).mT @ (kinds - self.middle) / len(kinds)
        variances, axes = torch.linalg.eigh(spread)
        floor = _SHRUNK * variances.mean().clamp_min(1e-6)
        self.even.copy_(axes @ torch.diag((variances + floor).rsqrt()) @ axes.mT)

    @staticmethod
    def _shifted(x: Tensor, by: int) -> Tensor:
        """x [B, T, D] with each token in the place of the next one (1) or the one before (-1)."""
        none = torch.zeros_like(x[:, :1])
        return torch.cat([none, x[:, :-1]] if by > 0 else [x[:, 1:], none], 1)


class Voice(nn.Module):
    """Turns what a memory says into what is added to final states; a gate opens where they ask.

    `spread`: how large final states are, measured before training.
    """

    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.out.weight)
        self.loud = nn.Parameter(torch.zeros(()))
        self.gate = _even(width)
        nn.init.zeros_(self.gate.bias)
        self.register_buffer("spread", torch.ones(width))

    @torch.no_grad()
    def measure(self, finals: Tensor, map: Tensor) -> None:
        """Sets the spread from final states [N, D], and the map that `out` begins with [D, D]."""
        self.spread.copy_(finals.std(0).clamp_min(1e-4))
        self.out.weight.copy_(map * len(map) ** 0.5 / map.norm())

    def forward(self, said: Tensor, hidden: Tensor) -> Tensor:
        """What is added to the states `hidden` [B, T, D] where a memory says `said` [B, T, D]."""
        opened = self.gate(hidden.float() / self.spread).sigmoid()
        added: Tensor = self.loud.exp() * opened * self.out(said) * self.spread.mean()
        return added
