"""The rows of `latentbank bench --methods`, read from the command line.

`a,b+LoRA,NAME=method[:adapter][,key=value…]`. Knows the grammar; which adapter belongs to a method
is looked up in `bench.plan`. Imported inside the command, because it imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from latentbank.adapter import find_adapter, packaged_adapters, read_config
from latentbank.bench.plan import LORA, Row, backbone_name, only_lora, packaged_for
from latentbank.cli.common import merge, parse_pairs
from latentbank.config import normalised
from latentbank.errors import InputError, unknown
from latentbank.method import METHODS

PRESET = "preset"


@dataclass
class _Draft:
    """A row as it was typed; `adapter` None leaves the choice to the defaults."""

    name: str
    method: str
    adapter: str | None = None
    pairs: list[str] = field(default_factory=list)
    defined: bool = False


def parse_rows(texts: Sequence[str], backbone: str, adapters: Sequence[str] | None) -> list[Row]:
    """Rows of `--methods` (each a comma-separated list) and `--adapter` (each NAME=ADAPTER).

    A plain name is a method, a packaged adapter, or METHOD+LoRA. A method takes its packaged
    adapter if it needs training; one that works without takes it as METHOD+LoRA. `key=value` behind
    a definition changes its config; `preset=NAME` names the sizes of an untrained method.

    Raises:
        UnknownNameError: no such method or adapter, or config field; the known ones are listed.
        InputError: a name that appears twice, or an adapter for no row.
    """
    drafts: list[_Draft] = []
    for word in (part.strip() for text in texts for part in text.split(",")):
        if not word:
            raise InputError("--methods holds an empty name; expected such as none,mac,rag+LoRA.")
        if "=" in word and drafts and drafts[-1].defined and _is_field(drafts[-1].method, word):
            drafts[-1].pairs.append(word)
        else:
            drafts.append(_draft(word))
    given = _given(adapters, drafts)
    names = [draft.name for draft in drafts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--methods names {twice!r} twice; give one another name: NAME={twice}.")
    return [_row(draft, backbone_name(backbone), given) for draft in drafts]


def _draft(word: str) -> _Draft:
    name, sign, rest = word.partition("=")
    if sign:
        method, colon, adapter = rest.partition(":")
        if not name or method not in METHODS:
            raise unknown("method", method, METHODS)
        return _Draft(name, method, adapter if colon else None, defined=True)
    known = packaged_adapters()
    if word in known:
        return _Draft(word, read_config(known[word])["method"], word)
    method = word.removesuffix(LORA)
    if method not in METHODS:
        raise unknown("method or adapter", word, [*METHODS, *known])
    return _Draft(word, method)


def _is_field(method: str, word: str) -> bool:
    """Whether KEY=VALUE changes the config of a method, rather than starting a row."""
    key = word.partition("=")[0].split(".")[0]
    config = METHODS.get(method).Config
    fields = {item.name for item in dataclasses.fields(config)}
    return key == PRESET or key in fields or key in getattr(config, "ALIASES", {})


def _given(adapters: Sequence[str] | None, drafts: Sequence[_Draft]) -> dict[str, str]:
    """NAME=ADAPTER pairs, each for a row or a method."""
    named: dict[str, str] = {}
    names = {n for d in drafts for n in (d.name, d.method)}
    for pair in adapters or ():
        name, sign, adapter = pair.partition("=")
        if not sign or not adapter:
            raise InputError(f"--adapter takes NAME=ADAPTER, such as mac=runs/mac, got {pair!r}.")
        if name not in names:
            raise unknown("row of --adapter", name, names)
        find_adapter(adapter)
        named[name] = adapter
    return named


def _row(draft: _Draft, backbone: str, given: Mapping[str, str]) -> Row:
    adapter = _adapter(draft, backbone, given)
    changes = parse_pairs(draft.pairs)
    preset = changes.pop(PRESET, "")
    row = Row(draft.name, draft.method, adapter, {}, str(preset))
    cls = METHODS.get(draft.method)
    if preset and adapter:
        raise InputError(f"{draft.name} has an adapter, which brings its sizes; leave preset out.")
    if preset and preset not in cls.presets:
        raise unknown(f"preset of '{draft.method}'", str(preset), cls.presets)
    if not changes:
        return row
    base: Mapping[str, Any] = cls.presets.get(preset, {})
    if adapter:
        base = read_config(find_adapter(adapter))["config"]
    full = merge(asdict(cls.Config()), normalised(cls.Config, base))
    changes = normalised(cls.Config, changes)
    changed = merge(full, changes)
    return replace(row, overrides={key: changed[key] for key in changes})


def _adapter(draft: _Draft, backbone: str, given: Mapping[str, str]) -> str:
    """The adapter of a row, "" for none."""
    if draft.name in given:
        return given[draft.name]
    if draft.adapter is not None:
        if draft.adapter:
            find_adapter(draft.adapter)
        return draft.adapter
    lora = draft.name.endswith(LORA) and not draft.defined
    chosen = given.get(draft.method) or packaged_for(draft.method, backbone)
    if lora and not chosen:
        raise InputError(
            f"{draft.name} needs an adapter of {draft.method} for {backbone}, and none ships with "
            f"the package; name one with --adapter {draft.name}=FOLDER."
        )
    return chosen if chosen and (lora or not only_lora(chosen)) else ""
