"""Triples as attention memory: features, adapters, their start, and what training watches."""
