"""Sets of weights: the format of their files, the model card, and the set in the package."""
