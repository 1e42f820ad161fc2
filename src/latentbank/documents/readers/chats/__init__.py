"""Chats that messengers and assistants export: a document for each day of each chat."""
