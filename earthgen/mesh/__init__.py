"""Smooth meshes of a world: terrain, roofs, walls and crowns, in place of the cubes of voxels."""
