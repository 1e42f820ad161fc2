"""A LangChain retriever over a bank. Needs langchain-core."""

from __future__ import annotations

from typing import Any

from latentbank.integrations.common import missing, opened, passages

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from pydantic import PrivateAttr
except ImportError as error:
    raise missing("langchain-core", "langchain-core") from error

__all__ = ["BankRetriever"]


class BankRetriever(BaseRetriever):
    """Finds documents of a bank.

    `bank`: a bank's file, or a `MemoryModel`. `k`: most documents.

    Examples:
        >>> BankRetriever(bank="notes.bank").invoke("Who repairs the lighthouse?")  # doctest: +SKIP
    """

    bank: Any
    k: int = 4
    _model: Any = PrivateAttr(default=None)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        if self._model is None:
            self._model = opened(self.bank)
        return [
            Document(
                id=one.id,
                page_content=one.text,
                metadata={
                    **one.metadata,
                    "id": one.id,
                    "source": one.source,
                    "time": one.time,
                    "score": one.score,
                },
            )
            for one in passages(self._model, query, k or self.k)
        ]
