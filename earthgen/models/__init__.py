"""The networks of EarthCrafter (Liu et al., AAAI 2026), in sizes from two CPU cores to a cluster.

docs/background/models.md is the introduction. Names load on first use; the configurations (`preset`
and `earthgen.models.presets`) and `bundled_weights` need no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
