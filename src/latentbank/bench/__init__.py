"""Benchmarks: protocols over methods and budgets, a record of each run, and reports of records.

Importing this package loads nothing else.
"""
