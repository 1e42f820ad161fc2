"""Newer versions of a text before older ones, among what a search found.

Two texts are versions of one if they have most of their words in common, or if they are short and
say the same about the question but for a few words: "The head of the office is Lena Brandt." and
"The head of the office is Otto Keller.". Knows ids, scores and words; knows no bank and no index.
"""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from latentbank.parts.retrieval.analysis import COMMON, WORD, analysed
from latentbank.parts.retrieval.lexical import Ranking

__all__ = [
    "NEAR",
    "REACH",
    "Resolved",
    "ShortTexts",
    "Versions",
    "Words",
    "content",
    "is_short",
    "newest",
    "short_words",
    "superseded_by",
    "word_list",
]

Words = Sequence[int] | npt.NDArray[np.uint16]
"""The words of a short text in order, as 16-bit hashes."""

REACH = 8  # documents to look for versions in, at first
CLOSE = 0.8  # a version scores at least so much of the best document's score
NEAR = 0.5  # the same for a short text: a few words more change its score much
ALIKE = 0.5  # two texts with this share of their words in common are versions of one
SAME = 0.6  # the same for short texts, of all words of the longer one, in their order
WITHIN = 0.8  # or so much of the shorter one: "… is 4711." and "… is 0815, then the star."
BEGIN = 0.7  # of the words of two short texts are the same, where no question tells more
RARE, SHARED = 8, 4  # rarest words of a long text; so many of them two versions share
SHORT = 64  # words of the longest text that is compared word by word


def content(text: str) -> frozenset[str]:
    """The words of a text that tell it from others, in lower case."""
    return frozenset(word.lower() for word in WORD.findall(analysed(text))) - COMMON


@dataclass(frozen=True)
class Resolved:
    """A document in the place of its versions.

    Attributes:
        id: the newest version.
        score: that of the best version.
        superseded: the older versions among what was found, best first.
    """

    id: str
    score: float
    superseded: tuple[str, ...] = ()


class ShortTexts:
    """The words of short texts, in order, as 16-bit hashes; long texts are left out.

    A text is kept as it is until somebody asks for its words.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._words: dict[str, array[int]] = {}

    def add(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Keep the texts that are short."""
        for id, text in zip(ids, texts, strict=True):
            if len(text) < 16 * SHORT and len(text.split(None, SHORT)) <= SHORT:
                self._texts[id] = text
                self._words.pop(id, None)

    def remove(self, ids: Sequence[str]) -> None:
        """Forget texts; unknown ids are ignored."""
        for id in ids:
            self._texts.pop(id, None)
            self._words.pop(id, None)

    def __call__(self, id: str) -> Sequence[int]:
        """The words of a text; none if it is long or not known."""
        text = self._texts.pop(id, None)
        if text is not None:
            self._words[id] = short_words(text)
        return self._words.get(id, ())


def short_words(text: str) -> array[int]:
    """The words of a short text, in order, as 16-bit hashes; none for a long one."""
    words = word_list(analysed(text)) if len(text) < 16 * SHORT else []
    kept = words if is_short(text, words) else ()
    return array("H", (crc32(word.encode(errors="replace")) & 0xFFFF for word in kept))


def word_list(written: str) -> list[str]:
    """The words of a text that `analysed` has rewritten, in order, in lower case."""
    return WORD.findall(written.lower())


def is_short(text: str, words: Sequence[str]) -> bool:
    """Whether a text with these words is compared word by word."""
    return len(text) < 16 * SHORT and len(words) <= SHORT


@dataclass(frozen=True)
class Versions:
    """What is asked of documents to tell which are versions of one; only where scores are near.

    Attributes:
        words: the content of a document: words or hashes.
        age: what is larger for a newer document.
        short: the words of a short text in order; none for a long text.
        matches: the share of the question that each of some documents holds.
        sharing: those of some documents that may hold half of some words; asked before `words`.
    """

    words: Callable[[str], frozenset[Hashable]]
    age: Callable[[str], Any]
    short: Callable[[str], Words] = ShortTexts()
    matches: Callable[[Sequence[str]], Sequence[float]] = lambda ids: [0.0] * len(ids)
    sharing: Callable[[frozenset[Hashable], Sequence[str]], Sequence[str]] = lambda words, ids: ids

    def resolve(self, ranking: Ranking, top: int) -> list[Resolved]:
        """The `top` of `ranking`, best first, without those that a newer version supersedes.

        How long the texts are, in which order they were written and how many versions there are
        makes no difference.
        """
        kept: list[Resolved] = []
        rest = list(ranking)
        while rest and len(kept) < top:
            best, score = rest[0]
            least = NEAR if len(self.short(best)) else CLOSE
            near = [pair for pair in rest[1:] if pair[1] >= least * score]
            versions = self._of(best, score, near) if near else {best}
            latest = max(versions, key=self.age) if len(versions) > 1 else best
            older = tuple(id for id, _ in rest if id in versions and id != latest)
            kept.append(Resolved(latest, score, older))
            rest = [pair for pair in rest if pair[0] not in versions]
        return kept

    def _of(self, best: str, score: float, near: Ranking) -> set[str]:
        """`best` and its versions among its neighbours.

        A text may have drifted far from its first version. What is like the newest version that is
        known so far counts too.
        """
        close = [id for id, other in near if other >= CLOSE * score]
        versions, head = {best}, best
        while True:
            more = self._like(head, [id for id, _ in near if id not in versions])
            left = [id for id in close if id not in versions and id not in more]
            if left:
                words = self.words(head)
                left = [*self.sharing(words, left)]
                more |= {id for id in left if _alike(words, self.words(id))}
            versions |= more
            newer = max(versions, key=self.age) if more else head
            if newer == head:
                return versions
            head = newer

    def _like(self, id: str, others: Sequence[str]) -> set[str]:
        """The short texts that say what a short text says, with the same words of the question."""
        words = np.asarray(self.short(id), np.uint16)
        if not len(words) or not others:
            return set()
        texts = [np.asarray(self.short(other), np.uint16) for other in others]
        near = _may_be_same(words, texts)
        one = words.tolist()
        known = frozenset(one)
        alike = [others[at] for at in near if _same(one, texts[at].tolist(), known)]
        if not alike:
            return set()
        first, *shares = self.matches([id, *alike])
        return {
            other for other, share in zip(alike, shares, strict=True) if abs(share - first) < 1e-9
        }


def newest(
    ranking: Ranking,
    top: int,
    words: Callable[[str], frozenset[Hashable]],
    age: Callable[[str], Any],
) -> Ranking:
    """The `top` of `ranking`, best first, each in its newest version; compares words only."""
    return [(one.id, one.score) for one in Versions(words, age).resolve(ranking, top)]


def _alike(one: frozenset[Hashable], two: frozenset[Hashable]) -> bool:
    return len(one & two) >= ALIKE * max(len(one | two), 1)


def _may_be_same(
    words: npt.NDArray[np.uint16], texts: Sequence[npt.NDArray[np.uint16]]
) -> list[int]:
    """The places of the texts that may say the same: enough of their words are among `words`.

    A long text has no words here. It is no version of a short one for holding the question's words.
    """
    sizes = np.array([len(text) for text in texts])
    table = np.zeros(1 << 16, np.int64)
    table[words] = 1
    held = np.concatenate([[0], np.cumsum(table[np.concatenate(texts)])])
    ends = np.cumsum(sizes)
    counts = held[ends] - held[ends - sizes]
    shorter, longer = np.minimum(sizes, len(words)), np.maximum(sizes, len(words))
    least = np.minimum(SAME * longer, WITHIN * shorter)
    found: list[int] = np.flatnonzero((counts >= least) & (sizes > 0)).tolist()
    return found


def _same(one: Sequence[int], two: Sequence[int], known: frozenset[int]) -> bool:
    """Whether two texts say the same in the same order; `known` are the words of the first."""
    shorter, longer = sorted((len(one), len(two)))
    least = min(SAME * longer, WITHIN * shorter)
    if shorter < least or len(known.intersection(two)) < least * 0.5:
        return False
    if sum((Counter(one) & Counter(two)).values()) < least:
        return False
    blocks = SequenceMatcher(None, one, two, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) >= least


def superseded_by(
    texts: Mapping[str, str], age: Callable[[str], Any], owner: Callable[[str], str] = str
) -> dict[str, str]:
    """Older versions among `texts`, by id → the newest version of the same.

    Without a question less can be told than with one: short texts are versions if they begin with
    the same words and differ in a few; long ones if they have most of their words in common.
    Texts of one `owner`, chunks of a document, are no versions.
    """
    leader = {id: id for id in texts}

    def top(id: str) -> str:
        while leader[id] != id:
            leader[id] = leader[leader[id]]
            id = leader[id]
        return id

    words = {id: WORD.findall(text.lower()) for id, text in texts.items()}
    short = sorted((row, id) for id, row in words.items() if 0 < len(row) <= SHORT)
    pairs = [(one[1], two[1]) for one, two in itertools.pairwise(short) if _begin_alike(one, two)]
    long = {id: content(texts[id]) for id, row in words.items() if len(row) > SHORT}
    pairs += [(a, b) for a, b in _near(long) if _alike(long[a], long[b])]
    for one, two in pairs:
        if owner(one) != owner(two):
            leader[top(one)] = top(two)
    groups: dict[str, list[str]] = {}
    for id in texts:
        groups.setdefault(top(id), []).append(id)
    newer: dict[str, str] = {}
    for group in groups.values():
        latest = max(group, key=age)
        newer |= {id: latest for id in group if owner(id) != owner(latest)}
    return newer


def _begin_alike(one: tuple[list[str], str], two: tuple[list[str], str]) -> bool:
    """Whether two texts differ in a few words only, and begin alike: they say it of the same."""
    a, b = one[0], two[0]
    longer, same = max(len(a), len(b)), 0
    while same < min(len(a), len(b)) and a[same] == b[same]:
        same += 1
    ends = 0
    while ends < min(len(a), len(b)) - same and a[-1 - ends] == b[-1 - ends]:
        ends += 1
    return same >= max(3, longer / 2) and same + ends >= BEGIN * longer


def _near(texts: Mapping[str, frozenset[str]]) -> list[tuple[str, str]]:
    """Pairs of texts that share several of their rarest words."""
    counts = Counter(word for words in texts.values() for word in words)
    holding: dict[str, list[str]] = {}
    shared: Counter[tuple[str, str]] = Counter()
    for id, words in texts.items():
        repeated = [word for word in words if 1 < counts[word] <= REACH * RARE]
        for word in sorted(repeated, key=lambda word: (counts[word], word))[:RARE]:
            shared.update((other, id) for other in holding.get(word, ()))
            holding.setdefault(word, []).append(id)
    return [pair for pair, count in shared.items() if count >= SHARED]
