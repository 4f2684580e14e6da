"""Regions: frames of boxes, polygons and files, and files or grids of many regions."""
