"""Surface voxels and their Gaussians: what backends make, and helpers that make them.

`surface_of_heights` turns height maps into voxels, `surface_voxels` dense volumes;
`surface_splats` covers voxels with discs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
