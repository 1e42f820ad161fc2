"""LangChain's own suite for retrievers; runs where langchain-tests is installed."""

from __future__ import annotations

from typing import Any

import pytest

from latentbank.adapter import build_method
from latentbank.documents.document import Document
from latentbank.model import MemoryModel
from server_world import FACTS
from tiny import Backbones

pytest.importorskip("langchain_tests")

from langchain_tests.integration_tests import RetrieversIntegrationTests

from latentbank.integrations.langchain import BankRetriever

MODELS: list[MemoryModel] = []


@pytest.fixture(scope="module", autouse=True)
def model(backbones: Backbones) -> None:
    made = MemoryModel(build_method("strata", backbones.fresh("llama"), preset="tiny"))
    made.write([Document(f"{text} There is tea.", id) for id, text in FACTS.items()])
    MODELS[:] = [made]


class TestBankRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[BankRetriever]:
        return BankRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"bank": MODELS[0]}

    @property
    def retriever_query_example(self) -> str:
        return "Where is there tea?"
