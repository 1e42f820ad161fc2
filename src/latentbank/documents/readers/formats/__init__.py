"""Formats with a structure of their own: pages, books, mails, chats, subtitles and source code."""
