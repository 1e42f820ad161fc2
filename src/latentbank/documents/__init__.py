"""Documents: the value, chunking, and readers of rows. Knows no model and no bank."""
