"""Chats from the JSON that programs export, told by its shape.

ChatGPT, Claude, Slack, Telegram, Discord, Messenger and Instagram, and messages with roles as
language models take them. Knows values of JSON; nothing about documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from latentbank.documents.readers.chats.chat import Chat, Message
from latentbank.documents.time import Instant, parse_time
from latentbank.errors import InputError

__all__ = ["exported_chats"]

_SKIPPED = ("system", "tool")  # roles of what nobody said
_ROLES = {"system", "user", "assistant", "tool", "developer", "function"}


def exported_chats(value: Any, path: str) -> list[Chat] | None:
    """The chats that a JSON value holds; None where it is something else."""
    rows = value if isinstance(value, list) else [value]
    if not rows or not all(isinstance(row, dict) for row in rows):
        return None
    if all(isinstance(row.get("mapping"), dict) for row in rows):
        return [_chatgpt(row) for row in rows]
    if all(isinstance(row.get("chat_messages"), list) for row in rows):
        return [_claude(row) for row in rows]
    if all(_has_role(row) for row in rows):
        return [Chat("", _with_roles(rows))]
    if isinstance(value, list):
        if all("ts" in row and row.get("type") == "message" for row in rows):
            return [Chat(PurePath(path).parent.name, _slack(rows))]
        return None
    if isinstance(value.get("chats"), dict) and isinstance(value["chats"].get("list"), list):
        return [_telegram(chat) for chat in value["chats"]["list"] if isinstance(chat, dict)]
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages or not all(map(_is_object, messages)):
        return None
    return _one(value, messages)


def _one(value: dict[str, Any], messages: list[dict[str, Any]]) -> list[Chat] | None:
    if all(_has_role(row) for row in messages):
        return [Chat(_word(value.get("title")), _with_roles(messages))]
    if all("timestamp_ms" in row for row in messages):
        ordered = sorted(messages, key=lambda row: _number(row["timestamp_ms"]))
        return [Chat(_latin(_word(value.get("title"))), [_messenger(row) for row in ordered])]
    if isinstance(value.get("channel"), dict):
        guild, channel = value.get("guild"), value["channel"]
        names = [part.get("name") for part in (guild, channel) if isinstance(part, dict)]
        return [Chat(" › ".join(map(_word, filter(None, names))), list(_discord(messages)))]
    if any("date" in row and "text" in row for row in messages):
        return [_telegram(value)]
    return None


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _word(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _time(value: Any) -> Instant | None:
    if value is None or value == "":
        return None
    try:
        return parse_time(value)
    except InputError:
        return None


def _text(content: Any) -> str:
    """A text from a string, or from a list of strings and of objects with a text."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        return _text(content.get("text") or content.get("parts"))
    if isinstance(content, Sequence):
        return "".join(map(_text, content))
    return ""


def _has_role(row: Mapping[str, Any]) -> bool:
    return row.get("role") in _ROLES and "content" in row


def _with_roles(rows: Sequence[Mapping[str, Any]]) -> list[Message]:
    return [
        Message(row["role"], _text(row["content"]), _time(row.get("time") or row.get("timestamp")))
        for row in rows
        if row["role"] not in _SKIPPED
    ]


def _chatgpt(row: Mapping[str, Any]) -> Chat:
    """The branch of a conversation that its owner saw last."""
    nodes, name = row["mapping"], row.get("current_node")
    branch: list[Any] = []
    while isinstance(name, str) and isinstance(nodes.get(name), dict) and len(branch) < len(nodes):
        branch.append(nodes[name].get("message"))
        name = nodes[name].get("parent")
    if not branch:
        found = [node.get("message") for node in nodes.values() if isinstance(node, dict)]
        branch = sorted(
            found, key=lambda m: -_number(m.get("create_time")) if isinstance(m, dict) else 0.0
        )
    messages: list[Message] = []
    for message in reversed(branch):
        if not isinstance(message, dict):
            continue
        author = message.get("author")
        who = _word(author.get("role")) if isinstance(author, dict) else ""
        if who not in _SKIPPED:
            text = _text(message.get("content"))
            messages.append(Message(who, text, _time(message.get("create_time"))))
    id = _word(row.get("conversation_id") or row.get("id"))
    return Chat(_word(row.get("title")), messages, id)


def _claude(row: Mapping[str, Any]) -> Chat:
    messages = [
        Message(
            _word(message.get("sender")),
            _text(message.get("text") or message.get("content")),
            _time(message.get("created_at")),
        )
        for message in row["chat_messages"]
        if isinstance(message, dict)
    ]
    return Chat(_word(row.get("name")), messages, _word(row.get("uuid")))


def _slack(rows: Sequence[Mapping[str, Any]]) -> list[Message]:
    found = []
    for row in rows:
        profile = row.get("user_profile")
        names = profile if isinstance(profile, dict) else {}
        who = names.get("display_name") or names.get("real_name") or row.get("username")
        seconds = _number(row["ts"])
        who = _word(who) or _word(row.get("user"))
        found.append(Message(who, _text(row.get("text")), _time(int(seconds) or None)))
    return found


def _telegram(chat: Mapping[str, Any]) -> Chat:
    messages = chat.get("messages")
    rows = [row for row in messages if isinstance(row, dict)] if isinstance(messages, list) else []
    said = [
        Message(_word(row.get("from")), _text(row.get("text")), _time(row.get("date")))
        for row in rows
        if row.get("type", "message") == "message"
    ]
    number = chat.get("id")
    return Chat(_word(chat.get("name")), said, str(number) if isinstance(number, int) else "")


def _discord(rows: Sequence[Mapping[str, Any]]) -> Iterator[Message]:
    for row in rows:
        author = row.get("author")
        names = author if isinstance(author, dict) else {}
        who = _word(names.get("nickname")) or _word(names.get("name"))
        yield Message(who, _text(row.get("content")), _time(row.get("timestamp")))


def _messenger(row: Mapping[str, Any]) -> Message:
    who, text = _latin(_word(row.get("sender_name"))), _latin(_text(row.get("content")))
    return Message(who, text, _time(int(_number(row["timestamp_ms"])) or None))


def _latin(text: str) -> str:
    """Text that was written as UTF-8 and exported as Latin-1; other text as it is."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text
