"""The tables and plots of README.md and docs/, made from the records in results/."""
