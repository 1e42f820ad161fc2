"""Memory for agents: episodes in a bank, found by likeness while planning and acting.

The form is that of RAP (Kagaya et al., 2024): Retrieval-Augmented Planning with contextual memory.
"""
