"""One file per method. Adding a method edits no other file."""
