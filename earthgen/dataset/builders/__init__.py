"""From the sources of a scene to its columns and surface voxels.

`layers` combines points, rasters and vectors, `meshes` voxelises triangles, and `worlds` takes
generated worlds; each uses the steps in the other modules.
"""
