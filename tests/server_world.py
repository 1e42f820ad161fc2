"""A server on a free port over a tiny random model, for the tests of what a client sees."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from latentbank.server.app import create_app
from latentbank.server.settings import Limits, Settings, Tenant, hash_token
from tiny import Backbones

MODEL = "gpt2"
ADA, EVE = "token-of-ada", "token-of-eve"
FACTS = {
    "ada": "Ada Lovelace wrote the first program in 1843.",
    "oslo": "The harbour of Oslo froze in the winter of 1924.",
    "tea": "Café Zürich serves 17 kinds of tea.",
    "bees": "Bees dance to tell the hive where the clover is.",
}


def settings_of(folder: Path, backbones: Backbones, **changes: Any) -> Settings:
    limits = changes.pop("limits", Limits())
    made = Settings(
        port=0,
        data=str(folder / "banks"),
        backbone=str(backbones.folder(MODEL)),
        adapter="strata",
        dtype="float32",
        tenants=(Tenant("local"),),
        stop_seconds=5,
        style="short",
    )
    return replace(made, limits=limits, **changes)


def two_tenants(**quotas: int) -> tuple[Tenant, ...]:
    return (
        Tenant("ada", (hash_token(ADA),), **quotas),
        Tenant("eve", (hash_token(EVE),), **quotas),
    )


@contextmanager
def running(
    settings: Settings, backbones: Backbones, prepare: Callable[[Any], None] | None = None
) -> Iterator[tuple[str, Any]]:
    """(address, application) of a server in a thread of this process."""
    app = create_app(settings, backbones.fresh(MODEL))
    if prepare is not None:
        prepare(app)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", app
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
