"""The frozen causal LM: loading, layers, generation and transports. Knows no bank."""
