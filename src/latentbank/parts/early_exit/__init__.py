"""Encoders that can stop early, and what makes their early vectors comparable with full ones."""
