"""Greedy and diverse beam decoding over a backbone with memory attached.

Knows token ids, scores and stopping; where the memory is and how it is cached, the backbone knows.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import answer_texts, continued
from latentbank.backbone.text_run import log_likelihoods
from latentbank.errors import InputError

_CHECKED = 64  # tokens that a step may check in all rows: few cost hardly more than one
_GUESSES = 6  # of them, at most, in a row


@dataclass(frozen=True)
class DecodingConfig:
    """How to decode. The MAC and MBC papers use 12 beams in 4 groups with diversity 10.

    `beams` = 1 is greedy. `groups` divides `beams`; a later group pays `diversity` for each token
    that an earlier group chose at the same step (Vijayakumar et al., 2018). With `whole_words` an
    answer that reaches `max_new_tokens` is cut back to its last sentence or word.
    """

    max_new_tokens: int = 16
    beams: int = 1
    groups: int = 1
    diversity: float = 0.0
    whole_words: bool = False

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

    `finished`: it came to its end before the limit of tokens.
    """

    text: str
    confidence: float
    first_token_seconds: float
    finished: bool = True


def generate(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    config: DecodingConfig | None = None,
    contrast: float = 0.0,
    quotable: Sequence[Sequence[int]] = (),
) -> list[Generation]:
    """Answers to a batch of tokenised prompts, with the memory that is attached to `backbone`.

    See `PromptRun`, which this runs and asks for all its answers.
    """
    if not prompts:
        return []
    return PromptRun(backbone, prompts, config, contrast).answers(quotable=quotable)


class PromptRun:
    """Tokenised prompts [B] that have run with the memory that is attached to `backbone`.

    Gives the log-likelihoods of the prompts, and answers to those that are asked for.

    With `contrast` α the next token comes from (1 + α)·ℓ(memory) − α·ℓ(no memory): memory-aware
    decoding (CMT), which runs the text twice. `scored` [B]: of how many last tokens of each prompt
    the log-likelihood may be wanted; see `likelihoods`. A run without memory that is `split` at a
    layer can be repeated over one that enters there; a run over one can be repeated without it.
    `end_id`: the token that ends an answer; None for the backbone's.

    Left padding; a row's answer does not depend on the other rows' lengths.

    Raises:
        InputError: memory, prompt and answer do not fit into the backbone's positions.
    """

    @torch.no_grad()
    def __init__(
        self,
        backbone: Backbone,
        prompts: Sequence[Sequence[int]],
        config: DecodingConfig | None = None,
        contrast: float = 0.0,
        scored: Sequence[int] | None = None,
        split: int = 0,
        end_id: int | None = None,
    ) -> None:
        self._backbone, self._config = backbone, config or DecodingConfig()
        self._prompts, self._scored, self._answered = prompts, scored, False
        _check_length(backbone, prompts, self._config)
        began = time.perf_counter()
        self._run = _Run(backbone, len(prompts), contrast, split)
        if end_id is not None:
            self._run.end_id = end_id
        self._ids, mask = backbone.pad(prompts, left=True)
        self._begin(self._run.begin(self._ids, mask), began)

    @torch.no_grad()
    def repeat(self, rows: Sequence[int]) -> PromptRun:
        """The prompts `rows` over the memory that is attached now, or over none.

        This run has a memory at the same layer, or was `split` there. The layers below are not run
        again.
        """
        again, began = copy.copy(self), time.perf_counter()
        again._prompts = [self._prompts[i] for i in rows]
        again._scored = None if self._scored is None else [self._scored[i] for i in rows]
        _check_length(self._backbone, again._prompts, self._config)
        index = torch.tensor(rows, dtype=torch.long, device=self._ids.device)
        again._ids = self._ids[index]
        again._run, states = self._run.repeat(index)
        again._begin([states], began)
        return again

    def _begin(self, states: Sequence[Tensor], began: float) -> None:
        """Takes the final states [B, T, D] of the prompts, of each session's."""
        self._last = [one[:, -1] for one in states]
        self._next: Tensor | None = None
        self._states = None if self._scored is None else states[0]
        self._seconds = time.perf_counter() - began

    @property
    @torch.no_grad()
    def _logits(self) -> Tensor:
        """Logits [B, V] of the next token; a run of which only likelihoods are asked has none."""
        if self._next is None:
            self._next = self._run.logits(self._last)
        return self._next

    @torch.no_grad()
    def likelihoods(self, rows: Sequence[int] | None = None) -> list[float]:
        """Log-likelihoods, in nats, of the last tokens of the prompts `rows` or of all.

        Of the `scored` tokens, with the memory and whatever the contrast; zeros without `scored`.
        """
        rows = range(len(self._prompts)) if rows is None else rows
        if self._scored is None or self._states is None:
            return [0.0] * len(rows)
        index = torch.tensor(list(rows), dtype=torch.long, device=self._ids.device)
        scored = [self._scored[i] for i in rows]
        return log_likelihoods(self._backbone, self._ids[index], self._states[index], scored)

    @torch.no_grad()
    def first_token_probabilities(self) -> list[float]:
        """The probability [B] of the likeliest first token of each answer."""
        return [math.exp(score) for score in _likeliest(self._logits)[0]]

    @torch.no_grad()
    def answers(
        self, rows: Sequence[int] | None = None, quotable: Sequence[Sequence[int]] = ()
    ) -> list[Generation]:
        """Answers to the prompts `rows`, or to all; to be asked for once (else ValueError).

        Stops at the end token or after `max_new_tokens`. `quotable`: tokens that the answer to each
        of `rows` may quote. What follows there is guessed and checked several tokens at a time
        (prompt lookup decoding), which leaves the answers as they are. Rows that have ended go.
        """
        run, logits = self._taken(rows)
        if not len(logits):
            return []
        if self._config.beams > 1:
            tokens, mean = _beam(run, logits, self._config)
        else:
            tokens, mean = _greedy(run, logits, self._config, quotable)
        texts = answer_texts(self._backbone, tokens, self._run.end_id)
        return [
            Generation(text, math.exp(sure), self._seconds, self._run.end_id in row)
            for text, sure, row in zip(texts, mean, tokens, strict=True)
        ]

    @torch.no_grad()
    def stream(
        self, row: int, quotable: Sequence[Sequence[int]] = ()
    ) -> Iterator[tuple[Generation, int]]:
        """(`Generation` so far, its tokens) of the prompt `row` after each pass, greedy.

        Instead of `answers`; `quotable` as there, for this row.
        """
        backbone = self._backbone
        run, logits = self._taken([row])
        for rows, sums in _greedy_steps(run, logits, self._config, quotable):
            [text], tokens = answer_texts(backbone, rows, run.end_id), rows[0]
            finished = run.end_id in tokens
            sure = math.exp(sums[0] / len(tokens))
            yield Generation(text, sure, self._seconds, finished), len(tokens)

    def _taken(self, rows: Sequence[int] | None) -> tuple[_Run, Tensor]:
        """(run, logits [B', V]) of the prompts `rows` or of all, for the one that decodes them."""
        if self._answered:
            raise ValueError("a run gives its answers once: its sessions have gone on")
        self._answered = True
        run, logits = self._run, self._logits
        if rows is not None and list(rows) != list(range(len(logits))):
            index = torch.tensor(rows, dtype=torch.long, device=logits.device)
            run.reorder(index)
            logits = logits[index]
        return run, logits


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


class _Run:
    """Next-token logits of a batch with the attached memory, and where asked without it beside."""

    def __init__(self, backbone: Backbone, batch: int, contrast: float, split: int = 0) -> None:
        self.backbone, self.contrast, self.end_id = backbone, contrast, backbone.end_id
        self.sessions = [backbone.session(batch, split, ragged=True)]
        if contrast and backbone.memory is not None:
            with backbone.with_memory(None):
                self.sessions.append(backbone.session(batch, ragged=True))

    def begin(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Final states [B, T, D] of tokens ids [B, T], mask [B, T] bool, of each session."""
        return [session.feed(ids, mask) for session in self.sessions]

    def repeat(self, rows: Tensor) -> tuple[_Run, Tensor]:
        """(run of batch rows `rows` [B'] over the attached memory, their final states)."""
        if self.contrast:
            raise ValueError("only a run without contrast is repeated")
        again = copy.copy(self)
        session, states = self.sessions[0].repeat(rows, self.backbone.memory)
        again.sessions = [session]
        return again, states

    def feed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [N, V] after each of the N tokens of ids [B, T] where mask [B, T] bool holds."""
        return self.logits([session.feed(ids, mask)[mask] for session in self.sessions])

    def keep(self, mask: Tensor) -> None:
        """Of the tokens that were fed last, those of `mask` [B, T] bool; the others are undone."""
        for session in self.sessions:
            session.keep(mask)

    def logits(self, states: Sequence[Tensor]) -> Tensor:
        """Logits [..., V] of the sessions' final states [..., D]."""
        found = [self.backbone.logits(one).float() for one in states]
        if len(found) == 1:
            return found[0]
        return found[0] + self.contrast * (found[0] - found[1])

    def reorder(self, index: Tensor) -> None:
        for session in self.sessions:
            session.reorder(index)


def _greedy(
    run: _Run, logits: Tensor, config: DecodingConfig, quotable: Sequence[Sequence[int]]
) -> tuple[list[list[int]], list[float]]:
    """(tokens of each row, their mean log-probability) after a prompt's logits [B, V]."""
    rows, sums = list(_greedy_steps(run, logits, config, quotable))[-1]
    return rows, [total / len(row) for total, row in zip(sums, rows, strict=True)]


def _greedy_steps(
    run: _Run, logits: Tensor, config: DecodingConfig, quotable: Sequence[Sequence[int]]
) -> Iterator[tuple[list[list[int]], list[float]]]:
    """(tokens of each row so far, their summed log-probabilities) after each pass."""
    end_id, limit = run.end_id, config.max_new_tokens
    score, token = _likeliest(logits)
    rows = [[one] for one in token]
    sums = list(score)
    fed = list(range(len(rows)))  # the rows that the run still has
    yield rows, sums
    while waiting := [i for i in fed if rows[i][-1] != end_id and len(rows[i]) < limit]:
        if len(waiting) <= len(fed) // 2 and not run.backbone.changed:
            # the others would be computed for nothing
            places = [place for place, i in enumerate(fed) if i in waiting]
            run.reorder(torch.tensor(places, device=logits.device))
            fed = waiting
        guesses = min(_GUESSES, _CHECKED // len(fed) - 1) if quotable else 0
        blocks: list[list[int]] = [[] for _ in fed]
        for place, i in enumerate(fed):
            if i in waiting:
                room = min(guesses, limit - len(rows[i]) - 1)
                guessed = continued(rows[i], quotable[i])[:room] if room > 0 else []
                blocks[place] = [rows[i][-1], *guessed]
        ids, mask = run.backbone.pad(blocks)
        scores, tokens = _likeliest(run.feed(ids, mask))
        kept, at = [0] * len(fed), 0
        for place, i in enumerate(fed):
            block = blocks[place]
            if not block:
                continue
            found, sure = tokens[at : at + len(block)], scores[at : at + len(block)]
            at += len(block)
            right = 0
            while right < len(found) - 1 and found[right] == block[right + 1] != end_id:
                right += 1
            kept[place] = right + 1  # the token after the guesses that were right
            rows[i] += found[: right + 1]
            sums[i] += sum(sure[: right + 1])
        if max(map(len, blocks)) > 1:
            place_of = torch.arange(ids.shape[1], device=ids.device)
            run.keep(place_of < torch.tensor(kept, device=ids.device)[:, None])
        yield rows, sums


def _likeliest(logits: Tensor) -> tuple[list[Any], list[Any]]:
    """(log-probabilities, tokens) [...] of the likeliest tokens of logits [..., V]."""
    score, token = torch.log_softmax(logits, -1).max(-1)
    return score.tolist(), token.tolist()


def _beam(run: _Run, logits: Tensor, config: DecodingConfig) -> tuple[list[list[int]], list[float]]:
    """The same by beam search in groups; an ended beam keeps its length-normalised score and waits.

    The score is the chosen beam's.
    """
    width, batch, device, end_id = config.beams, len(logits), logits.device, run.end_id
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
        fed = token.view(-1, 1)
        logits = run.feed(fed, torch.ones_like(fed, dtype=torch.bool))
    normal = total / lengths.clamp_min(1)
    best = normal.argmax(1, keepdim=True)
    chosen = tokens.gather(1, best[..., None].expand(-1, 1, tokens.shape[2])).squeeze(1)
    return chosen.tolist(), normal.gather(1, best).squeeze(1).tolist()


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
