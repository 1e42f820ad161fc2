"""The levels at which a bank keeps whole texts, and the step between them.

`verbatim` is zstd with the packaged dictionary: fast, any backbone. `packed` is the same text by
the packaged counts of SmolLM2's tokens: fewer bytes, milliseconds to decode. Nothing is lost.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from latentbank.backbone import Backbone
from latentbank.bank import Entry
from latentbank.bank_ladder import VERBATIM, Ladder, Step
from latentbank.codec_counts import CountedTextCodec
from latentbank.codec_text import ZstdTextCodec
from latentbank.errors import BankError, InputError
from latentbank.packaged import packaged_dictionary, packaged_packer

__all__ = ["PACKED", "TEXTS", "TextLevels"]

PACKED = "packed"
TEXTS = (VERBATIM, PACKED)


class TextLevels:
    """Payloads of texts at each level. `fade` takes an entry one level down."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._codec = ZstdTextCodec(packaged_dictionary())
        self._ladder = Ladder(TEXTS, [Step(VERBATIM, PACKED, self._pack)])

    @functools.cached_property
    def packer(self) -> CountedTextCodec | None:
        """The codec of level `packed`; None where the backbone's tokens were not counted."""
        return packaged_packer(self._backbone)

    def encode(self, texts: Sequence[str], level: str) -> list[bytes]:
        """Payloads of texts. Raises InputError where the backbone has no packed level."""
        if level == VERBATIM:
            return [self._codec.encode(text) for text in texts]
        if self.packer is None:
            raise InputError(
                f"packed texts count SmolLM2's tokens and {self._backbone.name} has others; "
                "use entry='verbatim'"
            )
        return self.packer.encode_all(texts)

    def decode(self, entries: Sequence[Entry]) -> list[str]:
        """The texts of entries of these levels, in their order."""
        packed = [entry.payload for entry in entries if entry.level == PACKED]
        if packed and self.packer is None:
            raise BankError("the bank holds packed texts, and this backbone has other tokens")
        unpacked = iter(self.packer.decode_all(packed) if packed and self.packer else [])
        return [
            next(unpacked) if entry.level == PACKED else self._codec.decode(entry.payload)
            for entry in entries
        ]

    def fade(self, entry: Entry) -> Entry | None:
        """The entry one level down, or None below the last."""
        return self._ladder.fade(entry)

    def _pack(self, entry: Entry) -> Entry | None:
        if self.packer is None:
            return None
        payload = self.packer.encode(self._codec.decode(entry.payload))
        shorter = len(payload) < len(entry.payload)
        return replace(entry, level=PACKED, payload=payload) if shorter else None
