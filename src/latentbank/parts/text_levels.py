"""The levels at which a bank keeps texts, and the steps between them.

Three levels lose nothing. `verbatim` is zstd with the packaged dictionary: fast, for any backbone.
`packed` codes the text by the packaged counts of SmolLM2's tokens: fewer bytes, milliseconds to
decode. `lm` codes it by the backbone's own predictions: the fewest bytes, about a second to code
and more to decode.

Four levels keep the leading sentences: `gist50` and `lm50` about half of the text, `gist25` and
`lm25` about a quarter; the `lm` ones are coded by predictions. In 400 SQuAD paragraphs the leading
half holds the answers of 56 % of the questions, the leading fifth those of 28 %. Sentences drawn at
random hold 46 % and 22 %.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from latentbank.backbone.model import Backbone
from latentbank.bank import Entry
from latentbank.bank.ladder import VERBATIM, Fades, Ladder, Step
from latentbank.codec.packaged import packaged_dictionary, packaged_packer, token_codec
from latentbank.codec.predicted.integer_lm import integer_lm
from latentbank.codec.predicted.predictions import TokenPredictions
from latentbank.codec.text import ZstdTextCodec
from latentbank.codec.token_text import TokenTextCodec
from latentbank.documents.dates import annotate
from latentbank.errors import BankError, InputError

__all__ = ["LM", "PACKED", "SLOW", "TEXTS", "WHOLE", "TextLevels", "leading"]

PACKED, GIST50, GIST25 = "packed", "gist50", "gist25"
LM, LM50, LM25 = "lm", "lm50", "lm25"
WHOLE = (VERBATIM, PACKED, LM)
TEXTS = (*WHOLE, GIST50, LM50, GIST25, LM25)
SLOW = (LM, LM50, LM25)  # to decode: seconds for one text
RECENT_CHARACTERS = 64 << 20  # size of the cache of coded texts, in memory
SEPARATOR = "<|endoftext|>"  # comes before every text in the training of models that know it
_ZSTD, _COUNTS, _PREDICTIONS = "zstd", "counts", "predictions"
_SENTENCE = re.compile(r"[.!?][\"')\]]*(?=\s+[\"'(\[]*[^\W_a-z])|[。！？]|.(?=\n)")


class TextLevels:
    """Makes and reads the payloads of texts at each level. `fade` takes an entry one level down.

    For a backbone with other tokens than SmolLM2's, the gist levels use zstd. `lm` says whether
    texts fade to the levels of the backbone's predictions, `shorten` whether they lose sentences
    before they are forgotten.
    """

    def __init__(self, backbone: Backbone, lm: bool = False, shorten: bool = True) -> None:
        self._backbone = backbone
        self._zstd = ZstdTextCodec(packaged_dictionary())
        half, quarter = (LM50, LM25) if lm else (GIST50, GIST25)
        self._lm = lm
        again = [(VERBATIM, PACKED)]
        if lm:
            again += [(VERBATIM, LM), (PACKED, LM), (GIST50, LM50), (GIST25, LM25)]
        steps = [Step(source, target, self._recode(target), True) for source, target in again]
        shorter = ((VERBATIM, half), (PACKED, half), (GIST50, quarter), (LM, LM50), (LM50, LM25))
        if shorten:
            steps += [Step(source, target, self._shorten(target)) for source, target in shorter]
        self._ladder = Ladder(TEXTS, steps)
        self._recent: dict[tuple[str, bytes], str] = {}  # decoding a single text is slow
        self._coded: dict[tuple[str, str], bytes] = {}  # as is coding one: the same the other way
        self._remembered = 0

    @functools.cached_property
    def packer(self) -> TokenTextCodec | None:
        """The codec of level `packed`; None for a backbone with other tokens than SmolLM2's."""
        return packaged_packer(self._backbone)

    @functools.cached_property
    def predictor(self) -> TokenTextCodec:
        """The codec of level `lm`. Raises InputError for a model that is not a plain Llama."""
        return self.make_predictor()

    def make_predictor(self) -> TokenTextCodec:
        """A new codec of level `lm`; its integer model is made once for a backbone."""
        known = self._backbone.tokenizer.get_vocab()
        start = known.get(SEPARATOR, self._backbone.start_id)
        return token_codec(self._backbone, TokenPredictions(integer_lm(self._backbone), start))

    @property
    def lossless(self) -> tuple[str, ...]:
        """The levels whose next step loses nothing."""
        return self._ladder.lossless if self._lm or self.packer is not None else ()

    def _kind(self, level: str) -> str:
        if level in SLOW:
            return _PREDICTIONS
        packed = level == PACKED or (level in (GIST50, GIST25) and self.packer is not None)
        return _COUNTS if packed else _ZSTD

    def _codec(self, kind: str) -> ZstdTextCodec | TokenTextCodec:
        if kind == _PREDICTIONS:
            return self.predictor
        if kind == _ZSTD:
            return self._zstd
        if self.packer is None:
            raise BankError(
                "the bank holds packed texts, which need SmolLM2's tokens; this backbone has others"
            )
        return self.packer

    def encode(self, texts: Sequence[str], level: str) -> list[bytes]:
        """Payloads of texts. Raises InputError where the backbone has no such level."""
        if level == PACKED and self.packer is None:
            raise InputError(
                f"packed texts need SmolLM2's tokens, and {self._backbone.name} has others; "
                "use entry='verbatim'"
            )
        kind = self._kind(level)
        new = [one for one in dict.fromkeys(texts) if (kind, one) not in self._coded]
        made = self._codec(kind).encode_all(new) if new else []
        coded = dict(zip(new, made, strict=True))
        payloads = [coded[one] if one in coded else self._coded[kind, one] for one in texts]
        self._remember(kind, payloads, texts)
        return payloads

    def decode(self, entries: Sequence[Entry]) -> list[str]:
        """The texts of entries of these levels, in their order."""
        texts = [""] * len(entries)
        waiting: dict[str, list[int]] = {}
        for i, entry in enumerate(entries):
            kind = self._kind(entry.level)
            known = self._recent.get((kind, entry.payload))
            if known is None:
                waiting.setdefault(kind, []).append(i)
            else:
                texts[i] = known
        for kind, places in sorted(waiting.items()):
            payloads = [entries[i].payload for i in places]
            decoded = self._codec(kind).decode_all(payloads)
            for i, text in zip(places, decoded, strict=True):
                texts[i] = text
            self._remember(kind, payloads, decoded)
        return texts

    def stored(self, entries: Iterable[Entry | None]) -> list[str]:
        """The texts of entries in their order, "" for None."""
        found = list(entries)
        decoded = iter(self.decode([entry for entry in found if entry is not None]))
        return ["" if entry is None else next(decoded) for entry in found]

    def as_read(self, entry: Entry | None) -> str:
        """The text of an entry as the model reads it; relative dates carry their meaning.

        Empty without an entry.
        """
        return "" if entry is None else annotate(self.decode([entry])[0], entry.time)

    def known_as_read(self, entry: Entry | None) -> str:
        """As `as_read`, but empty where decoding the text would take time."""
        return "" if entry is None else annotate(self.known(entry), entry.time)

    def decode_readable(
        self, entries: Sequence[Entry]
    ) -> tuple[list[tuple[Entry, str]], dict[str, str]]:
        """(entries with their texts, id → sentence of each entry that holds no text).

        Raises BankError where no text of a level can be read, because its codec is missing.
        """
        for kind in {self._kind(entry.level) for entry in entries}:
            self._codec(kind)
        try:
            return list(zip(entries, self.decode(entries), strict=True)), {}
        except BankError as error:
            if len(entries) == 1:
                return [], {entries[0].id: str(error)}
        half = len(entries) // 2
        first, second = (self.decode_readable(part) for part in (entries[:half], entries[half:]))
        return first[0] + second[0], first[1] | second[1]

    def forget_texts(self) -> None:
        """Drops the texts that were remembered: one of them may belong to a deleted document."""
        self._recent.clear()
        self._coded.clear()
        self._remembered = 0

    def known(self, entry: Entry) -> str:
        """The text of an entry that takes no time to decode, else an empty text."""
        if entry.level not in TEXTS:
            return ""
        kind = self._kind(entry.level)
        if kind == _ZSTD:
            return self.decode([entry])[0]
        return self._recent.get((kind, entry.payload), "")

    def _remember(self, kind: str, payloads: Sequence[bytes], texts: Sequence[str]) -> None:
        """Caches texts that were just coded, so that the next step down need not decode them."""
        if kind == _ZSTD:
            return
        for payload, text in zip(payloads, texts, strict=True):
            self._remembered += len(text) - len(self._recent.pop((kind, payload), ""))
            self._recent[kind, payload] = text
            self._coded[kind, text] = payload
        while self._recent and self._remembered > RECENT_CHARACTERS:
            kind, payload = next(iter(self._recent))
            text = self._recent.pop((kind, payload))
            self._coded.pop((kind, text), None)
            self._remembered -= len(text)

    def fade(self, entry: Entry) -> Entry | None:
        """The entry one level down, or None below the last."""
        return self._ladder.fade(entry)

    def fade_all(self, entries: Sequence[Entry]) -> list[Entry | None]:
        """As `fade`, for many entries; several times as fast as one by one."""
        return self._ladder.fade_all(entries)

    def _recode(self, target: str) -> Fades:
        """The step that codes an entry's whole text at `target`; None if that saves no bytes."""

        def step(entries: Sequence[Entry]) -> list[Entry | None]:
            if target == PACKED and self.packer is None:
                return [None] * len(entries)
            return self._smaller(entries, target, self.decode(entries))

        return Fades(step)

    def _shorten(self, target: str) -> Fades:
        """The step that keeps the leading half of an entry's text."""

        def step(entries: Sequence[Entry]) -> list[Entry | None]:
            texts = [leading(text, len(text) // 2) for text in self.decode(entries)]
            return self._smaller(entries, target, texts)

        return Fades(step)

    def _smaller(
        self, entries: Sequence[Entry], target: str, texts: Sequence[str]
    ) -> list[Entry | None]:
        payloads = self.encode(texts, target) if entries else []
        return [
            replace(entry, level=target, payload=payload)
            if len(payload) < len(entry.payload)
            else None
            for entry, payload in zip(entries, payloads, strict=True)
        ]


def leading(text: str, characters: int) -> str:
    """The leading sentences of a text that fit into `characters`; at least the first one."""
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    fits = [end for end in ends if end <= characters] or ends[:1]
    return text[: fits[-1]] if fits else text
