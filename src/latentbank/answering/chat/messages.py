"""The messages of a conversation, and what its last question means without them.

Knows roles and English words; knows no method and no model. The rules are small on purpose: they
name what a pronoun or an elliptic question stands for, they do not rewrite sentences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from latentbank.answering.chat.sentences import is_greeting, is_request, subject_of
from latentbank.errors import InputError
from latentbank.parts.retrieval.analysis import COMMON, content_words

__all__ = ["Asked", "Message", "as_messages", "names", "resolved"]

ROLES = ("system", "user", "assistant")
_SAME = {"developer": "system"}  # as OpenAI's newer models call it

_PERSON = re.compile(r"\b(he|she|him|they|them)\b", re.IGNORECASE)
_OWNER = re.compile(r"\b(his|her|their|its)\b(?!\s*[?.!,]|\s*$)", re.IGNORECASE)
_THING = re.compile(r"\b(it|this|that|these|those|there|then|one|ones|same)\b", re.IGNORECASE)
_ELLIPTIC = re.compile(
    r"\s*(?:and\s+|but\s+|so\s+)?(?:(?:what|how) about\b|more\b|continue\b|go on\b|tell me more\b)",
    re.IGNORECASE,
)
_BARE = re.compile(
    r"\s*(?:and\s+|but\s+|so\s+)?(?:why|when|where|who|which|how|how (?:many|much|long|old|far))"
    r"(?:\s+(?:so|not|exactly|else|then|one))?\s*[?.!]*\s*$",
    re.IGNORECASE,
)
_WHO = re.compile(r"\s*(?:and\s+)?(?:who|whom|whose)\b", re.IGNORECASE)
_AND = re.compile(r"\s*(?:and|what about|how about)\b", re.IGNORECASE)
_ASKS = re.compile(r"\b(?:when|where|which|how (?:many|much|long))\b", re.IGNORECASE)
_LINKED = re.compile(r"(?:\s+(?:of|the|de|van|von|der|la|le)){0,2}\s+")
_CAPITAL = re.compile(r"(?<![^\W_])[^\W\d_a-zß-öø-ÿ][\w’'-]*(?![^\W_])|(?<!\w)\d[\w.,-]*\w")
_FEW = 2  # content words; a question of fewer does not stand alone. A request needs one.
_MOST_NAMES, _MOST_WORDS = 3, 8
_TURNS = 3  # earlier questions that are looked at


@dataclass(frozen=True)
class Message:
    """One message: `role` is system, user or assistant; `content` is its text."""

    role: str
    content: str


@dataclass(frozen=True)
class Asked:
    """The last question of a conversation.

    Attributes:
        question: it, with names in the place of pronouns where they are clear.
        query: what to retrieve with: the question and the salient words of earlier turns.
    """

    question: str
    query: str


def as_messages(given: Any) -> list[Message]:
    """Messages from a text or from OpenAI's form, [{"role": …, "content": …}].

    Content may be a text or a list of parts of type "text". Raises InputError for another role, for
    content without text, and where the last message is not the user's.
    """
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if isinstance(given, Mapping) or not isinstance(given, Sequence):
        raise InputError(
            'messages must be a list such as [{"role": "user", "content": "…"}], got '
            f"{type(given).__name__}"
        )
    messages = [_message(one, place) for place, one in enumerate(given, start=1)]
    if not messages or messages[-1].role != "user":
        raise InputError("The last message must be the user's: it holds the question.")
    if not messages[-1].content.strip():
        raise InputError("The question is empty.")
    return messages


def _message(given: Any, place: int) -> Message:
    if isinstance(given, Message):
        return given
    if not isinstance(given, Mapping):
        raise InputError(f"message {place}: expected an object with role and content")
    role = _SAME.get(given.get("role"), given.get("role"))  # type: ignore[arg-type]
    if role not in ROLES:
        raise InputError(f"message {place}: role must be one of {', '.join(ROLES)}, got {role!r}")
    content = given.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        parts = [part for part in content if isinstance(part, Mapping)]
        if len(parts) != len(content) or any(part.get("type") != "text" for part in parts):
            raise InputError(f"message {place}: only parts of type 'text' can be read")
        content = "\n".join(str(part.get("text") or "") for part in parts)
    if not isinstance(content, str):
        raise InputError(f"message {place}: content must be a text, got {content!r:.60}")
    if any("\ud800" <= one <= "\udfff" for one in content):
        raise InputError(f"message {place}: content is not valid Unicode text")
    return Message(str(role), content)


def resolved(messages: Sequence[Message]) -> Asked:
    """What the last question means, by the turns before it.

    A question with a pronoun, or too short to stand alone, takes the names of the latest turn that
    has any, and the content words of the question before it. Another stays as it is.
    """
    asked, subject, greets = Asked("", ""), _Subject(), False
    for message in messages:
        if message.role == "user":
            said = message.content.strip()
            greets = is_greeting(said)
            asked = Asked(said, said) if greets else _resolved(said, subject)
            subject = subject if greets else _Subject.of(asked, subject)
        elif message.role == "assistant" and not greets:
            subject = subject.with_answer(message.content)
    return asked


@dataclass(frozen=True)
class _Subject:
    """What a conversation is about so far: names and words, the most salient first.

    `names` are those of the latest question that has any, `answered` those that the answer to it
    added, `words` the content words of the latest question, `question` its text, `who` whether it
    asked for somebody.
    """

    names: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    question: str = ""
    who: bool = False

    @classmethod
    def of(cls, asked: Asked, before: _Subject) -> _Subject:
        """After a question: its own names, else those that it was resolved by."""
        words = tuple(content_words(asked.query))[:_MOST_WORDS]
        own = tuple(names(asked.question))
        same = _AND.match(asked.question) and not _ASKS.search(asked.question)
        who = bool(_WHO.match(asked.question)) or bool(same and before.who)
        return cls(own or before.names or before.answered, (), words, asked.question, who)

    def with_answer(self, answer: str) -> _Subject:
        """After an answer: the names that it adds."""
        known = " ".join(self.names).lower()
        new = [one for one in names(answer) if one.lower() not in known]
        return replace(self, answered=tuple(new[:_MOST_NAMES]))


def _resolved(question: str, subject: _Subject) -> Asked:
    """The question with names for pronouns, and what to retrieve with."""
    own = names(question)
    person, owner, thing = (one.search(question) for one in (_PERSON, _OWNER, _THING))
    bare = bool(_BARE.match(question))
    said = sum(word not in COMMON for word in content_words(subject_of(question)))
    few = said < (1 if is_request(question) else _FEW) and not own
    refers = bool(person or owner or thing or bare or few or _ELLIPTIC.match(question))
    if not refers or not subject.question:
        return Asked(question, question)
    text = question
    asked_who = subject.who
    owner_is_thing = owner is not None and owner[0].lower() == "its"
    known = [*subject.names[:_MOST_NAMES]]
    if asked_who and (person or owner) and not owner_is_thing:
        known = [*subject.answered, *known]  # "Who made it?" "Otto." "When was he born?"
    elif not (asked_who and (thing or owner_is_thing)):
        known += subject.answered
    people = [one for one in known if not one[0].isdigit()]
    if people and (person or owner) and not own:
        pronoun = (person or owner or [""])[0].lower()
        name = " and ".join(people[:2]) if pronoun in ("they", "them", "their") else people[0]
        text = _PERSON.sub(name, _OWNER.sub(f"{name}'s", text))
        if not thing:
            return Asked(text, text)
    if bare:  # "When?" means "Who made the lamp? When?"
        text = f"{subject.question} {question}"
    added = known
    if not own or thing or bare:
        added += subject.words
    held = set(re.findall(r"\w+", text.lower()))
    extra: list[str] = []
    for one in added:
        words = re.findall(r"\w+", one.lower())
        if not held.issuperset(words):
            extra.append(one)
            held.update(words)
    return Asked(text, " ".join([text, *extra]))


def names(text: str, begins: bool = True) -> list[str]:
    """Names and numbers of a text, in their order: words with a capital.

    `begins`: also words that begin a sentence, unless questions and requests begin with them.
    """
    found: list[str] = []
    last_end = -1
    for match in _CAPITAL.finditer(text):
        word = match[0].removesuffix("'s").removesuffix("’s").rstrip("'’-")
        first = not text[: match.start()].strip(" \"'“‘([") or re.search(
            r"[.!?:]\s*[\"'“‘(\[]*$", text[: match.start()]
        )
        if (
            word.lower() in COMMON
            or (first and (not begins or word.lower() in _OPENERS))
            or word == "I"
        ):
            continue
        between = text[last_end : match.start()] if last_end >= 0 else ""
        if found and last_end >= 0 and _LINKED.fullmatch(between) and not word[0].isdigit():
            found[-1] = f"{found[-1]}{between}{word}"
        else:
            found.append(word)
        last_end = match.start() + len(word)
    return list(dict.fromkeys(found))


_OPENERS = frozenset(
    re.findall(
        r"\w+",
        "answer ask compare could describe did do does explain find give had has have how is are "
        "was were list name please say show summarise summarize tell thanks thank translate what "
        "when where which who whose whom why will would write yes no ok okay hello hi sure "
        "according yesterday today tomorrow",
    )
)
