"""earthgen's own rasteriser as the hook offers it."""

from __future__ import annotations

from torch import Tensor

from earthgen.splats.cameras.camera import Camera
from earthgen.splats.raster.cpu import rasterize_on_cpu
from earthgen.splats.raster.model import Rendering
from earthgen.splats.tensors import SplatTensors


class CpuRasterizer:
    """Compiled rows of tiles: float32 on the CPU, with gradients, the same bits for any number
    of threads."""

    name = "cpu"
    devices: tuple[str, ...] = ("cpu",)
    differs: tuple[str, ...] = ()
    note = ""

    def unavailable(self) -> str:
        return ""

    def rasterize(self, splats: SplatTensors, camera: Camera, background: Tensor) -> Rendering:
        return rasterize_on_cpu(splats, camera, background)
