"""Exceptions as one clear sentence on stderr and an exit status; knows no command.

Status 2: the input, a file or the disk is at fault. 130: Ctrl-C. 1: an error in latentbank itself.
141, without a sentence: the reader of the output, such as `head`, has read enough.
"""

import errno
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import typer

from latentbank.errors import DamageWarning, LatentbankError, StepWarning

BAD_INPUT, INTERRUPTED, INTERNAL, CLOSED_PIPE = 2, 130, 1, 141
_FULL = (
    "no space left on the disk (or the file size limit is reached); nothing half-written is kept"
)


@dataclass(frozen=True)
class Failure:
    """The sentence to print, without "error: ", and the exit status; no sentence, no output."""

    sentence: str
    status: int = BAD_INPUT


class Interrupted(Exception):
    """Ctrl-C, with a sentence that says what was kept."""


def explain(error: BaseException) -> Failure:
    """The sentence and status of any exception."""
    if isinstance(error, LatentbankError):
        return Failure(_one_line(str(error)))
    if isinstance(error, Interrupted):
        return Failure(_one_line(str(error)), INTERRUPTED)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return Failure("interrupted", INTERRUPTED)
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a usage error of typer's
        command = getattr(getattr(error, "ctx", None), "command_path", "latentbank")
        sentence = _one_line(error.format_message()) or "a command is missing"
        return Failure(f"{sentence.rstrip('.')}. See: {command} --help")
    if isinstance(error, BrokenPipeError):
        return Failure("", CLOSED_PIPE)
    if isinstance(error, MemoryError):
        return Failure("not enough memory; use fewer documents at a time or a smaller model")
    if _disk_full(error):
        return Failure(_FULL)
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return Failure(f"{name}{error.strerror or _one_line(str(error))}")
    return Failure(
        f"internal error, {type(error).__name__}: {_one_line(str(error))} "
        "(set LATENTBANK_TRACEBACK=1 to see where, and report it)",
        INTERNAL,
    )


@contextmanager
def damage_as_lines() -> Iterator[None]:
    """Within the block a `DamageWarning` or `StepWarning` is a line on stderr: "warning: …"."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, (DamageWarning, StepWarning)):
            with suppress(OSError, ValueError):
                print(f"warning: {_one_line(str(message))}", file=sys.stderr, flush=True)
        else:
            usual(message, category, *rest, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DamageWarning)
        warnings.simplefilter("always", StepWarning)
        warnings.showwarning = show
        yield


def report(failure: Failure, as_json: bool) -> None:
    """Prints the sentence to stderr and, with `as_json`, {"error": …} to stdout."""
    if failure.sentence:
        with suppress(OSError, ValueError):
            print(f"error: {failure.sentence}", file=sys.stderr, flush=True)
    try:
        if as_json and failure.sentence:
            print(json.dumps({"error": failure.sentence}, ensure_ascii=False), flush=True)
        sys.stdout.flush()
    except (OSError, ValueError):  # nobody reads it; keep the interpreter from trying again
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    text = str(error)  # safetensors and torch wrap the system's error in their own classes
    return "No space left" in text or "File too large" in text


def _one_line(text: str) -> str:
    return " ".join(text.split())
