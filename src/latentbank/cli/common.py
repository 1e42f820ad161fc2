"""What the commands share: sizes, key=value pairs, progress bars, Ctrl-C, printing.

Knows terminals and JSON; imports torch and transformers only inside functions.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from latentbank.errors import InputError, unknown
from latentbank.sizes import parse_size

__all__ = [
    "Interrupts",
    "complete_overrides",
    "console",
    "count",
    "format_bytes",
    "interrupts",
    "merge",
    "notice",
    "parse_pairs",
    "parse_size",
    "print_json",
    "progress_bar",
    "quiet_libraries",
    "share_processor",
    "wait_passively",
]

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

# ---- parsing


def parse_pairs(pairs: Sequence[str] | None) -> dict[str, Any]:
    """["lora.rank=8", "entry=pooled"] → {"lora": {"rank": 8}, "entry": "pooled"}.

    A value is read as JSON where it is JSON, else as text. Raises InputError for a malformed pair.
    """
    values: dict[str, Any] = {}
    for pair in pairs or ():
        name, sign, text = pair.partition("=")
        path = name.strip().split(".")
        if not sign or not all(path):
            raise InputError(f"{pair!r} is not KEY=VALUE, such as lora.rank=8.")
        value = _value(text)
        place = values
        for part in path[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise InputError(f"{name} is set twice, as a value and as a group.")
        if isinstance(place.get(path[-1]), dict):
            raise InputError(f"{name} is set twice, as a value and as a group.")
        place[path[-1]] = value
    return values


def _value(text: str) -> Any:
    """The value of a text: of JSON what it says, of anything else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def merge(base: Mapping[str, Any], changes: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """`base` with `changes`, group by group; a value must have the type of the one it replaces.

    A text in place of a list is one with commas between its parts: "12,20" is [12, 20].

    Raises UnknownNameError for a name that `base` has not, InputError for another type.
    """
    merged = dict(base)
    for name, value in changes.items():
        if name not in base:
            raise unknown("config field", f"{where}{name}", [f"{where}{key}" for key in base])
        if isinstance(base[name], Mapping):
            if not isinstance(value, Mapping):
                fields = ", ".join(f"{where}{name}.{key}" for key in base[name])
                raise InputError(f"{where}{name} is a group; set one of {fields}.")
            value = merge(base[name], value, f"{where}{name}.")
        elif isinstance(base[name], tuple | list) and isinstance(value, str):
            value = [_value(part.strip()) for part in value.split(",")]
        elif not _same_kind(base[name], value):
            raise InputError(
                f"{where}{name} is {_kind(base[name])} such as {base[name]!r}, got {value!r}."
            )
        merged[name] = value
    return merged


def _same_kind(old: Any, new: Any) -> bool:
    if old is None:
        return True
    if isinstance(old, bool) or isinstance(new, bool):
        return isinstance(old, bool) and isinstance(new, bool)
    if isinstance(old, float):
        return isinstance(new, int | float)
    if isinstance(old, tuple | list):
        return isinstance(new, tuple | list)
    return isinstance(new, type(old))


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return kinds.get(type(value), "a list")


def complete_overrides(adapter: str, backbone: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` to the config of an adapter or method, checked, with whole groups filled in.

    Raises UnknownNameError, InputError as `merge` does; AdapterError for a damaged adapter.
    """
    if not changes:
        return {}
    from latentbank.adapter import packaged_adapters, read_config
    from latentbank.config import normalised
    from latentbank.method import METHODS

    known = packaged_adapters()
    folder = known.get(f"{adapter}-{backbone}") or known.get(adapter) or Path(adapter)
    base: dict[str, Any] = {}
    if folder.is_dir():
        config = read_config(folder)
        base, adapter = config["config"], config["method"]
    cls = METHODS.get(adapter).Config
    full = merge(asdict(cls()), normalised(cls, base))
    changes = normalised(cls, changes)
    return {key: merge(full, changes)[key] for key in changes}


# ---- printing


def format_bytes(size: float) -> str:
    """1536 → "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def count(number: int, noun: str) -> str:
    """1, "document" → "1 document"; 2 → "2 documents"."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def print_json(value: Any, indent: int | None = 2) -> None:
    """One JSON value on stdout; `indent` None gives a single line."""
    typer.echo(json.dumps(value, indent=indent, ensure_ascii=False))


def console(stderr: bool = False) -> Console:
    """A rich console; a pipe that is not a terminal gets plain lines of full width."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, width=200)
    return made


def notice(text: str) -> None:
    """A dim line on stderr."""
    from rich.markup import escape

    console(stderr=True).print(f"[dim]{escape(text)}[/dim]")


@contextmanager
def progress_bar(*columns: str) -> Iterator[Progress]:
    """A bar on stderr with the named task fields behind it; the caller adds tasks to it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    parts = [TextColumn("{task.fields[" + name + "]}") for name in columns]
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        *parts,
        Left(),
        console=console(stderr=True),
        refresh_per_second=4,
    ) as bar:
        yield bar


def quiet_libraries() -> None:
    """Keeps the libraries' own bars and notes off the terminal, and imports none of them."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def wait_passively() -> None:
    """Lets threads that wait for others sleep. Works only before torch is imported.

    By default they spin, which costs a short command on a busy machine several times its own
    processor time: `ask` with two threads took 12.2 s spinning and 3.5 s sleeping.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("KMP_BLOCKTIME", "0")


def share_processor() -> None:
    """As `wait_passively`, with as many threads as cores are free now.

    Threads beside those of other processes on a core wait for each other. Works only before torch
    is imported.
    """
    wait_passively()
    os.environ.setdefault("OMP_NUM_THREADS", str(free_cores()))


def free_cores(looks: int = 5) -> int:
    """The cores of this process on which nothing else runs now; at least one.

    The least of several looks 2 ms apart, since this process runs itself. All cores where the
    system does not tell.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = []
    for _ in range(looks):
        try:
            running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0])
        except (OSError, ValueError, IndexError):
            return own
        counts.append(running - 1)
        time.sleep(0.002)
    return max(1, own - max(0, min(counts)))


# ---- Ctrl-C


class Interrupts:
    """Ctrl-C that waits while something is `held`; the second one never waits."""

    def __init__(self) -> None:
        self.requested = False
        self._held = 0

    def on_signal(self, *_: Any) -> None:
        """The handler: notes the request; raises KeyboardInterrupt unless it is the first, held."""
        first, self.requested = not self.requested, True
        if not self._held or not first:
            raise KeyboardInterrupt

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Within the block the first Ctrl-C is only noted in `requested`."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    @contextmanager
    def release(self) -> Iterator[None]:
        """Within the block Ctrl-C is not held back; one that was noted before is raised at once."""
        self._held -= 1
        try:
            self.check()
            yield
        finally:
            self._held += 1

    def check(self) -> None:
        """Raises KeyboardInterrupt if Ctrl-C was noted."""
        if self.requested:
            raise KeyboardInterrupt


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Handles Ctrl-C in the main thread for the length of the block."""
    caught = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = signal.signal(signal.SIGINT, caught.on_signal)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)
