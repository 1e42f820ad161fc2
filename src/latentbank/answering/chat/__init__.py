"""Conversations: messages in, an answer with numbered sources out.

Knows methods through their contract, and prompts; knows no files and no command line.
"""

from latentbank.answering.chat.chat import STYLES, Chat, Turn
from latentbank.answering.chat.citing import ChatAnswer, ChatStream, Citation
from latentbank.answering.chat.messages import Message, as_messages, resolved

__all__ = [
    "STYLES",
    "Chat",
    "ChatAnswer",
    "ChatStream",
    "Citation",
    "Message",
    "Turn",
    "as_messages",
    "resolved",
]
