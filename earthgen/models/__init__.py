"""The networks of EarthCrafter (Liu et al., AAAI 2026), in sizes from a GPU cluster's to two CPU
cores'.

docs/background/models.md is the tour. This file loads no torch: `earthgen.models.presets`,
`earthgen.errors` and `earthgen.models.weights.bundled` do neither, all other modules here do.
"""
