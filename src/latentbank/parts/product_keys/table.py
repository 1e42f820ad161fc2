"""The value table of a memory layer: one row for each slot, in memory or in a mapped file.

Says how many bytes it takes before it takes them. Knows files and sizes; knows no keys.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from latentbank.errors import InputError

__all__ = ["ValueTable", "available_bytes"]

_NUMBER = 4  # bytes of a float32


def available_bytes() -> int | None:
    """Bytes of main memory that programs can still take; None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


class ValueTable(nn.Module):
    """Values [slots, width] float32, all zero at the start, and accesses of background batches.

    `background` [slots] counts the batches, of `batches` in all, that accessed a slot.

    `blank`: nothing trains the values, so they stay zero and take no memory, whatever `slots` is.

    `file` keeps them in a memory-mapped file. A new file is sparse, so it takes space on the disk
    only where rows were changed. An existing file of the right size keeps its values.

    Raises:
        InputError: the table fits neither the memory nor the disk, or the file has another size.
    """

    background: Tensor
    batches: Tensor

    def __init__(self, slots: int, width: int, file: str = "", blank: bool = False) -> None:
        super().__init__()
        self.slots, self.width, self.blank = slots, width, blank
        if not blank:
            size = _NUMBER * slots * width
            self.weight = nn.Parameter(
                _mapped(Path(file), slots, width, size) if file else _in_memory(slots, width, size)
            )
        self.register_buffer("background", torch.zeros(slots, dtype=torch.int32))
        self.register_buffer("batches", torch.zeros(1, dtype=torch.int32))

    def forward(self, slots: Tensor) -> Tensor:
        """Values [U, width] of slots [U]."""
        if self.blank:
            return torch.zeros(len(slots), self.width, device=slots.device)
        return nn.functional.embedding(slots, self.weight)


def _in_memory(slots: int, width: int, size: int) -> Tensor:
    free = available_bytes()
    if free is not None and size > free:
        raise InputError(
            f"a table of {slots:,} slots of {width} numbers takes {size:,} bytes, and {free:,} "
            "bytes of memory are free; take fewer slots, or name a file with table_file"
        )
    return torch.zeros(slots, width)


def _mapped(path: Path, slots: int, width: int, size: int) -> Tensor:
    if path.exists():
        found = path.stat().st_size
        if found != size:
            raise InputError(
                f"{path} has {found:,} bytes; a table of {slots:,} slots of {width} numbers takes "
                f"{size:,}"
            )
    else:
        folder = path.resolve().parent
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; table_file needs one that exists")
        free = shutil.disk_usage(folder).free
        if size > free:
            raise InputError(
                f"a table of {slots:,} slots of {width} numbers takes {size:,} bytes, and the disk "
                f"of {path} has {free:,} free; take fewer slots or another disk"
            )
        with path.open("xb") as file:
            file.truncate(size)
    flat = torch.from_file(str(path), shared=True, size=slots * width, dtype=torch.float32)
    return flat.view(slots, width)
