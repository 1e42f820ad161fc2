"""Sentences: where they end, whether an answer is one, and which one of a text says an answer.

Knows strings and words; knows no method and no model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from latentbank.parts.retrieval.analysis import COMMON

__all__ = [
    "as_sentence",
    "asks_fact",
    "closed_sentences",
    "is_greeting",
    "is_request",
    "is_whole",
    "normal_words",
    "parts_of",
    "saying",
    "sentences_asked",
    "split_sentences",
    "subject_of",
    "words_of",
]

_END = re.compile(
    r"[.!?…]+[\"'”’»)\]]{0,3}(?=\s+[\"'“‘«(\[]*[^\W_a-z])|[.!?…]+[\"'”’»)\]]{0,3}(?=\s*$)"
    r"|[。！？｡।॥؟۔][」』”’）]{0,3}|\n+"
)
_ABBREVIATED = re.compile(
    r"(?:(?<![^\W_])(?:[^\W\d_]|Dr|Mr|Mrs|Ms|Prof|St|Mt|Jr|Sr|Gen|Col|Lt|Capt|Rev|Sen|Gov|No|vs|"
    r"cf|ca|approx|Inc|Ltd|Co|Corp|e\.g|i\.e|a\.m|p\.m|al))\.$"
)
_CLOSED = re.compile(r"[.!?…。！？｡।॥؟۔][\"'”’»)\]」』）]{0,3}$")
_REQUEST = re.compile(
    r"\s*(?:(?:please|can you|could you|would you|will you|now|and)[\s,]+)*(?:summari[sz]e|sum up|"
    r"describe|explain|list|tell|write|rewrite|rephrase|compare|give|translate|outline|discuss|"
    r"show|elaborate|continue|why\b|how (?:do|does|did|can|could|should|is|are|was|were)\b|"
    r"what (?:do|does) (?:you|we|i|it|they) (?:know|say)|what happened)",
    re.IGNORECASE,
)
_GREETING = re.compile(r"\s*(?:hi|hello|hey|thanks|thank you|ok|okay|good \w+)\b[^?]*$", re.I)
_AND_ASK = re.compile(
    r",?\s+and\s+(?=(?:who|whom|whose|what|when|where|which|how (?:many|much|long|old|far))\b)",
    re.IGNORECASE,
)
_ASKS = re.compile(r"\b(?:who|whom|whose|what|when|where|which|how)\b", re.IGNORECASE)
_COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SENTENCES = re.compile(rf"\bin (?:just |only )?([1-9]\d?|{'|'.join(_COUNTS)}) sentences?\b", re.I)
_LONGEST = 600  # characters of a sentence that is quoted


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, without white space around them."""
    spans = closed_sentences(text, 0, True)
    end = spans[-1][1] if spans else 0
    found = [text[start:stop].strip() for start, stop in spans]
    return [sentence for sentence in (*found, text[end:].strip()) if sentence]


def closed_sentences(text: str, start: int, finished: bool) -> list[tuple[int, int]]:
    """(start, end) of each sentence from `start` on that has come to its end.

    The last sentence of a text that is not `finished` is open: its full stop may be a point.
    """
    found, whole = [], len(text.rstrip())
    for match in _END.finditer(text, start):
        end = match.start() if match[0].isspace() else match.end()
        if end >= whole and not finished:
            break
        if _ABBREVIATED.search(text[start:end]) and end < whole:
            continue
        if text[start:end].strip():
            found.append((start, end))
            start = end
    return found


def is_whole(text: str) -> bool:
    """Whether a text is one whole sentence: a beginning, an end, and three words or more.

    A sentence in a script without capitals begins with any letter.
    """
    text = text.strip()
    first = text.lstrip("\"'“‘«(¿¡[")[:1]
    if not first or first.islower() or not _CLOSED.search(text):
        return False
    spaceless = not first.isascii() and " " not in text
    return (spaceless or len(text.split()) >= 3) and len(split_sentences(text)) == 1


def is_request(question: str) -> bool:
    """Whether more than a fact is asked for: a summary, an explanation, a rewrite, a greeting."""
    return bool(_REQUEST.match(question)) or is_greeting(question)


def subject_of(question: str) -> str:
    """A question without the words of a request: "Explain the fee" has "the fee"."""
    return _REQUEST.sub("", question, count=1)


def sentences_asked(question: str) -> int | None:
    """How many sentences a request asks for: "in two sentences"; None where it does not say."""
    found = _SENTENCES.search(question)
    if found is None:
        return None
    word = found[1].lower()
    return int(word) if word.isdigit() else _COUNTS.index(word) + 1


def is_greeting(question: str) -> bool:
    """Whether nothing is asked, as in "Hello!"."""
    return bool(_GREETING.match(question))


def asks_fact(question: str) -> bool:
    """Whether a fact is asked for."""
    asks = bool(_ASKS.search(question)) or question.rstrip().endswith(("?", "？", "؟"))
    return asks and not is_request(question)


def parts_of(question: str) -> list[str]:
    """The questions in a question: "What is A, and who made B?" holds two."""
    text = question.strip()
    pieces = [piece.strip(" ,?") for piece in _AND_ASK.split(text)]
    if len(pieces) < 2 or not all(
        _ASKS.search(piece) and len(piece.split()) > 2 for piece in pieces
    ):
        return [text]
    return [f"{piece[0].upper()}{piece[1:]}?" for piece in pieces]


def normal_words(text: str) -> list[str]:
    """The words of a text in lower case, without articles."""
    return [word for word in re.findall(r"\w+", text.lower()) if word not in ("a", "an", "the")]


def words_of(text: str) -> frozenset[str]:
    """The words of a text without function words, in lower case."""
    return frozenset(normal_words(text)) - COMMON


def saying(answer: str, question: str, texts: Sequence[str]) -> tuple[str, int] | None:
    """(sentence that says a short answer to a question, its text's place); None if none does.

    Of several sentences that hold the answer, the one with most words of the question. The first
    text that has one wins.
    """
    wanted = normal_words(answer)
    if not wanted:
        return None
    asked = words_of(question)
    for place, text in enumerate(texts):
        holding = [
            sentence
            for sentence in split_sentences(text)
            if len(sentence) <= _LONGEST and is_whole(sentence) and _holds(sentence, wanted)
        ]
        if holding:
            return max(holding, key=lambda one: len(words_of(one) & asked)), place
    return None


def as_sentence(answer: str) -> str:
    """A short answer as a sentence: its first whole one, else "The answer is …"."""
    whole = [one for one in split_sentences(answer) if is_whole(one)]
    return whole[0] if whole else f"The answer is {answer.rstrip('.')}."


def _holds(sentence: str, wanted: Sequence[str]) -> bool:
    words = normal_words(sentence)
    size = len(wanted)
    return any(words[at : at + size] == list(wanted) for at in range(len(words) - size + 1))
