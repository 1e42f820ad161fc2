"""Encodings of text: told by byte order mark, by validity, or by a library's guess.

Knows bytes; nothing about formats or files.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from latentbank.errors import InputError

__all__ = ["SAMPLE_BYTES", "Encoding", "bad_byte", "decode", "detect", "sample_of"]

SAMPLE_BYTES = 1 << 20
_GUESS_BYTES = 1 << 16  # of the part around the first byte that is not ASCII
_MOST_SAMPLED = 1 << 28

# UTF-32 before UTF-16: the little-endian mark of the one begins with that of the other.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
# What people's files are in.
_CANDIDATES = {
    "cp1252": "Windows-1252",
    "cp1250": "Windows-1250",
    "cp1251": "Windows-1251",
    "cp1253": "Windows-1253",
    "cp1254": "Windows-1254",
    "cp1255": "Windows-1255",
    "cp1256": "Windows-1256",
    "cp1257": "Windows-1257",
    "koi8_r": "KOI8-R",
    "cp932": "Shift JIS",
    "euc_jp": "EUC-JP",
    "gb18030": "GB 18030",
    "big5": "Big5",
    "cp949": "EUC-KR",
}
_FALLBACK = "cp1252"
_LATIN = ("cp1252", "cp1250", "cp1254", "cp1257")  # the more common first


class Encoding(NamedTuple):
    """Python's name of an encoding, and the one that people know."""

    codec: str
    label: str

    @property
    def is_utf8(self) -> bool:
        """Whether it is UTF-8, with or without a mark."""
        return self.codec.startswith("utf-8")


UTF8 = Encoding("utf-8-sig", "UTF-8")  # reads files with and without a mark


def detect(sample: bytes, wanted: str | None = None) -> Encoding:
    """The encoding of a file that holds `sample`, from its start.

    UTF-8 with some damaged bytes is UTF-8. Raises `InputError` if `wanted` is no encoding.
    """
    if wanted is not None:
        try:
            name = codecs.lookup(wanted).name
            b"a".decode(name)  # refuses what is no encoding of text, such as hex
        except LookupError as error:
            raise InputError(
                f"Expected the name of an encoding such as utf-8 or cp1252, got {wanted!r}."
            ) from error
        return UTF8 if name == "utf-8" else Encoding(name, _CANDIDATES.get(name, name))
    for mark, codec, label in _MARKS:
        if sample.startswith(mark):
            return Encoding(codec, label)
    wide = _without_mark(sample)
    if wide is not None:
        return wide
    return UTF8 if _mostly_utf8(sample) else _guess(sample)


def _without_mark(sample: bytes) -> Encoding | None:
    """UTF-16 or UTF-32 by where its zero bytes are: text is mostly ASCII in the first lines."""
    head = sample[:4096]
    head = head[: len(head) // 4 * 4]
    if len(head) < 8 or b"\0" not in head:
        return None
    zeros = [head[place::4].count(0) / (len(head) // 4) for place in range(4)]
    forms = (
        ("utf-32-le", "UTF-32", (0, 1, 1, 1)),
        ("utf-32-be", "UTF-32", (1, 1, 1, 0)),
        ("utf-16-le", "UTF-16", (0, 1, 0, 1)),
        ("utf-16-be", "UTF-16", (1, 0, 1, 0)),
    )
    for codec, label, shape in forms:
        if all(abs(zero - wanted) < 0.2 for zero, wanted in zip(zeros, shape, strict=True)):
            try:
                head.decode(codec)
            except UnicodeDecodeError:
                continue
            return Encoding(codec, label)
    return None


def _mostly_utf8(sample: bytes) -> bool:
    """Whether a sample is UTF-8 with at most a few damaged bytes."""
    if sample.isascii():
        return True
    if len(sample) >= SAMPLE_BYTES:  # its last character may be cut
        sample = sample[:-3] + sample[-3:].strip(bytes(range(0x80, 0x100)))
    text = sample.decode("utf-8", "surrogateescape")
    bad = sum("\udc80" <= char <= "\udcff" for char in text)
    good = sum(char > "\x7f" for char in text) - bad
    return bad <= good // 2


def _guess(sample: bytes) -> Encoding:
    """By charset-normalizer, of the common encodings; Windows-1252 where it cannot tell."""
    from charset_normalizer import from_bytes

    start = next((at for at, byte in enumerate(sample) if byte > 0x7F), 0)
    part = sample[max(0, start - 2048) : start + _GUESS_BYTES]
    matches = from_bytes(part, cp_isolation=list(_CANDIDATES), preemptive_behaviour=False)
    best = matches.best()
    if best is None:
        return Encoding(_FALLBACK, _CANDIDATES[_FALLBACK])
    codec = best.encoding
    if codec in _LATIN:  # alike in most letters: the more coherent words, then the more common
        ranked = [
            (-round(match.coherence, 2), _LATIN.index(name), name)
            for match in matches
            for name in match.could_be_from_charset
            if name in _LATIN
        ]
        codec = min(ranked)[2]
    return Encoding(codec, _CANDIDATES[codec])


def sample_of(file: BinaryIO) -> bytes:
    """A sample that tells the encoding: the first MiB, or the first one that is not ASCII.

    The mark at the start stays in front. Leaves the file where the reading ended.
    """
    first = file.read(SAMPLE_BYTES)
    if not first.isascii():
        return first
    block = first
    for _ in range(_MOST_SAMPLED // SAMPLE_BYTES):
        if len(block) < SAMPLE_BYTES:
            break
        block = file.read(SAMPLE_BYTES)
        if not block.isascii():
            return block.lstrip(bytes(range(0x80, 0xC0)))  # not in the middle of a character
    return first


def decode(data: bytes, encoding: Encoding, where: str) -> str:
    """The text of a whole file; raises `InputError` naming the line of what cannot be read."""
    try:
        return data.decode(encoding.codec)
    except UnicodeDecodeError as error:
        if not encoding.is_utf8:
            raise InputError(f"{where}: the file is not valid {encoding.label}: {error}.") from None
        text = data.decode("utf-8", "surrogateescape")
    at, line = next(_bad_places(text))
    # The offset counts bytes, from the start of the file.
    offset = len(text[:at].encode("utf-8", "surrogateescape"))
    raise InputError(f"{where}, line {line}: {bad_byte(text[at], offset)}")


def _bad_places(text: str) -> Iterator[tuple[int, int]]:
    for at, char in enumerate(text):
        if "\udc80" <= char <= "\udcff":
            yield at, text.count("\n", 0, at) + 1


def bad_byte(char: str, offset: int | None = None) -> str:
    """What is wrong with a byte that stands in a text as a lone surrogate."""
    place = "" if offset is None else f" at offset {offset}"
    return (
        f"byte 0x{ord(char) - 0xDC00:02x}{place} is not UTF-8; convert the file to UTF-8 or name "
        "its encoding."
    )
