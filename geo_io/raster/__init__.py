"""Rasters: metadata of a source, its pixels resampled onto a frame, and GeoTIFF output."""
