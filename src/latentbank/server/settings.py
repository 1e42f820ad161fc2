"""Settings of a server: from a TOML file, then from the environment, then from the command line.

Tokens are kept as SHA-256 digests only. Knows files, names and numbers; loads no model.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from latentbank.config import build_config, setting
from latentbank.errors import InputError
from latentbank.methods import DEFAULT_METHOD
from latentbank.sizes import parse_size

__all__ = ["LOCAL", "Limits", "Settings", "Tenant", "hash_token", "load_settings"]

LOCAL = "local"  # the only tenant of a server without tenants
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIZES = {"body_bytes", "document_bytes", "budget_bytes"}


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    body_bytes: int = setting(8 << 20, "Largest body of a request.")
    document_bytes: int = setting(1 << 20, "Largest text of a document, in UTF-8.")
    batch_documents: int = setting(256, "Documents that one request may write.")
    question_characters: int = setting(20_000, "Longest question or chat.")
    answer_tokens: int = setting(512, "Most tokens of an answer.")
    body_seconds: float = setting(30.0, "Time in which a request's body must arrive.")
    request_seconds: float = setting(120.0, "Time after which an answer is given up.")
    first_token_seconds: float = setting(
        30.0, "A question whose answer would begin later than this is refused with 429."
    )
    waiting_questions: int = setting(256, "Questions that may wait; more are refused with 429.")
    waiting_writes: int = setting(256, "Writes that may wait for one bank.")
    together: int = setting(16, "Questions that are answered in one batch.")
    open_banks: int = setting(32, "Banks that are kept open; the others open on use.")


@dataclass(frozen=True)
class Tenant:
    """Who may use the server, with what.

    Attributes:
        tokens: SHA-256 digests of its bearer tokens, in hex.
    """

    name: str = setting("", "The tenant's name: lower-case letters, digits, - and _.")
    tokens: tuple[str, ...] = setting((), "SHA-256 digests of its tokens.")
    budget_bytes: int = setting(0, "Largest sum of the budgets of its banks; 0: no limit.")
    banks: int = setting(64, "Most banks.")
    questions_per_minute: int = setting(0, "Questions in a minute; 0: no limit.")
    writes_per_minute: int = setting(0, "Writes and deletes in a minute; 0: no limit.")


@dataclass(frozen=True)
class Settings:
    """Everything that a server is started with."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8000, "Port; 0 takes a free one.")
    data: str = setting("banks", "Folder of the banks, one folder for each tenant.")
    adapter: str = setting(DEFAULT_METHOD, "Method or adapter of a new bank.")
    backbone: str = setting("smollm2-135m", "Model of a new bank.")
    device: str = setting("cpu", "Where the model runs.")
    dtype: str = setting("auto", "auto, float32, bfloat16 or float16.")
    engine: str = setting("torch", "auto, torch or openvino.")
    style: str = setting("chat", "short, sentence or chat, where a conversation does not say.")
    quality: str = setting("fast", "fast or best, where a question does not say.")
    metrics_token: str = setting("", "SHA-256 digest of the token that may read /metrics.")
    stop_seconds: int = setting(30, "Time that open requests have when the server stops.")
    limits: Limits = Limits()
    tenants: tuple[Tenant, ...] = ()
    mounted: tuple[tuple[str, str], ...] = ()  # (name, file) of banks of the tenant `local`

    @property
    def is_open(self) -> bool:
        """Whether requests need no token."""
        return not any(tenant.tokens for tenant in self.tenants)


def hash_token(token: str) -> str:
    """What is kept of a token: its SHA-256 digest in hex. Tokens are random, so no salt is due."""
    return hashlib.sha256(token.encode()).hexdigest()


def load_settings(
    file: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from a file, from `LATENTBANK_SERVE_*` and from `changes`, the last one wins.

    `LATENTBANK_SERVE_PORT` sets `port`, `LATENTBANK_SERVE_LIMITS_TOGETHER` sets `limits.together`.
    `LATENTBANK_SERVE_TOKEN` is a token of the tenant `local`.

    Raises:
        InputError: a file that cannot be read, a wrong value, or no token on an open address.
        UnknownNameError: an unknown name.
    """
    values = {} if file is None else _read(Path(file))
    tenants = _tenants(values.pop("tenants", {}))
    environment = os.environ if environment is None else environment
    limits = {**_table(values.pop("limits", {}), "limits")}
    values = _table(values.pop("server", values), "server")
    for item in fields(Settings):
        if item.name in ("limits", "tenants", "mounted"):
            continue
        _from_environment(values, item.name, item.default, environment, "LATENTBANK_SERVE_")
    for item in fields(Limits):
        _from_environment(limits, item.name, item.default, environment, "LATENTBANK_SERVE_LIMITS_")
    values |= {name: value for name, value in (changes or {}).items() if value is not None}
    mounted = tuple(values.pop("mounted", ()))
    built: Settings = build_config(Settings, values)
    built = replace(built, limits=build_config(Limits, _sizes(limits)), mounted=mounted)
    if token := environment.get("LATENTBANK_SERVE_TOKEN"):
        tenants = (*tenants, Tenant(LOCAL, (hash_token(token),)))
    return checked(replace(built, tenants=tenants or (Tenant(LOCAL),)))


def checked(settings: Settings) -> Settings:
    """`settings`, if a server may start with them; else InputError."""
    names = [tenant.name for tenant in settings.tenants]
    if len(set(names)) < len(names):
        raise InputError(f"Each tenant needs a name of its own, got {', '.join(names)}.")
    digests = [digest for tenant in settings.tenants for digest in tenant.tokens]
    digests += [settings.metrics_token] if settings.metrics_token else []
    if any(not _DIGEST.fullmatch(digest) for digest in digests):
        raise InputError(
            "A token is kept as its SHA-256 digest, 64 hex digits; make one with: "
            "latentbank serve --new-token NAME"
        )
    if len(set(digests)) < len(digests):
        raise InputError("Two tenants have the same token; make another one.")
    if settings.is_open and settings.host not in ("127.0.0.1", "localhost", "::1"):
        raise InputError(
            f"A server on {settings.host} needs tokens, so that not everybody reads its banks; "
            "make one with: latentbank serve --new-token NAME"
        )
    if not settings.is_open and any(not tenant.tokens for tenant in settings.tenants):
        raise InputError("Where one tenant has a token, each needs one.")
    return settings


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not TOML: {error}.") from error


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"[{name}] must be a table of names and values, got {value!r:.80}.")
    return dict(value)


def _sizes(values: dict[str, Any]) -> dict[str, Any]:
    """Sizes may be texts such as "8MiB"."""
    return {
        name: parse_size(value) if name in _SIZES and isinstance(value, str) else value
        for name, value in values.items()
    }


def _tenants(tables: Any) -> tuple[Tenant, ...]:
    made = []
    for name, table in _table(tables, "tenants").items():
        if not _NAME.fullmatch(name):
            raise InputError(
                f"A tenant's name has lower-case letters, digits, - and _, got {name!r:.80}."
            )
        values = _table(table, f"tenants.{name}")
        if "budget" in values:
            values["budget_bytes"] = values.pop("budget")
        made.append(build_config(Tenant, {**_sizes(values), "name": name}))
    return tuple(made)


def _from_environment(
    values: dict[str, Any],
    name: str,
    default: Any,
    environment: Mapping[str, str],
    prefix: str,
) -> None:
    text = environment.get(prefix + name.upper())
    if text is None:
        return
    if isinstance(default, str):
        values[name] = text
        return
    try:
        values[name] = parse_size(text) if name in _SIZES else type(default)(text)
    except ValueError as error:
        raise InputError(f"{prefix}{name.upper()} must be a number, got {text!r:.80}.") from error
