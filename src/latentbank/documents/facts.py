"""`Triple`: a document of one fact, an entity's property and its value.

A triple's id is made from entity and property, so a new value of the same property is a new version
of the same document. Knows documents; knows no file, model or bank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentbank.documents.document import JSON, Document, Time
from latentbank.documents.identity import content_hash
from latentbank.errors import InputError

__all__ = ["ENTITY", "PROPERTY", "VALUE", "Triple", "as_triple", "key_text", "triple_id"]

ENTITY, PROPERTY, VALUE = "entity", "property", "value"


def triple_id(entity: str, property: str) -> str:
    """The id of the triple of an entity's property: 16 hex digits.

    Case and white space make no difference.
    """
    return content_hash("\x1f".join(_folded(part) for part in (entity, property)))


def _folded(name: str) -> str:
    """One spelling of a name in all of its cases; dotless ı has the capital of i."""
    return " ".join(name.split()).casefold().upper().casefold()


def key_text(entity: str, property: str) -> str:
    """The text that a triple is looked up by: "the PROPERTY of ENTITY"."""
    return f"the {property} of {entity}"


class Triple(Document):
    """⟨entity, property, value⟩ as a document: "The PROPERTY of ENTITY is VALUE".

    Raises:
        InputError: entity, property or value is no text or has no visible character.
    """

    entity: str
    property: str
    value: str

    def __init__(
        self,
        entity: str,
        property: str,
        value: str,
        time: Time | None = None,
        source: str | None = None,
        metadata: Mapping[str, JSON] | None = None,
    ) -> None:
        parts = {ENTITY: entity, PROPERTY: property, VALUE: value}
        for name, part in parts.items():
            if not isinstance(part, str):
                raise InputError(f"A triple's {name} must be a string, got {type(part).__name__}.")
            if not part.strip():
                raise InputError(f"The triple has no {name}.")
        entity, property = (" ".join(part.split()) for part in (entity, property))
        super().__init__(
            _opening(entity, property) + value.strip(),
            triple_id(entity, property),
            time,
            source,
            {**(metadata or {}), ENTITY: entity, PROPERTY: property},
        )
        for name, part in ((ENTITY, entity), (PROPERTY, property), (VALUE, value.strip())):
            object.__setattr__(self, name, part)


def as_triple(text: str, metadata: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """(entity, property, value) of a document that holds a triple; None for any other."""
    entity, property = metadata.get(ENTITY), metadata.get(PROPERTY)
    if not isinstance(entity, str) or not isinstance(property, str):
        return None
    opening = _opening(entity, property)
    return (entity, property, text[len(opening) :]) if text.startswith(opening) else None


def _opening(entity: str, property: str) -> str:
    return f"T{key_text(entity, property)[1:]} is "
