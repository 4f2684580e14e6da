"""How a backend is described: stages that compute blocks on windows, and rules that blend windows.

docs/plugins/stages.md explains stages, docs/plugins/agreement.md the blending rules.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
