"""Config dataclasses and plain JSON values: building, merging, and describing fields.

A field carries its own help text: `field(default=…, metadata={"help": "…"})`, or `setting(default,
"…")` for short. A group of fields is a nested frozen dataclass. A class may name fields that have
moved in `ALIASES` (old name → dotted new name), so that older adapters, banks and commands still
work. Knows dataclasses; knows no method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any, TypeVar

from latentbank.errors import InputError, unknown

T = TypeVar("T")


def setting(default: T, help: str) -> T:
    """A config field with its default and help text."""
    made: T = field(default=default, metadata={"help": help})
    return made


@dataclasses.dataclass(frozen=True)
class FieldHelp:
    """One field of a config: dotted name, default, help text."""

    name: str
    default: Any
    help: str


def describe(config: Any, prefix: str = "") -> Iterator[FieldHelp]:
    """Every field of a config class, or of a config with its values in place of the defaults.

    Fields of nested groups have dotted names. Their defaults are those of the group as it stands in
    the outer config.
    """
    for item in dataclasses.fields(config):
        value = item.default if isinstance(config, type) else getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from describe(value, f"{prefix}{item.name}.")
        else:
            yield FieldHelp(prefix + item.name, value, str(item.metadata.get("help", "")))


def build_config(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """A config dataclass from plain JSON values.

    Raises:
        UnknownNameError: an unknown field; the known ones are listed.
        InputError: a plain value in the place of a group.
    """
    fields = {item.name: item for item in dataclasses.fields(cls)}
    built: dict[str, Any] = {}
    for key, value in normalised(cls, values).items():
        if key not in fields:
            raise unknown(f"{cls.__qualname__} field", key, fields)
        default = fields[key].default
        if dataclasses.is_dataclass(default) and not isinstance(value, type(default)):
            if not isinstance(value, Mapping):
                names = ", ".join(f"{key}.{f.name}" for f in dataclasses.fields(default))
                raise InputError(f"{key} is a group; set one of {names}, got {value!r}")
            value = build_config(type(default), value)
        else:
            value = _typed(f"{cls.__qualname__}.{key}", default, value)
        built[key] = value
    return cls(**built)


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _typed(name: str, default: Any, value: Any) -> Any:
    """`value` in the type of a field's default. Raises InputError for a value of another type."""
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{name}: expected a list, got {value!r}")
        return tuple(value)
    kind = type(default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in _KINDS and type(value) is not kind:
        raise InputError(f"{name}: expected {_KINDS[kind]}, got {value!r}")
    return value


def normalised(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with dotted names as nested mappings and moved fields under their new names."""
    aliases: Mapping[str, str] = getattr(cls, "ALIASES", {})
    nested: dict[str, Any] = {}
    for key, value in values.items():
        first, *rest = aliases.get(key, key).split(".")
        for name in reversed(rest):
            value = {name: value}
        nested = merged(nested, {first: value})
    return nested


def require_at_least(config: Any, least: float, *names: str) -> None:
    """Raises InputError for the first of these fields that is below `least`."""
    for name in names:
        if getattr(config, name) < least:
            limit = "not be negative" if least == 0 else f"be at least {least:g}"
            raise InputError(f"{name} must {limit}, got {getattr(config, name)}")


def require_share(config: Any, *names: str) -> None:
    """Raises InputError for the first of these fields that is outside 0 … 1."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise InputError(f"{name} must lie between 0 and 1, got {getattr(config, name)}")


def require_rising(config: Any, name: str, least: int) -> None:
    """Raises InputError unless a field holds rising numbers, the first at least `least`."""
    values = list(getattr(config, name))
    if not values or values[0] < least or values != sorted(set(values)):
        raise InputError(f"{name} must be rising numbers from {least}, got {values}")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`; a mapping changes only the fields of the group that it names."""
    result = dict(base)
    for name, value in changes.items():
        old = result.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merged(old, value)
        result[name] = value
    return result
