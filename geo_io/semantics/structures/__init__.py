"""Bridges, barriers, masts and marked surfaces from the attributes of features."""
