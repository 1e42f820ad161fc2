"""The model card of an adapter: what it is, how it was trained, how it scored, how to load it.

Knows an adapter's folder and the facts that training keeps; trains and loads nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentbank.capabilities import Trained

# Data whose licence is known, by the start of a dataset's name.
LICENCES = {
    "squad": "CC BY-SA 4.0 (SQuAD v1.1, Rajpurkar et al. 2016; text from Wikipedia)",
}
_SCORES = (
    ("exact_match", "exact match (SQuAD)", "%"),
    ("f1", "F1 (SQuAD)", "%"),
    ("contains_answer", "answer contained", "%"),
    ("prefix_match", "prefix match (the papers' EM)", "%"),
    ("gold_selected", "gold document selected", "%"),
    ("milliseconds", "time per question", "ms"),
)


def write_card(folder: Path, method: Trained, info: Mapping[str, Any]) -> Path:
    """Writes `README.md` into an adapter's folder and returns its path.

    `info`: `data` and `validation_data` (names), `licence`, `command`, `seed`, `step`, `seconds`,
    `settings`, `machine`, `versions`, `metrics` (name → number); what is missing is left out.
    """
    path = folder / "README.md"
    path.write_text("\n".join(_lines(folder, method, info)) + "\n", encoding="utf-8")
    return path


def _lines(folder: Path, method: Trained, info: Mapping[str, Any]) -> list[str]:
    trained = sum(parameter.numel() for parameter in method.trainable().values())
    backbone = method.backbone
    size = (folder / "adapter.safetensors").stat().st_size
    lines = [
        f"# {method.name} adapter for {backbone.name}",
        "",
        f"Trained parameters of latentbank's method `{method.name}`: {trained:,} numbers, "
        f"{size:,} bytes. The model itself is frozen and not part of this folder.",
        "",
        "## Training",
        "",
        *_training(info),
        f"- backbone: `{backbone.fingerprint}`, tokenizer `{backbone.tokenizer_fingerprint}`",
        "",
        "## Validation",
        "",
        *_scores(info.get("metrics") or {}),
        "",
        "## Use",
        "",
        "The first argument may also be the path of this folder.",
        "",
        "```python",
        "from latentbank import Document, MemoryModel",
        "",
        f'model = MemoryModel.from_pretrained("{folder.name}", bank="my.bank", '
        f'backbone="{backbone.name}")',
        'model.write([Document("The meeting moved to Thursday.")])',
        'print(model.ask("When is the meeting?").text)',
        "```",
        "",
        "## Settings",
        "",
        "```json",
        json.dumps(asdict(method.config), indent=1),
        "```",
    ]
    return lines


def _training(info: Mapping[str, Any]) -> list[str]:
    data = info.get("data") or {}
    name = str(data.get("name", "")) if isinstance(data, Mapping) else str(data)
    digest = f" (hash `{data['hash']}`)" if isinstance(data, Mapping) and "hash" in data else ""
    licence = info.get("licence") or _licence(name)
    machine = info.get("machine")
    if isinstance(machine, Mapping):
        machine = f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('device')}"
    versions = info.get("versions") or {}
    settings = info.get("settings") or {}
    minutes = f"{info['seconds'] / 60:.0f} minutes" if "seconds" in info else None
    rows = (
        ("data", f"{name}{digest}" if name else None),
        ("licence of the data", licence),
        ("chosen on", info.get("validation_data")),
        ("command", f"`{info['command']}`" if info.get("command") else None),
        ("seed", info.get("seed")),
        ("steps", info.get("step")),
        ("time", minutes),
        ("learning rate", settings.get("learning_rate")),
        ("machine", machine),
        ("software", ", ".join(f"{k} {v}" for k, v in versions.items()) or None),
    )
    return [f"- {label}: {value}" for label, value in rows if value is not None]


def _licence(name: str) -> str:
    for start, licence in LICENCES.items():
        if name.lower().startswith(start):
            return licence
    return "not recorded; see the source of the data"


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    known = [(label, metrics[key], unit) for key, label, unit in _SCORES if key in metrics]
    if not known:
        return ["Not validated."]
    lines = ["| measure | value |", "| --- | ---: |"]
    return lines + [f"| {label} | {value:.1f} {unit} |" for label, value, unit in known]
