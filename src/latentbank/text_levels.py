"""The levels at which a bank keeps texts, and the steps between them.

`verbatim` is zstd with the packaged dictionary: fast, any backbone. `packed` is the same text by
the packaged counts of SmolLM2's tokens: fewer bytes, milliseconds to decode; nothing is lost.
`gist50` and `gist25` keep the leading sentences, in about half and a quarter of the text: of 400
SQuAD paragraphs the leading half in bytes holds the answers of 56 of 100 questions, the leading
fifth of 28; sentences at random 46 and 22.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from latentbank.backbone import Backbone
from latentbank.bank import Entry
from latentbank.bank.ladder import VERBATIM, Ladder, Step
from latentbank.codec.counts import CountedTextCodec
from latentbank.codec.text import ZstdTextCodec
from latentbank.errors import BankError, InputError
from latentbank.packaged import packaged_dictionary, packaged_packer

__all__ = ["PACKED", "TEXTS", "WHOLE", "TextLevels", "leading"]

PACKED, GIST50, GIST25 = "packed", "gist50", "gist25"
WHOLE = (VERBATIM, PACKED)
TEXTS = (*WHOLE, GIST50, GIST25)
RECENT = 4096  # texts that are remembered with their packed bytes, in memory: a few megabytes
_SENTENCE = re.compile(r"[.!?][\"')\]]*(?=\s+[\"'(\[]*[^\W_a-z])|[。！？]|.(?=\n)")


class TextLevels:
    """Payloads of texts at each level. `fade` takes an entry one level down.

    Where the backbone's tokens were not counted, texts are shortened without being packed.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._codec = ZstdTextCodec(packaged_dictionary())
        steps = [Step(VERBATIM, PACKED, self._pack), Step(GIST50, GIST25, self._shorten(GIST25))]
        steps += [Step(whole, GIST50, self._shorten(GIST50)) for whole in WHOLE]
        self._ladder = Ladder(TEXTS, steps)
        self._recent: dict[bytes, str] = {}  # unpacking one text alone takes longest of all steps

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
        payloads = self.packer.encode_all(texts)
        for payload, text in zip(payloads, texts, strict=True):
            self._remember(payload, text)
        return payloads

    def decode(self, entries: Sequence[Entry]) -> list[str]:
        """The texts of entries of these levels, in their order."""
        if self.packer is None:
            if any(entry.level == PACKED for entry in entries):
                raise BankError("the bank holds packed texts, and this backbone has other tokens")
            return [self._codec.decode(entry.payload) for entry in entries]
        packed = [entry.payload for entry in entries if entry.level != VERBATIM]
        unpacked = {p: self._recent[p] for p in packed if p in self._recent}
        cold = [payload for payload in packed if payload not in unpacked]
        unpacked |= zip(cold, self.packer.decode_all(cold) if cold else [], strict=True)
        return [
            self._codec.decode(entry.payload)
            if entry.level == VERBATIM
            else unpacked[entry.payload]
            for entry in entries
        ]

    def _remember(self, payload: bytes, text: str) -> None:
        """Keeps what was packed last, so that the next step down need not unpack it."""
        self._recent[payload] = text
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]

    def fade(self, entry: Entry) -> Entry | None:
        """The entry one level down, or None below the last."""
        return self._ladder.fade(entry)

    def _pack(self, entry: Entry) -> Entry | None:
        if self.packer is None:
            return None
        text = self._codec.decode(entry.payload)
        payload = self.packer.encode(text)
        self._remember(payload, text)
        shorter = len(payload) < len(entry.payload)
        return replace(entry, level=PACKED, payload=payload) if shorter else None

    def _shorten(self, target: str) -> Callable[[Entry], Entry | None]:
        """The step that keeps the leading half of an entry's text."""

        def step(entry: Entry) -> Entry | None:
            [text] = self.decode([entry])
            kept = leading(text, len(text) // 2)
            codec = self._codec if self.packer is None else self.packer
            payload = codec.encode(kept)
            if self.packer is not None:
                self._remember(payload, kept)
            shorter = len(payload) < len(entry.payload)
            return replace(entry, level=target, payload=payload) if shorter else None

        return step


def leading(text: str, characters: int) -> str:
    """The leading sentences of a text that fit into so many characters, the first one always."""
    ends = [found.end() for found in _SENTENCE.finditer(text)]
    fits = [end for end in ends if end <= characters] or ends[:1]
    return text[: fits[-1]] if fits else text
