"""Triples from plain text by rules: "The founder of Acme is Ada Park" and some twenty other forms.

A rule takes a whole sentence, so that what it finds is said by it. A sentence that begins with a
pronoun is about the last entity that was named. Knows English sentences; knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from latentbank.documents.document import Document
from latentbank.documents.facts import Triple

__all__ = ["SENTENCE", "extract_triples", "sentences_of"]

SENTENCE = "sentence"
"""The metadata of a triple that holds the sentence which says it."""

_END = re.compile(
    r"(?<![A-Z])(?<!\b(?:Dr|Mr|Ms|St|vs|No|Jr|Sr|Co))(?<!\b(?:Mrs|Inc|Ltd|etc))[.!?][\"”')\]]*\s+"
    r"(?=[\"“'(A-Z0-9])|\n\s*\n"
)
_PRONOUN = r"(?P<pronoun>It|He|She|They|Its|His|Her|Their|This \w+|The (?:company|city|town|book))"
_NAME = r"(?P<entity>(?:[Tt]he |[Aa]n? )?[^,;:()]{2,80}?)"
_IS = r"(?:is|was|are|were|has been|will be)"
_VALUE = r"(?P<value>[^;]{1,300}?)"
_PROPERTY = r"(?P<property>[a-z][\w -]{1,50}?)"
_DAY = r"(?P<value>(?:[^,;]*?\d{4}|(?:January|February|March|April|May|June|July|August|September|"
_DAY += r"October|November|December)[^,;]*?))"
_PLACE = r"(?P<value>[A-Z][^;]{1,100}?)"
_AGENTS = {
    "founded": "founder", "written": "author", "directed": "director", "designed": "designer",
    "built": "builder", "invented": "inventor", "discovered": "discoverer", "owned": "owner",
    "led": "leader", "headed": "head", "painted": "painter", "composed": "composer",
    "published": "publisher", "developed": "developer", "produced": "producer",
    "managed": "manager", "run": "manager", "edited": "editor",
}  # fmt: skip
_DATES = {
    "founded": "founding date", "established": "founding date", "opened": "opening date",
    "built": "completion date", "born": "birth date", "published": "publication date",
    "released": "release date", "closed": "closing date", "completed": "completion date",
    "launched": "launch date",
}  # fmt: skip
_HAS = r"(?:has|had|have)"

# (pattern of a whole sentence, the property where the pattern has no group of that name)
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(f"^{pattern}$"), property)
    for pattern, property in (
        (rf"The {_PROPERTY} of {_NAME} {_IS} {_VALUE}", ""),
        (rf"{_NAME}(?:'s|’s) {_PROPERTY} {_IS} {_VALUE}", ""),
        (rf"(?:Its|His|Her|Their) {_PROPERTY} {_IS} {_VALUE}", ""),
        (rf"{_NAME} {_HAS} an? {_PROPERTY} of {_VALUE}", ""),
        (rf"{_NAME} {_IS} born in {_PLACE} (?:on|in) {_DAY.replace('value', 'second')}",
         "birthplace|birth date"),
        (rf"{_NAME} {_IS} born (?:on|in) {_DAY}", "birth date"),
        (rf"{_NAME} {_IS} born in {_PLACE}", "birthplace"),
        (rf"{_NAME} died (?:on|in) {_DAY}", "date of death"),
        (rf"{_NAME} died in {_PLACE}", "place of death"),
        *((rf"{_NAME} {_IS} {verb} (?:in|on) {_DAY} by {_VALUE.replace('value', 'second')}",
           f"{_DATES[verb]}|{agent}") for verb, agent in _AGENTS.items() if verb in _DATES),
        *((rf"{_NAME} {_IS} {verb} by {_VALUE} (?:in|on) {_DAY.replace('value', 'second')}",
           f"{agent}|{_DATES[verb]}") for verb, agent in _AGENTS.items() if verb in _DATES),
        *((rf"{_NAME} {_IS} {verb} by {_VALUE}", agent) for verb, agent in _AGENTS.items()),
        *((rf"{_NAME} (?:{_IS} )?{verb} (?:in|on) {_DAY}", date) for verb, date in _DATES.items()),
        (rf"{_NAME} (?:{_IS} (?:located|situated|based|headquartered)|lies|stands) (?:in|at|on) "
         rf"{_VALUE}", "location"),
        (rf"{_NAME} (?:lives|lived) in {_PLACE}", "residence"),
        (rf"{_NAME} (?:works|worked) (?:for|at) {_VALUE}", "employer"),
        (rf"{_NAME} (?:costs?|cost) {_VALUE}", "price"),
        (rf"{_NAME} (?:weighs|weighed) {_VALUE}", "weight"),
        (rf"(?P<value>[A-Z][^,;:]{{1,80}}?) {_IS} the {_PROPERTY} of {_NAME}", ""),
        (rf"{_NAME} {_IS} (?P<value>an? [^;]{{2,300}}?)", "description"),
    )
)  # fmt: skip
_UNQUOTED = str.maketrans("", "", '"“”')
_NO_NAMES = frozenset((
    "there", "this", "that", "these", "those", "what", "who", "which", "one", "it", "he", "she",
    "they", "we", "i", "you",
))  # fmt: skip


def sentences_of(text: str) -> Iterator[str]:
    """The sentences of a text, each on one line."""
    begin = 0
    for end in [*(match.end() for match in _END.finditer(text)), len(text)]:
        line = " ".join(text[begin:end].split())
        begin = end
        if line:
            yield line


def extract_triples(document: Document) -> Iterator[Triple]:
    """What the rules find in a document, each with its sentence in the metadata `sentence`.

    Time and source are the document's; without a source it is the document's id.
    """
    last = ""
    for sentence in sentences_of(document.text):
        if sentence.endswith("?"):
            continue
        plain = sentence.translate(_UNQUOTED).rstrip(".!?)] ")
        for entity, property, value in _found(plain, last):
            last = entity
            yield Triple(
                entity, property, value, document.time, document.source or document.id,
                {**document.metadata, SENTENCE: sentence},
            )  # fmt: skip


def _found(sentence: str, last: str) -> list[tuple[str, str, str]]:
    """(entity, property, value) of the first rule that fits; `last` is what a pronoun means."""
    for rule, name in _RULES:
        match = rule.match(sentence)
        if match is None:
            continue
        parts = match.groupdict()
        entity = _named(parts.get("entity") or "", last)
        properties = name.split("|") if name else [parts["property"]]
        values = [parts["value"], parts.get("second") or ""]
        made = [
            (entity, property.strip(), value.strip(" ,"))
            for property, value in zip(properties, values, strict=False)
            if entity and property.strip() and value.strip(" ,")
        ]
        if made:
            return made
    return []


def _named(entity: str, last: str) -> str:
    """The entity without a leading article; the last one for a pronoun, "" for no name."""
    words = entity.split()
    if not words or re.fullmatch(_PRONOUN, entity):
        return last
    if words[0].lower() in _NO_NAMES or len(words) > 10:
        return ""
    if words[0] == "The":
        return " ".join(["the", *words[1:]])
    return " ".join(words[1:] if words[0] in ("A", "An") else words)
