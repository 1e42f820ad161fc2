"""The models of a server: each backbone once, seen twice, and banks opened on it.

A backbone computes for one thread at a time. So answers run on one view of it and writes on
another, which shares the weights: a question never waits for a write. Knows methods through their
contract; knows no tenants.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from latentbank.adapter import (
    bank_fingerprint,
    load_method,
    new_bank,
    normalised_overrides,
    packaged_adapters,
    place_of,
)
from latentbank.backbone.hub import PACKAGED
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.backbone.processor import quickest_threads
from latentbank.bank import AppendReport, MemoryBank
from latentbank.capabilities import Trained
from latentbank.errors import BankError, unknown
from latentbank.method import METHODS, Method
from latentbank.model import MemoryModel
from latentbank.server.failures import Stopped
from latentbank.server.settings import Settings

__all__ = ["Engine", "ServedBackbone", "ServedModel", "WatchedBank"]

_SEVERAL = 4  # questions at once from which on more threads may pay


class ServedBackbone(Backbone):
    """A backbone whose work can be given up between two steps of generation."""

    stop: Callable[[], bool] | None = None
    threads: tuple[int, int] | None = None  # of torch, for a question and for several at once

    def take_threads(self, questions: int) -> None:
        """The calling thread computes with as many threads as so many questions want."""
        if self.threads is not None:
            torch.set_num_threads(self.threads[questions >= _SEVERAL])

    def settle(self) -> None:
        """Measures how many threads PyTorch is quickest with, unless the operator has set it."""
        if self.engine is None and "OMP_NUM_THREADS" not in os.environ:
            one = quickest_threads(lambda: _usual_work(self, 1))
            self.threads = one, quickest_threads(lambda: _usual_work(self, 2 * _SEVERAL))

    def run(self, *args: Any, **options: Any) -> Any:
        """See `Backbone.run`. Raises Stopped where `stop` says so."""
        if self.stop is not None and self.stop():
            raise Stopped
        return super().run(*args, **options)

    @contextmanager
    def until(self, stop: Callable[[], bool]) -> Iterator[None]:
        """Inside the block the work ends as soon as `stop` is true."""
        self.stop = stop
        try:
            yield
        finally:
            self.stop = None

    @classmethod
    def of(cls, loaded: Backbone) -> ServedBackbone:
        """The same model."""
        view = cls(loaded.model, loaded.tokenizer, loaded.name)
        view.engine = loaded.engine
        return view

    def second(self) -> ServedBackbone:
        """Another view of the weights with a lock and attachments of its own."""
        kept = chain(self.model.parameters(), self.model.buffers())
        model = copy.deepcopy(self.model, {id(tensor): tensor for tensor in kept})
        view = ServedBackbone(model, copy.deepcopy(self.tokenizer), self.name)
        view._fingerprint = self.fingerprint
        return view


@torch.no_grad()
def _usual_work(backbone: Backbone, questions: int) -> None:
    """About the work of a question: a document, the question twice, an answer.

    Of several at once, without documents: as if they had been read before.
    """
    limit = backbone.geometry.max_positions
    lengths = (24, 24, 1, 1, 1) if questions > 1 else (128, 24, 24, 1, 1, 1)
    for length in (min(length, limit) for length in lengths):
        ids = torch.full((questions, length), backbone.start_id, device=backbone.device)
        hidden = backbone.session(questions).feed(ids, torch.ones_like(ids, dtype=torch.bool))
        backbone.logits(hidden[:, -1:])


class WatchedBank(MemoryBank):
    """A bank that keeps the reports of what was appended, for the caller to take."""

    def append(self, *args: Any, **options: Any) -> AppendReport:
        """See `MemoryBank.append`."""
        report = super().append(*args, **options)
        self.taken.append(report)
        return report

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self.taken: list[AppendReport] = []


class ServedModel(MemoryModel):
    """A model that can be taken off its backbone again."""

    def forget_adapter(self) -> None:
        """Takes the method's low-rank weights off the backbone; the model is not used again."""
        if isinstance(self.method, Trained):
            with self.backbone.exclusive():
                for weights in (self.method.lora, self.method.closed_lora):
                    if weights is not None:
                        weights.remove(self.backbone)


class Engine:
    """Loads backbones and opens banks on them."""

    def __init__(self, settings: Settings, loaded: Backbone | None = None) -> None:
        """`loaded`: a backbone that is there already, for the settings' own name."""
        self._settings = settings
        self._views: dict[str, tuple[ServedBackbone, ServedBackbone]] = {}
        self._lock = threading.Lock()
        self.backbone_name = place_of(settings.backbone, PACKAGED)
        if loaded is not None:
            self._add(self.backbone_name, loaded)

    def _add(self, spec: str, loaded: Backbone) -> None:
        reading = ServedBackbone.of(loaded)
        self._views[spec] = (reading, reading.second())
        reading.settle()

    def views(self, spec: str | None = None) -> tuple[ServedBackbone, ServedBackbone]:
        """(view that answers, view that writes) of a backbone, loaded on first use."""
        spec = spec or self.backbone_name
        with self._lock:
            if spec not in self._views:
                given = self._settings
                self._add(
                    spec,
                    load_backbone(
                        spec, given.dtype, given.device, None, quick=True, engine=given.engine
                    ),
                )
            return self._views[spec]

    def plain(self) -> ServedModel:
        """The settings' backbone with its adapter and an empty bank: the closed book."""
        return ServedModel(self._method(self._settings.adapter, self.views()[0], {}))

    def open(self, path: Path, writing: bool) -> ServedModel:
        """The model of a bank with the adapter and backbone that the bank names.

        Raises:
            BankError: no bank there, or a damaged one.
            FingerprintError: another adapter lies where the bank's did.
        """
        with MemoryBank.open(path, read_only=True) as existing:
            adapter, spec = existing.get_meta("adapter"), existing.get_meta("backbone")
            values, stored = normalised_overrides(existing), existing.fingerprint
        if not isinstance(adapter, str) or not isinstance(spec, str):
            raise BankError(f"The bank {path.name} does not name its adapter and model.")
        method = self._method(adapter, self.views(spec)[int(writing)], values)
        expected = bank_fingerprint(method, stored)
        kind = WatchedBank if writing else MemoryBank
        return ServedModel(method, kind.open(path, expected, read_only=not writing))

    def create(
        self, path: Path, adapter: str | None, budget_bytes: int | None, **kept: str
    ) -> None:
        """Makes an empty bank; `kept`: `ledger` and `policy`.

        Raises:
            UnknownNameError: no such method or packaged adapter.
            InputError: the budget is too small.
        """
        chosen = adapter or self._settings.adapter
        known = {*METHODS.names(), *packaged_adapters()}
        if adapter is not None and adapter not in known:
            raise unknown("method", adapter, known)
        method = self._method(chosen, self.views()[1], {})
        meta = {
            "adapter": place_of(chosen, known),
            "backbone": self.backbone_name,
            "overrides": {},
        }
        new_bank(path, method, meta, budget_bytes, **kept).close()
        ServedModel(method).forget_adapter()

    def _method(self, adapter: str, view: ServedBackbone, values: dict[str, Any]) -> Method:
        with view.exclusive():  # it may put low-rank weights on the layers
            return load_method(adapter, view, overrides=values)
