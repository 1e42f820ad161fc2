"""Search for policies and fusions: islands, a MAP-Elites grid and a cascade of evaluations.

The form is that of AlphaEvolve (Novikov et al., 2025) and openevolve. What evolves are expressions
(see `functions.expression`), never programs that run.
"""
