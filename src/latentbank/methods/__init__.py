"""One file per method. Adding a method edits no other file."""

DEFAULT_METHOD = "strata"
"""The method of a new bank where the user names none."""
TEXT_METHOD = "rag"
"""The same for a model behind a server, which reads texts only."""
