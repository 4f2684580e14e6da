"""Cameras in a projected CRS: poses around a scene, paths, and files."""
