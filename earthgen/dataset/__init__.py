"""Training data: real and simulated places as scenes of surface voxels, and crops of them.

`build_scene` makes a scene from the sources in a recipe, `open_scene` reads it, a `Split` divides
places into parts, and `open_crops` gives crops to a training loop. docs/guides/datasets.md
describes the recipe and the format on disk.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
