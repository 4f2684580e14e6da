"""How a Gaussian stands in a PLY: names, order and encodings of its fields.

They are those of the reference implementation of 3D Gaussian Splatting (Kerbl et al. 2023): logit of the opacity,
logarithm of the scales, colour coefficients per channel. Its viewers want three scales where a disc has two, so a
third, thin one is written. The disc's normal stands in nx, ny, nz, for programs that take the file as a point cloud.
Four fields of one byte come last; viewers that look fields up by name pass over them:

- `semantic` : the class code
- `bits_opacity`, `bits_scale_0`, `bits_scale_1` : the last eight bits of these numbers in float32. A logit or logarithm
  in float32 tells them to some units in the last place (at most 65, see `restore`), and these bits tell which of those
  it was, so that a file gives back what was written, to the bit. A program that edits a file without knowing them does
  little harm: a number comes out wrong by 128 units in the last place, or 0.002 %. (Their names do not begin with
  "scale_", since loaders count fields that do.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earthgen.levels import normals as disc_normals
from earthgen.splats.gaussians import Gaussians

NO_OPACITY, FULL_OPACITY = -110.0, 18.0
"""What stands for the logits of 0 and 1, which are infinite: the logistic function takes them to 0 and 1 in float32."""

ENCODED = ("opacity", "scale_0", "scale_1")
"""Fields that hold a function of the number, and have their last bits in `bits_...`."""

_LARGEST = np.finfo(np.float32).max


def record_type(degree: int) -> np.dtype:
    """One Gaussian as it stands in the file, little endian, without gaps."""
    rest = 3 * ((degree + 1) ** 2 - 1)
    floats = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    floats += [f"f_rest_{i}" for i in range(rest)]
    floats += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    return np.dtype(
        [(name, "<f4") for name in floats] + [(name, "u1") for name in ("semantic", *map(bits_of, ENCODED))]
    )


def bits_of(field: str) -> str:
    """The field with the last bits of another."""
    return f"bits_{field}"


def encode(gaussians: Gaussians, thickness: float) -> NDArray:
    """(n,) records of `record_type`; `thickness` is the third standard deviation, metres.

    Raises
    ------
    GaussiansError
        if `Gaussians.check` finds a fault: viewers do strange things with NaN, and a scale of 0 has no logarithm
    """
    gaussians.check()
    records = np.zeros(len(gaussians), record_type(gaussians.degree))
    normals = disc_normals(gaussians.rotations)
    for axis, name in enumerate("xyz"):
        records[name] = gaussians.means[:, axis]
        records["n" + name] = normals[:, axis]
        records[f"f_dc_{axis}"] = gaussians.sh[:, 0, axis]
    # The reference implementation writes all of red, then green, then blue.
    rest = gaussians.sh.shape[1] - 1
    for channel in range(3):
        for i in range(rest):
            records[f"f_rest_{channel * rest + i}"] = gaussians.sh[:, 1 + i, channel]
    numbers = dict(zip(ENCODED, (gaussians.opacities, *gaussians.scales.T), strict=True))
    records["opacity"] = logit(gaussians.opacities)
    for axis in range(2):
        records[f"scale_{axis}"] = np.log(gaussians.scales[:, axis].astype(np.float64))
    for name, value in numbers.items():
        records[bits_of(name)] = _pattern(value) & 255
    records["scale_2"] = np.log(thickness)
    for i in range(4):
        records[f"rot_{i}"] = gaussians.rotations[:, i]
    records["semantic"] = gaussians.semantic
    return records


def logit(opacities: NDArray) -> NDArray:
    """float64 log(o / (1 - o)), finite at 0 and 1."""
    o = opacities.astype(np.float64)
    inside = np.clip(o, np.finfo(np.float32).smallest_subnormal, 1 - 2**-24)
    return np.where(o <= 0, NO_OPACITY, np.where(o >= 1, FULL_OPACITY, np.log(inside) - np.log1p(-inside)))


def logistic(logits: NDArray) -> NDArray:
    """float32 1 / (1 + exp(-x))."""
    with np.errstate(over="ignore", under="ignore"):
        return (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def exponential(logarithms: NDArray) -> NDArray:
    """float32 exp(x); what is beyond float32 becomes its largest number."""
    with np.errstate(over="ignore", under="ignore"):
        return np.minimum(np.exp(logarithms.astype(np.float64)), _LARGEST).astype(np.float32)


def restore(near: NDArray, bits: NDArray, most: float = float(_LARGEST)) -> NDArray:
    """The float32 numbers in [0, most] with these last eight bits that are nearest to `near`.

    near : (n,) float32, not negative, less than 128 units in the last place from the number looked for
    bits : (n,) uint8

    Half a unit of a logarithm x in float32 is at most 2^-18 for |x| < 128, a relative error of exp(x) of 2^-18, or 64
    units in the last place; that of the logistic function is smaller. So the nearest is the right one, also where
    another machine's exp differs in its last digit.
    """
    pattern = _pattern(near)
    away = ((bits.astype(np.int64) - pattern + 128) & 255) - 128
    found = np.clip(pattern + away, 0, _pattern(np.array([most], np.float32))[0])
    return np.where(np.isfinite(near), found.astype(np.uint32).view(np.float32), near)


def _pattern(values: NDArray) -> NDArray:
    """(n,) int64 bits of numbers in float32, in which neighbours differ by one."""
    return np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)
