"""Encoders of texts that can stop after any of their layers.

A vector is the mean of a text's states after so many layers. Knows models; knows no bank.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from latentbank.backbone.model import Backbone
from latentbank.errors import InputError
from latentbank.parts.knowledge.features import packaged_minilm

__all__ = ["BackboneExits", "ExitEncoder", "SentenceExits", "exit_encoder"]

_BATCH = 32  # texts that are encoded together
_PACKAGED = "minilm"
_MINILM = (6, 384)  # layers and width of all-MiniLM-L6-v2


class ExitEncoder(Protocol):
    """Texts → vectors after some of its layers; frozen."""

    layers: int
    width: int

    def vectors(self, texts: Sequence[str], layer: int) -> Tensor:
        """[N, width] float32 means of the states after `layer` layers; 0: of the embeddings."""

    def lengths(self, texts: Sequence[str]) -> Tensor:
        """[N] float32: how many tokens each text has, as far as it is read."""


class SentenceExits:
    """A BERT-like sentence encoder: `minilm`, the one that ships as a package, or a folder.

    Raises:
        InputError: it is not there, or its layers cannot be found.
    """

    def __init__(self, name: str, tokens: int = 256) -> None:
        self._name, self._tokens = name, tokens
        self._lock = threading.Lock()  # while some of its layers are out
        self._loaded = False
        self.layers, self.width = _MINILM
        if name != _PACKAGED:
            self._load()

    def _load(self) -> None:
        """Loads the model; the packaged one at its first use, since its sizes are known."""
        from transformers import AutoModel, AutoTokenizer

        name = self._name
        folder = packaged_minilm() if name == _PACKAGED else name
        if name != _PACKAGED and not Path(folder).is_dir():
            raise InputError(f"The encoder {name!r} is no folder; give one, or minilm or backbone.")
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder).eval().requires_grad_(False)
        stack: Any = getattr(self._model, "encoder", None)
        if not hasattr(stack, "layer"):
            raise InputError(
                f"The layers of the encoder {name!r} cannot be found; BERT-like models are known."
            )
        self._all = stack.layer
        self.layers, self.width = len(self._all), int(self._model.config.hidden_size)
        self._loaded = True

    def _given(self, texts: Sequence[str]) -> Any:
        return self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._tokens,
            return_tensors="pt",
        )

    @torch.no_grad()
    def vectors(self, texts: Sequence[str], layer: int) -> Tensor:
        """See `ExitEncoder`."""
        made = torch.zeros(len(texts), self.width)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with self._lock:
            if not self._loaded:
                self._load()
            self._model.encoder.layer = self._all[:layer]
            try:
                for at in range(0, len(order), _BATCH):
                    part = order[at : at + _BATCH]
                    given = self._given([texts[i] for i in part])
                    states = self._model(**given).last_hidden_state
                    made[part] = _mean(states.float(), given["attention_mask"])
            finally:
                self._model.encoder.layer = self._all
        return made

    def lengths(self, texts: Sequence[str]) -> Tensor:
        """See `ExitEncoder`."""
        if not texts:
            return torch.zeros(0)
        with self._lock:
            if not self._loaded:
                self._load()
        found = self._tokenizer(list(texts), truncation=True, max_length=self._tokens)
        return torch.tensor([float(len(one)) for one in found["input_ids"]])


class BackboneExits:
    """The frozen backbone itself; its last layer counts as full depth."""

    def __init__(self, backbone: Backbone, tokens: int = 256) -> None:
        self._backbone, self._tokens = backbone, tokens
        self.layers, self.width = backbone.geometry.layers - 1, backbone.geometry.width

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [ids[: self._tokens] for ids in self._backbone.encode(texts)]

    @torch.no_grad()
    def vectors(self, texts: Sequence[str], layer: int) -> Tensor:
        """See `ExitEncoder`; the start token, whose state is enormous, does not count."""
        made = torch.zeros(len(texts), self.width)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for at in range(0, len(order), _BATCH):
            part = order[at : at + _BATCH]
            ids, mask = self._backbone.pad(self._ids([texts[i] for i in part]))
            states = self._backbone.states(ids, mask, layer).float()
            kept = mask.clone()
            kept[:, 0] = False
            made[part] = _mean(states, kept).cpu()
        return made

    def lengths(self, texts: Sequence[str]) -> Tensor:
        """See `ExitEncoder`."""
        return torch.tensor([float(len(ids)) for ids in self._ids(texts)])


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    weight = mask.to(states.dtype)[..., None]
    return (states * weight).sum(1) / weight.sum(1).clamp_min(1)


def exit_encoder(name: str, backbone: Backbone, tokens: int) -> ExitEncoder:
    """`backbone`, `minilm`, or the folder of a BERT-like sentence encoder."""
    if name == "backbone":
        return BackboneExits(backbone, tokens)
    return SentenceExits(name, tokens)
