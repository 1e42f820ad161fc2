"""A LlamaIndex memory block: what leaves the short-term memory goes into a bank.

Needs llama-index-core.
"""

from __future__ import annotations

import asyncio
from typing import Any

from latentbank.documents.document import Document
from latentbank.integrations.common import missing, opened, passages

try:
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.memory import BaseMemoryBlock
    from pydantic import PrivateAttr
except ImportError as error:
    raise missing("llama-index-core", "llama-index-core") from error

__all__ = ["BankMemoryBlock"]


class BankMemoryBlock(BaseMemoryBlock[str]):
    """Keeps messages in a bank and gives back those that fit the latest one.

    `bank`: a bank's file, made where it is new, or a `MemoryModel`. `k`: most messages that come
    back. Old ones fade when the budget is full.

    Examples:
        >>> block = BankMemoryBlock(bank="chat.bank")                    # doctest: +SKIP
        >>> Memory.from_defaults(memory_blocks=[block])                  # doctest: +SKIP
    """

    name: str = "latentbank"
    bank: Any
    budget_bytes: int = 8 << 20
    k: int = 4
    _model: Any = PrivateAttr(default=None)

    def _opened(self) -> Any:
        if self._model is None:
            self._model = opened(self.bank, budget_bytes=self.budget_bytes)
        return self._model

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        asked = [one.content for one in messages or () if one.role == "user" and one.content]
        if not asked:
            return ""
        found = await asyncio.to_thread(lambda: passages(self._opened(), asked[-1], self.k))
        return "\n".join(one.text for one in found)

    async def _aput(self, messages: list[ChatMessage]) -> None:
        documents = [
            Document(
                f"{one.role.value}: {one.content}",
                source=one.additional_kwargs.get("session_id"),
                metadata={"role": one.role.value},
            )
            for one in messages
            if one.content and one.content.strip()
        ]
        if documents:
            await asyncio.to_thread(lambda: self._opened().write(documents))
