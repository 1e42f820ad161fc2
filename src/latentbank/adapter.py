"""Methods from their names, and adapters: trained parameters in a folder of two files.

The files are `config.json` and `adapter.safetensors`. A bank records the adapter that it
was made with, so banks are made here, too. Knows the method contract.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentbank.backbone.endpoint import EndpointBackbone
from latentbank.backbone.hub import ENDPOINT, PACKAGED
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.bank import BankFingerprint, MemoryBank
from latentbank.capabilities import Trained, lossless_levels, set_training, trained_state
from latentbank.config import build_config, merged, normalised
from latentbank.errors import AdapterError, InputError, UnknownNameError, unknown
from latentbank.method import METHODS, Method
from latentbank.methods import DEFAULT_METHOD, TEXT_METHOD
from latentbank.parts.calibration import read_calibration

FORMAT = 1
DEFAULT_BACKBONE = next(iter(PACKAGED))


def build_method(
    name: str,
    backbone: Backbone,
    config: Mapping[str, Any] | None = None,
    preset: str | None = None,
    seed: int = 0,
) -> Method:
    """A method on a backbone, its parameters initialised from `seed`.

    `config` changes the preset's values, group by group: see `config.merged`.

    Raises:
        UnknownNameError: unknown method, preset or config field.
    """
    cls = METHODS.get(name)
    if preset is not None and preset not in cls.presets:
        raise unknown(f"preset of '{name}'", preset, cls.presets)
    base = {} if preset is None else normalised(cls.Config, cls.presets[preset])
    values = merged(base, normalised(cls.Config, config or {}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(build_config(cls.Config, values), backbone)


def save_adapter(
    folder: Path, method: Method, card: Mapping[str, Any] | None = None, half: bool = False
) -> None:
    """Writes the adapter of `method`; `half` stores float16, as shipped adapters do.

    `card` is kept in `config.json` under `training`: data, command, seed, steps, metrics.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value.half() if half and value.is_floating_point() else value).cpu().contiguous()
        for name, value in trained_state(method).items()
    }
    save_file(state, str(folder / "adapter.safetensors"))
    config = {
        "format": FORMAT,
        "method": method.name,
        "config": asdict(method.config),
        "backbone": method.backbone.fingerprint,
        "tokenizer": method.backbone.tokenizer_fingerprint,
        "training": dict(card or {}),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed `config.json` of an adapter.

    Raises:
        AdapterError: no such folder, no adapter in it, damaged, or written by a newer latentbank.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise AdapterError(f"'{folder}' holds no adapter (no config.json)") from None
    except ValueError as error:
        raise AdapterError(f"the adapter's {folder / 'config.json'} is damaged: {error}") from None
    kinds = {"method": str, "config": dict, "backbone": str}
    if not isinstance(config, dict) or any(
        not isinstance(config.get(name), kind) for name, kind in kinds.items()
    ):
        raise AdapterError(f"'{folder / 'config.json'}' is not the config of a latentbank adapter")
    if config.get("format", 0) > FORMAT:
        raise AdapterError(
            f"the adapter '{folder}' has format {config['format']}, this latentbank reads up to "
            f"{FORMAT}; upgrade latentbank"
        )
    return config


def load_adapter(
    folder: Path,
    backbone: Backbone,
    overrides: Mapping[str, Any] | None = None,
    method: str | None = None,
) -> Method:
    """The method of an adapter on `backbone`, in eval mode.

    `overrides` change config fields that do not alter the parameters' shapes; in a group such as
    `{"lora": {"dropout": 0.1}}` the other fields stay as they are. `method` names another method
    with the same config and the same weights, to be built instead.

    Raises:
        AdapterError: damaged files, or another backbone than the one it was trained for.
    """
    config = read_config(folder)
    if config["backbone"] != backbone.fingerprint:
        raise AdapterError(
            f"the adapter '{folder.name}' was trained for {config['backbone']}, "
            f"the loaded backbone is {backbone.fingerprint}"
        )
    state = load_state_of(folder)
    name = method or config["method"]
    cls = METHODS.get(name).Config
    values = merged(normalised(cls, config["config"]), normalised(cls, overrides or {}))
    built = build_method(name, backbone, values)
    if isinstance(built, Trained):
        built.load_state(state)
    built.calibration = read_calibration(folder)
    set_training(built, False)
    return built


def load_state_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of an adapter by name, float16 ones as float32.

    Raises:
        AdapterError: the file is missing or damaged.
    """
    try:
        state = load_file(str(folder / "adapter.safetensors"))
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"'{folder / 'adapter.safetensors'}' is damaged: {error}") from None
    return {k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}


def copy_matching(method: Trained, folder: Path) -> int:
    """Takes the tensors of another adapter whose names and shapes are those of `method`.

    Returns how many were taken; the other tensors of `method` stay as they are.

    Raises:
        AdapterError: the other adapter is missing or damaged.
    """
    read_config(folder)
    own = method.state()
    taken = {
        name: value
        for name, value in load_state_of(folder).items()
        if name in own and own[name].shape == value.shape
    }
    method.load_state({**own, **taken})
    return len(taken)


def adapter_fingerprint(method: Method) -> str:
    """`method:hash` of every trained tensor, rounded to float16, as shipped adapters are.

    Low-rank weights are rounded to bfloat16, so that the dtype of the backbone does not matter.
    """
    return _hashed(method, method.settled_state() if isinstance(method, Trained) else {})


def _hashed(method: Method, state: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(state.items()):
        kept = value.half() if value.is_floating_point() else value
        digest.update(name.encode())
        digest.update(kept.cpu().contiguous().numpy().tobytes())
    return f"{method.name}:{digest.hexdigest()}"


def packaged_adapters() -> dict[str, Path]:
    """Adapters that ship with the package, by name, e.g. `strata-smollm2-135m`."""
    root = Path(str(resources.files("latentbank").joinpath("adapters")))
    if not root.is_dir():
        return {}
    return {p.name: p for p in sorted(root.iterdir()) if (p / "config.json").exists()}


def find_adapter(spec: str) -> Path:
    """A folder, or the name of a packaged adapter.

    Raises:
        UnknownNameError: neither; the known names are listed.
    """
    known = packaged_adapters()
    if spec in known:
        return known[spec]
    if Path(spec).is_dir():
        return Path(spec)
    raise unknown("adapter", spec, known)


# ---- finding


def load_method(
    adapter: str,
    backbone: str | Backbone | None = None,
    dtype: str = "auto",
    device: str = "cpu",
    overrides: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
    quick: bool = False,
    engine: str = "torch",
) -> Method:
    """The method named by `adapter` on its backbone; see `MemoryModel.from_pretrained`.

    A `Backbone` that is loaded already is taken as it is.
    """
    loaded = backbone if isinstance(backbone, Backbone) else None
    spec = loaded.name if loaded is not None else str(backbone or DEFAULT_BACKBONE)
    adapter = method_for(adapter, spec)
    folder = adapter_folder(adapter, spec)
    if folder is None and adapter not in METHODS:
        raise unknown("method or adapter", adapter, [*METHODS.names(), *packaged_adapters()])
    if folder is not None:
        read_config(folder)
    if loaded is None and spec.startswith(ENDPOINT):
        loaded = EndpointBackbone(spec)
    elif loaded is None:
        loaded = load_backbone(spec, dtype, device, progress, quick, engine)
    if folder is not None:
        return load_adapter(folder, loaded, overrides)
    return untrained(adapter, loaded, overrides)


def adapter_folder(adapter: str, backbone: str) -> Path | None:
    """The folder of an adapter; None for a method whose adapter does not ship for `backbone`.

    Also None for an unknown name.
    """
    packaged = f"{adapter}-{backbone}"
    try:
        folder = find_adapter(packaged if packaged in packaged_adapters() else adapter)
    except UnknownNameError:
        return None
    if not (folder / "config.json").exists() and adapter in METHODS:
        return None  # a folder that happens to have a method's name
    return folder


def method_for(adapter: str, backbone: str) -> str:
    """`adapter`; for a model behind a server the method that reads texts instead of the default."""
    return TEXT_METHOD if adapter == DEFAULT_METHOD and backbone.startswith(ENDPOINT) else adapter


def untrained(name: str, backbone: Backbone, overrides: Mapping[str, Any] | None = None) -> Method:
    """A method that works without training.

    Raises:
        InputError: it needs an adapter, and none ships for this backbone.
    """
    cls = METHODS.get(name)
    if isinstance(backbone, EndpointBackbone) and not cls.reads_texts:
        texts = [known for known in METHODS.names() if METHODS.get(known).reads_texts]
        raise InputError(
            f"method '{name}' needs the layers of a model, and {backbone.name} is a server; use "
            f"one of: {', '.join(texts)}"
        )
    if cls.without_training is not None:
        base = normalised(cls.Config, cls.without_training)
        values = merged(base, normalised(cls.Config, overrides or {}))
        return build_method(name, backbone, values)
    method = build_method(name, backbone, overrides)
    if isinstance(method, Trained) and method.network.state_dict():
        raise InputError(
            f"method '{name}' needs a trained adapter for {backbone.name}, and none ships with the "
            f"package; train one with: latentbank train --method {name} --backbone {backbone.name}"
        )
    return method


# ---- banks


def new_bank(
    path: str | Path,
    method: Method,
    meta: Mapping[str, Any] | None = None,
    budget_bytes: int | None = None,
    **options: Any,
) -> MemoryBank:
    """An empty bank for `method`.

    `meta`: `adapter`, `backbone` and `overrides`, which `MemoryModel.open` needs, and whatever else
    should be kept. Without it the bank keeps no metadata and `open` refuses it. `options` go to
    `MemoryBank.create`.
    """
    if meta is not None:
        meta = {"overrides": {}, "config": asdict(method.config), **meta}
    return MemoryBank.create(
        path,
        bank_fingerprint(method),
        budget_bytes=budget_bytes,
        lossless=lossless_levels(method),
        meta=meta,
        **options,
    )


def bank_fingerprint(method: Method, stored: BankFingerprint | None = None) -> BankFingerprint:
    """What a bank written by `method` records, and insists on when it is opened.

    `stored` is the fingerprint of a bank. It is returned if an earlier version of the package
    recorded it for `method`: the adapter's hash then depended on the backbone's dtype.
    """
    backbone = method.backbone
    now = BankFingerprint(
        method.name,
        adapter_fingerprint(method),
        backbone.fingerprint,
        backbone.tokenizer_fingerprint,
    )
    earlier = replace(now, adapter=_hashed(method, trained_state(method)))
    return earlier if stored == earlier else now


def check_budget(bank: MemoryBank, budget_bytes: int | None) -> None:
    """Raises InputError if `budget_bytes` is given and is not the bank's."""
    limit = bank.budget_bytes
    if budget_bytes is not None and budget_bytes != limit:
        now = "no budget" if limit is None else f"a budget of {limit} bytes"
        raise InputError(
            f"The bank {bank.name} was made with {now}, not {budget_bytes} bytes; "
            "a budget is for a new bank."
        )


def normalised_overrides(bank: MemoryBank) -> dict[str, Any]:
    """The config values that a bank was made with, under the names that its method has now."""
    values = bank.get_meta("overrides") or {}
    name = bank.fingerprint.method
    return normalised(METHODS.get(name).Config, values) if name in METHODS else dict(values)


def place_of(name: str, known: Container[str]) -> str:
    """The absolute path of an adapter's or a model's files; a known name or a hub id as it is."""
    return str(Path(name).resolve()) if name not in known and Path(name).exists() else name
