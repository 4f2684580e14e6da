"""The plugin's work. Importing this is what creating one of its offers costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from earthgen.stages.stage import Read, Stage
from earthgen.voxels.splat_math import SH_C0
from earthgen.voxels.voxels import (
    GEOMETRY_FIELDS,
    TOP,
    Geometry,
    Splats,
    Voxels,
    texture_fields,
)
from geo_io.legend import palette


class Terraces:
    """Flat ground whose height is a random number a terrace of 32 voxels."""

    name = "terraces"
    version = "2"
    requires = ()

    def __init__(self, step=2.0):
        self.step = float(step)

    def stages(self):
        return [
            Stage("terraces", window=128, stride=96, fields=GEOMETRY_FIELDS, compute=self.terraces)
        ]

    def terraces(self, window, inputs, noise):
        x, y = np.meshgrid(np.arange(*window.x), np.arange(window.y[1] - 1, window.y[0] - 1, -1))
        level = np.floor(noise.stream("heights").uniform(x // 32, y // 32) * 4)
        order = np.lexsort((x.ravel(), y.ravel()))
        xyz = np.stack([x.ravel(), y.ravel(), np.full(x.size, -1)], axis=1)[order].astype(np.int32)
        n = len(xyz)
        voxels = Voxels(
            window, xyz, np.ones(n, np.uint8), np.full(n, TOP, np.uint8), np.zeros(n, np.uint32)
        )
        offset = np.tile(np.array([0, 0, 0.5 * window.voxel_size], np.float32), (n, 1))
        normal = np.tile(np.array([0, 0, 1], np.float32), (n, 1))
        return Geometry(
            window, (level * self.step).astype(np.float32), voxels, offset, normal
        ).block()


class Stripes:
    """North-south stripes, each of a random grey."""

    name = "stripes"
    version = "2"
    requires = ()
    sh_degree = 0

    def __init__(self, width=8):
        self.width = int(width)

    def stages(self, geometry):
        return [
            Stage(
                "stripes",
                geometry.step,
                texture_fields(self.sh_degree),
                self.stripes,
                reads=(Read("geometry"),),
            )
        ]

    def stripes(self, window, inputs, noise):
        geometry = Geometry.of(inputs["geometry"])
        n, s = len(geometry.voxels), window.voxel_size
        grey = noise.stream("greys").uniform(geometry.voxels.xyz[:, 0] // self.width, 0)
        sh = np.repeat(((grey - 0.5) / SH_C0).astype(np.float32), 3).reshape(n, 1, 3)
        rotation = np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1))
        scale = np.full((n, 2), 0.6 * s, np.float32)
        return Splats(geometry.offset, scale, rotation, np.ones(n, np.float32), sh).block(
            geometry.voxels
        )


class ConstantEncoder:
    """A number in a text file, on every cell."""

    name = "rainfall"
    version = "1"

    def open(self, sources, frame, options):
        return Constant(float(Path(sources[0]).read_text()))


class Constant:
    def __init__(self, value):
        self.value = value

    def survey(self, frame):
        return {"value": self.value}

    def read(self, window):
        from geo_io.layers import Raster

        return Raster(window, np.full(window.shape, self.value, np.float32))


class CsvExporter:
    name = "csv"

    def export(self, world, out, *, bounds, level, progress):
        path = out / "voxels.csv"
        np.savetxt(path, world.voxels(bounds, level).xyz, fmt="%d", delimiter=",")
        return [path]


class FlatRenderer:
    name = "flat"

    def render(self, world, view, progress):
        return palette()[world.layers()["semantics"].values]


class NoSparse:
    name = "nosparse"
    devices = ()
    deterministic = True

    def unavailable(self):
        return "it never can; this is an example"

    def refuses(self, device, dtype, gradients):
        return self.unavailable()

    def convolve(self, features, weight, source, target, kernel, transposed=False):
        from earthgen.errors import SparseError

        raise SparseError(self.unavailable(), "use --sparse-backend torch")


class Nothing:
    name = "nothing"
    devices = ("cpu",)
    differs = ("rgb", "alpha", "depth", "median_depth", "normal", "distortion", "semantics")

    def unavailable(self):
        return ""

    def rasterize(self, splats, camera, background):
        import torch

        from earthgen.splats.raster.model import Rendering

        none = torch.zeros(camera.height, camera.width)
        rgb = background.expand(camera.height, camera.width, 3)
        return Rendering(rgb, none, none, none, rgb * 0, none, none.to(torch.uint8), camera)
