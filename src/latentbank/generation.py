"""Greedy and diverse beam decoding over a backbone with memory attached.

Knows token ids, scores and stopping; where the memory is and how it is cached, the backbone knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from latentbank.backbone import Backbone
from latentbank.errors import InputError

_SCORED_AT_ONCE = 256  # tokens whose logits over the vocabulary are in memory together


@dataclass(frozen=True)
class DecodingConfig:
    """How to decode. The MAC and MBC papers use 12 beams in 4 groups with diversity 10.

    `beams` = 1 is greedy. `groups` divides `beams`; a later group pays `diversity` for each token
    that an earlier group chose at the same step (Vijayakumar et al., 2018).
    """

    max_new_tokens: int = 16
    beams: int = 1
    groups: int = 1
    diversity: float = 0.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.beams < 1 or self.groups < 1 or self.beams % self.groups:
            raise InputError(
                f"groups must divide beams; got {self.beams} beams in {self.groups} groups"
            )


@dataclass(frozen=True)
class Generation:
    """One answer: its text, the mean probability of its tokens, seconds to the first token.

    `likelihood`: log-likelihood, in nats, of the last tokens of its prompt; see `generate`.
    """

    text: str
    confidence: float
    first_token_seconds: float
    likelihood: float = 0.0


@torch.no_grad()
def generate(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    config: DecodingConfig | None = None,
    contrast: float = 0.0,
    scored: Sequence[int] | None = None,
    worth: Callable[[Sequence[float]], Sequence[bool]] | None = None,
) -> list[Generation]:
    """Answers to a batch of tokenised prompts, with the memory that is attached to `backbone`.

    With `contrast` α the next token comes from (1 + α)·ℓ(memory) − α·ℓ(no memory): memory-aware
    decoding (CMT), which runs the text twice. `scored` [B]: of how many last tokens of each prompt
    the log-likelihood is wanted; it is that with the memory, whatever the contrast. `worth` says of
    those log-likelihoods [B] which prompts to answer; the others get no text and confidence 0.

    Left padding; a row's answer does not depend on the other rows' lengths. Stops at the end token
    or after `max_new_tokens`.

    Raises:
        InputError: memory, prompt and answer do not fit into the backbone's positions.
    """
    config = config or DecodingConfig()
    if not prompts:
        return []
    _check_length(backbone, prompts, config)
    began = time.perf_counter()
    run = _Run(backbone, len(prompts), contrast)
    logits, likelihoods = run.begin(prompts, scored)
    first = time.perf_counter() - began
    found = [Generation("", 0.0, first, likelihood) for likelihood in likelihoods]
    kept = [i for i, yes in enumerate(worth(likelihoods) if worth else [True] * len(found)) if yes]
    if 0 < len(kept) < len(found):
        index = torch.tensor(kept, device=logits.device)
        run.reorder(index)
        logits = logits[index]
    if kept:
        tokens, mean = (_beam if config.beams > 1 else _greedy)(run, logits, config)
        confidence = mean.exp().tolist()
        for i, text, sure in zip(kept, _texts(backbone, tokens), confidence, strict=True):
            found[i] = replace(found[i], text=text, confidence=sure)
    return found


def _check_length(
    backbone: Backbone, prompts: Sequence[Sequence[int]], config: DecodingConfig
) -> None:
    before = [0] * len(prompts)
    if backbone.memory is not None:
        before = [int(start) for start in backbone.memory.start]
    longest = max(len(row) + start for row, start in zip(prompts, before, strict=False))
    if longest + config.max_new_tokens > backbone.geometry.max_positions:
        raise InputError(
            f"a prompt of {longest} tokens, memory included, plus {config.max_new_tokens} "
            f"new ones exceeds the {backbone.geometry.max_positions} positions of {backbone.name}; "
            "shorten it"
        )


@torch.no_grad()
def prompt_likelihoods(
    backbone: Backbone, prompts: Sequence[Sequence[int]], scored: Sequence[int]
) -> list[float]:
    """Log-likelihoods [B], in nats, of the last `scored` [B] tokens of prompts, with the memory
    that is attached to `backbone`.
    """
    if not prompts:
        return []
    ids, mask = backbone.pad(prompts, left=True)
    return _likelihoods(backbone, ids, backbone.session(len(prompts)).feed(ids, mask), scored)


def _likelihoods(
    backbone: Backbone, ids: Tensor, hidden: Tensor, scored: Sequence[int]
) -> list[float]:
    """The same from left-padded ids [B, T] and their states [B, T, D]."""
    last = ids.shape[1] - 1
    place = torch.arange(last, device=ids.device)
    wanted = place >= last - torch.tensor(scored, device=ids.device)[:, None]
    states, targets = hidden[:, :-1][wanted], ids[:, 1:][wanted]
    surprise = torch.zeros(len(targets), device=ids.device)
    for at in range(0, len(targets), _SCORED_AT_ONCE):
        part = slice(at, at + _SCORED_AT_ONCE)
        logits = backbone.logits(states[part]).float()
        surprise[part] = nn.functional.cross_entropy(logits, targets[part], reduction="none")
    found = torch.zeros(wanted.shape, device=ids.device).masked_scatter(wanted, -surprise)
    return [float(one) for one in found.sum(1)]


class _Run:
    """Next-token logits of a batch with the attached memory, and where asked without it beside."""

    def __init__(self, backbone: Backbone, batch: int, contrast: float) -> None:
        self.backbone, self.contrast = backbone, contrast
        self.sessions = [backbone.session(batch)]
        if contrast and backbone.memory is not None:
            with backbone.with_memory(None):
                self.sessions.append(backbone.session(batch))

    def begin(
        self, prompts: Sequence[Sequence[int]], scored: Sequence[int] | None
    ) -> tuple[Tensor, list[float]]:
        """(logits [B, V] after the prompts, log-likelihoods [B] of their last `scored` tokens)."""
        ids, mask = self.backbone.pad(prompts, left=True)
        hidden = [session.feed(ids, mask) for session in self.sessions]
        likelihoods = [0.0] * len(prompts)
        if scored is not None:
            likelihoods = _likelihoods(self.backbone, ids, hidden[0], scored)
        return self._logits([states[:, -1] for states in hidden]), likelihoods

    def feed(self, tokens: Tensor) -> Tensor:
        """Logits [B, V] after one more token [B] each."""
        mask = torch.ones_like(tokens, dtype=torch.bool)[:, None]
        return self._logits([s.feed(tokens[:, None], mask)[:, -1] for s in self.sessions])

    def _logits(self, states: Sequence[Tensor]) -> Tensor:
        found = [self.backbone.logits(one).float() for one in states]
        if len(found) == 1:
            return found[0]
        return found[0] + self.contrast * (found[0] - found[1])

    def reorder(self, index: Tensor) -> None:
        for session in self.sessions:
            session.reorder(index)


def _greedy(run: _Run, logits: Tensor, config: DecodingConfig) -> tuple[Tensor, Tensor]:
    """(tokens [B, T], their mean log-probability [B]) after a prompt's logits [B, V]."""
    done = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    tokens: list[Tensor] = []
    scores: list[Tensor] = []
    alive: list[Tensor] = []
    for step in range(config.max_new_tokens):
        score, token = torch.log_softmax(logits, -1).max(-1)
        tokens.append(token)
        scores.append(score)
        alive.append(~done)
        done = done | (token == run.backbone.end_id)
        if bool(done.all()) or step == config.max_new_tokens - 1:
            break
        logits = run.feed(token)
    kept = torch.stack(alive, 1)
    mean = (torch.stack(scores, 1) * kept).sum(1) / kept.sum(1)
    return torch.stack(tokens, 1), mean


def _beam(run: _Run, logits: Tensor, config: DecodingConfig) -> tuple[Tensor, Tensor]:
    """The same by beam search in groups; an ended beam keeps its length-normalised score and waits.

    The score is the chosen beam's.
    """
    width, batch, device, end_id = config.beams, len(logits), logits.device, run.backbone.end_id
    run.reorder(torch.arange(batch, device=device).repeat_interleave(width))
    logits = logits.repeat_interleave(width, 0)
    total = torch.full((batch, width), -torch.inf, device=device)
    total[:, :: width // config.groups] = 0.0  # one live beam for each group at the start
    done = torch.zeros(batch, width, dtype=torch.bool, device=device)
    tokens = torch.zeros(batch, width, 0, dtype=torch.long, device=device)
    lengths = torch.zeros(batch, width, device=device)
    for step in range(config.max_new_tokens):
        scores = torch.log_softmax(logits, -1).view(batch, width, -1)
        parent, token, total = _advance(scores, total, done, end_id, config)
        tokens = torch.cat(
            [tokens.gather(1, parent[..., None].expand_as(tokens)), token[..., None]], 2
        )
        was_done = done.gather(1, parent)
        lengths = lengths.gather(1, parent) + (~was_done)
        done = was_done | (token == end_id)
        if bool(done.all()) or step == config.max_new_tokens - 1:
            break
        offset = torch.arange(batch, device=device)[:, None] * width
        run.reorder((parent + offset).view(-1))
        logits = run.feed(token.view(-1))
    normal = total / lengths.clamp_min(1)
    best = normal.argmax(1, keepdim=True)
    chosen = tokens.gather(1, best[..., None].expand(-1, 1, tokens.shape[2])).squeeze(1)
    return chosen, normal.gather(1, best).squeeze(1)


def _advance(
    scores: Tensor, total: Tensor, done: Tensor, end_id: int, config: DecodingConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """(parent [B, W], token [B, W], score [B, W]) of the next beams from scores [B, W, V]."""
    batch, width, vocabulary = scores.shape
    size = width // config.groups
    frozen = torch.full_like(scores, -torch.inf)
    frozen[..., end_id] = 0.0
    scores = torch.where(done[..., None], frozen, scores)
    penalty = scores.new_zeros(batch, vocabulary)
    parents, tokens, totals = [], [], []
    for group in range(config.groups):
        part = slice(group * size, (group + 1) * size)
        candidates = total[:, part, None] + scores[:, part]
        ranked = (candidates - config.diversity * penalty[:, None]).view(batch, -1)
        index = ranked.topk(size, dim=1).indices
        token = index % vocabulary
        parents.append(index // vocabulary + group * size)
        tokens.append(token)
        totals.append(candidates.view(batch, -1).gather(1, index))
        penalty = penalty.scatter_add(1, token, torch.ones_like(token, dtype=penalty.dtype))
    return torch.cat(parents, 1), torch.cat(tokens, 1), torch.cat(totals, 1)


def _texts(backbone: Backbone, tokens: Tensor) -> list[str]:
    """Decodes token rows [B, T] up to the end token."""
    texts = []
    for row in tokens.tolist():
        cut = row.index(backbone.end_id) if backbone.end_id in row else len(row)
        texts.append(backbone.tokenizer.decode(row[:cut], skip_special_tokens=True).strip())
    return texts
