"""Streams of facts that no model can know, and their paraphrases."""
