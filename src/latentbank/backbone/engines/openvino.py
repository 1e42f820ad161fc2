"""Runs a Llama's layers with OpenVINO on the CPU: weights of 8 bits, no Python between layers.

Knows states, masks, caches and low-rank weights by name; knows no text and no method.
"""

from __future__ import annotations

import hashlib
import itertools
import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentbank.backbone.engines.graph import head_graph, layers_graph
from latentbank.backbone.kv import StackedCache

__all__ = ["OpenVinoEngine"]


OPTIONS = {
    "INFERENCE_PRECISION_HINT": "f32",
    "NUM_STREAMS": "1",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "64",
}


class OpenVinoEngine:
    """The layers of a `QuickLlama`, compiled in segments on first use.

    `folder` keeps compiled segments for the next process; None keeps none. `key` names the weights
    of the model there.
    """

    name = "openvino"

    def __init__(self, model: Any, folder: Path | None = None, key: str = "") -> None:
        import openvino

        self._model, self._folder, self._key = model, folder, key
        self._core = openvino.Core()
        self._updates: tuple[str, ...] = ()
        self._changing: list[Tensor] = []
        self._stamp = 0
        self._requests: dict[tuple[int, int], Any] = {}
        self._head: Any = None
        self._cuts: set[int] = {0, model.config.num_hidden_layers}

    def new_cache(self, first: int, last: int) -> StackedCache:
        """An empty cache for the layers first … last-1."""
        config = self._model.config
        return StackedCache(first, last, config.num_key_value_heads, config.head_dim)

    def take_updates(self, names: Sequence[str]) -> None:
        """Takes the low-rank weights `names` that the model's projections have now."""
        if tuple(names) != self._updates:
            self._updates = tuple(names)
            self._changing = [one for name, one in self._model.named_parameters() if _added(name)]
            self._stamp = -1
        stamp = sum(one._version for one in self._changing)
        if stamp != self._stamp:  # loaded or trained since
            self._stamp = stamp
            self._requests.clear()

    def run(
        self,
        first: int,
        last: int,
        hidden: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: StackedCache,
        active: str | None,
    ) -> Tensor:
        """States [B, T, D] after layers first … last-1 with the low-rank weights `active`.

        `hidden` [B, T, D]; `positions` [B, T]; `mask` [B, 1, T, K + T] is added to the scores, K
        being what `cache` holds; `cache` is extended.
        """
        batch, length = positions.shape
        body = self._model.model
        angles = positions[..., None].float() * body.frequencies
        sine = angles.sin()
        cosine = angles.cos().repeat(1, 1, 2)[:, None].contiguous()
        sine = torch.cat((-sine, sine), -1)[:, None].contiguous()
        cache.reserve(batch, length)
        gap = cache.capacity - cache.length
        old, new = torch.split(mask.float(), [cache.length, length], -1)
        unused = old.new_full((*old.shape[:3], gap), torch.finfo(torch.float32).min)
        shared = [hidden.float().contiguous(), cosine, sine, torch.cat((old, unused, new), -1)]
        gates = torch.tensor([float(name == active) for name in self._updates])
        gates = gates.expand(batch, 1, -1).contiguous()
        states = shared[0]
        for start, end in self._segments(first, last):
            request = self._request(start, end)
            pasts = cache.buffer[start - cache.first : end - cache.first]
            gated = request.inputs > len(shared) + end - start
            given = [states, *shared[1:], *([gates] if gated else []), *pasts]
            states, made = request(given)
            cache.put(made, start)
        cache.length += length
        after: Tensor = states
        return after

    def logits(self, states: Tensor) -> Tensor:
        """Vocabulary logits [..., V], float32, of final states [..., D]."""
        if self._head is None:
            self._head = self._compiled("head", lambda: head_graph(self._model))
        flat = states.reshape(-1, states.shape[-1]).float().contiguous()
        found: Tensor = self._head([flat])[0]
        return found.view(*states.shape[:-1], -1)

    # ---- segments

    def _segments(self, first: int, last: int) -> list[tuple[int, int]]:
        """The compiled segments that make up first … last-1; new ends cut those that are there."""
        if not {first, last} <= self._cuts:
            self._cuts |= {first, last}
            inside = [(a, b) for a, b in self._requests if a < first < b or a < last < b]
            for one in inside:
                del self._requests[one]
        places = sorted(cut for cut in self._cuts if first <= cut <= last)
        return list(itertools.pairwise(places))

    def _request(self, first: int, last: int) -> _Request:
        if (first, last) not in self._requests:
            self._requests[first, last] = self._compiled(
                f"layers{first}-{last}",
                lambda: layers_graph(self._model, first, last, self._updates),
            )
        found: _Request = self._requests[first, last]
        return found

    def _compiled(self, part: str, make: Any) -> _Request:
        import openvino

        options = {**OPTIONS, "INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
        file = self._file(part, options)
        if file is not None and file.exists():
            try:  # mapped, not read: half of the memory
                mapped = np.memmap(file, np.uint8, "c")
                blob = openvino.Tensor(mapped, shared_memory=True)
                return _Request(self._core.import_model(blob, "CPU", options), (mapped, blob))
            except (RuntimeError, ValueError):  # of another version, or damaged: compiled again
                file.unlink(missing_ok=True)
        compiled = self._core.compile_model(make(), "CPU", options)
        if file is not None:
            _keep(file, compiled)
        return _Request(compiled)

    def _file(self, part: str, options: dict[str, str]) -> Path | None:
        """Where a compiled part is kept: by the weights, the low-rank weights and the library."""
        if self._folder is None:
            return None
        import openvino

        digest = hashlib.blake2b(digest_size=12)
        digest.update(repr((self._key, part, sorted(options.items()))).encode())
        digest.update(openvino.get_version().encode())
        digest.update(str(self._core.get_property("CPU", "FULL_DEVICE_NAME")).encode())
        if part != "head":
            order = {name: str(place) for place, name in enumerate(self._updates)}
            for name, weight in sorted(self._model.named_parameters()):
                if _added(name):
                    path, _, last = name.removesuffix(".weight").rpartition(".")
                    digest.update(f"{path}.{order.get(last)}".encode())
                    digest.update(weight.detach().float().contiguous().numpy().tobytes())
        return self._folder / f"{digest.hexdigest()}-{part}.blob"


class _Request:
    """One compiled graph and its inference request; tensors go in and out without a copy."""

    def __init__(self, compiled: Any, read_from: tuple[Any, Any] | None = None) -> None:
        """`read_from`: the mapped file that the graph was read from, and its tensor."""
        self._read_from, self._first = read_from, True
        self._request = compiled.create_infer_request()
        self.inputs = len(compiled.inputs)
        self._held: list[Any] = []

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of float32 `tensors`; they are copies."""
        import openvino

        held = [openvino.Tensor(one.numpy(), shared_memory=True) for one in tensors]
        for place, one in enumerate(held):
            self._request.set_input_tensor(place, one)
        self._held = held  # until the next call: the request reads them where they are
        self._request.infer()
        if self._first and self._read_from is not None:
            _forget_pages(self._read_from[0])  # the weights are packed now
        self._first = False
        return [torch.from_numpy(one.data.copy()) for one in self._request.output_tensors]


def _added(name: str) -> bool:
    """Whether a weight of this name belongs to a low-rank update."""
    return ".lora_" in name


def _forget_pages(mapped: Any) -> None:
    """Gives back the pages of a mapped file; those that are needed are read again."""
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped._mmap.madvise(mmap.MADV_DONTNEED)


def _keep(file: Path, compiled: Any) -> None:
    """Writes a compiled graph, at once or not at all; a full disk is no error."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "wb") as target:
            target.write(compiled.export_model().getvalue())
        Path(name).replace(file)
    except OSError:
        return
