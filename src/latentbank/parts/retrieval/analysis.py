"""Text as the word index reads it: words of any script, with their stems.

SQLite's FTS5 knows English stems and words between blanks. `analysed` rewrites what it does not
know: runs of Chinese, Japanese, Thai and the like become pairs of characters, Korean words pairs of
syllables, and beside a word of another language stands its Snowball stem. Vowel signs, which FTS5
drops, become private characters. English text stays as it is, identifiers such as `readFile` apart.
Knows text; knows no index.
"""

from __future__ import annotations

import functools
import json
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from itertools import pairwise
from typing import Any

__all__ = ["COMMON", "WORD", "analysed", "content_words", "language_of", "with_stems"]

WORD = re.compile(r"[\w\ue000-\uf8ff]+")
# English function words: nearly every text holds them, so they do not tell documents apart
COMMON = frozenset(
    WORD.findall(
        "a an and are as at be been but by can did do for from had has have he her his how i if in "
        "into is it its not of on or she so than that the their them then there these they this to "
        "was we were what when where which who why will with would you"
    )
)

_STEM = "\ue000"  # begins a stem that stands beside its word
_MARKS_TO = 0xE100  # a mark U+0483 … U+17FF becomes the private character as far behind this
_FIRST_MARK, _LAST_MARK = 0x0483, 0x17FF
_SCRIPTS = (("arabic", "؀", "ۿ"), ("greek", "Ͱ", "Ͽ"), ("hindi", "ऀ", "ॿ"), ("russian", "Ѐ", "ӿ"))
_COMPOUNDS = frozenset({"danish", "dutch", "finnish", "german", "swedish"})
_LEAST_COMPOUND, _LEAST_PART = 8, 4  # letters
_LOOKED_AT = 2048  # characters that tell the language of a text
_REMEMBERED = 1 << 16  # words
_NO_LETTERS = dict.fromkeys(map(ord, "'’¿?¡!.,;:()«»\""), " ")

_HAN = r"\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = r"\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
_THAI = r"\u0e01-\u0e4e\u0e80-\u0edf\u1000-\u109f\u1780-\u17d3"
_HANGUL = r"\uac00-\ud7a3"
_PRIVATE = r"\ue583-\uf8ff"  # where the marks are
_CLUSTER = re.compile(rf"[^{_PRIVATE}][{_PRIVATE}]*")
_PIECE = re.compile(
    rf"(?P<stem>{_STEM}[\w{_PRIVATE}]+)"
    rf"|(?P<pairs>[{_HAN}{_KANA}{_THAI}][{_HAN}{_KANA}{_THAI}{_PRIVATE}]*)"
    rf"|(?P<hangul>[{_HANGUL}]+)"
    rf"|(?P<word>(?:[^\W_{_HAN}{_KANA}{_THAI}{_HANGUL}]|[{_PRIVATE}])+)"
)
_PARTICLE = re.compile(rf"(?<=[{_HAN}\u30a1-\u30fc])[のはがをにでともへや](?![\u3041-\u3096])")
_BETWEEN = re.compile(r"[\s.,;:!?¿¡،؟।'’\"«»()-]+")
_REQUEST = re.compile(
    r"^\W*(?:please\s+)?(?:(?:can|could|would)\s+you\s+)?(?:please\s+)?"
    r"(?:summari[sz]e|describe|explain|tell\s+(?:me|us)|(?:give|write)(?:\s+(?:me|us))?\s+a\s+summary)\b"
    r"(?:\s+(?:what|everything|all))?(?:\s+that)?(?:\s+(?:you|we)\s+know)?(?:\s+(?:about|of))?",
    re.IGNORECASE,
)
_LENGTH = re.compile(
    r"\b(?:in|with)\s+(?:a|an|one|two|three|four|five|\d+)(?:\s+few)?(?:\s+short)?"
    r"\s+(?:sentences?|words?|lines?|paragraphs?)\b",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(
    r"(?<![^\W_])(?P<word>[A-Za-z]*(?:[a-z][A-Z]|[A-Z][A-Z][a-z])[A-Za-z]*)(?![^\W_])"
)
_HUMPS = re.compile(r"[a-z][A-Z]|[A-Z][A-Z][a-z]")  # what every identifier has: quick to rule out
_CAMEL = re.compile(r"[a-z](?=[A-Z])|[A-Z](?=[A-Z][a-z])")
_RARE = re.compile(
    rf"[{_HAN}{_KANA}{_THAI}{_HANGUL}\u0370-\u03ff\u0400-\u04ff\u0600-\u06ff\u0900-\u097f]"
)


def analysed(text: str) -> str:
    """`text` with the words that the index is to hold."""
    text = _normal(text)
    return _rewritten(text, language_of(text), question=False)


def content_words(question: str) -> list[str]:
    """The words of a question in lower case, each once; function words only where no others are.

    Words are those of `analysed`. Function words are those of English and of the question's
    language. "Summarise what you know about X in two sentences" asks for X.
    """
    text = about = _normal(question)
    language = language_of(text)
    if language == "english":
        about = _LENGTH.sub(" ", _REQUEST.sub(" ", text))
    for asked in (_without_function_words(about, language), about, text):
        words = WORD.findall(_rewritten(asked, language, question=True).lower())
        if kept := [word for word in dict.fromkeys(words) if word not in COMMON]:
            return kept
    return list(dict.fromkeys(words))


def with_stems(words: Iterable[str]) -> list[list[str]]:
    """The `words` of a question, each with the stems beside it: to hold one of them is enough."""
    found: list[list[str]] = []
    for word in words:
        if word.startswith(_STEM) and found:
            found[-1].append(word)
        else:
            found.append([word])
    return found


def language_of(text: str) -> str:
    """The language of which a text holds most function words, of those in Latin letters.

    English where it holds none, or as many of English.
    """
    words = set(text[:_LOOKED_AT].translate(_NO_LETTERS).lower().split())
    languages = _languages()
    counts = {"english": len(words & COMMON)}
    for word in words & languages.keys():
        for language in languages[word]:
            counts[language] = counts.get(language, 0) + 1
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] > counts["english"] else "english"


def _normal(text: str) -> str:
    """NFKC, without what is written or left out at will."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_AT_WILL)
    return text


_AT_WILL = {
    **dict.fromkeys([*range(0x064B, 0x0653), 0x0640, 0x0670, 0x200C, 0x200D, 0x00AD]),
    ord("ß"): "ss",
    ord("İ"): "i",
    ord("ı"): "i",
}


@functools.cache
def _marks() -> dict[int, int]:
    signs = range(_FIRST_MARK, _LAST_MARK + 1)
    return {one: _MARKS_TO + one for one in signs if unicodedata.category(chr(one))[0] == "M"}


def _rewritten(text: str, language: str, question: bool) -> str:
    """Normal text with its terms; a question leaves compounds whole."""
    plain = text.isascii() or not _RARE.search(text)
    if plain and language == "english":
        if not _HUMPS.search(text):
            return text
        return _IDENTIFIER.sub(lambda found: _terms(found, language, question), text)
    marked = text.translate(_marks())  # FTS5 takes private characters for letters
    return _PIECE.sub(lambda found: _terms(found, language, question), marked)


def _without_function_words(text: str, language: str) -> str:
    if language == "english" and not _RARE.search(text):
        return text
    text = _unspaced_function_words().sub(" ", text)
    text = _PARTICLE.sub(" ", text)
    known = _function_words()
    here = known.get(language, frozenset())
    for name, low, high in _SCRIPTS:
        if any(low <= one <= high for one in text):
            here |= known[name]
    if re.search(f"[{_HANGUL}]", text):
        here |= known["korean"]
    return " ".join(word for word in _BETWEEN.split(text) if word.lower() not in here)


def _terms(found: re.Match[str], language: str, question: bool) -> str:
    piece = found.group()
    if found.lastgroup == "pairs":
        return f" {' '.join(_pairs(_CLUSTER.findall(piece)))} "
    if found.lastgroup == "hangul":
        return f" {' '.join(_pairs(piece))} "
    if found.lastgroup == "stem" or any(one.isdigit() for one in piece):
        return piece
    own = next((name for name, low, high in _SCRIPTS if low <= piece[0] <= high), language)
    return " ".join([piece, *_beside(piece, own, question)])


def _pairs(characters: Sequence[str]) -> Iterator[str]:
    if len(characters) == 1:
        yield characters[0]
    for one, two in pairwise(characters):
        yield one + two


@functools.lru_cache(_REMEMBERED)
def _beside(word: str, language: str, question: bool) -> tuple[str, ...]:
    """What stands beside a word: the parts of an identifier, or stems."""
    if language == "english":
        parts = _CAMEL.sub(r"\g<0> ", word).split()
        return tuple(part for part in parts if len(part) >= 3) if len(parts) > 1 else ()
    word = word.lower()
    parts = [word]
    if language in _COMPOUNDS and len(word) >= _LEAST_COMPOUND and not question:
        cuts = range(_LEAST_PART, len(word) - _LEAST_PART + 1)
        parts += [half for cut in cuts for half in (word[:cut], word[cut:])]
    plain = [part.translate(_unmarked()) for part in parts]
    stems = [stem.translate(_marks()) for stem in _stemmer(language).stemWords(plain)]
    return tuple(_STEM + stem for stem in dict.fromkeys(stems))


@functools.cache
def _unmarked() -> dict[int, int]:
    return {there: here for here, there in _marks().items()}


_stemmers = threading.local()  # Snowball's stemmers are not safe to share


def _stemmer(language: str) -> Any:
    known = vars(_stemmers)
    if language not in known:
        import Stemmer

        known[language] = Stemmer.Stemmer(language)
    return known[language]


@functools.cache
def _function_words() -> dict[str, frozenset[str]]:
    file = resources.files("latentbank").joinpath("assets/function_words.json")
    lists: dict[str, str] = json.loads(file.read_text("utf-8"))
    return {name: frozenset(_normal(words).split()) for name, words in lists.items()}


@functools.cache
def _languages() -> dict[str, list[str]]:
    """Latin function word of two letters or more → the languages that have it."""
    found: dict[str, list[str]] = {}
    for language, words in _function_words().items():
        for word in words:
            if len(word) > 1 and word < "Ͱ":
                found.setdefault(word, []).append(language)
    return found


@functools.cache
def _unspaced_function_words() -> re.Pattern[str]:
    """The function words of languages without spaces, the longest first."""
    known = _function_words()
    words = sorted(known["chinese"] | known["japanese"] | known["thai"], key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words)))
