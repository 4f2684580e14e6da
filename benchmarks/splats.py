"""Pictures of 2D Gaussians on a CPU: a real world's, beside the torch reference, and beside
OpenSplat.

    python -m benchmarks.splats --json [--quick]

640 x 480 pixels, as many threads as cores, all outputs; the way back is that of the RGB. Times are
the least of rounds in which all take turns: what else runs on a machine can only add to them. The
world is made from examples/data by the rule-based backend and kept in the folder for temporary
files. "100k" and "1m" are the Gaussians nearest to its middle, seen from the south-west, 40 degrees
down, the picture filled.

The reference looks at every Gaussian at every pixel, so its time is a + b x pixels for the same
Gaussians: it is measured in two small windows in the middle of the picture, and the line through
both is read at 640 x 480.

OpenSplat (AGPL) is the one other rasteriser for CPUs with gradients; it draws 3D Gaussians, on one
thread. It is neither part of earthgen nor fetched by it. Where EARTHGEN_OPENSPLAT names a torch
extension built from its gsplat-cpu sources, with functions `project`, `forward`, `backward` (its
three of tensors, the lists of pixels kept behind one object) and `drop` (of these lists), both are
timed in turn in one process. The scenes are Gaussians at random places that face the camera, sigma
1.75 pixels (100 k) and 0.6 (1 M), after OpenSplat's blur of 0.3 square pixels. What earthgen draws
of 0.6 pixels is wider, 0.71: its low-pass.
"""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import elsewhere, measure, show
from benchmarks.sparse import slope

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "data"
BOX = "11.5900,50.0030,11.6035,50.0125"
WIDTH, HEIGHT = 640, 480
ROUNDS = 7
NAMES = ("means", "scales", "rotations", "opacities", "sh")
FOOTPRINTS = {"100k_1.75px": (100_000, 1.75), "1m_0.6px": (1_000_000, 0.6)}


def kept() -> Path:
    """The file with the Gaussians of the world, made where there is none."""
    folder = Path(tempfile.gettempdir()) / "earthgen-benchmark-splats"
    path = folder / "gaussians.npz"
    if not path.exists():
        import numpy as np

        from earthgen import open_world

        folder.mkdir(exist_ok=True)
        world = folder / "world.zarr"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "earthgen_cli",
                "generate",
                "--bbox",
                BOX,
                "--semantics",
                DATA / "landuse.shp",
                "--semantics",
                f"{DATA / 'osm.gpkg'}:lines",
                "--semantics",
                f"{DATA / 'osm.gpkg'}:buildings",
                "--dem",
                DATA / "srtm3.tif",
                "--out",
                world,
                "--overwrite",
                "--quiet",
            ],
            check=True,
        )
        made = open_world(world).gaussians()
        names = ("means", "scales", "rotations", "opacities", "sh", "semantic")
        np.savez(
            path, anchor=made.anchor, crs=made.crs, **{name: getattr(made, name) for name in names}
        )
    return path


def scene(path: Path, count: int) -> tuple[Any, Any]:
    """The `count` Gaussians nearest to the middle, and a camera that sees them all."""
    import numpy as np

    from earthgen.splats.cameras.camera import look_at
    from earthgen.splats.gaussians import Gaussians
    from earthgen.splats.tensors import SplatTensors

    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    anchor, crs = tuple(kept.pop("anchor").tolist()), str(kept.pop("crs"))
    gaussians = Gaussians(anchor=anchor, crs=crs, vertical_crs="unknown", **kept)
    plane = gaussians.means[:, :2].astype(np.float64)
    away = np.abs(plane - (plane.min(axis=0) + plane.max(axis=0)) / 2).max(axis=1)
    nearest = np.sort(np.argsort(away, kind="stable")[:count])
    part = gaussians.take(nearest)
    middle = part.positions.mean(axis=0)
    reach = float(away[nearest].max()) * 2.6
    down = math.radians(40)
    eye = middle + reach * np.array((-math.cos(down) * 0.6, -math.cos(down) * 0.8, math.sin(down)))
    camera = look_at(eye, middle, width=WIDTH, height=HEIGHT, field_of_view=45)
    return SplatTensors.of(part), camera


def facing(count: int, sigma: float) -> tuple[Any, Any]:
    """Discs at random places of the picture that face the camera, `sigma` pixels wide."""
    import torch

    from earthgen.splats.cameras.camera import look_at
    from earthgen.splats.tensors import SplatTensors

    random = torch.Generator().manual_seed(0)
    camera = look_at((0, 0, 100), (0, 0, 0), width=WIDTH, height=HEIGHT, field_of_view=60)
    x, y, z = torch.rand((3, count), generator=random) * torch.tensor([[WIDTH], [HEIGHT], [20.0]])
    z = z + 90
    means = torch.stack(
        [(x - camera.cx) * z / camera.fx, (camera.cy - y) * z / camera.fy, 100 - z], 1
    )
    return SplatTensors(
        means=means,
        scales=(sigma * z / camera.fx)[:, None].repeat(1, 2),
        rotations=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        opacities=torch.rand(count, generator=random) * 0.5 + 0.25,
        sh=torch.rand((count, 1, 3), generator=random) - 0.5,
    ), camera


def wanted(splats: Any) -> Any:
    """The same, with gradients wanted."""
    from dataclasses import replace

    return replace(
        splats, **{name: getattr(splats, name).clone().requires_grad_() for name in NAMES}
    )


def in_turn(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Least seconds of each call, after a first one that is not counted; a round has each once."""
    least = dict.fromkeys(calls, math.inf)
    for number in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number:
                least[name] = min(least[name], time.perf_counter() - began)
    return least


def forward(splats: Any, camera: Any) -> Any:
    from earthgen.splats.raster.rendering import rasterize

    return rasterize(splats, camera)


def both(splats: Any, camera: Any, weight: Any) -> None:
    """There and back, as a step of training does: gradients of a loss of the RGB."""
    for name in NAMES:
        getattr(splats, name).grad = None
    (forward(splats, camera).rgb * weight).sum().backward()


def peak(path: Path, count: float) -> dict[str, float]:
    """Peak memory of a picture and its gradients, and what there is before it, MB."""
    import torch

    splats, camera = scene(path, int(count))
    splats = wanted(splats)
    few = wanted(splats.take(torch.arange(10)))
    both(few, camera, torch.ones(HEIGHT, WIDTH, 3))  # loads the compiled loops
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak is what there is now
    before = highest()
    both(splats, camera, torch.ones(HEIGHT, WIDTH, 3))
    return {"before_mb": before, "peak_mb": highest()}


def highest() -> float:
    """Peak memory of this process since the kernel was told to forget it, MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def reference(splats: Any, camera: Any, quick: bool) -> dict[str, float]:
    """Seconds of the reference for the whole picture, read off a line through two windows."""
    from earthgen.splats.raster.reference import rasterize_reference

    given = wanted(splats)
    windows = [
        camera.crop(236, 236 + rows, 312, 312 + rows) for rows in ((2, 6) if quick else (4, 12))
    ]

    def there(window: Any) -> None:
        rasterize_reference(splats, window)

    def back(window: Any) -> None:
        rasterize_reference(given, window).rgb.sum().backward()

    found = {}
    for name, call in (("fwd", there), ("fwd_bwd", back)):
        seconds = []
        for window in windows:
            taken = []
            for _ in range(3):
                began = time.perf_counter()
                call(window)
                taken.append(time.perf_counter() - began)
            seconds.append(min(taken))
        pixels = [window.width * window.height for window in windows]
        rate = (seconds[1] - seconds[0]) / (pixels[1] - pixels[0])
        found[name] = seconds[1] + rate * (WIDTH * HEIGHT - pixels[1])
    return found


def opensplat() -> Any:
    """The extension that EARTHGEN_OPENSPLAT names, or None."""
    path = os.environ.get("EARTHGEN_OPENSPLAT", "")
    if not path:
        return None
    import torch  # noqa: F401 - the extension is linked against it

    spec = importlib.util.spec_from_file_location(Path(path).stem.split(".")[0], path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Peer:
    """A scene of `facing` as OpenSplat draws it; its Gaussians are as thick as broad, and so
    look the same."""

    def __init__(self, module: Any, splats: Any, camera: Any, sigma: float) -> None:
        import torch

        self.module = module
        turn, shift = camera.world_to_camera(splats.anchor)
        view = torch.eye(4)
        view[:3, :3], view[:3, 3] = torch.from_numpy(turn), torch.from_numpy(shift)
        near, far = 50.0, 200.0  # it sorts by what this makes of depths, in float32
        lens = torch.zeros(4, 4)
        lens[0, 0], lens[1, 1] = 2 * camera.fx / WIDTH, 2 * camera.fy / HEIGHT
        lens[2, 2], lens[2, 3], lens[3, 2] = far / (far - near), -far * near / (far - near), 1
        self.view, self.lens, self.camera = view, lens @ view, camera
        scale = splats.scales[:, :1] * max(sigma**2 - 0.3, 0) ** 0.5 / sigma
        self.scales = scale.repeat(1, 3)
        self.splats = splats
        self.colours = splats.sh[:, 0] * 0.28209479177387814 + 0.5
        self.black = torch.zeros(3)

    def project(self, means: Any, scales: Any, quats: Any) -> Any:
        c = self.camera
        *found, depths = self.module.project(
            len(means),
            means,
            scales,
            1.0,
            quats,
            self.view,
            self.lens,
            c.fx,
            c.fy,
            c.cx,
            c.cy,
            HEIGHT,
            WIDTH,
            0.01,
        )
        return (
            *found,
            depths.contiguous(),
        )  # its rasteriser takes them for one after the other in memory

    def forward(self) -> Any:
        import torch

        with torch.no_grad():
            xys, _, conics, cov2d, depths = self.project(
                self.splats.means, self.scales, self.splats.rotations
            )
            rgb, _, lists = self.module.forward(
                WIDTH,
                HEIGHT,
                xys,
                conics,
                self.colours,
                self.splats.opacities[:, None],
                self.black,
                cov2d,
                depths,
            )
        self.module.drop(lists)
        return rgb

    def both(self, weight: Any) -> None:
        import torch

        leaves = [
            part.clone().requires_grad_()
            for part in (self.splats.means, self.scales, self.splats.rotations)
        ]
        xys, _, conics, cov2d, depths = self.project(*leaves)
        flat = [part.detach() for part in (xys, conics, cov2d, depths)]
        opacities = self.splats.opacities[:, None]
        _, light, lists = self.module.forward(
            WIDTH, HEIGHT, flat[0], flat[1], self.colours, opacities, self.black, flat[2], flat[3]
        )
        to_xys, to_conics, _, _ = self.module.backward(
            HEIGHT,
            WIDTH,
            flat[0],
            flat[1],
            self.colours,
            opacities,
            self.black,
            flat[2],
            flat[3],
            light,
            lists,
            weight,
            torch.zeros(HEIGHT, WIDTH),
        )
        self.module.drop(lists)
        torch.autograd.backward([xys, conics], [to_xys, to_conics])


def beside_opensplat(module: Any, rounds: int, quick: bool) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {}
    for name, (count, sigma) in FOOTPRINTS.items():
        splats, camera = facing(count // 10 if quick else count, sigma)
        given, weight = wanted(splats), torch.rand(HEIGHT, WIDTH, 3)
        peer = Peer(module, splats, camera, sigma) if module is not None else None
        calls = {
            "fwd_s": lambda s=splats, c=camera: forward(s, c),
            "fwd_bwd_s": lambda g=given, c=camera, w=weight: both(g, c, w),
        }
        if peer is not None:
            off = (peer.forward() - forward(splats, camera).rgb).abs().mean()
            found[f"{name}_mean_difference"] = round(float(off), 4)
            calls["opensplat_fwd_s"] = peer.forward
            calls["opensplat_fwd_bwd_s"] = lambda p=peer, w=weight: p.both(w)
        taken = in_turn(calls, rounds)
        found |= {f"{name}_{key}": round(value, 4) for key, value in taken.items()}
        if peer is not None:
            for key in ("fwd", "fwd_bwd"):
                found[f"{name}_{key}_ratio"] = round(
                    taken[f"opensplat_{key}_s"] / taken[f"{key}_s"], 2
                )
    return found


def ortho(folder: Path, edge: float) -> dict[str, float]:
    """An ortho image with pixels of half a metre, from a world's store: peak memory of the command,
    MB, and seconds.

    The world has an edge of `edge` metres around the example's place; what lies beyond its data has
    a class of its own, and voxels as elsewhere. Of 2 km by 2 km they are 6.6 million Gaussians.
    """
    east, north, size = 685_400, 5_542_200, round(edge / 2)
    world, image = folder / f"ortho-{2 * size}.zarr", folder / "ortho.tif"
    if not world.exists():
        box = f"{east - size},{north - size},{east + size},{north + size}"
        measure(
            [
                sys.executable,
                "-m",
                "earthgen_cli",
                "generate",
                "--bbox",
                box,
                "--bbox-crs",
                "EPSG:32632",
                "--semantics",
                DATA / "landuse.shp",
                "--semantics",
                f"{DATA / 'osm.gpkg'}:buildings",
                "--dem",
                DATA / "srtm3.tif",
                "--out",
                world,
                "--quiet",
            ]
        )
    run = measure(
        [
            sys.executable,
            "-m",
            "earthgen_cli",
            "render",
            world,
            "--ortho",
            "0.5",
            "--out",
            image,
            "--quiet",
        ]
    )
    image.unlink()
    return {"peak_mb": run.peak_mb, "seconds": run.wall}


def run(quick: bool = False) -> dict[str, object]:
    import torch

    rounds = 2 if quick else ROUNDS
    path = kept()
    weight = torch.rand(HEIGHT, WIDTH, 3)
    small, camera = scene(path, 100_000)
    large, far = scene(path, 1_000_000)
    calls: dict[str, Any] = {}
    for name, splats, view in (("100k", small, camera), ("1m", large, far)):
        given = wanted(splats)
        calls[f"fwd_{name}_s"] = lambda s=splats, v=view: forward(s, v)
        calls[f"fwd_bwd_{name}_s"] = lambda g=given, v=view: both(g, v, weight)
    taken = in_turn(calls, rounds)
    slow = reference(small, camera, quick)

    parts = [
        large.take(torch.randperm(len(large), generator=torch.Generator().manual_seed(0))[:n])
        for n in (125_000, 250_000, 500_000, 1_000_000)
    ]
    by_count = in_turn({str(len(part)): (lambda p=part: forward(p, far)) for part in parts}, rounds)
    views = [far.scaled(factor) for factor in (0.5, 1, 2, 4)]
    by_pixels = in_turn(
        {str(view.width * view.height): (lambda v=view: forward(large, v)) for view in views},
        rounds,
    )
    memory = {
        name: elsewhere("benchmarks.splats", "peak", path, count)
        for name, count in (("100k", 100_000), ("1m", 1_000_000))
    }
    module = opensplat()
    peer = beside_opensplat(module, rounds, quick)
    above = elsewhere("benchmarks.splats", "ortho", path.parent, 1000 if quick else 2000)
    ratios = [value for key, value in peer.items() if key.endswith("_ratio")]
    return {
        "fwd_s": round(taken["fwd_1m_s"], 4),
        "fwd_bwd_s": round(taken["fwd_bwd_1m_s"], 4),
        "fwd_vs_reference": round(slow["fwd"] / taken["fwd_100k_s"], 1),
        "fwd_bwd_vs_reference": round(slow["fwd_bwd"] / taken["fwd_bwd_100k_s"], 1),
        "vs_opensplat": min(ratios) if ratios else None,
        "ortho_peak_mb": round(above["peak_mb"]),
        "ortho_s": round(above["seconds"], 1),
        "gaussians": {"100k": len(small), "1m": len(large)},
        "fwd_100k_s": round(taken["fwd_100k_s"], 4),
        "fwd_bwd_100k_s": round(taken["fwd_bwd_100k_s"], 4),
        "reference_fwd_100k_s": round(slow["fwd"], 1),
        "reference_fwd_bwd_100k_s": round(slow["fwd_bwd"], 1),
        "memory": {
            name: {key: round(value) for key, value in values.items()}
            for name, values in memory.items()
        },
        "fwd_s_by_gaussians": {key: round(value, 4) for key, value in by_count.items()},
        "fwd_s_by_pixels": {key: round(value, 4) for key, value in by_pixels.items()},
        "exponent_gaussians": round(
            slope([int(key) for key in by_count], list(by_count.values())), 2
        ),
        "exponent_pixels": round(
            slope([int(key) for key in by_pixels], list(by_pixels.values())), 2
        ),
        "equal_footprints": peer,
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    show("benchmarks.splats", __doc__, run)
