"""What a request is refused with: a status, a code, one sentence, in OpenAI's form of an error.

Maps the package's exceptions to statuses. Sentences name no file of the server and no text of a
document. Knows exceptions; knows no request.
"""

from __future__ import annotations

import errno
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

from latentbank.errors import (
    BankError,
    BudgetError,
    InputError,
    LatentbankError,
    UnknownNameError,
)

__all__ = ["CodedError", "Refusal", "Stopped", "refusal_of"]

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_NAMED = re.compile(r"(?<![\w.])/(?:[^\s'\",;/]+/)+([^\s'\",;/]+)")
_FULL_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Stopped(Exception):
    """Nobody waits for this answer any more; generation ends."""


class Refusal(Exception):
    """A request that is not served, and why."""

    def __init__(
        self,
        status: int,
        code: str,
        sentence: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status, self.code, self.sentence, self.param = status, code, sentence, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's form."""
        kind = _TYPES.get(self.status)
        if kind is None:
            kind = "server_error" if self.status >= 500 else "invalid_request_error"
            kind = "rate_limit_error" if self.status == 429 else kind
        error = {"message": self.sentence, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


class CodedError(BankError):
    """A bank that cannot be written now, with the code that says why."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def refusal_of(error: BaseException) -> Refusal:
    """The refusal for any exception; one that nobody foresaw becomes a 500 without its text."""
    if isinstance(error, Refusal):
        return error
    sentence = _without_folders(str(error))
    if isinstance(error, CodedError):
        return Refusal(503, error.code, sentence, headers={"Retry-After": "5"})
    if isinstance(error, BudgetError):
        return Refusal(413, "budget_too_small", sentence)
    if isinstance(error, BankError):
        return _of_bank(error, sentence)
    if isinstance(error, UnknownNameError):
        return Refusal(400, "unknown_name", sentence)
    if isinstance(error, InputError):
        return Refusal(400, "invalid_input", sentence)
    if isinstance(error, LatentbankError):
        return Refusal(503, "unavailable", sentence)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Refusal(503, "disk_full", "The disk is full; nothing of this write was kept.")
    if isinstance(error, MemoryError):
        return Refusal(503, "out_of_memory", "There is not enough memory for this now.")
    if isinstance(error, (TimeoutError, Stopped)):
        return Refusal(504, "timeout", "The answer took too long; ask for fewer tokens.")
    return Refusal(500, "internal_error", "Something went wrong in the server; its log says what.")


def _of_bank(error: BankError, sentence: str) -> Refusal:
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    later = {"Retry-After": "5"}
    if code is not None and code & 0xFF in _FULL_CODES:
        return Refusal(503, "disk_full", sentence, headers=later)
    if code is not None and code & 0xFF in _BUSY_CODES:
        return Refusal(503, "bank_busy", sentence, headers=later)
    return Refusal(503, "bank_unavailable", sentence)


def _without_folders(sentence: str) -> str:
    """Paths become the names of their files."""
    return _NAMED.sub(r"\1", sentence)
