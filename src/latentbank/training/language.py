"""Training of a small causal language model on token ids: resumable, one number per seed.

Knows a Hugging Face model, a function that draws batches, and the run's folder.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentbank.backbone.processor import flushed_denormals
from latentbank.config import require_at_least, setting
from latentbank.errors import InputError
from latentbank.parts.memory_lm.written import Written
from latentbank.training.log import append_log, trim_log

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")

Draw = Callable[[int], tuple[Tensor, Tensor]]
"""Step → (ids [B, T], labels [B, T]); a label belongs to its own position, -100 is ignored."""


@dataclass(frozen=True)
class LanguageConfig:
    """How a language model is trained."""

    steps: int = setting(1000, "Optimiser steps.")
    learning_rate: float = setting(3e-3, "Largest rate of AdamW.")
    warmup: int = setting(50, "Steps to the largest rate; then it falls linearly to a tenth.")
    weight_decay: float = setting(0.01, "Of AdamW.")
    clip: float = setting(1.0, "Largest norm of the gradient.")
    write_cost: float = setting(0.0, "Weight of what a memory writes, beside the loss.")
    seed: int = setting(0, "Of the model's start.")
    checkpoint_seconds: float = setting(60.0, "Between two checkpoints.")

    def __post_init__(self) -> None:
        require_at_least(self, 1, "steps")
        require_at_least(self, 0, "write_cost")

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        rising = (step + 1) / max(1, self.warmup)
        falling = 1 - 0.9 * step / self.steps
        return self.learning_rate * min(1.0, rising) * falling


class LanguageTrainer:
    """Trains `model` into `folder`, and goes on from a checkpoint that is there.

    Raises:
        InputError: `folder` holds another run.
    """

    def __init__(
        self, model: Any, draw: Draw, config: LanguageConfig, folder: Path, data: str = ""
    ) -> None:
        self.model, self.draw, self.config, self.folder = model, draw, config, folder
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self.identity = json.loads(
            json.dumps({"model": _sizes(model), "train": asdict(config), "data": data})
        )
        self.identity["train"].pop("checkpoint_seconds")
        self.optimizer = torch.optim.AdamW(
            model.parameters(), config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay
        )
        if (folder / "last.safetensors").exists():
            self._resume()
        trim_log(folder, self.step)

    def run(self, max_seconds: float | None = None) -> bool:
        """Trains to the last step or for `max_seconds` and saves; returns whether it is done."""
        began = saved = time.monotonic()
        self.model.train()
        with flushed_denormals():
            while self.step < self.config.steps:
                tick = time.monotonic()
                loss = self._one_step()
                self.seconds += time.monotonic() - tick
                if self.step % 20 == 0 or self.step == self.config.steps:
                    row = {"step": self.step, "loss": round(loss, 5), "tokens": self.tokens}
                    append_log(self.folder, row)
                now = time.monotonic()
                late = max_seconds is not None and now - began > max_seconds
                if late or now - saved > self.config.checkpoint_seconds:
                    self._save()
                    saved = now
                if late:
                    break
        self._save()
        self.model.train(False)
        return self.step >= self.config.steps

    def _one_step(self) -> float:
        ids, labels = self.draw(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.step)
        self.optimizer.zero_grad()
        with Written(self.model) as written:
            logits = self.model(ids).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        if not torch.isfinite(loss):
            raise InputError(f"the loss is not finite at step {self.step}; lower the learning rate")
        cost = written.cost() if self.config.write_cost else None
        whole = loss if cost is None else loss + self.config.write_cost * cost
        whole.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.step += 1
        self.tokens += ids.numel()
        return float(loss.detach())

    # ---- checkpoints

    def _save(self) -> None:
        tensors = {f"model.{k}": v for k, v in self._weights().items()}
        for name, parameter in self.model.named_parameters():
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"{m}.{name}": moments[m] for m in _MOMENTS if m in moments}
        counters = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds}
        fresh = self.folder / "last.new"
        save_file(
            {k: v.detach().contiguous() for k, v in tensors.items()},
            str(fresh),
            {"identity": json.dumps(self.identity), "counters": json.dumps(counters)},
        )
        os.replace(fresh, self.folder / "last.safetensors")

    def _weights(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters())

    def _resume(self) -> None:
        path = self.folder / "last.safetensors"
        identity, counters = read_header(path)
        if identity != self.identity:
            raise InputError(
                f"{self.folder} holds a run with other settings or data; name another folder"
            )
        tensors = load_file(str(path))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model.{name}"])
                moments = {m: tensors.get(f"{m}.{name}") for m in _MOMENTS}
                if all(v is not None for v in moments.values()):
                    self.optimizer.state[parameter] = moments
        self.step, self.tokens = counters["step"], counters["tokens"]
        self.seconds = counters["seconds"]


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what identifies the run, its counters) of a checkpoint."""
    from safetensors import safe_open

    with safe_open(str(path), "pt") as opened:
        header: Mapping[str, str] = opened.metadata()
    return json.loads(header["identity"]), json.loads(header["counters"])


def _sizes(model: Any) -> dict[str, Any]:
    """The model's own settings, without those of the library's version."""
    values: dict[str, Any] = model.config.to_diff_dict()
    return {k: v for k, v in values.items() if k not in ("transformers_version", "dtype")}
