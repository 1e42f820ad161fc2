"""The training loop: resumable after a kill, on one device or many.

Knows methods through their contract only, the plan of batches, and the run's folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from latentbank.adapter import save_adapter
from latentbank.backbone.encoder import FeatureCache, StateCache
from latentbank.backbone.packed import PackedAnswers, PackedLayers
from latentbank.backbone.processor import flushed_denormals
from latentbank.capabilities import Encoding, Trained
from latentbank.codec.quantizer import clear_moments
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.evaluation import evaluate
from latentbank.parts.batch import Batch, Loss
from latentbank.training.checkpoint import (
    check_same_run,
    has_checkpoint,
    load_checkpoint,
    read_checkpoint,
    recover,
    save_checkpoint,
)
from latentbank.training.config import TrainConfig
from latentbank.training.log import Progress, append_log, trim_log
from latentbank.training.plan import batches

# Settings that a resumed run may change.
_WITHOUT_EFFECT = frozenset(
    {"validate_every", "validation_documents", "validation_questions", "checkpoint_seconds"}
)
# Settings that decide the questions of each step; they identify the run.
_PLAN = (
    "documents_per_step", "questions_per_document", "neighbours", "distractors", "seed",
)  # fmt: skip


class _LossModule(nn.Module):
    """The trained parameters as one module, so that accelerate can average their gradients."""

    def __init__(self, method: Trained) -> None:
        super().__init__()
        self.method = method
        self.trained = nn.ParameterList(list(method.trainable().values()))

    def forward(self, batch: Batch) -> Loss:
        return self.method.loss(batch)


class Trainer:
    """Trains `method` into `folder`.

    `last/` is the checkpoint that resumes, `best/` the adapter with the best validation F1, and
    `log.jsonl` holds every report. `feature_cache` keeps the frozen layers' states: a folder, or a
    cache.

    With `packed` answers are computed by `PackedAnswers`, where method and backbone allow it.

    Raises:
        InputError: the method has nothing to train, or `folder` holds another run.
    """

    def __init__(
        self,
        method: Trained,
        data: QADataset,
        validation: QADataset | None,
        config: TrainConfig,
        folder: Path,
        card: dict[str, Any] | None = None,
        tensorboard: bool = False,
        feature_cache: Path | StateCache | None = None,
        packed: bool = True,
    ) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs

        if not method.trainable():
            raise InputError(f"method '{method.name}' has no parameters to train with this config")
        for parameter in method.trainable().values():  # small steps vanish in a bfloat16 weight
            parameter.data = parameter.data.float()
        self.method, self.data, self.validation = method, data, validation
        cache: StateCache | None = None
        if isinstance(feature_cache, Path):
            cache = FeatureCache(feature_cache, method.backbone.geometry.width)
        elif feature_cache is not None:
            cache = feature_cache
        if cache is not None and isinstance(method, Encoding):
            method.encoder.cache = cache
        if packed and method.trained_from is not None and PackedLayers.supports(method.backbone):
            method.packed = PackedAnswers(method.backbone, method.trained_from, cache)
        self.config, self.folder, self.card = config, folder, card or {}
        folder.mkdir(parents=True, exist_ok=True)
        # A step may give gradients to only some of the parameters.
        parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(
            cpu=method.backbone.device.type == "cpu", kwargs_handlers=[parallel]
        )
        if self.accelerator.is_main_process:
            recover(folder)
        self.accelerator.wait_for_everyone()
        torch.manual_seed(config.seed)
        self.step, self.presentations, self.best = 0, 0, -1.0
        self.seconds, self.cpu_seconds = 0.0, 0.0
        optimizer = self._start()
        if self.accelerator.is_main_process:
            trim_log(folder, self.step)
        self.module, self.optimizer = self.accelerator.prepare(_LossModule(method), optimizer)
        self._writer = self._tensorboard() if tensorboard else None

    def _start(self) -> torch.optim.Optimizer:
        """Prepares the method, or restores it from the checkpoint. Returns the optimiser."""
        method, config = self.method, self.config
        resumed = has_checkpoint(self.folder)
        saved = read_checkpoint(self.folder) if resumed else {}
        if resumed:
            self._check(saved)
        else:
            documents = [
                self.data.documents[i] for i in self._sample(len(self.data.documents), 512)
            ]
            questions = self._sample(len(self.data.questions), 2048)
            method.prepare(documents, [self.data.questions[i].text for i in questions])
        optimizer = torch.optim.AdamW(
            method.trainable().values(),
            config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        if resumed:
            load_checkpoint(self.folder, method, optimizer)
            self.step, self.best = saved["step"], saved["best"]
            self.presentations = saved["presentations"]
            self.seconds, self.cpu_seconds = saved["seconds"], saved["cpu_seconds"]
        return optimizer

    def _sample(self, size: int, count: int) -> list[int]:
        chosen = np.random.default_rng(self.config.seed).permutation(size)[:count]
        return [int(i) for i in chosen]

    def _tensorboard(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step + 1)

    # ---- checkpoints

    def _identity(self) -> dict[str, Any]:
        """What identifies the run, independent of the names of settings."""
        return {
            "method": self.method.name,
            "backbone": self.method.backbone.fingerprint,
            "data": self.data.hash,
            "train": {name: getattr(self.config, name) for name in _PLAN},
        }

    def _settings(self) -> dict[str, Any]:
        """Every setting that has an effect, as plain JSON values."""
        train = {
            name: value
            for name, value in asdict(self.config).items()
            if name not in _WITHOUT_EFFECT and name not in _PLAN
        }
        settings: dict[str, Any] = json.loads(
            json.dumps({"config": asdict(self.method.config), "train": train})
        )
        return settings

    def _check(self, saved: dict[str, Any]) -> None:
        """Raises InputError for another run.

        With schedule `decay`, `steps` and `decay_share` may change until the rate falls.
        """
        settings = self._settings()
        before = dict(saved["settings"].get("train", {}))
        if before.get("schedule") == self.config.schedule == "decay":
            share = before.get("decay_share", self.config.decay_share)
            falls = round((1 - share) * before.get("steps", 0))
            if saved["step"] <= min(falls, self.config.decay_start):
                for name in ("steps", "decay_share"):
                    settings["train"].pop(name, None)
        check_same_run(self.folder, saved, self._identity(), settings)

    def checkpoint(self) -> None:
        """Writes `last/`; see `save_checkpoint`."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "identity": self._identity(),
            "settings": self._settings(),
            "step": self.step,
            "presentations": self.presentations,
            "best": self.best,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }
        save_checkpoint(self.folder, self.method, self.optimizer, state, self._card())

    def _card(self, **more: Any) -> dict[str, Any]:
        """What an adapter's config keeps about its training."""
        return {
            **self.card,
            **more,
            "step": self.step,
            "presentations": self.presentations,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }

    # ---- the loop

    def run(
        self,
        report: Callable[[Progress], None] | None = None,
        max_seconds: float | None = None,
        until: int | None = None,
    ) -> None:
        """Trains to step `until` (default: the last) or for `max_seconds`, and saves."""
        with flushed_denormals():
            self._run(report, max_seconds, min(until or self.config.steps, self.config.steps))

    def _run(
        self, report: Callable[[Progress], None] | None, max_seconds: float | None, until: int
    ) -> None:
        began, saved, first = time.monotonic(), time.monotonic(), self.step
        world = self.accelerator.num_processes
        stream = batches(self.data, self.config, self.accelerator.process_index, world, self.step)
        self.method.train()
        while self.step < until:
            tick, work = time.monotonic(), time.process_time()
            batch = next(stream)
            loss = self._one_step(batch)
            self.step += 1
            self.presentations += world * len(batch.questions)
            worked = time.process_time() - work
            self.seconds += time.monotonic() - tick
            self.cpu_seconds += worked
            scores = None
            if self._validates():
                scores = self._validate()
            pace = (time.monotonic() - began) / (self.step - first)
            self._log(
                Progress(
                    step=self.step,
                    steps=self.config.steps,
                    loss=float(loss.total.detach()),
                    parts=dict(loss.parts),
                    seconds_left=pace * (self.config.steps - self.step),
                    validation=scores,
                    presentations=self.presentations,
                    cpu_seconds=round(worked, 3),
                ),
                report,
            )
            out_of_time = max_seconds is not None and time.monotonic() - began > max_seconds
            if time.monotonic() - saved > self.config.checkpoint_seconds or out_of_time:
                self.checkpoint()
                saved = time.monotonic()
            if out_of_time:
                return
        self.checkpoint()

    def _one_step(self, batch: Batch) -> Loss:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self.config.rate(self.step)
        self.optimizer.zero_grad()
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)  # a resumed step draws equally
        loss: Loss = self.module(batch)
        if not torch.isfinite(loss.total):
            raise InputError(f"the loss is not finite at step {self.step}; lower the learning rate")
        self.accelerator.backward(loss.total)
        trained = [p for p in self.method.trainable().values() if p.grad is not None]
        self.accelerator.clip_grad_norm_(trained, self.config.clip)
        self.optimizer.step()
        for weight, rows in self.method.after_step(batch):
            clear_moments(lambda p: self.optimizer.state.get(p, {}), weight, rows)
        return loss

    def _validates(self) -> bool:
        """Whether a validation follows this step; none does at `validate_every` 0."""
        every = self.config.validate_every
        return every > 0 and (self.step % every == 0 or self.step == self.config.steps)

    def _validate(self) -> dict[str, float] | None:
        """Scores on the validation sample; keeps the adapter in `best/` where F1 is the highest."""
        if self.validation is None or not self.accelerator.is_main_process:
            return None
        self.method.train(False)
        small = self.validation.take(documents=self.config.validation_documents)
        small = small.sample_questions(self.config.validation_questions, self.config.seed)
        scores = evaluate(self.method, small, gold=True).summary()
        self.method.train()
        if scores["f1"] > self.best:
            self.best = scores["f1"]
            save_adapter(self.folder / "best", self.method, self._card(validation=scores))
        return scores

    def _log(self, progress: Progress, report: Callable[[Progress], None] | None) -> None:
        if not self.accelerator.is_main_process:
            return
        append_log(self.folder, asdict(progress))
        if self._writer is not None:
            for name, value in {"loss": progress.loss, **progress.parts}.items():
                self._writer.add_scalar(name, value, progress.step)
            for name, value in (progress.validation or {}).items():
                self._writer.add_scalar(f"validation/{name}", value, progress.step)
        if report is not None:
            report(progress)
