"""Meta-training of a method's parameters: resumable after a kill, on one device or many.

Knows methods through their contract only, data as questions about documents, and files.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from latentbank.adapter import save_adapter
from latentbank.backbone.denormals import flushed_denormals
from latentbank.backbone.encoder import FeatureCache
from latentbank.codec.quantizer import clear_moments
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.evaluation import evaluate
from latentbank.method import Batch, Loss, Method
from latentbank.training_log import append_log, trim_log

# settings that a resumed run may change
_WITHOUT_EFFECT = (
    "validate_every",
    "validation_documents",
    "validation_questions",
    "checkpoint_seconds",
)


@dataclass(frozen=True)
class TrainConfig:
    """`documents_per_step` × up to `questions_per_document` questions make a step on all devices.
    Documents come in runs of `neighbours` that follow each other in the data: of one article, they
    are harder to tell apart than documents drawn at random.

    Learning rate: `warmup` steps up, then a cosine down to a tenth at `steps`, or constant.
    """

    steps: int = 1000
    documents_per_step: int = 8
    questions_per_document: int = 5
    neighbours: int = 1
    learning_rate: float = 1e-3
    warmup: int = 20
    schedule: str = "cosine"
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    validate_every: int = 250
    validation_documents: int = 150
    validation_questions: int = 200
    checkpoint_seconds: float = 180.0

    def __post_init__(self) -> None:
        counts = ("steps", "documents_per_step", "questions_per_document", "neighbours")
        for name in counts:
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.schedule not in ("cosine", "constant"):
            raise InputError(f"schedule must be cosine or constant, got {self.schedule!r}")

    def rate(self, step: int) -> float:
        """The factor on the learning rate at `step`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.schedule == "constant":
            return 1.0
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, share)))


@dataclass(frozen=True)
class Progress:
    """What the trainer reports after each step; `seconds_left` is an estimate."""

    step: int
    steps: int
    loss: float
    parts: dict[str, float]
    seconds_left: float
    validation: dict[str, float] | None = None


def batches(data: QADataset, config: TrainConfig, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """Endless steps; step i is the same in every run of one seed, so that a run can resume at i."""
    of_document = data.questions_by_document()
    usable = [i for i, questions in enumerate(of_document) if questions]
    if not usable:
        raise InputError(f"the data {data.name} has no questions to train on")
    per_step = min(config.documents_per_step, len(usable))
    run = min(config.neighbours, per_step)
    per_epoch = max(1, len(usable) // run // (per_step // run))
    step = 0
    plan: list[list[int]] = []
    while True:
        epoch, within = divmod(step, per_epoch)
        if within == 0 or not plan:
            plan = _epoch_plan(data, usable, per_step // run, run, config.seed, epoch)
        draw = np.random.default_rng([config.seed, 1, step])
        chosen = plan[within][rank::world]
        questions = [
            (at, int(q))
            for at, document in enumerate(chosen)
            for q in draw.permutation(of_document[document])[: config.questions_per_document]
        ]
        yield Batch(
            documents=tuple(data.documents[i] for i in chosen),
            questions=tuple(data.questions[q].text for _, q in questions),
            answers=tuple(data.questions[q].answers[0] for _, q in questions),
            owner=tuple(at for at, _ in questions),
            step=step,
        )
        step += 1


def _epoch_plan(
    data: QADataset, usable: Sequence[int], runs: int, run: int, seed: int, epoch: int
) -> list[list[int]]:
    """The documents of each step of an epoch: `runs` runs of `run` neighbours, of like length since
    padding costs as much as text.
    """
    draw = np.random.default_rng([seed, epoch])
    turned = np.roll(usable, draw.integers(run)) if run > 1 else np.asarray(usable)
    whole = turned[: len(turned) // run * run].reshape(-1, run)
    order = whole[draw.permutation(len(whole))].tolist()
    lengths = [len(document.text) for document in data.documents]
    plan: list[list[int]] = []
    for at in range(0, len(order), 32 * runs):
        pool = sorted(order[at : at + 32 * runs], key=lambda part: sum(lengths[i] for i in part))
        steps = [pool[i : i + runs] for i in range(0, len(pool), runs)]
        for i in draw.permutation(len(steps)):
            if len(steps[i]) == runs:
                plan.append([document for part in steps[i] for document in part])
    return plan


class _LossModule(nn.Module):
    """The trained parameters as one module, so that accelerate can share their gradients."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.trained = nn.ParameterList(list(method.trainable().values()))

    def forward(self, batch: Batch) -> Loss:
        return self.method.loss(batch)


class Trainer:
    """Trains `method` into `folder`: `last/` resumes, `best/` is the adapter with the best
    validation F1, `log.jsonl` holds every report.

    Raises:
        InputError: the method has nothing to train, or `folder` holds another run.
    """

    def __init__(
        self,
        method: Method,
        data: QADataset,
        validation: QADataset | None,
        config: TrainConfig,
        folder: Path,
        card: dict[str, Any] | None = None,
        tensorboard: bool = False,
        feature_cache: Path | None = None,
    ) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs

        if not method.trainable():
            raise InputError(f"method '{method.name}' has no parameters to train with this config")
        self.method, self.data, self.validation = method, data, validation
        if feature_cache is not None and method.encoder is not None:
            width = method.backbone.geometry.width
            method.encoder.cache = FeatureCache(feature_cache, width)
        self.config, self.folder, self.card = config, folder, card or {}
        folder.mkdir(parents=True, exist_ok=True)
        # a step may train some of the parameters only
        parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(
            cpu=method.backbone.device.type == "cpu", kwargs_handlers=[parallel]
        )
        self._recover()
        torch.manual_seed(config.seed)
        self.step, self.best, self.seconds = 0, -1.0, 0.0
        resumed = (folder / "last" / "trainer.json").exists()
        if not resumed:
            asked = self._sample(len(data.questions), 2048)
            method.prepare(
                [data.documents[i] for i in self._sample(len(data.documents), 512)],
                [data.questions[i].text for i in asked],
            )
        optimizer = torch.optim.AdamW(
            method.trainable().values(), config.learning_rate, weight_decay=config.weight_decay
        )
        if resumed:
            self._resume(optimizer)
        if self.accelerator.is_main_process:
            trim_log(folder, self.step)
        self.module, self.optimizer = self.accelerator.prepare(_LossModule(method), optimizer)
        self._writer = self._tensorboard() if tensorboard else None

    def _sample(self, size: int, count: int) -> list[int]:
        chosen = np.random.default_rng(self.config.seed).permutation(size)[:count]
        return [int(i) for i in chosen]

    def _tensorboard(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step + 1)

    # ---- checkpoints

    def _identity(self) -> dict[str, Any]:
        return {
            "method": self.method.name,
            "config": json.loads(json.dumps(asdict(self.method.config))),
            "backbone": self.method.backbone.fingerprint,
            "data": self.data.hash,
            "train": {k: v for k, v in asdict(self.config).items() if k not in _WITHOUT_EFFECT},
        }

    def _recover(self) -> None:
        """Takes up a checkpoint whose two renames a kill came between: then there is no `last`."""
        last = self.folder / "last"
        if self.accelerator.is_main_process:
            for name in ("last.new", "last.old"):
                if not last.exists() and (self.folder / name / "trainer.json").exists():
                    os.replace(self.folder / name, last)
        self.accelerator.wait_for_everyone()

    def _resume(self, optimizer: torch.optim.Optimizer) -> None:
        last = self.folder / "last"
        saved = json.loads((last / "trainer.json").read_text())
        own = self._identity()
        recorded = saved["identity"].get("train", {})  # older runs recorded fewer settings
        own["train"] = {k: v for k, v in own["train"].items() if k in recorded}
        if saved["identity"] != own:
            differing = [k for k, v in own.items() if saved["identity"].get(k) != v]
            raise InputError(
                f"{self.folder} holds another run (different {', '.join(differing)}); "
                "name another output folder or delete it"
            )
        self.method.load_state(load_file(str(last / "adapter.safetensors")))
        if (last / "method.safetensors").exists():
            self.method.load_training_state(load_file(str(last / "method.safetensors")))
        optimizer.load_state_dict(torch.load(last / "optimizer.pt", weights_only=True))
        self.step, self.best, self.seconds = saved["step"], saved["best"], saved["seconds"]

    def checkpoint(self) -> None:
        """Writes `last/` beside the old one and swaps: a kill leaves one whole checkpoint."""
        if not self.accelerator.is_main_process:
            return
        fresh, last = self.folder / "last.new", self.folder / "last"
        shutil.rmtree(fresh, ignore_errors=True)
        save_adapter(fresh, self.method, self.card)
        save_file(
            {k: v.contiguous() for k, v in self.method.training_state().items()},
            str(fresh / "method.safetensors"),
        )
        torch.save(self.optimizer.state_dict(), fresh / "optimizer.pt")
        state = {
            "identity": self._identity(),
            "step": self.step,
            "best": self.best,
            "seconds": self.seconds,
        }
        (fresh / "trainer.json").write_text(json.dumps(state, indent=1))
        if last.exists():
            old = self.folder / "last.old"
            shutil.rmtree(old, ignore_errors=True)
            os.replace(last, old)
        os.replace(fresh, last)
        shutil.rmtree(self.folder / "last.old", ignore_errors=True)

    # ---- the loop

    def run(
        self, report: Callable[[Progress], None] | None = None, max_seconds: float | None = None
    ) -> None:
        """Trains to the last step, or for `max_seconds` of this call; saves and returns."""
        with flushed_denormals():
            self._run(report, max_seconds)

    def _run(self, report: Callable[[Progress], None] | None, max_seconds: float | None) -> None:
        began, saved, first = time.monotonic(), time.monotonic(), self.step
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        stream = batches(self.data, self.config, rank, world)
        for _ in range(self.step):
            next(stream)
        self.method.train()
        while self.step < self.config.steps:
            tick = time.monotonic()
            loss = self._one_step(next(stream))
            self.step += 1
            self.seconds += time.monotonic() - tick
            scores = None
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                scores = self._validate()
            pace = (time.monotonic() - began) / (self.step - first)
            left = pace * (self.config.steps - self.step)
            self._log(
                Progress(
                    self.step,
                    self.config.steps,
                    float(loss.total.detach()),
                    dict(loss.parts),
                    left,
                    scores,
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
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)  # a resumed step draws the same
        loss: Loss = self.module(batch)
        if not torch.isfinite(loss.total):
            raise InputError(f"the loss is not finite at step {self.step}; lower the learning rate")
        self.accelerator.backward(loss.total)
        trained = [p for p in self.method.trainable().values() if p.grad is not None]
        self.accelerator.clip_grad_norm_(trained, self.config.clip)
        self.optimizer.step()
        self.method.after_step(batch)
        for weight, rows in self.method.replaced_rows:
            clear_moments(lambda p: self.optimizer.state.get(p, {}), weight, rows)
        return loss

    def _validate(self) -> dict[str, float] | None:
        if self.validation is None or not self.accelerator.is_main_process:
            return None
        self.method.train(False)
        small = self.validation.take(documents=self.config.validation_documents)
        small = small.sample_questions(self.config.validation_questions, self.config.seed)
        scores = evaluate(self.method, small, gold=True).summary()
        self.method.train()
        if scores["f1"] > self.best:
            self.best = scores["f1"]
            card = {**self.card, "validation": scores, "step": self.step, "seconds": self.seconds}
            save_adapter(self.folder / "best", self.method, card)
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
