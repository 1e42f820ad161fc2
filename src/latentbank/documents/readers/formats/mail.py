"""Mails, one (.eml) or a mailbox of them (.mbox), by the standard library's `email`.

Knows mails; nothing about documents. A mail that cannot be read costs that mail only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from itertools import chain
from typing import Any, BinaryIO

from latentbank.documents.readers.encoding import detect
from latentbank.documents.readers.formats.html import html_page
from latentbank.documents.readers.rows import (
    Found,
    Note,
    ReadOptions,
    text_row,
    told_time,
)
from latentbank.errors import InputError

__all__ = ["mail_rows", "mailbox_rows"]

_HEADERS = ("from", "to", "subject", "date", "message-id")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_SURROGATES = re.compile("[\ud800-\udfff]")


def mail_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """One mail as one row."""
    data = file.read()
    if not data.strip():
        raise InputError(f"{path}: the file is empty.")
    yield from _mail(data, path, options, whole=True)


def mailbox_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """A row for each mail of a mailbox, lazily."""
    number = 0
    for number, data in enumerate(_mails(file, path), start=1):
        try:
            yield from _mail(data, f"{path}, mail {number}", options, whole=False)
        except InputError as error:
            yield error
    if number == 0:
        raise InputError(f"{path}: the mailbox is empty.")


def _mails(file: BinaryIO, path: str) -> Iterator[bytes]:
    """The mails of a mailbox; each begins behind a line "From …" that follows an empty line."""
    lines: list[bytes] = []
    blank = True
    begun = False
    for line in file:
        if blank and line.startswith(b"From "):
            if begun:
                yield b"".join(lines)
            begun, lines = True, []
        elif begun:
            lines.append(line)
        elif line.strip():
            raise InputError(f'{path} is not a mailbox: its first line is not "From ...".')
        blank = not line.strip()
    if begun:
        yield b"".join(lines)


def _mail(data: bytes, where: str, options: ReadOptions, whole: bool) -> Iterator[Found]:
    try:
        message = BytesParser(policy=policy.default).parsebytes(data)
        headers = {name: _header(message, name) for name in _HEADERS}
        body, left_out = _body(message)
    except Exception as error:  # the parser raises many types on damaged mails
        raise InputError(f"{where} is damaged; it is not readable as a mail.") from error
    if not any(headers.values()):
        raise InputError(f"{where} is not a mail: it has no From, To, Subject, Date or Message-ID.")
    if not body.strip() and not headers["subject"]:
        raise InputError(f"{where}: the mail has neither a subject nor a text.")
    for name in left_out:
        yield Note("skipped", where, f"the attachment {name} is left out")
    time, notes = told_time(headers["date"], where, options)
    yield from notes
    people = [f"{name.title()}: {headers[name]}" for name in ("from", "to") if headers[name]]
    text = "\n\n".join(filter(None, [headers["subject"], "\n".join(people), body.strip()]))
    identity = headers["message-id"].strip("<> ")
    yield text_row(
        where,
        text,
        options,
        whole=whole,
        id=identity,
        time=time,
        title=headers["subject"],
        attachments=left_out,
        sender=headers["from"],
        to=headers["to"],
    )


def _header(message: EmailMessage, name: str) -> str:
    """A header in one line; "" where it is missing or cannot be read."""
    try:
        value = message[name]
    except (ValueError, TypeError, IndexError, AttributeError):  # of damaged headers
        return ""
    return _SURROGATES.sub("\ufffd", " ".join(str(value or "").split()).replace("\0", ""))


def _body(message: EmailMessage) -> tuple[str, list[str]]:
    """The text of a mail, that of its HTML where it has no other, and the names of attachments."""
    part: Any = message.get_body(("plain", "html"))
    attached = [one for one in message.iter_attachments()] if message.is_multipart() else []
    names = [one.get_filename() or one.get_content_type() for one in attached]
    text = "" if part is None else _content(part)
    if part is not None and part.get_content_type() == "text/html":
        text = html_page(text).text
    forwarded = (one for one in attached if one.get_content_type() == "message/rfc822")
    inner = chain.from_iterable(one.iter_parts() for one in forwarded if one.is_multipart())
    texts = [text, *(_body(one)[0] for one in inner if isinstance(one, EmailMessage))]
    return "\n\n".join(one for one in texts if one.strip()), names


def _content(part: Any) -> str:
    """The text of a part; one whose encoding is unknown or wrong is guessed."""
    data = part.get_payload(decode=True) or b""
    named = part.get_content_charset()
    try:
        text = data.decode(named or detect(data).codec)
    except (LookupError, UnicodeDecodeError):
        text = data.decode(detect(data).codec, "replace")
    return _QUOTED.sub(r"\1", text.replace("\0", "")).replace("\r\n", "\n")


_QUOTED = re.compile(r"^>(>*From )", re.MULTILINE)
