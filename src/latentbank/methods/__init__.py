"""One file per method. Adding a method edits no other file."""

DEFAULT_METHOD = "strata"
"""The method of a new bank where the user names none."""
