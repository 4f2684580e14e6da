"""earthgen's own rasterizer, as the hook offers it."""

from __future__ import annotations

from torch import Tensor

from earthgen.splats.cameras.camera import Camera
from earthgen.splats.raster.cpu import rasterize_on_cpu
from earthgen.splats.raster.model import Rasterizer, Rendering
from earthgen.splats.tensors import SplatTensors


class CpuRasterizer(Rasterizer):
    """Draw in compiled code: float32 on the CPU, with gradients. The bits of the result do not
    depend on the number of threads."""

    name = "cpu"
    devices = ("cpu",)

    def rasterize(self, splats: SplatTensors, camera: Camera, background: Tensor) -> Rendering:
        return rasterize_on_cpu(splats, camera, background)
