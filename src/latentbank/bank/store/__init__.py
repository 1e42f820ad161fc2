"""How a bank lies in its file: pages, tables, the index in memory, transactions.

Knows bytes and SQLite; nothing about methods or what a payload means.
"""
