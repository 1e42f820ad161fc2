"""Long-context tasks as token ids: a needle in a haystack, and associations that change.

A needle is `REMEMBER name IS value`, the question at the end `RECALL name IS`. Three kinds, as in
RULER's single-needle tasks (Hsieh et al., 2024): `passkey` has a haystack of one repeated sentence
and a number as value, `number` has real text and a number, `word` has real text and words of that
text. Knows ids and random draws; knows no model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentbank.errors import InputError, unknown

KINDS = ("passkey", "number", "word")
REMEMBER, RECALL, IS, OTHER = range(4)  # OTHER: a word beyond the vocabulary
_SPECIAL = 4
_NUMBERS = 10  # digits
_NAMES = 26
VALUE_TOKENS = 3
IGNORED = -100

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Vocabulary:
    """Markers, names, digits, then the commonest words of a text."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str], size: int = 512) -> Vocabulary:
        """The vocabulary of `size` ids in all. Raises InputError where it has no room for words."""
        if size <= _SPECIAL + _NAMES + _NUMBERS:
            raise InputError(
                f"a vocabulary needs more than {_SPECIAL + _NAMES + _NUMBERS} ids, got {size}"
            )
        counts = Counter(word for text in texts for word in words_of(text))
        common = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(tuple(common[: size - _SPECIAL - _NAMES - _NUMBERS]))

    @property
    def first_word(self) -> int:
        """The id of the first word."""
        return _SPECIAL + _NAMES + _NUMBERS

    def __len__(self) -> int:
        return self.first_word + len(self.words)

    def encode(self, text: str) -> Ids:
        """Ids of the words of a text; `OTHER` for those that it does not hold."""
        if not hasattr(self, "_places"):
            places = {word: self.first_word + i for i, word in enumerate(self.words)}
            object.__setattr__(self, "_places", places)
        found: dict[str, int] = self._places  # type: ignore[attr-defined]
        return np.array([found.get(word, OTHER) for word in words_of(text)], dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids as words; names are letters."""
        marks = ("REMEMBER", "RECALL", "IS", "…")
        said = []
        for i in map(int, ids):
            if i < _SPECIAL:
                said.append(marks[i])
            elif i < _SPECIAL + _NAMES:
                said.append(chr(65 + i - _SPECIAL))
            elif i < self.first_word:
                said.append(str(i - _SPECIAL - _NAMES))
            else:
                said.append(self.words[i - self.first_word])
        return " ".join(said)


def words_of(text: str) -> list[str]:
    """Words and marks of a text in lower case."""
    return re.findall(r"[a-z]+|[0-9]+|[^\sa-z0-9]", text.lower())


@dataclass(frozen=True)
class Haystack:
    """Where filler and values come from: the vocabulary, and real text as its ids."""

    vocabulary: Vocabulary
    text: Ids

    @classmethod
    def of(cls, texts: Iterable[str], size: int = 512) -> Haystack:
        """From documents. Raises InputError for texts without words."""
        kept = list(texts)
        vocabulary = Vocabulary.of(kept, size)
        ids = [vocabulary.encode(text) for text in kept]
        joined = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64)
        if not len(joined):
            raise InputError("the haystack's texts have no words; give texts with words")
        return cls(vocabulary, joined)

    def filler(self, kind: str, length: int, draw: np.random.Generator) -> Ids:
        """`length` ids without needle: a repeated sentence for `passkey`, else real text."""
        if kind not in KINDS:
            raise unknown("kind of needle", kind, KINDS)
        if kind == "passkey":
            sentence = self.vocabulary.first_word + np.arange(12)
            return np.resize(np.roll(sentence, int(draw.integers(12))), length).astype(np.int64)
        start = int(draw.integers(len(self.text)))
        return np.resize(np.roll(self.text, -start), length).astype(np.int64)

    def value(self, kind: str, draw: np.random.Generator) -> Ids:
        """The ids of a value."""
        if kind == "word":
            return draw.integers(self.vocabulary.first_word, len(self.vocabulary), VALUE_TOKENS)
        return _SPECIAL + _NAMES + draw.integers(_NUMBERS, size=VALUE_TOKENS)


def name_ids(count: int, draw: np.random.Generator) -> Ids:
    """`count` different names. Raises InputError beyond 26."""
    if count > _NAMES:
        raise InputError(f"there are {_NAMES} names, got {count} needles; take fewer")
    return _SPECIAL + draw.permutation(_NAMES)[:count]


def needle(name: int, value: Ids) -> Ids:
    """`REMEMBER name IS value`."""
    return np.concatenate([[REMEMBER, name, IS], value])


def needle_sample(
    hay: Haystack, kind: str, length: int, depth: float, draw: np.random.Generator
) -> tuple[Ids, Ids]:
    """(text of `length` ids that ends with the question, the value's ids).

    `depth` in [0, 1]: where the needle stands, 0 at the beginning.
    """
    name, value = int(name_ids(1, draw)[0]), hay.value(kind, draw)
    question = np.array([RECALL, name, IS])
    one = needle(name, value)
    room = length - len(question) - len(one)
    if room < 0:
        raise InputError(f"a text with a needle has at least {length - room} tokens, got {length}")
    filler = hay.filler(kind, room, draw)
    at = round(depth * room)
    return np.concatenate([filler[:at], one, filler[at:], question]), value


def recall_sample(
    hay: Haystack,
    kind: str,
    length: int,
    names: int,
    draw: np.random.Generator,
    updates: float = 0.3,
) -> tuple[Ids, Ids]:
    """(ids [length], labels [length]): assignments and questions strewn into a haystack.

    A share `updates` of the assignments gives a known name a new value: the last write wins. Labels
    are the values after questions, elsewhere `IGNORED`.
    """
    each = 3 + VALUE_TOKENS
    if length < 4 * each:
        raise InputError(f"a text with questions has at least {4 * each} tokens, got {length}")
    events = min(2 * names, length // (2 * each))
    pool, current = list(map(int, name_ids(names, draw))), dict[int, Ids]()
    parts, labels = [], []
    cuts = np.sort(draw.integers(0, length - events * each + 1, events))
    filler = hay.filler(kind, length - events * each, draw)
    for i, (first, last) in enumerate(zip([0, *cuts], [*cuts, len(filler)], strict=True)):
        parts.append(filler[first:last])
        labels.append(np.full(last - first, IGNORED))
        if i == events:
            break
        fresh = [n for n in pool if n not in current]
        asks = bool(current) and (i % 2 == 1 or not fresh)
        if asks:
            name = int(draw.choice(list(current)))
            value, mark = current[name], RECALL
        else:
            known = list(current)
            again = known and (not fresh or draw.random() < updates)
            name = int(draw.choice(known if again else fresh))
            value, mark = hay.value(kind, draw), REMEMBER
            current[name] = value
        parts.append(np.concatenate([[mark, name, IS], value]))
        told = value if asks else np.full(VALUE_TOKENS, IGNORED)
        labels.append(np.concatenate([np.full(3, IGNORED), told]))
    return np.concatenate(parts).astype(np.int64), np.concatenate(labels).astype(np.int64)
