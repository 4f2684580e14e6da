"""Random numbers as functions of seed and place: Philox draws, and smooth fields made of them.

`philox` draws with numpy, `torch_philox` the same numbers on torch tensors; `fields` has gradient
noise and jittered lattices on a frame. `Noise` is public as `earthgen.Noise`.
"""
