"""`latentbank train`: meta-trains a method's parameters on question-answer data, resumably.

The same command line continues a run that was stopped; the adapter ends up in OUT/adapter.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.cli.common import (
    Interrupts,
    count,
    interrupts,
    merge,
    notice,
    parse_pairs,
    print_json,
    progress_bar,
    quiet_libraries,
)
from latentbank.cli.failures import Interrupted
from latentbank.cli.options import Device, Dtype, Json
from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.backbone.model import Backbone
    from latentbank.capabilities import Trained
    from latentbank.evaluate.data import QADataset
    from latentbank.training import Progress, TrainConfig, Trainer


Name = Annotated[str, typer.Option("--method", "-m", help="Method to train.")]
Data = Annotated[
    str | None,
    typer.Option(metavar="PATH[:SPLIT]", help="Folder of SQuAD, jsonl, csv, hf:name:split."),
]
Text = Annotated[
    str | None,
    typer.Option("--from-text", metavar="PATH", help="Plain text; questions are made from it."),
]
Distil = Annotated[
    str | None,
    typer.Option(
        "--distil",
        metavar="CORPUS",
        help="Plain text; the model itself asks, answers, summarises and rewrites it.",
    ),
]
Out = Annotated[str, typer.Option("--out", metavar="FOLDER", help="Where the run is kept.")]
Model = Annotated[str, typer.Option(help="Model: packaged, folder, .gguf or hub id.")]
ValData = Annotated[
    str | None, typer.Option(metavar="PATH[:SPLIT]", help="Validation data (default: --data).")
]
Preset = Annotated[
    str | None, typer.Option(help="Preset (default: the one named after the model, if any).")
]
Config = Annotated[
    list[str] | None,
    typer.Option("--config", "-c", metavar="KEY=VALUE", help="Method setting: lora.rank=8."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--trainer", metavar="KEY=VALUE", help="Other setting: validate_every=100."),
]
Minutes = Annotated[
    float | None, typer.Option(min=0.0, help="Stop this call after so long; run it again.")
]
Cache = Annotated[
    str | None, typer.Option(metavar="DIR", help="Keep the frozen layers' states on disk.")
]
Start = Annotated[
    str | None, typer.Option(metavar="ADAPTER", help="Start from another adapter's tensors.")
]


def train(
    method: Name,
    out: Out,
    data: Data = None,
    from_text: Text = None,
    distil: Distil = None,
    backbone: Model = "smollm2-135m",
    split: Annotated[str | None, typer.Option(help="Split of --data to train on.")] = None,
    val_data: ValData = None,
    val_split: Annotated[str | None, typer.Option(help="Split to validate on.")] = None,
    preset: Preset = None,
    config: Config = None,
    trainer: Settings = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps in all.")] = None,
    documents_per_step: Annotated[
        int | None, typer.Option(min=1, help="Documents in one step.")
    ] = None,
    questions_per_document: Annotated[
        int | None, typer.Option(min=1, help="Questions asked about each of them.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Largest step size of the optimiser.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the first weights and of the data's order.")
    ] = None,
    max_minutes: Minutes = None,
    feature_cache: Cache = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log to OUT/tensorboard.")] = (
        False
    ),
    init_from: Start = None,
    half: Annotated[bool, typer.Option("--half/--full", help="Export float16 or float32.")] = True,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:
    """Train a method's parameters; run the same command again to resume."""
    chosen = {
        "steps": steps,
        "documents_per_step": documents_per_step,
        "questions_per_document": questions_per_document,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    changes = {name: value for name, value in chosen.items() if value is not None}
    job = Job(method, backbone, preset, parse_pairs(config), {**parse_pairs(trainer), **changes})
    settings = job.train_config()
    if distil is None:
        job.check_data(data, from_text, split, val_data, val_split)
    elif data is not None or from_text is not None:
        raise InputError("--distil makes its own data; leave --data and --from-text out.")
    else:
        job.distil(distil, Path(out), settings.seed, job.load(device, dtype))
    built = job.build(device, dtype, settings.seed)
    run = _trainer(job, built, settings, Path(out), init_from, tensorboard, feature_cache)
    _run(run, settings, None if max_minutes is None else 60 * max_minutes, out)
    _tell(export(run, built, Path(out), half), settings.steps, json_output)


def _trainer(
    job: Job,
    method: Trained,
    settings: TrainConfig,
    out: Path,
    init_from: str | None,
    tensorboard: bool,
    feature_cache: str | None,
) -> Trainer:
    """The trainer at its first step, or where an earlier call stopped."""
    resumes = (out / "last" / "trainer.json").exists()
    if init_from is not None and not resumes:
        _start_from(method, init_from)
    from latentbank.training import Trainer

    run = Trainer(
        method,
        job.data,
        job.validation,
        settings,
        out,
        card=job.card(settings),
        tensorboard=tensorboard,
        feature_cache=None if feature_cache is None else Path(feature_cache),
    )
    if resumes:
        notice(f"resuming {out} at step {run.step} of {settings.steps}")
    return run


def _tell(result: dict[str, Any], steps: int, json_output: bool) -> None:
    if json_output:
        print_json(result)
        return
    scores = result["metrics"]
    told = f", validation EM {scores['exact_match']:.1f} F1 {scores['f1']:.1f}" if scores else ""
    typer.echo(f"{result['adapter']}: step {result['step']} of {steps}{told}.")


@dataclass
class Job:
    """What the command line asks for, checked and loaded piece by piece, the cheap ones first."""

    method: str
    backbone: str
    preset: str | None
    changes: dict[str, Any]
    train_changes: dict[str, Any]
    loaded: Backbone | None = None
    data: QADataset = field(init=False)
    validation: QADataset | None = None

    def load(self, device: str, dtype: str) -> Backbone:
        """The backbone, loaded once."""
        from latentbank.backbone.model import load_backbone

        if self.loaded is None:
            self.loaded = load_backbone(self.backbone, dtype, device, notice)
        return self.loaded

    def distil(self, corpus: str, out: Path, seed: int, backbone: Backbone) -> None:
        """Lets the model make its training data, or takes what an earlier call kept in `out`.

        The last twentieth validates.
        """
        from latentbank.evaluate.cloze import corpus_dataset
        from latentbank.evaluate.data import held_out
        from latentbank.evaluate.distil import distilled, keep_distilled, read_distilled

        about = f"{backbone.fingerprint}, {corpus_dataset(corpus, seed=seed).hash}, seed {seed}"
        made = read_distilled(out, about)
        if made is None:
            with progress_bar() as bar:
                task = bar.add_task("distilling", total=None)
                made = distilled(
                    corpus,
                    backbone,
                    seed,
                    lambda done, total: bar.update(task, completed=done, total=total),
                )
            keep_distilled(out, about, made)
        self.data, self.validation = held_out(made, 0.05)
        notice(
            f"{count(len(made.questions), 'request')} about "
            f"{count(len(made.documents), 'piece')} of {corpus}, kept in {out}"
        )

    def check_data(
        self,
        data: str | None,
        from_text: str | None,
        split: str | None,
        val_data: str | None,
        val_split: str | None,
    ) -> None:
        """Loads training and validation data; raises InputError for a bad file.

        Of plain text the last twentieth validates where no other data is named.
        """
        from latentbank.evaluate.data import load_dataset

        if (data is None) == (from_text is None):
            raise InputError("Give --data or --from-text, one of the two, or --distil.")
        if from_text is not None:
            self._make_questions(from_text, split or val_split)
        elif data is not None:
            path, named = split_spec(data)
            self.data = load_dataset(path, split or named)
            if val_data is None and val_split is not None:
                self.validation = load_dataset(path, val_split)
        if val_data is not None:
            path, named = split_spec(val_data)
            self.validation = load_dataset(path, val_split or named)

    def _make_questions(self, text: str, split: str | None) -> None:
        from latentbank.evaluate.cloze import corpus_dataset
        from latentbank.evaluate.data import held_out

        if split is not None:
            raise InputError("Plain text has no splits; leave --split and --val-split out.")
        made = corpus_dataset(text, seed=int(self.train_changes.get("seed", 0)))
        self.data, self.validation = held_out(made, 0.05)
        notice(
            f"{count(len(self.data.questions), 'question')} made from "
            f"{count(len(self.data.documents), 'piece')} of {text}"
        )

    def train_config(self) -> TrainConfig:
        """The trainer's settings; raises UnknownNameError or InputError."""
        quiet_libraries()
        from latentbank.training import TrainConfig

        values = merge(
            {item.name: item.default for item in fields(TrainConfig)}, self.train_changes
        )
        return TrainConfig(**values)

    def build(self, device: str, dtype: str, seed: int) -> Trained:
        """The method with fresh parameters on its backbone."""
        from latentbank.adapter import build_method
        from latentbank.capabilities import Trained
        from latentbank.config import normalised
        from latentbank.errors import unknown
        from latentbank.method import METHODS

        cls = METHODS.get(self.method)
        if self.preset is not None and self.preset not in cls.presets:
            raise unknown(f"preset of {self.method!r}", self.preset, cls.presets)
        preset = normalised(cls.Config, cls.presets.get(self.preset or self.backbone, {}))
        base = merge(asdict(cls.Config()), preset)
        values = merge(base, normalised(cls.Config, self.changes))
        built = build_method(self.method, self.load(device, dtype), values, seed=seed)
        if not isinstance(built, Trained):
            raise InputError(f"Method '{self.method}' has nothing to train.")
        return built

    def card(self, settings: TrainConfig) -> dict[str, Any]:
        """What the adapter's config keeps about its training."""
        from latentbank.bench.record import this_machine, versions

        return {
            "command": shlex.join(["latentbank", *sys.argv[1:]]),
            "data": {"name": self.data.name, "hash": self.data.hash},
            "validation_data": None if self.validation is None else self.validation.name,
            "seed": settings.seed,
            "settings": asdict(settings),
            "machine": asdict(this_machine()),
            "versions": versions(),
        }


def split_spec(spec: str) -> tuple[str, str | None]:
    """ "folder:train" → ("folder", "train"); an existing path or hf:name:split stays whole."""
    head, sign, tail = spec.rpartition(":")
    if spec.startswith("hf:") or not sign or not tail or Path(spec).exists():
        return spec, None
    return head, tail


def _start_from(method: Trained, adapter: str) -> None:
    from latentbank.adapter import copy_matching, find_adapter

    taken = copy_matching(method, find_adapter(adapter))
    if taken == 0:
        raise InputError(f"The adapter {adapter} has no tensor that fits; leave --init-from out.")
    notice(f"{count(taken, 'tensor')} of {len(method.state())} taken from {adapter}")


def _run(run: Trainer, settings: TrainConfig, max_seconds: float | None, out: str) -> None:
    """Trains under a progress bar; Ctrl-C ends after the running step, with a checkpoint."""
    with interrupts() as guard, progress_bar("loss", "scores") as bar:
        task = bar.add_task(
            "training", total=settings.steps, completed=run.step, loss="", scores=""
        )

        def report(progress: Progress) -> None:
            shown: dict[str, Any] = {"loss": f"loss {progress.loss:.3f}"}
            if progress.validation:
                em, f1 = progress.validation["exact_match"], progress.validation["f1"]
                shown["scores"] = f"EM {em:.1f} F1 {f1:.1f}"
            bar.update(task, completed=progress.step, **shown)
            guard.check()

        try:
            with guard.hold():
                run.run(report, max_seconds)
        except KeyboardInterrupt:
            _checkpoint(run, guard, out, settings.steps, bar.stop)


def _checkpoint(
    run: Trainer, guard: Interrupts, out: str, steps: int, stop: Callable[[], None]
) -> None:
    """Saves the state after the last whole step and raises the sentence that says so."""
    stop()
    with guard.hold():
        run.checkpoint()
    raise Interrupted(
        f"Stopped after step {run.step} of {steps}; the state is saved in {out}/last. "
        "Run the same command again to resume."
    )


def export(run: Trainer, method: Trained, folder: Path, half: bool) -> dict[str, Any]:
    """Writes the best adapter (the last one without validation) and its card to folder/adapter."""
    from latentbank.adapter import load_state_of, read_config, save_adapter
    from latentbank.training.cards import write_card

    source = folder / "best" if (folder / "best" / "config.json").exists() else folder / "last"
    method.load_state(load_state_of(source))
    kept = read_config(source)["training"]
    validation = kept.get("validation") or {}
    info = {
        **kept,
        "step": kept.get("step", run.step),
        "seconds": round(kept.get("seconds", run.seconds), 1),
        "metrics": validation,
    }
    target = folder / "adapter"
    save_adapter(target, method, info, half)
    write_card(target, method, info)
    size = (target / "adapter.safetensors").stat().st_size
    return {
        "adapter": str(target),
        "method": method.name,
        "backbone": method.backbone.fingerprint,
        "step": info["step"],
        "steps": run.config.steps,
        "seconds": info["seconds"],
        "bytes": size,
        "metrics": validation,
    }
