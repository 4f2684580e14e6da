"""Benchmarks: `python -m benchmarks [name ...] [--json]`. Each prints medians, ratios, the
machine."""
