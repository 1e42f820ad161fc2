"""Work on whole banks that needs a model: a folder kept up to date, a move to another model."""
