"""Vector layers: metadata of a source, and its features read by bounds and repaired."""
