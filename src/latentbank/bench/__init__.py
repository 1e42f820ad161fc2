"""Benchmarks: the record of a run and the tables made from records.

Importing this package loads nothing else.
"""
