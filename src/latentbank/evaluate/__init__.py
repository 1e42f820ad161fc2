"""Question-answer data, metrics, and scoring a method on them."""
