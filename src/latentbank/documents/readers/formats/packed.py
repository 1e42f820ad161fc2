"""Formats that are zip files inside: what is checked before anything in them is unpacked.

Knows zip files; nothing about documents.
"""

from __future__ import annotations

import zipfile
import zlib
from typing import BinaryIO

from latentbank.documents.readers.encoding import detect
from latentbank.errors import InputError

__all__ = ["MAX_UNPACKED", "member", "open_packed"]

MAX_UNPACKED = 1 << 30  # bytes of all members; a text of that size does not come in such a file
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # of files of Office before 2007, and of encrypted ones
_HEAD = 1 << 16
_ENCRYPTED = 0x1
_DAMAGE = (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError)


def open_packed(file: BinaryIO, path: str, what: str) -> zipfile.ZipFile:
    """The zip file that `file` is; raises `InputError` for what is none, or is protected.

    `what`: the format in words, such as "a Word file (.docx)".
    """
    head = file.read(_HEAD)
    file.seek(0)
    if not head:
        raise InputError(f"{path}: the file is empty.")
    if head.startswith(_OLE):
        rest = head + file.read()
        if "EncryptedPackage".encode("utf-16-le") in rest:
            raise _protected(path)
        raise InputError(f"{path} is an old Office file, not {what}; save it in that format first.")
    if not head.startswith(b"PK"):
        kind = "text" if _is_text(head) else "something else"
        hint = "; rename it to .txt" if kind == "text" else ""
        raise InputError(f"{path} is not {what}: its content is {kind}{hint}.")
    try:
        packed = zipfile.ZipFile(file)
        names = packed.infolist()
    except _DAMAGE as error:
        raise InputError(f"{path} is damaged or cut off; it is not readable as {what}.") from error
    if sum(info.file_size for info in names) > MAX_UNPACKED:
        raise InputError(
            f"{path} would unpack to more than {MAX_UNPACKED >> 20} MiB; unpack it yourself first."
        )
    if names and all(info.flag_bits & _ENCRYPTED for info in names if not info.is_dir()):
        raise _protected(path)
    return packed


def _protected(path: str) -> InputError:
    return InputError(f"{path} is password-protected; save a copy without a password first.")


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head[:1024].decode(detect(head).codec, "strict" if len(head) <= 1024 else "ignore")
    except UnicodeDecodeError:
        return False
    return True


def member(packed: zipfile.ZipFile, name: str, path: str) -> bytes:
    """The bytes of one member; raises `InputError` where they are missing, damaged or too many."""
    try:
        info = packed.getinfo(name)
        with packed.open(info) as file:
            data = file.read(info.file_size + 1)  # never more than it says
    except KeyError as error:
        raise InputError(f"{path} is damaged: its part {name} is missing.") from error
    except RuntimeError as error:  # zipfile, of a password
        raise _protected(path) from error
    except (*_DAMAGE, zlib.error) as error:
        raise InputError(f"{path} is damaged: its part {name} cannot be unpacked.") from error
    return data
