"""Work on whole banks: export, merge, split, compare, repair, resize, verify.

Calls the public members of a bank and of its session; holds no state of its own.
"""
