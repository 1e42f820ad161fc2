"""A session of the OpenAI Agents SDK whose history is a bank.

The newest items come back in their order; what the budget does not hold any more is left out, so
the history of an agent stays bounded. Knows no model: items are kept as they are. Needs nothing but
the protocol, so openai-agents need not be installed here.
"""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.codec.text import ZstdTextCodec
from latentbank.errors import InputError

__all__ = ["BankSession"]

_PRINT = BankFingerprint("session", "openai-agents", "none", "none")
_LEVEL = "item"


class BankSession:
    """Implements `agents.memory.Session` over a bank's file.

    Several sessions may share one file. `budget`: of a new file, such as "1MiB"; the oldest items
    of all of its sessions leave first.

    Examples:
        >>> await Runner.run(agent, "Hello", session=BankSession("ada", "agents.bank"))
        ... # doctest: +SKIP

    Raises:
        BankError: the file is something else or damaged.
    """

    session_settings: Any = None

    def __init__(self, session_id: str, bank: str | Path, budget: int | str = "8MiB") -> None:
        if not session_id or "#" in session_id:
            raise InputError("A session's id is a text without '#'.")
        self.session_id = session_id
        self._codec, self._lock = ZstdTextCodec(), threading.Lock()
        if Path(bank).exists():
            self._bank = MemoryBank.open(bank, _PRINT)
        else:
            self._bank = MemoryBank.create(bank, _PRINT, budget=budget, policy="age")

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """The newest `limit` items, or all that are kept, in the order in which they came."""
        return await asyncio.to_thread(self._get, limit)

    async def add_items(self, items: list[Any]) -> None:
        """Keeps items; durable on return."""
        await asyncio.to_thread(self._add, list(items))

    async def pop_item(self) -> Any | None:
        """Takes out the newest item; None where there is none."""
        return await asyncio.to_thread(self._pop)

    async def clear_session(self) -> None:
        """Deletes the items of this session for good."""
        await asyncio.to_thread(lambda: self._bank.delete(self._ids()))

    def close(self) -> None:
        """Closes the file."""
        self._bank.close()

    def _ids(self) -> list[str]:
        start = f"{self.session_id}#"
        own = [id for id in self._bank.ids() if id.startswith(start)]
        return sorted(own, key=lambda id: int(id[len(start) :]))

    def _get(self, limit: int | None) -> list[Any]:
        ids = self._ids()
        chosen = ids if limit is None else ids[len(ids) - min(limit, len(ids)) :]
        entries = [entry for id in chosen if (entry := self._bank.get(id)) is not None]
        texts = self._codec.decode_all([entry.payload for entry in entries])
        return [json.loads(text) for text in texts]

    def _add(self, items: list[Any]) -> None:
        with self._lock:
            ids = self._ids()
            first = int(ids[-1].rpartition("#")[2]) + 1 if ids else 0
            payloads = self._codec.encode_all([json.dumps(item) for item in items])
            self._bank.append(
                [
                    Entry(f"{self.session_id}#{first + at}", _LEVEL, payload)
                    for at, payload in enumerate(payloads)
                ],
                fade=lambda entry: None,
            )

    def _pop(self) -> Any | None:
        with self._lock:
            found = self._get(1)
            if found:
                self._bank.delete(self._ids()[-1:])
            return found[0] if found else None
