"""The bodies of requests to banks and documents, and of OpenAI's endpoints as far as they are read.

Knows shapes and limits of values; knows no bank.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from latentbank.documents.document import Document
from latentbank.errors import InputError

__all__ = [
    "ChatRequest",
    "CompletionRequest",
    "DeleteRequest",
    "DocumentBody",
    "DocumentsBody",
    "ErrorBody",
    "NewBank",
    "ResponseRequest",
    "SearchRequest",
]

Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Source = Annotated[str, StringConstraints(max_length=4096)]
When = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Quality = Literal["fast", "best"]


class Strict(BaseModel):
    """A body that has no other names than these."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """An error in OpenAI's form."""

    error: ErrorDetail


class NewBank(Strict):
    """A bank to make."""

    name: Name = Field(
        description="Letters, digits and . _ -", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
    )
    budget: str | int | None = Field(
        None, description='Largest size of its files, such as "8MiB"; none: no limit.'
    )
    method: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        None, description="A method or a packaged adapter; the server's own where none is named."
    )
    ledger: Literal["full", "ids", "none"] = "full"
    policy: Annotated[str, StringConstraints(max_length=128)] = "blend"


class DocumentBody(Strict):
    """A document to write."""

    text: str = Field(description="The text; not empty.", min_length=1)
    id: Id | None = Field(None, description="Your key; the text's hash where none is given.")
    time: When | None = Field(None, description="When it was written or seen, as ISO 8601.")
    source: Source | None = None
    metadata: dict[str, Any] | None = None

    def document(self) -> Document:
        """The document. Raises InputError."""
        return Document(self.text, self.id, self.time, self.source, self.metadata)


class DocumentsBody(Strict):
    """Documents to write together."""

    documents: list[DocumentBody] = Field(min_length=1, max_length=4096)


class DeleteRequest(Strict):
    """Which documents to delete: by id, or by conditions that must all hold."""

    ids: list[Id] | None = Field(None, max_length=4096)
    source: Source | None = None
    since: When | None = None
    before: When | None = None
    where: list[Annotated[str, StringConstraints(max_length=512)]] | None = Field(
        None, max_length=16, description="Conditions such as year=2020 or title~harbour."
    )


class SearchRequest(BaseModel):
    """A search in a vector store, which is a bank."""

    query: str | list[str]
    max_num_results: int = Field(10, ge=1, le=50)
    filters: Any = None
    ranking_options: Any = None
    rewrite_query: bool | None = None


class Part(BaseModel):
    """A part of a message; only text is read."""

    type: str
    text: str | None = None


class Message(BaseModel):
    """A message of a chat."""

    role: str
    content: str | list[Part] | None = None

    def text(self) -> str:
        """The text of all parts. Raises InputError where a part is something else."""
        if isinstance(self.content, list):
            if any(part.text is None for part in self.content):
                raise InputError("Only the text of a message can be read.")
            return "\n".join(part.text for part in self.content if part.text)
        return self.content or ""


class StreamOptions(BaseModel):
    """What a stream holds beside the text."""

    include_usage: bool | None = None


class Asking(BaseModel):
    """What all questions may say. Decoding is greedy: temperature and the like change nothing."""

    model: str = Field(description="A bank, or the model's own name for an answer without memory.")
    bank: Name | None = Field(None, description="The bank, where `model` names the model.")
    quality: Quality | None = None
    style: Literal["short", "sentence", "chat"] | None = Field(
        None, description="How an answer is written; `chat` has numbered sources."
    )
    memory: bool = Field(True, description="False: the plain model with the same adapter.")
    stream: bool | None = False
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(None, ge=1, le=1)
    tools: list[Any] | None = Field(None, max_length=0)
    user: str | None = None


class ChatRequest(Asking):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=256)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    stream_options: StreamOptions | None = None


class CompletionRequest(Asking):
    """POST /v1/completions."""

    prompt: str | list[str]
    max_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    stream_options: StreamOptions | None = None


class InputItem(BaseModel):
    """A message of a response's input."""

    role: str = "user"
    type: str | None = None
    content: str | list[Part] | None = None

    def text(self) -> str:
        """The text of all parts."""
        return Message(role=self.role, content=self.content).text()


class ResponseRequest(Asking):
    """POST /v1/responses."""

    input: str | Annotated[list[InputItem], Field(min_length=1, max_length=256)]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
