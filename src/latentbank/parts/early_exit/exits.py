"""Healing of early vectors, and the choice of the layer to stop at.

Both are ridge regressions on background texts, in closed form. The paper heals early exits by
low-rank weights that are trained progressively. Knows vectors; knows no text and no bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from latentbank.errors import InputError

__all__ = ["Exits"]

_RIDGE = 0.05  # of unit vectors
_GUESS_RIDGE = 1.0


class Exits(nn.Module):
    """What maps vectors after the layers `layers` to unit vectors of full depth.

    `width` is W. The last of `layers` is full depth and needs no map. Before `fit` every map is the
    identity, and every text is taken to full depth.
    """

    means: Tensor
    maps: Tensor
    guesses: Tensor
    fitted: Tensor

    def __init__(self, layers: Sequence[int], width: int) -> None:
        super().__init__()
        if list(layers) != sorted(set(layers)) or not layers or layers[0] < 1:
            raise InputError(f"exits are layers from 1, rising, got {list(layers)}")
        self.layers = tuple(layers)
        early = len(layers) - 1
        identity = torch.cat([torch.eye(width), torch.zeros(1, width)])
        self.register_buffer("means", torch.zeros(early, width))
        self.register_buffer("maps", identity.expand(early, -1, -1).clone())
        self.register_buffer("guesses", torch.zeros(width + 2, early))
        self.register_buffer("fitted", torch.zeros(()))

    @torch.no_grad()
    def fit(self, start: Tensor, lengths: Tensor, vectors: Mapping[int, Tensor]) -> None:
        """Fits on N texts: `start` [N, W] after no layer, `lengths` [N], vectors [N, W] by layer.

        Maps of the first half tell how well the second half can be healed, which fits the guesses.
        The maps that stay are fitted on all texts.
        """
        full, half = _unit(vectors[self.layers[-1]]), len(start) // 2
        if half < 2:
            raise InputError("exits are fitted on at least 4 texts")
        reached = []
        for at, layer in enumerate(self.layers[:-1]):
            early = vectors[layer]
            self.means[at] = early.mean(0)
            inputs = self._inputs(early, at)
            self.maps[at] = _ridge(inputs[:half], full[:half], _RIDGE)
            reached.append((self._healed(early, at) * full).sum(1))
            self.maps[at] = _ridge(inputs, full, _RIDGE)
        known = _known(start, lengths)
        self.guesses.copy_(_ridge(known[half:], torch.stack(reached, 1)[half:], _GUESS_RIDGE))
        self.fitted.fill_(1.0)

    def heal(self, vectors: Tensor, layer: int) -> Tensor:
        """Unit vectors [N, W] in the place of those of full depth."""
        at = self.layers.index(layer)
        return _unit(vectors) if at == len(self.layers) - 1 else self._healed(vectors, at)

    def guess(self, start: Tensor, lengths: Tensor) -> Tensor:
        """The cosine [N, E - 1] with the full vector that each early exit is expected to reach."""
        return _known(start, lengths) @ self.guesses

    def choose(self, start: Tensor, lengths: Tensor, least: float) -> list[int]:
        """For each text the first layer whose expected cosine is `least`; else full depth."""
        if not bool(self.fitted):
            return [self.layers[-1]] * len(start)
        enough = self.guess(start, lengths) >= least
        return [
            next((self.layers[at] for at in range(enough.shape[1]) if row[at]), self.layers[-1])
            for row in enough
        ]

    def _inputs(self, vectors: Tensor, at: int) -> Tensor:
        return _with_one(_unit(vectors - self.means[at]))

    def _healed(self, vectors: Tensor, at: int) -> Tensor:
        return _unit(self._inputs(vectors, at) @ self.maps[at])


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors, dim=-1)


def _with_one(vectors: Tensor) -> Tensor:
    return torch.cat([vectors, vectors.new_ones(len(vectors), 1)], 1)


def _known(start: Tensor, lengths: Tensor) -> Tensor:
    """What is known of a text before it is encoded: its mean embedding, and its length."""
    return _with_one(torch.cat([_unit(start), (lengths / 100).log1p()[:, None]], 1))


def _ridge(inputs: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """Weights [I, O] of inputs [N, I] → targets [N, O]."""
    square = inputs.T @ inputs + ridge * torch.eye(inputs.shape[1], device=inputs.device)
    found: Tensor = torch.linalg.solve(square.double(), (inputs.T @ targets).double()).float()
    return found
