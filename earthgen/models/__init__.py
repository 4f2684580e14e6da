"""The networks of EarthCrafter (Liu et al., AAAI 2026), in sizes from a GPU cluster's to two CPU cores'.

docs/models.md is the tour. This file loads no torch: `earthgen.models.presets`, `earthgen.models.errors` and
`earthgen.models.shipped` do neither, all other modules here do.
"""
