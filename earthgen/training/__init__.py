"""Training of the learned parts on scenes of `earthgen.dataset`. docs/guides/training.md is the
tour.

`run.train` trains parts one after the other, `loop.fit` one of them; `parts` has what each part
learns, and how it is measured and drawn. This file, `settings` and `errors` load no torch.
"""
