"""The rows of a bench: a method, the adapter that it takes, and changes to its config.

Which adapter belongs to which method is read from the adapters themselves. Knows the registry and
adapters' files; knows no protocol and no method by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from latentbank.adapter import (
    build_method,
    find_adapter,
    load_adapter,
    packaged_adapters,
    read_config,
)
from latentbank.backbone.model import Backbone
from latentbank.capabilities import Trained, set_training
from latentbank.errors import AdapterError
from latentbank.method import METHODS, Method

LORA = "+LoRA"


@dataclass(frozen=True)
class Row:
    """One line of a table. `adapter` is a packaged name or a folder; "" for none. `preset` names
    the sizes of a method that is built without an adapter.
    """

    name: str
    method: str
    adapter: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    preset: str = ""

    def identity(self) -> dict[str, Any]:
        """What decides about the numbers of this row, the adapter by its content."""
        return {
            "method": self.method,
            "adapter": adapter_digest(self.adapter) if self.adapter else "",
            "overrides": dict(self.overrides),
            "preset": self.preset,
        }


def backbone_name(spec: str) -> str:
    """The name that `load_backbone` gives the model of `spec`."""
    return spec if "/" not in spec else spec.split("/")[-1]


def packaged_for(method: str, backbone: str) -> str:
    """The packaged adapter of a method for the backbone called `backbone`, or "".

    Its own one; else that of a method with the very same config class, whose weights fit it.
    """
    wanted = METHODS.get(method).Config
    own, related = [], []
    for name, folder in packaged_adapters().items():
        config = read_config(folder)
        if config["backbone"].rpartition(":")[0] != backbone:
            continue
        if config["method"] == method:
            own.append(name)
        elif METHODS.get(config["method"]).Config is wanted:
            related.append(name)
    named = f"{method}-{backbone}"
    return named if named in own else next(iter([*own, *related]), "")


def only_lora(adapter: str) -> bool:
    """Whether an adapter holds nothing but low-rank weights: its method works without it.

    Raises AdapterError if its file is missing or damaged.
    """
    path = find_adapter(adapter) / "adapter.safetensors"
    try:
        with safe_open(str(path), framework="pt") as file:
            return all(name.startswith(("lora.", "closed_lora.")) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"'{path}' is damaged: {error}") from None


def adapter_digest(adapter: str) -> str:
    """32 hex digits over the adapter's weights and config."""
    folder = find_adapter(adapter)
    digest = hashlib.blake2b(digest_size=16)
    try:
        for name in ("config.json", "adapter.safetensors"):
            digest.update((folder / name).read_bytes())
    except OSError as error:
        raise AdapterError(f"the adapter '{folder}' cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def build_row(row: Row, backbone: Backbone, seed: int = 0) -> Method:
    """The method of a row, in eval mode.

    Without an adapter it is untrained: bare where it needs no training, else with random weights
    from `seed` in the sizes of the preset, by default the one named after the backbone.

    Raises:
        AdapterError: the adapter is damaged, or for another backbone or method.
    """
    if row.adapter:
        folder = Path(find_adapter(row.adapter))
        return load_adapter(folder, backbone, row.overrides, row.method)
    preset = row.preset or None
    method = build_method(row.method, backbone, row.overrides, preset, seed)
    known = METHODS.get(row.method).presets
    if preset is None and is_untrained(row, method) and backbone.name in known:
        method = build_method(row.method, backbone, row.overrides, backbone.name, seed)
    set_training(method, False)
    return method


def is_untrained(row: Row, method: Method) -> bool:
    """Whether the method answers with random weights, for want of an adapter."""
    return not row.adapter and isinstance(method, Trained) and bool(method.network.state_dict())
