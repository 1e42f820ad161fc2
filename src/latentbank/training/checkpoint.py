"""The checkpoint `last/` in a run's folder: how it is saved, loaded, and checked before a resume.

Knows methods through their contract, an optimiser and files; knows no data and no loop.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentbank.adapter import load_state_of, save_adapter
from latentbank.capabilities import Trained
from latentbank.errors import InputError

FORMAT = 2
_STATE = "trainer.json"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def has_checkpoint(folder: Path) -> bool:
    """Whether `folder` holds a checkpoint to resume from."""
    return (folder / "last" / _STATE).exists()


def recover(folder: Path) -> None:
    """Restores `last` where a kill came between the two renames of `save_checkpoint`."""
    last = folder / "last"
    for name in ("last.new", "last.old"):
        if not last.exists() and (folder / name / _STATE).exists():
            os.replace(folder / name, last)


def save_checkpoint(
    folder: Path,
    method: Trained,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    card: Mapping[str, Any],
) -> None:
    """Writes a new checkpoint beside `last/` and swaps them: a kill leaves one whole checkpoint.

    `state` is the trainer's: `identity`, `settings` and its counters.
    """
    fresh, last = folder / "last.new", folder / "last"
    shutil.rmtree(fresh, ignore_errors=True)
    save_adapter(fresh, method, card)
    kept = {k: v.contiguous() for k, v in method.training_state().items()}
    save_file(kept, str(fresh / "method.safetensors"))
    save_file(_moments(method.trainable(), optimizer), str(fresh / "optimizer.safetensors"))
    (fresh / _STATE).write_text(json.dumps({"format": FORMAT, **state}, indent=1))
    if last.exists():
        old = folder / "last.old"
        shutil.rmtree(old, ignore_errors=True)
        os.replace(last, old)
    os.replace(fresh, last)
    shutil.rmtree(folder / "last.old", ignore_errors=True)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The `state` that `save_checkpoint` was given.

    Raises:
        InputError: another version of latentbank wrote the checkpoint.
    """
    saved: dict[str, Any] = json.loads((folder / "last" / _STATE).read_text())
    if saved.get("format", 1) != FORMAT:
        raise InputError(
            f"{folder} holds a checkpoint of format {saved.get('format', 1)}, expected {FORMAT}; "
            "name another output folder"
        )
    return saved


def load_checkpoint(folder: Path, method: Trained, optimizer: torch.optim.Optimizer) -> None:
    """Puts the tensors of `last/` into the method and its optimiser.

    Raises:
        AdapterError: the tensors do not fit the method.
        InputError: the optimiser's state is of other parameters.
    """
    last = folder / "last"
    method.load_state(load_state_of(last))
    method.load_training_state(load_file(str(last / "method.safetensors")))
    moments = load_file(str(last / "optimizer.safetensors"))
    parameters = method.trainable()
    strangers = sorted({name.rpartition("#")[0] for name in moments} - parameters.keys())
    if strangers:
        raise InputError(
            f"{last} trained {strangers[0]}, which the method does not train now; "
            "resume with the settings of the run, or name another output folder"
        )
    for name, parameter in parameters.items():
        stored = {kind: moments.get(f"{name}#{kind}") for kind in _MOMENTS}
        own = {kind: value for kind, value in stored.items() if value is not None}
        if own:
            optimizer.state[parameter] = {
                kind: value.to("cpu" if kind == "step" and not parameter.is_cuda
                               else parameter.device)
                for kind, value in own.items()
            }  # fmt: skip


def _moments(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """The optimiser's state by parameter name, so that the order of parameters may change."""
    return {
        f"{name}#{kind}": value.detach().cpu().contiguous()
        for name, parameter in parameters.items()
        for kind, value in optimizer.state.get(parameter, {}).items()
        if kind in _MOMENTS
    }


def check_same_run(
    folder: Path,
    saved: Mapping[str, Any],
    identity: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Checks that the checkpoint in `folder` belongs to this run.

    `identity` must be equal. `settings` are compared only where both have a field of the same kind,
    so that a later version may add, remove or regroup settings and still resume.

    Raises:
        InputError: the runs differ; the sentence names the fields.
    """
    before = saved["identity"]
    differing = [k for k in [*identity, *before] if before.get(k) != identity.get(k)]
    differing += _conflicts(saved["settings"], settings)
    if differing:
        raise InputError(
            f"{folder} holds another run (different {', '.join(dict.fromkeys(differing))}); "
            "name another output folder or delete it"
        )


def _conflicts(saved: Mapping[str, Any], own: Mapping[str, Any], path: str = "") -> list[str]:
    """Names of the fields that both have with different plain values."""
    names: list[str] = []
    for name in saved.keys() & own.keys():
        one, two = saved[name], own[name]
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            names += _conflicts(one, two, f"{path}{name}.")
        elif isinstance(one, Mapping) == isinstance(two, Mapping) and one != two:
            names.append(f"{path}{name}")
    return sorted(names)
