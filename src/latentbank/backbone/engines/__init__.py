"""Engines: libraries that run a backbone's layers faster than PyTorch's modules do.

PyTorch is the reference and trains; an engine only reads. Knows names and what is installed.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

from latentbank.backbone.quick import QuickLlama
from latentbank.errors import InputError, unknown

__all__ = ["AUTO", "ENGINES", "EngineWarning", "chosen_engine", "make_engine"]

AUTO = "auto"
ENGINES = {"torch": "", "openvino": "openvino"}
"""Engine → the package that it needs beside the core."""


class EngineWarning(UserWarning):
    """An engine cannot run this model; PyTorch does."""


def chosen_engine(name: str, device: str = "cpu") -> str:
    """`auto` or an engine's name → an engine that is installed.

    `auto` takes OpenVINO on the CPU where it is installed, else PyTorch.

    Raises:
        UnknownNameError: no such engine.
        InputError: it is not installed, or runs on the CPU only.
    """
    if name == AUTO:
        on_cpu = device == "cpu" and importlib.util.find_spec("openvino") is not None
        return "openvino" if on_cpu else "torch"
    if name not in ENGINES:
        raise unknown("engine", name, [AUTO, *ENGINES])
    package = ENGINES[name]
    if package and importlib.util.find_spec(package) is None:
        raise InputError(
            f"The engine {name} is not installed; run: pip install 'latentbank[{name}]', or choose "
            "the engine torch."
        )
    if package and device != "cpu":
        raise InputError(f"The engine {name} runs on the CPU, not on {device}; choose torch.")
    return name


def make_engine(name: str, model: Any, folder: Path | None, key: str, asked: bool) -> Any:
    """The engine `name` for a model, or None for PyTorch itself.

    A model that the engine cannot run is left to PyTorch; with `asked` a warning says so.
    """
    if name == "torch":
        return None
    if not isinstance(model, QuickLlama):
        if asked:
            warnings.warn(
                f"The engine {name} runs Llama models that are saved in one safetensors file; "
                "PyTorch runs this one.",
                EngineWarning,
                stacklevel=3,
            )
        return None
    from latentbank.backbone.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(model, folder, key)
