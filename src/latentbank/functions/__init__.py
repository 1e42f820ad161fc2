"""Small pure functions as text: a restricted language of numbers, read by a parser and never run.

A fading policy or a fusion of scores can be written in it, stored in a bank, and found by search.
"""
