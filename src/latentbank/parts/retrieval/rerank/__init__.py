"""Reranking the texts that a word index found, by what of the question stands where in them."""
