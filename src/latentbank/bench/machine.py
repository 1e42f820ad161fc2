"""Where a run took place: machine, peak memory, versions of the software, revision of the code.

Knows the operating system and git; imports none of the packages whose versions it tells.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PEAK = "peak_memory_bytes"
"""The metric of `peak_memory_bytes`; it differs from run to run, as times do."""

_PACKAGES = ("torch", "transformers", "latentbank")
# From the root of the checkout.
_CODE = (":/src", ":/scripts", ":/pyproject.toml", ":/constraints.txt")


@dataclass(frozen=True)
class Machine:
    """Where a run took place. `device` is "cpu" or the accelerator's name."""

    cpu: str
    cores: int
    memory_bytes: int
    device: str


def this_machine(device: str = "cpu") -> Machine:
    """Return the CPU's model, the usable cores, the memory in bytes, and the given device."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = 0  # unknown
    return Machine(_cpu_model(), cores, memory, device)


def versions() -> dict[str, str]:
    """Return the versions of python, torch, transformers and latentbank, importing none of them."""
    known = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            known[package] = "not installed"
    return known


def code_revision() -> str:
    """The commit of this package's checkout, with "-dirty" if its code differs; else "unknown".

    Records and docs may differ, because a run writes them.
    """
    here = Path(__file__).resolve().parent
    try:
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git(here, "describe", "--always")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", *_CODE)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("-dirty" if changed else "")


def peak_memory_bytes() -> int | None:
    """The most memory that this process held since `reset_peak_memory`; None if unknown."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory() -> bool:
    """Starts the measurement anew. False where the system cannot: it then covers the process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return result.stdout.strip()


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine() or "unknown"
