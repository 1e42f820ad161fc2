"""Synthetic knowledge bases: invented entities, their properties, and questions about them.

No model can know the entities. Everything is drawn from one seed. Held-out entities have an
invented word that begins as none of training does; held-out properties are other ones.

| class of value | example |
|---|---|
| name | Marta Oberlin |
| number | 4,718 |
| date | 3 May 1961 |
| place | Calderport, Venland |
| description | a quiet workshop that repairs copper bells |

Questions are about one triple, two triples, open-ended (a sentence is asked for) or unanswerable
(the property or the entity is not in the knowledge base). Knows triples; knows no model.
"""

from __future__ import annotations

import calendar
import random
from collections.abc import Sequence
from dataclasses import dataclass

from latentbank.documents.facts import Triple
from latentbank.errors import InputError
from latentbank.evaluate.kb.wordings import ASKED, BY_CLASS, BY_PROPERTY
from latentbank.evaluate.kb.words import (
    ACTIONS,
    ADJECTIVES,
    CHOICES,
    ENDINGS,
    FAMILY_NAMES,
    GIVEN_NAMES,
    KINDS,
    NOUNS,
    OBJECTS,
    PROPERTIES,
    STARTS,
    UNITS,
)

__all__ = ["KINDS_OF_QUESTION", "REFUSAL", "Asked", "World", "value_class", "wording", "wordings"]

REFUSAL = "not in the knowledge base"
"""The answer to a question that the knowledge base cannot answer."""

KINDS_OF_QUESTION = ("single", "two", "open", "unanswerable")
_HELD_OUT_SHARE = 4  # one word of so many is kept for held-out data


@dataclass(frozen=True)
class Asked:
    """A question, its answer, and the numbers of the triples that hold it (none: unanswerable).

    `kind` is one of `KINDS_OF_QUESTION`; `value_class` that of the first value.
    """

    question: str
    answer: str
    facts: tuple[int, ...]
    kind: str
    value_class: str


def value_class(property: str) -> str:
    """The class of a synthetic property's values: name, number, date, place or description."""
    for name, properties in PROPERTIES.items():
        if property in properties:
            return name
    raise InputError(f"{property!r} is no property of the synthetic knowledge bases")


class World:
    """Draws knowledge bases and questions.

    `held_entities`: entities are made from words that training never sees. `held_properties`: the
    same for properties. `held_wordings`: questions are worded as none of training is.
    """

    def __init__(
        self,
        seed: int,
        held_entities: bool = False,
        held_properties: bool = False,
        held_wordings: bool = False,
    ) -> None:
        self.draw = random.Random(f"{seed}/{held_entities}/{held_properties}")
        self.starts = _half(STARTS, held_entities)
        self.families = _half(FAMILY_NAMES, held_entities)
        self.properties = {
            name: _half(properties, held_properties) for name, properties in PROPERTIES.items()
        }
        self.held_wordings = held_wordings
        self._known: set[str] = set()

    def triples(self, count: int, each: int = 4) -> list[Triple]:
        """`count` triples; an entity has `each` of them, of different properties."""
        made: list[Triple] = []
        classes = list(self.properties)
        while len(made) < count:
            entity = self.entity()
            chosen: list[str] = []
            for at in range(each):
                name = classes[(len(made) + at) % len(classes)]
                left = [p for p in self.properties[name] if p not in chosen]
                chosen.append(self.draw.choice(left))
            for property in chosen:
                made.append(Triple(entity, property, self.value_of(property)))
        return made[:count]

    def entity(self) -> str:
        """A name that this world has not drawn before."""
        for _ in range(1000):
            name = self._entity()
            if name not in self._known:
                self._known.add(name)
                return name
        raise InputError("the world has no further entity; draw fewer triples")

    def _entity(self) -> str:
        draw, made = self.draw, self._word()
        style = draw.randrange(7)
        if style == 0:
            return f"{draw.choice(GIVEN_NAMES)} {made}"
        if style == 1:
            return f"{made} {draw.choice(KINDS)}"
        if style == 2:
            return f"{draw.choice(KINDS)} {made}-{draw.randrange(2, 100)}"
        if style == 3:
            return f"{made} {self._word()}"
        if style == 4:
            return f"{made} {draw.choice(NOUNS)}"
        if style == 5:
            return f"{draw.choice(GIVEN_NAMES)} {draw.choice(self.families)}"
        return f"the {draw.choice(ADJECTIVES)} {made}"

    def _word(self) -> str:
        draw = self.draw
        middle = draw.choice(("", "", draw.choice(STARTS).lower()))
        return draw.choice(self.starts) + middle + draw.choice(ENDINGS)

    def value_of(self, property: str) -> str:
        """A value of a property: one of its own choices, or any of its class."""
        own = CHOICES.get(property, ())
        if own and self.draw.random() < 0.5:
            return self.draw.choice(own)
        return self.value(value_class(property))

    def value(self, name: str) -> str:
        """A value of the class `name`."""
        draw = self.draw
        if name == "name":
            return f"{draw.choice(GIVEN_NAMES)} {draw.choice(FAMILY_NAMES)}"
        if name == "number":
            number = draw.randrange(10 ** draw.randrange(1, 5), 10**5)
            unit = draw.choice(("", "", draw.choice(UNITS)))
            return (
                f"{number:,} {unit}".strip() if draw.random() < 0.5 else f"{number} {unit}".strip()
            )
        if name == "date":
            month = calendar.month_name[draw.randrange(1, 13)]
            return f"{draw.randrange(1, 29)} {month} {draw.randrange(1700, 2030)}"
        if name == "place":
            return f"{self._word()}, {draw.choice(STARTS)}land"
        adjective = draw.choice(ADJECTIVES)
        article = "an" if adjective[0] in "aeiou" else "a"
        return (
            f"{article} {adjective} {draw.choice(NOUNS)} that "
            f"{draw.choice(ACTIONS)} {draw.choice(OBJECTS)}"
        )

    def question(self, triples: Sequence[Triple], kind: str) -> Asked:
        """A question of one kind about a knowledge base."""
        number = self.draw.randrange(len(triples))
        one = triples[number]
        name = value_class(one.property)
        if kind == "single":
            text = self._ask("single", one.property, one.entity)
            return Asked(text, one.value, (number,), kind, name)
        if kind == "open":
            text = self._ask("open", one.property, one.entity)
            answer = f"The {one.property} of {one.entity} is {one.value}."
            return Asked(text, answer, (number,), kind, name)
        if kind == "two":
            other = self.draw.randrange(len(triples))
            two = triples[other]
            text = self._ask("two", one.property, one.entity, two.property, two.entity)
            facts = (number, other) if other != number else (number,)
            return Asked(text, f"{one.value}; {two.value}", facts, kind, name)
        property, entity = self._missing(triples, one)
        text = self._ask("single", property, entity)
        return Asked(text, REFUSAL, (), kind, value_class(property))

    def _missing(self, triples: Sequence[Triple], one: Triple) -> tuple[str, str]:
        """(property, entity) that no triple has: a known entity, or one that is not there."""
        has = {t.property for t in triples if t.entity == one.entity}
        if self.draw.random() < 0.5:
            free = [p for group in self.properties.values() for p in group if p not in has]
            return self.draw.choice(free), one.entity
        return one.property, self.entity()

    def _ask(self, kind: str, *parts: str) -> str:
        return wording(self.draw, kind, *parts, held=self.held_wordings)


def wording(draw: random.Random, kind: str, *parts: str, held: bool = False) -> str:
    """A question of one kind in one of its wordings; `parts`: property, entity, and so on.

    A question about one triple is worded for any property, for its class of values, or for itself,
    each as often, as far as there are such wordings. `held`: only in held-out wordings.
    """
    names = ("property", "entity", "property2", "entity2")
    known = wordings(kind, parts[0], held)
    return draw.choice(draw.choice(known)).format(**dict(zip(names, parts, strict=False)))


def wordings(kind: str, property: str, held: bool = False) -> list[list[str]]:
    """The wordings of a kind of question about `property`, from general to its own."""
    lists = [ASKED[kind]]
    if kind == "single":
        own = [name for name, properties in PROPERTIES.items() if property in properties]
        lists += [BY_CLASS[name] for name in own]
        lists += [BY_PROPERTY[property]] if property in BY_PROPERTY else []
    return [_half(one, held) for one in lists]


def _half(words: Sequence[str], held_out: bool) -> list[str]:
    """The words of held-out data, or those of training."""
    return [word for i, word in enumerate(words) if (i % _HELD_OUT_SHARE == 0) == held_out]
