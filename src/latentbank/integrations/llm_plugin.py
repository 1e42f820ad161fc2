"""A plugin for `llm`: `llm -m latentbank -o bank notes.bank "Who repairs the lighthouse?"`.

`llm` finds it by the entry point of the package. Needs llm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from latentbank.integrations.common import missing

try:
    import llm
    from pydantic import Field
except ImportError as error:
    raise missing("llm", "llm") from error

__all__ = ["BankModel", "register_models"]


class BankModel(llm.Model):
    """Answers from a bank; a conversation of `llm` goes on with its history."""

    model_id = "latentbank"
    can_stream = True

    class Options(llm.Options):
        """What `-o NAME VALUE` sets."""

        bank: str | None = Field(default=None, description="The bank's file.")
        style: str = Field(default="chat", description="short, sentence or chat.")
        quality: str = Field(default="fast", description="fast or best.")

    def __init__(self) -> None:
        self._opened: dict[str, Any] = {}

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """The answer's text, piece by piece; its sources go into the log."""
        from latentbank.model import MemoryModel

        given = prompt.options
        if not given.bank:
            raise llm.ModelError("Name a bank: -o bank notes.bank")
        if given.bank not in self._opened:
            self._opened[given.bank] = MemoryModel.open(given.bank, read_only=True, quick=True)
        growing = self._opened[given.bank].chat(
            _messages(prompt, conversation), stream=True, style=given.style, quality=given.quality
        )
        yield from growing
        if growing.answer is not None:
            response.response_json = {
                "sources": [one.id for one in growing.answer.citations],
                "confidence": growing.answer.confidence,
            }


def _messages(prompt: Any, conversation: Any) -> list[dict[str, str]]:
    messages = []
    if prompt.system:
        messages.append({"role": "system", "content": prompt.system})
    for earlier in conversation.responses if conversation is not None else ():
        messages.append({"role": "user", "content": earlier.prompt.prompt})
        messages.append({"role": "assistant", "content": earlier.text()})
    return [*messages, {"role": "user", "content": prompt.prompt}]


@llm.hookimpl
def register_models(register: Callable[[Any], None]) -> None:
    """Tells `llm` of the model."""
    register(BankModel())
