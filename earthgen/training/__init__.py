"""Training of the learned parts on scenes of `earthgen.dataset`.

docs/guides/training.md is the introduction. Names load on first use; settings need no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
