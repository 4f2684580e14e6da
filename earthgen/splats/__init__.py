"""2D Gaussian splats: their files, cameras, pictures, losses and metrics.

The names load on first use; `Gaussians`, cameras and files need no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
