"""How far structures reach: what a window must know of those around it."""

AROUND = 24.0
"""Metres around a window from which structures reach into it: half the widest, and a margin."""

RAMP = 160.0
"""Longest ramp of a bridge, metres: where that is too short for the usual slope, it is steeper."""
