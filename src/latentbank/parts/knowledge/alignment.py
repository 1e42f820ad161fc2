"""The aligned start: keys, queries and values in closed form, before the first training step.

A state of the frozen backbone at the end of a question tells, by one linear map, which triple is
asked for, and in an answer, which token comes next. Ridge regression finds the map. So training
begins where the right triple is attended to. Knows tensors and adapters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentbank.parts.knowledge.adapters import KnowledgeAdapter
from latentbank.parts.knowledge.features import Features

__all__ = ["align_keys", "align_queries", "align_values"]

RIDGE = 0.01  # of the mean variance of the states
EVEN = 0.05  # of the largest variance of the features: added to each before it is divided by
OUT_RIDGE = 0.1  # of the mean variance of the output map, whose plain inverse is huge
ROW_SCALE, SLOT_SCALE = 40.0, 12.0  # of a cosine
FITTED = 0.8  # share of the answers that is fitted before scores are calibrated on the others
LIFT = 1.0  # of triples above the null slot
FIRST = 8.0  # weight of the token that begins an answer, where the triple is chosen


@torch.no_grad()
def align_keys(adapter: KnowledgeAdapter, features: Features, draw: torch.Generator) -> None:
    """Sets the key maps to whitened principal components; each group gets a rotation of them."""
    _whiten(adapter.keys, features.keys.float(), adapter.sizes.groups, draw)
    if adapter.sizes.slot:
        _whiten(adapter.slot_keys, features.before.float(), adapter.sizes.groups, draw)


def _whiten(map: nn.Linear, rows: Tensor, groups: int, draw: torch.Generator) -> None:
    """Principal components of `rows` [N, P] with equal variance."""
    width = map.out_features // groups
    mean = rows.mean(0)
    centred = rows - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
    kept = min(width, int((values > values[-1] * 1e-4).sum()))
    values, vectors = values[-kept:].flip(0), vectors[:, -kept:].flip(1)
    base = (vectors / (values + EVEN * values[0]).sqrt()).T  # (kept, P)
    weight = torch.zeros(map.out_features, rows.shape[1])
    for group in range(groups):
        turn = torch.eye(kept) if groups == 1 else _rotation(kept, draw)
        weight[group * width : group * width + kept] = turn @ base
    map.weight.copy_(weight)
    map.bias.copy_(-(weight @ mean))


def _rotation(size: int, draw: torch.Generator) -> Tensor:
    turn: Tensor = torch.linalg.qr(torch.randn(size, size, generator=draw))[0]
    return turn


@torch.no_grad()
def align_queries(
    adapter: KnowledgeAdapter,
    features: Features,
    states: Tensor,
    rows: Tensor,
    first: Tensor,
    slots: Tensor,
) -> None:
    """Sets the query maps by ridge regression onto the keys that they should find.

    `states` [N, D] ask for the triples `rows` [N] and the slots `slots` [N], -1 for none. Those
    that begin an answer are `first` [N].
    """
    layer = adapter.layer(features, 0.0, adapter.queries.weight.device)
    keys, held = layer.row_keys.float(), slots >= 0
    goal = keys[:, rows].transpose(0, 1).flatten(1)
    weights = torch.where(first, FIRST, 1.0)
    fitted = torch.arange(len(rows)) < FITTED * len(rows)
    if adapter.unit_queries:  # how high is a score of questions that are not fitted?
        adapter.scale.fill_(ROW_SCALE)
        _regress(adapter.queries, states[fitted], goal[fitted], weights[fitted])
        tested = first & ~fitted
        scores = torch.einsum("nge,gme->gnm", adapter.ask(states[tested])[0], keys)
        middle = _middle(scores[..., : len(features)], rows[tested])
    _regress(adapter.queries, states, goal, weights)
    within = torch.zeros(adapter.sizes.groups)
    if adapter.sizes.slot and layer.slot_keys is not None:
        slot_keys = layer.slot_keys.float()
        slots, states = slots[held], states[held]
        wanted = slot_keys[:, slots].transpose(0, 1).flatten(1)
        _regress(adapter.slot_queries, states, wanted, torch.ones(len(slots)))
        adapter.slot_scale.fill_(SLOT_SCALE)
        asked = adapter.ask(states)[1]
        if asked is not None and adapter.unit_queries:
            within = torch.einsum("nge,gne->gn", asked, slot_keys[:, slots]).mean(1)
    if adapter.unit_queries:
        adapter.offset.copy_(LIFT - middle - within)
        if adapter.null:
            adapter.null_score.copy_(-within)


def _middle(scores: Tensor, rows: Tensor) -> Tensor:
    """Halfway [G] between the right row's score and the best wrong one's in `scores` [G, N, M]."""
    index = rows[None, :, None].expand(len(scores), -1, 1)
    right = scores.gather(2, index)
    wrong = scores.scatter(2, index, -torch.inf).max(-1, keepdim=True).values
    return (right.mean((1, 2)) + wrong.mean((1, 2))) / 2


def _regress(map: nn.Linear, states: Tensor, wanted: Tensor, weights: Tensor) -> None:
    """`map` becomes the ridge regression of `wanted` [N, K] on `states` [N, D], weighted."""
    states, wanted, weights = states.float(), wanted.float(), weights / weights.sum()
    mean, goal = weights @ states, weights @ wanted
    centred = states - mean
    spread = (centred * weights[:, None]).T @ centred
    ridge = RIDGE * spread.diagonal().mean() * torch.eye(len(spread))
    shared = (centred * weights[:, None]).T @ (wanted - goal)
    weight = torch.linalg.solve(spread + ridge, shared).T
    map.weight.copy_(weight)
    map.bias.copy_(goal - weight @ mean)


@torch.no_grad()
def align_values(adapter: KnowledgeAdapter, out: Tensor, strength: float) -> None:
    """A slot's token embedding enters the residual stream, times `strength`.

    `out` [D, H · head_dim] is the attention's output projection.
    """
    if adapter.sizes.held != out.shape[0]:
        return
    out = out.float()
    spread = out.T @ out
    ridge = OUT_RIDGE * spread.diagonal().mean() * torch.eye(len(spread))
    adapter.values.weight.copy_(strength * torch.linalg.solve(spread + ridge, out.T))
