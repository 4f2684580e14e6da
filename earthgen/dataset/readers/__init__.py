"""Readers of a scene's sources: point clouds, rasters, vectors, meshes, city models, tilesets.

Points and rasters become arrays; everything made of triangles becomes
`earthgen.dataset.readers.triangles.Patch`, whatever its format. Files of other people are checked
here, so an error names the file and what to do.
"""
