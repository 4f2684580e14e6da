"""Runs: the weights that they start from, their lock, and how they compare."""
