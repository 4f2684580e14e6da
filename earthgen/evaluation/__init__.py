"""How good models and their worlds are: reconstruction, agreement with the condition, realism,
diversity, seams.

`evaluate` measures backends and baselines on the held-out crops of a dataset, and `write_report`
writes the JSON file and the HTML page. docs/guides/evaluation.md defines each number.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
