"""The backends of the plugin; imported when one of them is first used."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from earthgen import (
    GEOMETRY_FIELDS,
    Geometry,
    GeometryBackend,
    Rasterizer,
    Read,
    SparseBackend,
    Splats,
    Stage,
    TextureBackend,
    surface_of_heights,
    texture_fields,
)
from earthgen.voxels import HEIGHT_MARGIN, SH_C0
from geo_io.legend import codes, palette


class Terraces(GeometryBackend):
    """Bare ground in terraces of 32 x 32 voxels, each of random height."""

    name = "terraces"
    version = "3"

    def __init__(self, step=2.0):
        self.step = float(step)

    def stages(self):
        return [
            Stage("terraces", window=128, stride=96, fields=GEOMETRY_FIELDS, compute=self.terraces)
        ]

    def terraces(self, window, inputs, noise):
        around = window.pad(HEIGHT_MARGIN)
        x, y = np.meshgrid(np.arange(*around.x), np.arange(around.y[1] - 1, around.y[0] - 1, -1))
        level = np.floor(noise.stream("heights").uniform(x // 32, y // 32) * 4)
        bare = np.zeros(around.shape)
        return surface_of_heights(window, level * self.step, bare, bare_ground(around)).block()


def bare_ground(frame):
    """Return the class map of bare ground on a frame."""
    return np.full(frame.shape, codes()["bare_ground"], np.uint8)


class Stripes(TextureBackend):
    """North-south stripes, each of a random grey."""

    name = "stripes"
    version = "2"

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
        n = len(geometry.voxels)
        grey = noise.stream("greys").uniform(geometry.voxels.xyz[:, 0] // self.width, 0)
        sh = np.repeat(((grey - 0.5) / SH_C0).astype(np.float32), 3).reshape(n, 1, 3)
        rotation = np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1))
        scale = np.full((n, 2), 0.6 * window.voxel_size, np.float32)
        return Splats(geometry.offset, scale, rotation, np.ones(n, np.float32), sh).block(
            geometry.voxels
        )


class ConstantEncoder:
    """Opens a text file with one number that applies to all cells."""

    name = "rainfall"
    version = "1"

    def open(self, sources, frame, options):
        return Constant(float(Path(sources[0]).read_text()))


class Constant:
    """The number, as a condition."""

    def __init__(self, value):
        self.value = value

    def survey(self, frame):
        return {"value": self.value}

    def read(self, window):
        from geo_io.layers import Raster

        return Raster(window, np.full(window.shape, self.value, np.float32))


class CsvOptions(BaseModel):
    """Options of the CSV exporter."""

    separator: Literal["comma", "space"] = Field("comma", description="Between two numbers.")
    columns: tuple[Literal["x", "y", "z"], ...] = Field(
        ("x", "y", "z"), description="The lattice indices to write."
    )
    step: int = Field(1, ge=1, description="Write every so many voxels.")


class CsvExporter:
    """Writes the lattice indices of voxels as text."""

    name = "csv"

    def __init__(self, options=None):
        self.options = options or CsvOptions()

    def export(self, world, out, *, bounds, level, progress):
        path = out / "world.csv"
        columns = ["xyz".index(name) for name in self.options.columns]
        rows = world.voxels(bounds, level).xyz[:: self.options.step, columns]
        separator = {"comma": ",", "space": " "}[self.options.separator]
        np.savetxt(path, rows, fmt="%d", delimiter=separator)
        return [path]


class FlatRenderer:
    """Draws the class map."""

    name = "flat"

    def render(self, world, view, progress):
        return palette()[world.layers()["semantics"].values]


class NoSparse(SparseBackend):
    """A sparse backend that cannot run."""

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


class Nothing(Rasterizer):
    """A rasterizer that draws the background only."""

    name = "nothing"
    devices = ("cpu",)
    differs = ("rgb", "alpha", "depth", "median_depth", "normal", "distortion", "semantics")

    def rasterize(self, splats, camera, background):
        import torch

        from earthgen.splats.raster.model import Rendering

        none = torch.zeros(camera.height, camera.width)
        rgb = background.expand(camera.height, camera.width, 3)
        return Rendering(rgb, none, none, none, rgb * 0, none, none.to(torch.uint8), camera)
